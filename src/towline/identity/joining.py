"""The join link, all that a machine needs to become a node: where the server is, which authority signs
its certificate, and a token that enrols one node once.

    tow://HOST:PORT?token=TOKEN&ca=sha256:HEX
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

from msgspec import Struct

from towline.errors import RequestError

SCHEME = "tow"
PORT = 7443
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}\Z")


class JoinLink(Struct, frozen=True, kw_only=True):
    """``ca`` is the fingerprint of the authority, as ``sha256:HEX``."""

    host: str
    port: int
    token: str
    ca: str

    def __str__(self) -> str:
        query = urlencode({"token": self.token, "ca": self.ca}, safe=":")
        return f"{SCHEME}://{bracketed(self.host)}:{self.port}?{query}"

    def __repr__(self) -> str:
        return f"<JoinLink {self.host}:{self.port}>"

    @property
    def url(self) -> str:
        return f"https://{bracketed(self.host)}:{self.port}"


def parse_join(text: str) -> JoinLink:
    """Raises RequestError with the part that is wrong."""
    try:
        parts = urlsplit(text.strip())
    except ValueError:
        raise _wrong("its host is none") from None
    try:
        port = parts.port or PORT
    except ValueError:
        raise _wrong("its port is no number from 1 to 65535") from None
    if parts.scheme != SCHEME or not parts.hostname:
        raise _wrong(f"it does not begin with {SCHEME}://HOST")
    query = dict(parse_qsl(parts.query))
    if unknown := sorted(query.keys() - {"token", "ca"}):
        raise _wrong(f"{unknown[0]!r} is no part of it")
    token, ca = query.get("token", ""), query.get("ca", "")
    if not token:
        raise _wrong("its token is missing; in a shell the link has to stand in quotes")
    if not _FINGERPRINT.match(ca):
        raise _wrong("its ca is no sha256:HEX; in a shell the link has to stand in quotes")
    return JoinLink(host=parts.hostname, port=port, token=token, ca=ca)


def bracketed(host: str) -> str:
    """A host as it stands in an URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _wrong(what: str) -> RequestError:
    return RequestError(
        f"--join is no join link, since {what}: write '{SCHEME}://HOST:PORT?token=TOKEN&ca=sha256:HEX', "
        "as `tow token create --join` prints it"
    )
