"""What a cluster refuses because of what its nodes cannot do."""

from __future__ import annotations

import pytest

from towline.errors import InvalidDocument
from towline.model.job import JobSpec, TaskSpec
from towline.server.leader.together import check_together


def spec(**fields: object) -> JobSpec:
    return JobSpec(name="j", tasks={"a": TaskSpec(image="i", command=("true",), **fields)})  # type: ignore[arg-type]


async def test_an_engine_cannot_keep_stop() -> None:
    with pytest.raises(InvalidDocument, match=r"tasks.a.on_disconnect: the docker runtime cannot keep stop"):
        await check_together(spec(runtime="docker", on_disconnect="stop"))


@pytest.mark.parametrize(("runtime", "policy"), [("oci", "stop"), ("docker", "keep"), ("docker", "wait")])
async def test_what_a_node_can_do_is_taken(runtime: str, policy: str) -> None:
    await check_together(spec(runtime=runtime, on_disconnect=policy))
