"""The address of a database, as a URL: what may be shown of it, and what is wrong with it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

SCHEMES = ("postgresql", "postgres")
_EXAMPLE = "postgresql://USER@HOST:5432/DATABASE"
_SECRETS = ("password", "sslpassword")
HIDDEN = "***"


class Address:
    """``url`` in libpq's form; it may name several hosts (``HOST1:5432,HOST2:5432``), of which the one that
    takes writes is used. Raises ValueError, in words that show no password."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        except ValueError:
            raise ValueError(f"store_url is no URL: write {_EXAMPLE}") from None
        if parts.scheme not in SCHEMES:
            raise ValueError(
                f"store_url begins with {parts.scheme or 'no scheme'!r}: write {_EXAMPLE}, or leave it empty "
                "for SQLite in the server's home"
            )
        if not parts.path.strip("/") and "dbname" not in dict(query) and "database" not in dict(query):
            raise ValueError(f"store_url names no database: write {_EXAMPLE}")
        self.url = url
        login, at, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        self._secrets = [unquote(password)] if password else []
        self._secrets += [value for name, value in query if name in _SECRETS and value]
        kept = [(name, value) for name, value in query if name not in _SECRETS]
        self.shown = _joined(parts._replace(netloc=f"{user}{at}{hosts}", query=urlencode(kept, safe="/:,")))
        self.urls = _one_by_one(parts, login + at, hosts, dict(query))
        """One for each host."""

    def __str__(self) -> str:
        """Without a password."""
        return self.shown

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"

    def without_secrets(self, text: str) -> str:
        """A driver's message, in which nobody finds a password of the URL."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return re.sub(r"(postgres(?:ql)?://[^\s:/@]*):[^\s@]*@", rf"\1:{HIDDEN}@", text)


def _one_by_one(parts: SplitResult, login: str, hosts: str, query: dict[str, str]) -> list[str]:
    if "," in hosts:
        return [_joined(parts._replace(netloc=f"{login}{host}")) for host in hosts.split(",")]
    names = query.get("host", "").split(",")
    if hosts or len(names) < 2:
        return [_joined(parts)]
    ports = query.get("port", "").split(",")
    ports = ports * len(names) if len(ports) == 1 else ports
    queries = [
        {**query, "host": name, **({"port": port} if port else {})}
        for name, port in zip(names, ports, strict=False)
    ]
    return [_joined(parts._replace(query=urlencode(one))) for one in queries]


def _joined(parts: SplitResult) -> str:
    """As urlunsplit does, which leaves out the slashes of an empty host."""
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
