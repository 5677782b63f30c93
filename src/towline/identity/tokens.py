"""API tokens and join tokens: how they look, and what of them is kept.

``tow_ID_SECRET``: the id finds the row, the secret is 32 random bytes of which only a SHA-256 is kept.
A slow hash is for passwords, which can be guessed; 256 random bits cannot.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from msgspec import Struct

ID_BYTES = 6
SECRET_BYTES = 32
_TOKEN = re.compile(r"tow_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")


class Minted(Struct, frozen=True, kw_only=True):
    """A new token. ``text`` is shown once; ``digest`` is what is kept."""

    id: str
    text: str
    digest: bytes

    def __repr__(self) -> str:
        return f"<Minted {self.id}>"


def mint() -> Minted:
    """A new token."""
    id, secret = secrets.token_hex(ID_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    return Minted(id=id, text=f"tow_{id}_{secret}", digest=_digest(id, secret))


def id_of(token: str) -> str | None:
    """The id in a token; None where it is none."""
    found = _TOKEN.match(token)
    return found[1] if found else None


def is_genuine(token: str, digest: bytes) -> bool:
    """Whether a token is the one that ``digest`` was kept of, in constant time."""
    found = _TOKEN.match(token)
    return found is not None and hmac.compare_digest(_digest(found[1], found[2]), digest)


def _digest(id: str, secret: str) -> bytes:
    return hashlib.sha256(f"towline token\0{id}\0{secret}".encode()).digest()
