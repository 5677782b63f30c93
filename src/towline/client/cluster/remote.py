"""A server on another machine: its address, the token to show, and the authority of its cluster."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx2
from msgspec import Struct

from towline.errors import RequestError

VARIABLE, TOKEN_VARIABLE, AUTHORITY_VARIABLE = "TOWLINE_SERVER", "TOWLINE_TOKEN", "TOWLINE_CA"


class Remote(Struct, frozen=True, kw_only=True):
    """``url`` is ``https://HOST:PORT``, or several with commas between; ``authority`` is the certificate
    (PEM) that their servers' must be signed with."""

    url: str
    token: str
    authority: str

    @property
    def urls(self) -> tuple[str, ...]:
        """Of the cluster's servers, as far as they are named: where one is dead, the next one is asked."""
        return tuple(self.url.split(","))

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"<Remote {self.url}>"

    def context(self) -> ssl.SSLContext:
        """Raises RequestError where the authority is no certificate."""
        from towline.identity.tls import client_context

        try:
            return client_context(self.authority.encode())
        except (ssl.SSLError, ValueError) as error:
            raise RequestError(f"The authority of {self.url} is no certificate in PEM: {error}") from None

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"}

    def distrust(self, server: int, error: BaseException | None) -> str:
        """Why it is of no use to ask one of the servers (by its place in ``urls``) again: its certificate is
        not the cluster's. Empty where the error is another one."""
        while error is not None:
            if isinstance(error, ssl.SSLCertVerificationError):
                return (
                    f"{self.urls[server]} is not the server that this context trusts "
                    f"({error.verify_message}): it is another cluster's, has another name than this address, "
                    "or somebody stands between."
                )
            error = error.__cause__ or error.__context__
        return ""

    def explain(self, distrusted: Mapping[int, str]) -> None:
        """Raise RequestError where it is of no use to try again: ``distrusted`` are all the servers, by their
        places in ``urls``."""
        if len(distrusted) == len(self.urls):
            raise RequestError("\n".join(distrusted[server] for server in sorted(distrusted)))

    def open(self, timeout: httpx2.Timeout, url: str) -> httpx2.AsyncClient:
        """A connection pool, which asks the server at one of its URLs."""
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
        transport = httpx2.AsyncHTTPTransport(verify=self.context(), limits=limits)
        return httpx2.AsyncClient(
            transport=transport,
            base_url=url,
            headers=self.headers,
            timeout=timeout,
            trust_env=False,
        )


class Servers:
    """Which of a cluster's servers is asked: of several another one where one is dead, cannot do it now, or
    is not to be trusted. ``at`` None: there is one, on a socket."""

    def __init__(self, at: Remote | None) -> None:
        self._at = at
        self._urls = ("http://tow",) if at is None else at.urls
        self.asked = 0
        """Its place among the cluster's URLs."""
        self._distrusted: dict[int, str] = {}

    @property
    def url(self) -> str:
        return self._urls[self.asked]

    @property
    def distrust(self) -> str:
        """A sentence for each server that is not to be trusted, with a blank before."""
        return "".join(f" {why}" for why in self._distrusted.values())

    def failed(self, asked: int, error: Exception) -> None:
        """A request to that server has. Raises RequestError where none of them is to be trusted. Of requests
        that were under way to it at the same time the first one turns to the next for all."""
        if self._at is None:
            return
        self._distrusted.pop(asked, None)
        if why := self._at.distrust(asked, error):
            self._distrusted[asked] = why
        self._at.explain(self._distrusted)
        if self.asked == asked:
            self.asked = (asked + 1) % len(self._urls)


def checked_urls(text: str, what: str) -> str:
    """One or several of ``checked_url``, with commas between. Raises RequestError."""
    return ",".join(dict.fromkeys(checked_url(one.strip(), what) for one in text.split(",")))


def checked_url(text: str, what: str) -> str:
    """``https://HOST:PORT`` without anything behind it. Raises RequestError."""
    from urllib.parse import urlsplit

    from towline.identity.joining import PORT, bracketed

    wrong = RequestError(f"{what} is {text!r}: write https://HOST:PORT, such as https://tow.lan:{PORT}")
    try:
        parts = urlsplit(text if "//" in text else f"https://{text}")
        port = parts.port or PORT
    except ValueError:
        raise wrong from None
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise wrong
    return f"https://{bracketed(parts.hostname)}:{port}"


def checked_token(text: str, what: str) -> str:
    """A token as it can be sent. Raises RequestError, which does not show it."""
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise RequestError(f"{what} is no token: give the line that `tow token create` has printed, tow_…")
    return token


def read_authority(file: str, what: str) -> str:
    """The certificate (PEM) in a file. Raises RequestError where it cannot be read."""
    try:
        text = Path(file).expanduser().read_text("ascii")
    except OSError as error:
        raise RequestError(f"{what} {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        text = ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise RequestError(
            f"{what} {file} is no certificate in PEM: give what a server answers to GET /v1/authority"
        )
    return text


def from_environment(environ: dict[str, str]) -> Remote | None:
    """What TOWLINE_SERVER, TOWLINE_TOKEN and TOWLINE_CA (a file) say; None where no server is named.
    Raises RequestError."""
    server = environ.get(VARIABLE)
    if not server:
        return None
    url = checked_urls(server, VARIABLE)
    token, file = environ.get(TOKEN_VARIABLE, ""), environ.get(AUTHORITY_VARIABLE, "")
    if not token or not file:
        missing = TOKEN_VARIABLE if not token else AUTHORITY_VARIABLE
        raise RequestError(
            f"{VARIABLE} is set, but {missing} is not: give a token and the file of the cluster's authority, "
            "or keep all three under a name with `tow context add`."
        )
    authority = read_authority(file, AUTHORITY_VARIABLE)
    return Remote(url=url, token=checked_token(token, TOKEN_VARIABLE), authority=authority)
