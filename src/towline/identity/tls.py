"""TLS contexts: 1.3 only, with the cluster's own authority and no other."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from towline.identity.certificates import Pair


def server_context(pair: Pair, authority: bytes) -> ssl.SSLContext:
    """For a server: nodes may show a certificate of the authority; who shows another one is cut off."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.num_tickets = 0  # nobody resumes sessions here; to make two tickets is a third of a handshake
    context.load_verify_locations(cadata=authority.decode())
    use(context, pair)
    return context


def client_context(authority: bytes, pair: Pair | None = None) -> ssl.SSLContext:
    """For whoever calls a server: only the authority counts, never the machine's own list."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority.decode())
    if pair is not None:
        use(context, pair)
    return context


def unverified_context() -> ssl.SSLContext:
    """To ask a server for its authority's certificate, whose fingerprint is then compared. Nothing
    secret may be said over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def use(context: ssl.SSLContext, pair: Pair) -> None:
    """Show this certificate from the next connection on. OpenSSL wants a file: it is in memory, and
    gone when this returns."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pair.certificate + pair.key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
