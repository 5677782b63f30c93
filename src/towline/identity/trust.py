"""The first look at a cluster: its authority, fetched from a server and compared with a fingerprint that
came another way."""

from __future__ import annotations

import re

import httpx2

from towline.errors import RequestError, Unavailable
from towline.identity.certificates import fingerprint, only_certificate
from towline.identity.tls import unverified_context

TIMEOUT_S = 20.0
_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")


def shown_authority(url: str, wanted: str) -> str:
    """The authority that a server shows, where its fingerprint (``sha256:HEX``) is the wanted one. Blocks.

    Raises RequestError where it is another one, Unavailable where nobody answers.
    """
    try:
        with httpx2.Client(
            base_url=url, verify=unverified_context(), timeout=TIMEOUT_S, trust_env=False
        ) as http:
            shown = http.get("/v1/authority")
    except httpx2.TransportError as error:
        said = _ERRNO.sub("", str(error)) or type(error).__name__
        raise Unavailable(
            f"{url} cannot be reached ({said}): look whether `tow server` runs there, at host and port, and "
            "whether this machine may connect to it"
        ) from None
    try:
        authority = only_certificate(shown.content)
        found = fingerprint(authority)
    except ValueError:
        authority, found = b"", "no certificate"
    if found != wanted:
        raise RequestError(
            f"{url} shows the authority {found}, not {wanted}: it is another cluster, or somebody stands "
            "between."
        )
    return authority.decode()
