"""What tasks may ask for on a node beyond the default of no rights: the operator says, and both the
server, when a job comes in, and the agent, with the task as it will run, refuse the rest."""

from __future__ import annotations

import pwd
from typing import NamedTuple

from msgspec import Struct

from towline.model.job import TaskSpec
from towline.model.names import CAPABILITIES

ALL = "ALL"
"""In ``capabilities`` of a policy: every one of them."""


class Policy(Struct, frozen=True, kw_only=True):
    """``capabilities`` may be asked for (without ``CAP_``); ``users`` are those that ``user`` may name,
    None: any. Whoever the image names is not asked for. ``exec``: whether further commands may be run in
    what runs."""

    capabilities: tuple[str, ...] = ()
    privileged: bool = False
    users: tuple[str, ...] | None = None
    exec: bool = True


class Refusal(NamedTuple):
    """``field`` of the task, ``what`` is wrong with it, and the ``remedy``."""

    field: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.what}: {self.remedy}"


def refusals(task: TaskSpec, policy: Policy) -> list[Refusal]:
    """Everything that the policy does not allow a task, which may be rendered or merged already."""
    if task.runtime == "process":
        return []
    return [
        *_capabilities(task, policy),
        *_privileged(task, policy),
        *_user(task.user, policy),
    ]


def exec_refusal(user: str | None, policy: Policy) -> Refusal | None:
    """Why no further command may be run in an attempt, by this user if one is named; None: it may."""
    if not policy.exec:
        remedy = "have the operator allow it (TOWLINE_POLICY_EXEC=true, or policy_exec in agent.toml)"
        return Refusal("exec", "running commands in what runs is not allowed on this node", remedy)
    return next(iter(_user(user, policy)), None)


def _capabilities(task: TaskSpec, policy: Policy) -> list[Refusal]:
    if ALL in policy.capabilities:
        return []
    extra = [name for name in task.capabilities if name not in policy.capabilities]
    allows = ", ".join(policy.capabilities) or "none"
    return [
        Refusal(
            "capabilities",
            f"{name} is not allowed on this node, which allows {allows}",
            f"leave it out, or have the operator allow it (TOWLINE_POLICY_CAPABILITIES={name}, "
            "or policy_capabilities in agent.toml)",
        )
        for name in extra
    ]


def _privileged(task: TaskSpec, policy: Policy) -> list[Refusal]:
    if not task.privileged or policy.privileged:
        return []
    remedy = (
        "ask for the single capabilities that it needs, or have the operator allow it "
        "(TOWLINE_POLICY_PRIVILEGED=true, or policy_privileged in agent.toml)"
    )
    return [Refusal("privileged", "privileged containers are not allowed on this node", remedy)]


def _user(user: str | None, policy: Policy) -> list[Refusal]:
    if user is None or policy.users is None or user in policy.users:
        return []
    allows = ", ".join(policy.users) or "none but the image's own"
    remedy = "use one of these, or have the operator allow it (policy_users in agent.toml)"
    return [Refusal("user", f"{user!r} is not allowed on this node, which allows {allows}", remedy)]


class Wanted(Struct, frozen=True, kw_only=True):
    """What a node's settings ask of containers. ``engine``: crun or runc, None: whichever works, crun
    first. ``owner`` (uid, gid) is the submitting user, whose files mounts and artifacts are."""

    engine: str | None = None
    userns: bool = True
    owner: tuple[int, int] = (0, 0)
    policy: Policy = Policy()


# --- as an operator writes them --------------------------------------------------------------------------


def parse_capabilities(value: object) -> tuple[str, ...]:
    """``NET_RAW,SYS_PTRACE``, a list, or ALL. Raises ValueError with what to write instead."""
    names = tuple(name.upper().removeprefix("CAP_") for name in parse_words(value))
    unknown = [name for name in names if name not in (*CAPABILITIES, ALL)]
    if unknown:
        raise ValueError(f"Linux has no capability {unknown[0]}: write names such as NET_RAW, or ALL")
    return names


def parse_words(value: object) -> tuple[str, ...]:
    """A list, or a text with commas between. Raises ValueError with what to write instead."""
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError("it is a list of words with commas between")
    return tuple(words)


def parse_flag(value: object) -> bool:
    """Raises ValueError with what to write instead."""
    flags = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in flags:
        raise ValueError("it is true or false")
    return flags[str(value).lower()]


def parse_owner(value: object) -> tuple[int, int]:
    """A name of this machine's, ``UID`` or ``UID:GID``. Raises ValueError with what to write instead."""
    user, _, group = str(value).partition(":")
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if not (user.isdecimal() and group.isdecimal()):
            raise ValueError("this machine knows no such user: write its name, or UID:GID") from None
        return int(user), int(group)
    return account.pw_uid, int(group) if group.isdecimal() else account.pw_gid
