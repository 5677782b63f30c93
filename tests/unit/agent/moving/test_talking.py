"""What the server answers, as what it means for who asked."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import pytest

from towline.agent.moving.talking import Incomplete, NotNow, Refused, Talking
from towline.wire.manifest import digest_of

Answer = Callable[[httpx2.Request], httpx2.Response]


def talking(answer: Answer) -> Talking:
    return Talking(lambda: httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://towline"))


def test_a_blob_is_taken_with_its_own_content_only() -> None:
    talk = talking(lambda _: httpx2.Response(200, content=b"hello"))
    assert talk.blob("a", "make", 0, digest_of(b"hello")) == b"hello"
    with pytest.raises(Incomplete, match="another content"):
        talk.blob("a", "make", 0, digest_of(b"other"))
    talk.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (503, NotNow), (500, NotNow), (401, NotNow), (429, NotNow),
        (400, Incomplete), (409, Incomplete),
        (403, Refused), (404, Refused), (413, Refused),
    ],
)  # fmt: skip
def test_refusals_are_for_now_for_good_or_for_what_was_sent(status: int, kind: type[Exception]) -> None:
    talk = talking(lambda _: httpx2.Response(status, json={"detail": "so it is"}))
    with pytest.raises(kind, match="so it is"):
        talk.put_blob("a", "0", b"x")
    talk.close()


def test_an_answer_that_is_none_is_asked_for_again() -> None:
    talk = talking(lambda _: httpx2.Response(200, content=b"<html>"))
    with pytest.raises(NotNow):
        talk.kept("a")
    with pytest.raises(Incomplete):
        talk.manifest("a", "make", 0)
    talk.close()


def test_a_server_that_is_away_is_connected_anew() -> None:
    made: list[httpx2.Client] = []
    away = True

    def answer(request: httpx2.Request) -> httpx2.Response:
        if away:
            raise httpx2.ConnectError("nobody is there", request=request)
        return httpx2.Response(200, json={"whole": True})

    def connect() -> httpx2.Client:
        made.append(httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://towline"))
        return made[-1]

    talk = Talking(connect)
    with pytest.raises(NotNow, match="nobody is there"):
        talk.kept("a")
    away = False
    assert talk.kept("a").whole
    assert talk.kept("a").whole
    assert len(made) == 2
    assert made[0].is_closed
    talk.close()
    with pytest.raises(NotNow, match="the agent ends"):
        talk.kept("a")


def test_a_connection_is_closed_behind_the_last_that_uses_it() -> None:
    made: list[httpx2.Client] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("b/artifacts"):
            raise httpx2.ReadError("broken off", request=request)
        with pytest.raises(NotNow):
            talk.kept("b")  # as another thread meets the end in the middle of this request
        assert not made[0].is_closed
        return httpx2.Response(200, json={"whole": True})

    def connect() -> httpx2.Client:
        made.append(httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://towline"))
        return made[-1]

    talk = Talking(connect)
    assert talk.kept("a").whole
    assert made[0].is_closed
    talk.close()
