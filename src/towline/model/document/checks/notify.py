"""Checks of ``notify``: URLs that can be asked, and secrets that can be stored."""

from __future__ import annotations

from urllib.parse import urlsplit

from towline.model import names
from towline.model.document.lines import Where
from towline.model.document.reading import Reading
from towline.model.job import JobSpec
from towline.model.names import shown

MAX_NOTICES = 10
MAX_URL = 2_000


def check_notify(reading: Reading, spec: JobSpec) -> None:
    """Note what is wrong with it."""
    where = Where(None, "notify")
    if len(spec.notify) > MAX_NOTICES:
        reading.bad(where, f"has {len(spec.notify)} entries", f"at most {MAX_NOTICES}")
        return
    if reading.failed("notify"):
        return
    for at, notice in enumerate(spec.notify):
        fault = url_fault(notice.webhook)
        if fault is not None:
            remedy = "write https://HOST/PATH; what is secret stands in a stored secret"
            reading.bad(Where(Where(where, at), "webhook"), f"{shown(notice.webhook)} {fault}", remedy)
        if not names.SECRET_NAME.match(notice.secret):
            reading.bad(
                Where(Where(where, at), "secret"),
                f"the name is {shown(notice.secret)}",
                names.SECRET_NAME_RULE,
            )
        if not notice.on:
            reading.bad(Where(Where(where, at), "on"), "is empty", "leave it out, or write on: [failed]")


def url_fault(url: str) -> str | None:
    """Why it is no URL that a message can be sent to; None where it is."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"is no URL of up to {MAX_URL:,} ASCII characters without spaces"
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        return "is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or not valid:
        return "is no URL with https and a host"
    if parts.username is not None or parts.fragment:
        return "has a user or a fragment, which are not sent"
    return None
