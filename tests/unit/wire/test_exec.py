"""The protocol of further commands: its frames, its limits, and who waits for whom."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from towline.wire import exec as wire
from towline.wire.exec import CHUNK_BYTES, WINDOW_BYTES, Allowance, Credit, Data, Returns, Window


async def test_messages_are_the_same_after_their_way() -> None:
    said = [
        wire.Open(argv=("sh", "-c", "exit"), env={"A": "é"}, user="1", workdir="/", terminal=(24, 80)),
        Data(0, bytes(range(256))), wire.Eof(), Credit(WINDOW_BYTES), wire.Resize(1, 2), wire.Signal("INT"),
    ]  # fmt: skip
    assert wire.decode_from_client(wire.encode(said)) == said
    answered = [
        wire.Started("job-0-0-1"), Data(2, b""), Credit(1), wire.Exit(code=3),
        wire.Exit(signal=9, attempt_ended=True), wire.Refused(kind="request", message="no"),
    ]  # fmt: skip
    assert wire.decode_from_command(wire.encode(answered)) == answered


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "data", "stream": 0, "data": b"x" * (CHUNK_BYTES + 1)},
        {"type": "data", "stream": 3, "data": b"x"},
        {"type": "credit", "count": 0},
        {"type": "credit", "count": WINDOW_BYTES + 1},
        {"type": "open", "argv": []},
        {"type": "open", "argv": ["sh", "a\0b"]},
        {"type": "open", "argv": ["sh"], "env": {"A=B": "c"}},
        {"type": "open", "argv": ["sh"], "terminal": [1, 65_536]},
        {"type": "exit", "code": 0},
    ],
)
async def test_what_breaks_the_limits_is_no_message(frame: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from_client(msgspec.msgpack.encode([frame]))


async def test_pieces_are_of_the_size_that_one_message_carries() -> None:
    data = bytes(CHUNK_BYTES) + b"rest"
    assert list(wire.chunks(data)) == [bytes(CHUNK_BYTES), b"rest"]
    assert list(wire.chunks(b"")) == []


async def test_a_peer_may_send_what_it_was_given_and_no_more() -> None:
    allowance = Allowance()
    allowance.spend(WINDOW_BYTES)
    with pytest.raises(ValueError, match="1 bytes were sent where 0 are allowed"):
        allowance.spend(1)
    allowance.grant(10)
    allowance.spend(10)
    with pytest.raises(ValueError, match="more credit"):
        allowance.grant(WINDOW_BYTES + 1)


async def test_a_sender_waits_for_credit_in_the_order_of_its_calls() -> None:
    window = Window()
    await window.take(WINDOW_BYTES - 1)
    order: list[str] = []

    async def take(name: str, count: int) -> None:
        await window.take(count)
        order.append(name)

    large = asyncio.create_task(take("large", 100))
    small = asyncio.create_task(take("small", 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == []  # the small one would fit, but does not overtake
    window.grant(100)
    await asyncio.gather(large, small)
    assert order == ["large", "small"]


async def test_credit_is_given_back_in_few_messages_that_never_let_a_sender_starve() -> None:
    window, returns = Window(), Returns()
    sent = credits = 0
    while sent < 10 * WINDOW_BYTES:
        await asyncio.wait_for(window.take(CHUNK_BYTES), 1)  # would wait for ever if nothing came back
        sent += CHUNK_BYTES
        credit = returns.written(CHUNK_BYTES)
        if credit is not None:
            credits += 1
            window.grant(credit.count)
    assert credits <= 40
