"""How a machine becomes a node of a cluster and stays one: its key, its certificate, and where the server is.

They stand in one folder of the node, which appears whole or not at all. The key never leaves it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from msgspec import Struct, structs

from towline.agent.cluster.servers import Servers
from towline.agent.supervision.leasing.files import LEASE
from towline.errors import OperatorError, RequestError, TowlineError, Unauthenticated, Unavailable
from towline.identity.certificates import Pair, age, fingerprint, make_key, make_request
from towline.identity.joining import JoinLink
from towline.identity.tls import client_context, write_private
from towline.identity.trust import TIMEOUT_S, shown_authority

RENEW_AFTER = 1 / 3
"""Of a certificate's life; it is tried again and again from then on."""
_PAIR, _AUTHORITY, _SERVER = "node.pem", "authority.pem", "server.json"
_KEY_BEGIN = b"-----BEGIN PRIVATE KEY-----"


class Server(Struct, frozen=True, kw_only=True):
    """Where the cluster is reached: the server of the join link, and those that servers have told of."""

    url: str
    others: tuple[str, ...] = ()


class _Enrolled(Struct, kw_only=True):
    certificate: bytes
    authority: bytes
    expires_at: int


class _Problem(Struct, kw_only=True):
    detail: str = ""


class Membership:
    """A node's folder of it. Raises OperatorError where it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._read()
        except (OSError, msgspec.DecodeError) as error:
            raise OperatorError(
                f"{folder} cannot be read: {error}. Where it is lost, run `tow node forget` for this node, "
                "remove the folder, and join again with a new link."
            ) from None

    def _read(self) -> None:
        certificate, begin, key = (self._folder / _PAIR).read_bytes().partition(_KEY_BEGIN)
        self._pair = Pair(key=begin + key, certificate=certificate)
        self.authority = (self._folder / _AUTHORITY).read_bytes()
        self.server = msgspec.json.decode((self._folder / _SERVER).read_bytes(), type=Server)
        self.servers = Servers(self.server.url, told=self.server.others, keep=self._keep_servers)

    def _keep_servers(self, told: tuple[str, ...]) -> None:
        """For the next start. It does not matter much: the join link's server tells of the others too."""
        self.server = structs.replace(self.server, others=told)
        with contextlib.suppress(OSError):
            write_private(self._folder / _SERVER, msgspec.json.encode(self.server))

    def context(self) -> ssl.SSLContext:
        """For a connection to the server, with the certificate of this moment."""
        return client_context(self.authority, self._pair)

    @property
    def is_due(self) -> bool:
        """Whether the certificate is to be renewed."""
        return age(self._pair.certificate, datetime.datetime.now(datetime.UTC)) >= RENEW_AFTER

    @property
    def has_ended(self) -> bool:
        """Whether the certificate is worth nothing any more, by this machine's clock."""
        return age(self._pair.certificate, datetime.datetime.now(datetime.UTC)) >= 1

    def renew(self, node: str) -> None:
        """Get the next certificate, with a new key. Blocks. Raises TowlineError."""
        key = make_key()
        body = {"request": make_request(key, node)}
        enrolled = _enrolled(_ask(self.servers.current, "/v1/agent/renew", self.context(), body))
        write_private(self._folder / _PAIR, enrolled.certificate + key)
        self._pair = Pair(key=key, certificate=enrolled.certificate)


def joined(folder: Path) -> bool:
    return folder.is_dir()


def join(folder: Path, link: JoinLink, node: str, name: str) -> None:
    """Enrol this machine with the link, unless it is a node of the same cluster already; one that was
    forgotten meanwhile, or whose certificate has ended, is enrolled anew. Blocks.

    Raises RequestError where the link is worth nothing or this node is another cluster's, Unavailable
    where the server does not answer.
    """
    if joined(folder):
        _must_match(folder, link)
        if not _is_over(Membership(folder), node):
            return
    key = make_key()
    body = {"token": link.token, "node": node, "name": name, "request": make_request(key, node)}
    authority, enrolled = _enrolled_by_one(link, body)
    files = {
        _AUTHORITY: authority,
        _SERVER: msgspec.json.encode(Server(url=link.url, others=link.urls[1:])),
        _PAIR: enrolled.certificate + key,
    }
    # What another cluster's leader has granted, or another pool's: its term says nothing of this one's, and
    # where it is the higher one no lease of this pool would ever be noted.
    (folder.parent / LEASE).unlink(missing_ok=True)
    if joined(folder):  # the same cluster's: each of the files fits the others, new or old
        for name, content in files.items():
            write_private(folder / name, content)
    else:
        _write_whole(folder, files)


def _enrolled_by_one(link: JoinLink, body: dict[str, Any]) -> tuple[bytes, _Enrolled]:
    """By the first server of the link that answers: the authority, and what it has signed."""
    for at, url in enumerate(link.urls):
        try:
            authority = shown_authority(url, link.ca).encode()
            return authority, _enrolled(_ask(url, "/v1/enrol", client_context(authority), body))
        except Unavailable:
            if at == len(link.urls) - 1:
                raise
    raise AssertionError("a link names at least one server")


def _is_over(member: Membership, node: str) -> bool:
    """Whether the server takes this node no more; False where it cannot be asked."""
    if member.has_ended:
        return True
    try:
        member.renew(node)
    except Unauthenticated:
        return True
    except Unavailable:
        return False
    return False


def _must_match(folder: Path, link: JoinLink) -> None:
    if fingerprint(Membership(folder).authority) != link.ca:
        raise RequestError(
            f"this machine is a node of another cluster ({Membership(folder).server.url}): remove {folder} "
            "to make it one of this cluster."
        )


def _write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, content in files.items():
            write_private(fresh / name, content)
        os.rename(fresh, folder)  # a folder that another process has made meanwhile stays
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


# --- asking -------------------------------------------------------------------------------------------
def _ask(url: str, path: str, context: ssl.SSLContext, body: dict[str, Any]) -> bytes:
    try:
        with httpx2.Client(base_url=url, verify=context, timeout=TIMEOUT_S, trust_env=False) as http:
            answer = http.post(path, content=msgspec.json.encode(body))
    except httpx2.TransportError as error:
        raise Unavailable(f"{url} cannot be reached: {str(error) or type(error).__name__}") from None
    if answer.status_code >= 400:
        raise _refusal(url, answer)
    return answer.content


def _refusal(url: str, answer: httpx2.Response) -> TowlineError:
    try:
        said = msgspec.json.decode(answer.content, type=_Problem).detail
    except msgspec.DecodeError:
        said = ""
    text = f"{url} refuses: {said or answer.text[:200] or answer.status_code}"
    if answer.status_code == 401:
        return Unauthenticated(text)
    return RequestError(text) if answer.status_code < 500 else Unavailable(text)


def _enrolled(answer: bytes) -> _Enrolled:
    try:
        return msgspec.json.decode(answer, type=_Enrolled)
    except msgspec.DecodeError as error:
        raise Unavailable(f"The server's answer is none: {error}") from None
