"""The first look at a server, which may be anybody's."""

from __future__ import annotations

import datetime
from typing import Any

import httpx2
import pytest

from towline.errors import RequestError
from towline.identity import certificates as pki
from towline.identity import trust

NOW = datetime.datetime.now(datetime.UTC)
MEANT = pki.make_authority("Towline test", 10, NOW).certificate
ANOTHER = pki.make_authority("Towline test", 10, NOW).certificate


@pytest.fixture
def showing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes any server show these bytes."""

    def show(content: bytes) -> None:
        transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=content))
        client = httpx2.Client

        def fake(base_url: str, **_: Any) -> httpx2.Client:
            return client(base_url=base_url, transport=transport)

        monkeypatch.setattr(trust.httpx2, "Client", fake)

    return show


def test_an_authority_that_stands_behind_the_wanted_one_is_not_trusted(showing: Any) -> None:
    showing(b"# of the lab\n" + MEANT + ANOTHER)
    assert trust.shown_authority("https://tow.lan:7443", pki.fingerprint(MEANT)).encode() == MEANT


@pytest.mark.parametrize("content", [ANOTHER, ANOTHER + MEANT, b"", b"\xff"])
def test_what_does_not_begin_with_the_wanted_one_is_refused(showing: Any, content: bytes) -> None:
    showing(content)
    with pytest.raises(RequestError, match="another cluster"):
        trust.shown_authority("https://tow.lan:7443", pki.fingerprint(MEANT))
