"""The join link, all that a machine needs to become a node: where the server is, which authority signs
its certificate, and a token that enrols one node once.

    tow://HOST:PORT?token=TOKEN&ca=sha256:HEX

Where there are several servers, it names them with commas between: tow://HOST:PORT,HOST:PORT?token=…
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct

from towline.errors import RequestError

SCHEME = "tow"
PORT = 7443
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}\Z")


def is_fingerprint(text: str) -> bool:
    """Whether it is ``sha256:HEX``, as authorities are named."""
    return _FINGERPRINT.match(text) is not None


class JoinLink(Struct, frozen=True, kw_only=True):
    """``ca`` is the fingerprint of the authority, as ``sha256:HEX``; ``others`` are further servers."""

    host: str
    port: int
    token: str
    ca: str
    others: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        query = urlencode({"token": self.token, "ca": self.ca}, safe=":")
        places = ",".join(f"{bracketed(host)}:{port}" for host, port in self._places)
        return f"{SCHEME}://{places}?{query}"

    def __repr__(self) -> str:
        return f"<JoinLink {self.host}:{self.port}>"

    @property
    def _places(self) -> tuple[tuple[str, int], ...]:
        return ((self.host, self.port), *self.others)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(f"https://{bracketed(host)}:{port}" for host, port in self._places)


def parse_join(text: str) -> JoinLink:
    """Raises RequestError with the part that is wrong."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise _wrong("its host is none") from None
    if parts.scheme != SCHEME:
        raise _wrong(f"it does not begin with {SCHEME}://HOST")
    places = [_place(text) for text in parts.netloc.split(",")]
    query = dict(parse_qsl(parts.query))
    if unknown := sorted(query.keys() - {"token", "ca"}):
        raise _wrong(f"{unknown[0]!r} is no part of it")
    token, ca = query.get("token", ""), query.get("ca", "")
    if not token:
        raise _wrong("its token is missing; in a shell the link has to stand in quotes")
    if not _FINGERPRINT.match(ca):
        raise _wrong("its ca is no sha256:HEX; in a shell the link has to stand in quotes")
    host, port = places[0]
    return JoinLink(host=host, port=port, token=token, ca=ca, others=tuple(places[1:]))


def _place(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port or PORT
    except ValueError:
        raise _wrong("its port is no number from 1 to 65535") from None
    if not parts.hostname:
        raise _wrong(f"it does not begin with {SCHEME}://HOST")
    return parts.hostname, port


def bracketed(host: str) -> str:
    """A host as it stands in an URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _wrong(what: str) -> RequestError:
    return RequestError(
        f"--join is no join link, since {what}: write '{SCHEME}://HOST:PORT?token=TOKEN&ca=sha256:HEX', "
        "as `tow token create --join` prints it"
    )
