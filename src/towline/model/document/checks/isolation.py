"""Checks of what a task asks for, or demands, of its isolation: user, capabilities, require, secrets."""

from __future__ import annotations

import posixpath
import re

from towline.model import names
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import TaskSpec
from towline.model.names import either, shown

MAX_SECRETS = 64
SECRETS_TARGET = "/run/secrets"

_USER = re.compile(
    r"(?P<user>[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31})(?::(?P<group>[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}))?\Z",
    re.ASCII,
)
_MAX_ID = 2**32 - 2
_TAKEN_BY_PRIVILEGED = ("userns", "seccomp")
_OF_CONTAINERS = ("userns", "seccomp", "network", "rootfs")


def check_isolation(reading: Reading, task: TaskSpec, where: Where) -> None:
    """Note what cannot be meant so, and what no runtime could ever give."""
    if task.user is not None and not reading.failed(*where.keys, "user"):
        _check_user(reading, task.user, Where(where, "user"))
    if not reading.failed(*where.keys, "require"):
        _check_require(reading, task, where)
    _check_secrets(reading, task, where)


def _check_user(reading: Reading, user: str, where: Where) -> None:
    match = _USER.match(user)
    if match is None:
        reading.bad(where, f"is {shown(user)}", 'write UID, "UID:GID" or a name of the image')
        return
    for part in (match["user"], match["group"]):
        if part is not None and part[0].isdigit() and int(part) > _MAX_ID:
            reading.bad(where, f"is {shown(user)}", f"the highest id is {_MAX_ID}")


def _check_require(reading: Reading, task: TaskSpec, where: Where) -> None:
    place = Where(where, "require")
    if task.privileged and (lost := [name for name in task.require if name in _TAKEN_BY_PRIVILEGED]):
        remedy = "leave one of them out; capabilities give less than privileged does"
        reading.bad(place, f"has {' and '.join(lost)}, which privileged: true takes away", remedy)
    if task.network == "host" and "network" in task.require:
        remedy = "leave one of them out"
        reading.bad(place, "has network, and network: host shares that of the node", remedy)
    never = [name for name in task.require if name in _OF_CONTAINERS]
    if task.runtime == "process" and never and not reading.failed(*where.keys, "runtime"):
        remedy = "use runtime: oci"
        reading.bad(place, f"runtime: process gives no {either(never)}", remedy)


def _check_secrets(reading: Reading, task: TaskSpec, where: Where) -> None:
    secrets_at = Where(where, "secrets")
    if len(task.secrets) > MAX_SECRETS:
        reading.bad(secrets_at, f"has {len(task.secrets)} secrets", f"at most {MAX_SECRETS}")
        return
    for name, secret in task.secrets.items():
        place = Where(secrets_at, name)
        if not names.SECRET_NAME.match(name):
            reading.bad(place, f"the name of the file is {shown(name)}", names.SECRET_NAME_RULE)
        if not names.SECRET_NAME.match(secret):
            reading.bad(place, f"is {shown(secret)}", names.SECRET_NAME_RULE)
    if task.secrets and task.runtime != "process":
        _check_targets(reading, task, where)


def _check_targets(reading: Reading, task: TaskSpec, where: Where) -> None:
    """Nothing may be shown where the secrets are, or above, where it would hide them."""
    mounts_at, inputs_at = Where(where, "mounts"), Where(where, "inputs")
    targets = [(Where(inputs_at, name), target) for name, target in task.inputs.items()]
    if not reading.failed(*mounts_at.keys):
        targets += [(Where(mounts_at, at), mount.target) for at, mount in enumerate(task.mounts)]
    for place, target in targets:
        normal = "/" + posixpath.normpath(target).lstrip("/")
        if f"{SECRETS_TARGET}/".startswith(f"{normal}/") or normal.startswith(f"{SECRETS_TARGET}/"):
            message = f"{shown(target)} is where the task's secrets are, {SECRETS_TARGET}"
            reading.bad(place, message, "use another place")
