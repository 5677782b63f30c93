"""Which images attempts use, what people are answered, and that a task keeps its image."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.images import Layout, archive, file

from towline.agent.images import NodeImages, Pulling
from towline.agent.prepare import Template, Templates
from towline.agent.settings import read_settings
from towline.core.agent import events as on
from towline.core.agent.machine import AgentMachine
from towline.core.commands import AttemptUpdate
from towline.errors import OperatorError
from towline.images import ImageStore
from towline.images.progress import Progress
from towline.model.job import TaskSpec
from towline.runtime.port import Plan
from towline.wire.messages import ImageAnswer, ImageCall, TaskInfo
from towline.wire.pulls import Pulls

ONE, TWO, THREE = (f"sha256:{letter * 64}" for letter in "abc")


class Preparing:
    def images_in_hand(self) -> list[str]:
        return [THREE]


def plan(attempt: str, digest: str) -> Plan:
    return Plan(
        attempt=attempt, runtime="oci", argv=("true",), env={}, directory="/d", logs="/l", out="/o",
        timeout_ms=None, grace_ms=1, max_log_bytes=1, cpu_milli=1, memory_bytes=1,
        pids=1, runtime_data={"image_digest": digest},
    )  # fmt: skip


def test_images_are_in_use_from_their_preparation_until_the_server_has_heard_of_the_end(
    tmp_path: Path,
) -> None:
    machine = AgentMachine()
    images = NodeImages(ImageStore(tmp_path), machine, Preparing())
    known = AttemptUpdate(attempt="j-0-0-1", state="running", image_digest=ONE)
    machine.handle(on.SupervisorUp("i", [known]), 0)
    machine.handle(on.Start(1, "j", 0, [(1, 1), (2, 1)]), 0)
    machine.handle(on.Prepared([("j-0-1-1", plan("j-0-1-1", TWO)), ("j-0-2-1", plan("j-0-2-1", ONE))]), 0)
    assert images.in_use() == {ONE: 2, TWO: 1, THREE: 1}
    ended = AttemptUpdate(attempt="j-0-0-1", state="finished", reason="exited", image_digest=ONE)
    machine.handle(on.Changed([ended]), 0)
    assert images.in_use()[ONE] == 2
    machine.handle(on.Acked(1, 0, ["j-0-0-1"]), 0)
    assert images.in_use() == {ONE: 1, TWO: 1, THREE: 1}


async def asked(images: NodeImages, **call: object) -> ImageAnswer:
    done: asyncio.Future[ImageAnswer] = asyncio.get_running_loop().create_future()

    def say(answer: ImageAnswer) -> None:
        if answer.done:
            done.set_result(answer)

    images.answer(ImageCall(request=7, **call), say)  # type: ignore[arg-type]
    return await done


@pytest.mark.containers
async def test_people_pull_list_and_remove(tmp_path: Path) -> None:
    made = Layout(tmp_path / "made")
    made.tag(made.image([archive(file("a", b"1"))]))
    images = NodeImages(ImageStore(tmp_path / "images"), AgentMachine(), Preparing())
    pulled = await asked(images, what="pull", reference="oci:made:1", base_dir=str(tmp_path))
    assert (pulled.request, pulled.error) == (7, None)
    listed = await asked(images, what="ls")
    assert listed.images == pulled.images
    assert listed.images[0].names == (f"oci:{tmp_path}/made:1",)
    missing = await asked(images, what="pull", reference="oci:made:2", base_dir=str(tmp_path))
    assert missing.kind == "image_not_found"
    removed = await asked(images, what="rm", reference="oci:made:1", base_dir=str(tmp_path))
    assert removed.freed_bytes == 1
    assert (await asked(images, what="rm", reference="oci:made:1", base_dir="/")).kind == "not_found"
    assert (await asked(images, what="rm", reference="oci:made:1")).kind == "refused"
    assert (await asked(images, what="dance")).kind == "refused"
    assert (await asked(images, what="gc", everything=True)).left_bytes == 0


def info(digest: str | None, password: str | None = None) -> TaskInfo:
    return TaskInfo(
        job="j", task=0, job_name="n", task_name="t", spec=TaskSpec(image="x:1"), base_dir=None,
        input_tasks={}, image_digest=digest,
        registry_auth=None if password is None else ("docker.io", "ada", password),
    )  # fmt: skip


def test_a_task_that_is_told_again_learns_its_pin_and_its_login() -> None:
    templates = Templates()
    templates.add(info(None))
    template = templates.get("j", 0)
    assert isinstance(template, Template)
    assert (template.pinned, template.login) == (None, None)
    templates.add(info(ONE, "word"))
    assert template.pinned == ONE
    assert template.login is not None
    assert template.login.password == "word"
    templates.add(info(None))
    assert (template.pinned, template.login) == (ONE, None)
    templates.pin("j", 0, TWO)
    templates.pin("j", 9, TWO)
    assert template.pinned == TWO


def test_settings_of_images_are_read_from_their_table_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(
        '[images]\npull_timeout = "90s"\nmax_bytes = "10Gi"\ninsecure_registries = ["registry.lan:5000"]\n'
    )
    images = read_settings(tmp_path, {"TOWLINE_IMAGES_PULL_TIMEOUT": "2m"}).images
    assert (images.pull_timeout_s, images.max_bytes) == (120, 10 * 2**30)
    assert images.is_insecure("registry.lan:5000")
    assert not images.is_insecure("ghcr.io")
    assert images.budget_bytes(tmp_path) == 10 * 2**30
    assert read_settings(tmp_path / "none", {}).images.budget_bytes(tmp_path) > 0
    (tmp_path / "agent.toml").write_text('images = "many"\n')
    with pytest.raises(OperatorError, match=r"write \[images\]"):
        read_settings(tmp_path, {})


async def test_pulls_are_told_with_all_who_wait_and_their_end_once(monkeypatch: pytest.MonkeyPatch) -> None:
    templates = [Template(msgspec.structs.replace(info(None), task=task)) for task in range(3)]
    slow = Progress("docker.io/library/x:1")
    slow.arrived, slow.total_bytes = (lambda: 5), 9

    class Waiting:
        left = templates

        def waiting(self) -> list[Template]:
            return self.left

    waiting = Waiting()
    pulling = Pulling(waiting, lambda template: None if template.task == 1 else slow)
    (pull,) = pulling.now()
    assert (pull.image, pull.step, pull.arrived_bytes, pull.total_bytes) == (slow.name, "pulling", 5, 9)
    assert pull.tasks == (("j", 0), ("j", 2))

    monkeypatch.setattr("towline.agent.images.TELL_EVERY_S", 0)
    said: list[Pulls] = []
    told, ended = asyncio.Event(), asyncio.Event()

    def say(pulls: Pulls) -> None:
        said.append(pulls)
        (told if pulls.pulls else ended).set()

    telling = asyncio.ensure_future(pulling.run(say))
    await told.wait()
    waiting.left = []
    await ended.wait()
    telling.cancel()
    assert [len(pulls.pulls) for pulls in said if not pulls.pulls] == [0]
