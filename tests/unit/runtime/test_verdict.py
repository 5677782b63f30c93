"""The words for an end: which reason, and what people are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from towline.model.states import Reason
from towline.runtime.port import Plan, Usage
from towline.runtime.verdict import verdict

PLAN = Plan(
    attempt="a-0-0-1", runtime="oci", argv=("x",), env={}, directory="", logs="", out="", timeout_ms=None,
    grace_ms=0, max_log_bytes=0, memory_bytes=64 << 20, disk_bytes=1 << 30, runtime_data={"network": "none"},
)  # fmt: skip
NETWORKED = Plan(
    attempt="a-0-0-1", runtime="oci", argv=("x",), env={}, directory="", logs="", out="", timeout_ms=None,
    grace_ms=0, max_log_bytes=0, runtime_data={"network": "host"},
)  # fmt: skip


def never() -> bytes:
    raise AssertionError("nobody has to look at the output")


def says(text: bytes) -> Callable[[], bytes]:
    return lambda: text


def test_an_end_that_tells_all_has_no_message():
    assert verdict(PLAN, Usage(), 0, never) == (Reason.EXITED, None)
    assert verdict(PLAN, Usage(), 3, says(b"it went wrong")) == (Reason.EXITED, None)


@pytest.mark.parametrize("code", [-9, 137, 1])
def test_out_of_memory_has_limit_and_peak(code: int):
    reason, message = verdict(PLAN, Usage(oom_killed=True, peak_memory_bytes=63 << 20), code, never)
    assert reason == Reason.OOM_KILLED
    assert message is not None
    assert "(limit 64 MiB, peak 63 MiB): raise resources.memory." in message


def test_a_killed_child_of_a_success_is_a_warning():
    reason, message = verdict(PLAN, Usage(oom_killed=True), 0, never)
    assert reason == Reason.EXITED
    assert message is not None
    assert message.startswith("The kernel killed one of its processes for lack of memory, though it ended")


def test_a_full_disk_is_the_cause_of_a_failure_only():
    assert verdict(PLAN, Usage(disk_full=True), 1, never) == (
        Reason.DISK_FULL,
        "It wrote more than its disk of 1 GiB: raise resources.disk.",
    )
    assert verdict(PLAN, Usage(disk_full=True), 0, never) == (Reason.EXITED, None)


@pytest.mark.parametrize(
    "text",
    [
        b"wget: bad address 'example.com'",
        b"curl: (6) Could not resolve host: example.com",
        b"socket.gaierror: [Errno -3] Temporary failure in name resolution",
        b"connect: Network is unreachable",
        b"Error: getaddrinfo EAI_AGAIN registry.npmjs.org",
        b"ping: example.com: Name or service not known",
    ],
)
def test_a_missing_network_is_hinted_at(text: bytes):
    reason, message = verdict(PLAN, Usage(), 1, says(b"before\n" + text + b"\nafter\n"))
    assert reason == Reason.EXITED
    assert message is not None
    assert message.startswith("exited with code 1: ")
    assert "add 'network: host'" in message
    assert verdict(NETWORKED, Usage(), 1, never).message is None
    assert verdict(PLAN, Usage(), 0, never).message is None


def test_a_call_of_another_architecture_is_named():
    message = verdict(PLAN, Usage(), -31, never).message
    assert message is not None
    assert "another architecture" in message
