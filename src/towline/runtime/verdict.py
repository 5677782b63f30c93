"""Why an attempt ended, from what the kernel and the file systems say: a reason, and a sentence where the
exit code alone does not tell."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import NamedTuple

from towline.model.states import Reason
from towline.model.units import human_bytes
from towline.runtime.port import Plan, Usage

TAIL_BYTES = 4096
"""What is looked at of each stream's end."""
_NO_NETWORK = re.compile(
    rb"temporary failure in name resolution|could not resolve host|name or service not known|bad address '"
    rb"|unable to resolve host|no address associated with|nodename nor servname|server misbehaving"
    rb"|eai_again|failure in name resolution|network is unreachable|enetunreach|lookup .* on .*:53"
    rb"|getaddrinfo",
    re.IGNORECASE,
)
_FOREIGN = (
    "killed by signal 31 (SIGSYS): it asked the kernel in the manner of another architecture, as 32-bit "
    "programs do: use an image for this machine."
)


class Verdict(NamedTuple):
    """``message`` is a sentence with a remedy; None where there is nothing more to say."""

    reason: str
    message: str | None


def verdict(plan: Plan, usage: Usage, code: int, tail: Callable[[], bytes]) -> Verdict:
    """Of an attempt that nobody stopped. ``code``: as of os.waitstatus_to_exitcode; ``tail`` gives the end
    of what it printed, and is asked only where that could matter."""
    if usage.oom_killed and code == 0:
        what = "The kernel killed one of its processes for lack of memory, though it ended well"
        return Verdict(Reason.EXITED, f"{what} ({_memory(plan, usage)}): see that its result is whole.")
    if usage.oom_killed:
        what = "The kernel killed it, or a process of it, because it used more than its memory"
        return Verdict(Reason.OOM_KILLED, f"{what} ({_memory(plan, usage)}): raise resources.memory.")
    if usage.disk_full and code != 0:
        return Verdict(Reason.DISK_FULL, disk_full(plan))
    if code == -signal.SIGSYS:
        return Verdict(Reason.EXITED, _FOREIGN)
    if code != 0 and plan.runtime_data.get("network") == "none" and _NO_NETWORK.search(tail()):
        how = f"exited with code {code}" if code > 0 else f"killed by signal {-code}"
        message = f"{how}: it looked for the network, which its task has not asked for: add 'network: host'."
        return Verdict(Reason.EXITED, message)
    return Verdict(Reason.EXITED, None)


def disk_full(plan: Plan) -> str:
    """For one whose disk has an end."""
    return f"It wrote more than its disk of {human_bytes(plan.disk_bytes)}: raise resources.disk."


def _memory(plan: Plan, usage: Usage) -> str:
    limit = f"limit {human_bytes(plan.memory_bytes)}" if plan.memory_bytes else "no limit of its own"
    if usage.peak_memory_bytes is None:
        return limit
    return f"{limit}, peak {human_bytes(usage.peak_memory_bytes)}"
