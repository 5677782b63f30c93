"""Named contexts: servers that this user works with, each with its token and authority, and which one
is meant when nothing is said. Kept in one file that only the user may read."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from towline.client.cluster.remote import AUTHORITY_VARIABLE, TOKEN_VARIABLE, Remote, from_environment
from towline.client.cluster.remote import VARIABLE as SERVER_VARIABLE
from towline.errors import NotFound, RequestError, Unauthenticated

VARIABLE = "TOWLINE_CONTEXT"
LOCAL = "local"
"""The name of this machine's own server, which needs no context."""


class Context(Struct, frozen=True, kw_only=True):
    """Written as it is read; ``authority`` is PEM."""

    url: str
    token: str
    authority: str


class Kept(Struct, kw_only=True):
    """The file's content."""

    current: str | None = None
    contexts: dict[str, Context] = {}


class Contexts:
    """Those of one file. Each change is written at once, whole or not at all, on top of what others
    have written meanwhile."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = self._read()

    def _read(self) -> Kept:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return Kept()
        except (OSError, msgspec.DecodeError) as error:
            raise RequestError(
                f"{self._file} cannot be read: {error}. Mend it, or remove it and add the contexts again."
            ) from None

    @property
    def current(self) -> str | None:
        return self._kept.current

    @property
    def names(self) -> list[str]:
        return sorted(self._kept.contexts)

    def get(self, name: str) -> Remote:
        """Raises NotFound."""
        found = self._kept.contexts.get(name)
        if found is None:
            known = ", ".join([LOCAL, *self.names])
            raise NotFound(f"There is no context {name!r}: the contexts are {known}.")
        return Remote(url=found.url, token=found.token, authority=found.authority)

    def add(self, name: str, remote: Remote, *, use: bool = True) -> None:
        """Keep it, in place of an older one, and use it from now on where ``use``. Raises RequestError."""
        check_name(name)
        with self._changing():
            kept = Context(url=remote.url, token=remote.token, authority=remote.authority)
            self._kept.contexts[name] = kept
            if use:
                self._kept.current = name

    def use(self, name: str) -> None:
        """``local`` goes back to this machine's own server. Raises NotFound."""
        with self._changing():
            if name != LOCAL:
                self.get(name)
            self._kept.current = None if name == LOCAL else name

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        with self._changing():
            self.get(name)
            del self._kept.contexts[name]
            if self._kept.current == name:
                self._kept.current = None

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Read what is there now, and write what has become of it: one after the other of all who do."""
        from towline.identity.tls import write_private

        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._file.with_suffix(".lock").open("wb") as lock:  # closing it frees it
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._kept = self._read()
                yield
                write_private(self._file, msgspec.json.format(msgspec.json.encode(self._kept)))
        except OSError as error:
            raise RequestError(f"{self._file} cannot be written: {error.strerror}.") from None


def check_name(name: str) -> None:
    """Raises RequestError for what cannot be a context's name."""
    if name == LOCAL or not name.isprintable() or not 0 < len(name) <= 100:
        raise RequestError(f"{name!r} cannot be a context's name: take 1 to 100 characters, and not {LOCAL}.")


def refused_token(environ: Mapping[str, str]) -> Unauthenticated:
    """For a token that a server does not take: which one it was, and what to do."""
    if environ.get(SERVER_VARIABLE):
        given = TOKEN_VARIABLE
    else:
        given = f"context {environ.get(VARIABLE) or Contexts(contexts_file(environ)).current!r}"
    return Unauthenticated(
        f"The server does not take the token of {given}: it is none of this cluster, was taken back, or has "
        "ended. An admin makes another one: tow token create NAME --role submitter"
    )


def contexts_file(environ: Mapping[str, str]) -> Path:
    root = environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(root) / "towline" / "contexts.json"


def chosen(environ: Mapping[str, str] | None = None) -> Remote | None:
    """The server that is meant: TOWLINE_SERVER's, else TOWLINE_CONTEXT's, else the one of TOWLINE_HOME
    where that is set, else the current context's; None: this machine's own. Raises RequestError."""
    environ = os.environ if environ is None else environ
    remote = from_environment(dict(environ))
    if remote is not None:
        return remote
    name = environ.get(VARIABLE)
    if name == LOCAL:
        return None
    contexts = Contexts(contexts_file(environ))
    name = name or (contexts.current if "TOWLINE_HOME" not in environ else None)
    if name is None:
        return None
    if environ.get(TOKEN_VARIABLE):
        # Whoever sets it wants its rights, not the context's, whose server may not be the one that it is for.
        raise RequestError(
            f"{TOKEN_VARIABLE} is set, but {SERVER_VARIABLE} is not, and the context {name!r} has a token of "
            f"its own: unset {TOKEN_VARIABLE}, or set {SERVER_VARIABLE} and {AUTHORITY_VARIABLE} with it."
        )
    return contexts.get(name)
