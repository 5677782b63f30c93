"""Which names are allowed, how a value is shown in a message, and "did you mean".

Values come from people and from the network: whatever is shown has its control characters
escaped and its length cut, so that a message can neither move the cursor nor fill the screen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

MAX_SHOWN = 60


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text + r"\Z")


TASK_NAME = _pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
JOB_NAME = _pattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
PARAM_NAME = _pattern(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
LABEL_NAME = _pattern(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]{0,126}[A-Za-z0-9])?")
ENV_NAME = _pattern(r"[A-Za-z_][A-Za-z0-9_.-]{0,254}")
QUEUE_NAME = JOB_NAME
ANY_POOL = "any"
"""In place of a pool's name: whichever pool suits."""
POOL_NAME = _pattern(r"(?!(?:any|cluster)\Z)[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""A pool's stream of events has its name; ``cluster`` is that of what belongs to no pool."""
SECRET_NAME = _pattern(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
"""Of a stored secret, and of the file that a task finds it in."""

MASKED_BYTES = 4
"""Values of secrets from this length on, white space at their ends not counted, are masked in output."""

TASK_NAME_RULE = "a task's name is 1 to 63 letters, digits, - and _, and begins with a letter or digit"
JOB_NAME_RULE = "a job's name is 1 to 63 letters, digits, -, _ and ., and begins with a letter or digit"
PARAM_NAME_RULE = "a parameter's name is 1 to 63 letters, digits, - and _, and begins with a letter or _"
LABEL_NAME_RULE = (
    "a label's name is 1 to 128 letters, digits, -, _, . and /, not beginning or ending with a sign"
)
ENV_NAME_RULE = "a variable's name is 1 to 255 letters, digits, _, - and ., and begins with a letter or _"
QUEUE_NAME_RULE = "a queue's name is 1 to 63 letters, digits, -, _ and ., and begins with a letter or digit"
POOL_NAME_RULE = (
    "a pool's name is 1 to 63 letters, digits, -, _ and ., begins with a letter or digit, and is neither any "
    "nor cluster"
)
SECRET_NAME_RULE = (
    "a secret's name is 1 to 63 letters, digits, _, - and ., and begins with a letter, digit or _"
)
MAX_LABEL_VALUE = 256

# fmt: off
CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG",
    "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE",
    "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
)
# fmt: on
"""Those of Linux, without CAP_."""

_SYNONYMS = {
    "cmd": "command",
    "entrypoint": "command",
    "arguments": "args",
    "environment": "env",
    "cpus": "cpu",
    "mem": "memory",
    "ram": "memory",
    "depends_on": "needs",
    "depends": "needs",
    "dependencies": "needs",
    "after": "needs",
    "volumes": "mounts",
    "binds": "mounts",
    "working_dir": "workdir",
    "cwd": "workdir",
    "retry": "retries",
    "parallel": "array",
    "count": "array",
    "src": "source",
    "dst": "target",
    "destination": "target",
    "read_only": "readonly",
    "steps": "tasks",
    "parameters": "params",
    "gpus": "gpu",
    "storage": "disk",
    "vram": "memory",
    "mig": "slice",
    "cap_add": "capabilities",
    "run_as": "user",
    "uid": "user",
    "constraints": "where",
    "node_selector": "where",
    "affinity": "prefer",
    "tolerations": "tolerate",
    "concurrency": "limit",
    "duration": "expect",
}


def shown(value: object) -> str:
    """A value for a message: quoted, escaped and cut; of lists and mappings only what they are."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        cut = value if len(value) <= MAX_SHOWN else value[: MAX_SHOWN - 1] + "…"
        return repr(cut)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**MAX_SHOWN else f"a number of over {MAX_SHOWN} digits"
    if isinstance(value, float):
        return repr(value)
    return kind(value)


def kind(value: object) -> str:
    """What sort of value it is, in the words of a job file."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "nothing" if value is None else "something else"


def key_shown(key: str) -> str:
    """A key in a field's path: as it is where it is plain, quoted where it is not."""
    return key if LABEL_NAME.match(key) and "." not in key else shown(key)


def text_fault(text: str) -> str | None:
    """Why no program could be given this text: a NUL character, or half a surrogate pair."""
    if "\0" in text:
        return "contains a NUL character"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains half of a surrogate pair, which is no character"
    return None


def label_value_fault(value: str) -> str | None:
    """What the value of a label may be, where this one may not."""
    if len(value) <= MAX_LABEL_VALUE and value.isprintable():
        return None
    return f"a value is up to {MAX_LABEL_VALUE} characters on one line"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if there is one."""
    candidates = list(known)
    synonym = _SYNONYMS.get(name.lower())
    if synonym in candidates:
        return synonym
    if len(name) > 2 * MAX_SHOWN or len(candidates) > 2_000:
        return None  # comparing would take longer than it helps
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return near[0] if near else None


def either(words: Sequence[str]) -> str:
    """``a, b or c``."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A remedy: ``did you mean 'command'?``, or what there is, where nothing is near."""
    candidates = list(known)
    near = closest(name, candidates)
    if near is not None:
        return f"did you mean {near!r}?"
    if not candidates:
        return ""
    some = ", ".join(key_shown(candidate) for candidate in candidates[:20])
    return f"known are {some}" + (", …" if len(candidates) > 20 else "")
