"""What an operator allows tasks to ask for, as it is written and as it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.agent.settings import read_settings
from towline.errors import OperatorError
from towline.model.job import TaskSpec
from towline.runtime.policy import ALL, Policy, refusals


def test_nothing_is_refused_that_asks_for_nothing():
    assert refusals(TaskSpec(), Policy()) == []
    assert refusals(TaskSpec(user="1000"), Policy()) == []


def test_everything_that_is_not_allowed_is_named():
    task = TaskSpec(capabilities=("NET_RAW", "CHOWN"), privileged=True, user="0")
    found = refusals(task, Policy(capabilities=("CHOWN",), users=("1000",)))
    assert [refusal.field for refusal in found] == ["capabilities", "privileged", "user"]
    assert "NET_RAW is not allowed on this node, which allows CHOWN" in str(found[0])
    everything = Policy(capabilities=(ALL,), privileged=True)
    assert refusals(task, everything) == []


def test_a_process_has_the_users_own_rights_anyway():
    assert refusals(TaskSpec(runtime="process", capabilities=("NET_RAW",)), Policy()) == []


def test_settings_come_from_the_environment(tmp_path: Path):
    settings = read_settings(tmp_path, {
        "TOWLINE_POLICY_CAPABILITIES": "net_raw, CAP_SYS_PTRACE",
        "TOWLINE_POLICY_PRIVILEGED": "true",
        "TOWLINE_POLICY_USERS": "1000,nobody",
        "TOWLINE_OCI_RUNTIME": "runc",
        "TOWLINE_OCI_USERNS": "no",
        "TOWLINE_FILES_USER": "1234:1235",
    })  # fmt: skip
    assert settings.policy == Policy(
        capabilities=("NET_RAW", "SYS_PTRACE"), privileged=True, users=("1000", "nobody")
    )
    wanted = settings.containers
    assert (wanted.engine, wanted.userns, wanted.owner) == ("runc", False, (1234, 1235))


def test_settings_come_from_the_file(tmp_path: Path):
    (tmp_path / "agent.toml").write_text('policy_capabilities = ["NET_RAW"]\npolicy_privileged = false\n')
    assert read_settings(tmp_path, {}).policy == Policy(capabilities=("NET_RAW",))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("POLICY_CAPABILITIES", "NET_RAWW", "Linux has no capability NET_RAWW"),
        ("POLICY_PRIVILEGED", "perhaps", "it is true or false"),
        ("OCI_RUNTIME", "youki", "the known ones are crun and runc"),
        ("FILES_USER", "no-such-user-here", "this machine knows no such user"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(tmp_path: Path, name: str, value: str, says: str):
    with pytest.raises(OperatorError, match=says):
        read_settings(tmp_path, {f"TOWLINE_{name}": value})
