"""A command that runs inside an attempt, as it is told of on both hops: client to server, server to agent.

The client opens, the node answers Started or Refused; then bytes go both ways until Exit. Each direction
has a window, as a channel of SSH has: a sender may be ``WINDOW_BYTES`` ahead of what its peer has really
written out, and Credit gives back what was. So a flood waits at its source, and never in between.

    client                 server                      agent
    Open            ──▶    ExecOpen(exec, attempt)  ──▶
                    ◀──    ExecSaid(exec, Started)  ◀──
    Data Eof Credit ──▶    ExecSay(exec, …)         ──▶
                    ◀──    ExecSaid(exec, Data …)   ◀──
    (gone)          ──▶    ExecClose(exec)          ──▶    everything of it is killed
                    ◀──    ExecSaid(exec, Exit)     ◀──
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

CHUNK_BYTES = 16 * 1024
"""The most that one Data carries, so that what is urgent never waits long behind it."""
WINDOW_BYTES = 256 * 1024
STDIN, STDOUT, STDERR = 0, 1, 2
SIGNALS = ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")
"""What a client may pass on, without ``SIG``."""

Bytes = Annotated[bytes, Meta(max_length=CHUNK_BYTES)]
Lines = Annotated[int, Meta(ge=0, le=65_535)]


class Open(Struct, frozen=True, kw_only=True, tag="open"):
    """Client's first message. ``terminal`` (rows, columns) asks for one; ``env`` goes over the attempt's."""

    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    env: dict[str, str] = {}
    user: str | None = None
    workdir: str | None = None
    terminal: tuple[Lines, Lines] | None = None

    def __post_init__(self) -> None:
        if any(
            "\0" in text for text in (*self.argv, *self.env.values(), self.user or "", self.workdir or "")
        ):
            raise ValueError("there is a zero byte in it, which no program can be given")
        if wrong := [name for name in self.env if not name or "=" in name or "\0" in name]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a variable")


class Data(Struct, frozen=True, tag="data"):
    """``stream`` is 0 to the command, 1 or 2 from it; a terminal's is all 1."""

    stream: Annotated[int, Meta(ge=0, le=2)]
    data: Bytes


class Eof(Struct, frozen=True, tag="eof"):
    """The client's stdin has ended."""


class Credit(Struct, frozen=True, tag="credit"):
    """So many bytes that came were written out; the sender may send as many more."""

    count: Annotated[int, Meta(ge=1, le=WINDOW_BYTES)]


class Resize(Struct, frozen=True, tag="resize"):
    rows: Lines
    columns: Lines


class Signal(Struct, frozen=True, tag="signal"):
    """To the command's first process. ``name`` is one of SIGNALS."""

    name: str


class Started(Struct, frozen=True, tag="started"):
    """The command runs in this attempt, the element's ``number``-th."""

    attempt: str


class Exit(Struct, frozen=True, kw_only=True, tag="exit"):
    """The last message of a command that was started, after all of its output. Either ``code`` or ``signal``
    is there. ``attempt_ended``: it was killed with the attempt. ``message`` is what people should know."""

    code: int | None = None
    signal: int | None = None
    attempt_ended: bool = False
    message: str | None = None


class Refused(Struct, frozen=True, kw_only=True, tag="refused"):
    """Instead of Started, or of Exit where the connection to the node broke. ``kind`` is ``request`` (it is
    wrong, or not allowed), ``unavailable`` (repeat it), ``cannot_start`` (with the shell's ``status``, 126
    or 127) or ``failed``."""

    kind: str
    message: str
    status: int = 0


class ExecOpen(Struct, frozen=True, kw_only=True, tag="exec_open"):
    """To an agent. ``exec`` names it on this link from now on."""

    exec: int
    attempt: str
    open: Open


class ExecSay(Struct, frozen=True, tag="exec_say"):
    exec: int
    said: Data | Eof | Credit | Resize | Signal


class ExecClose(Struct, frozen=True, tag="exec_close"):
    """The client has gone: end it. Ignored for one that has ended."""

    exec: int


class ExecSaid(Struct, frozen=True, tag="exec_said"):
    """From an agent."""

    exec: int
    said: Started | Data | Credit | Exit | Refused


FromClient = Open | Data | Eof | Credit | Resize | Signal
FromCommand = Started | Data | Credit | Exit | Refused

_encoder = msgspec.msgpack.Encoder()
_from_client = msgspec.msgpack.Decoder(list[FromClient])
_from_command = msgspec.msgpack.Decoder(list[FromCommand])


def encode(messages: Iterable[FromClient | FromCommand]) -> bytes:
    """One frame of a client's WebSocket."""
    return _encoder.encode(list(messages))


def decode_from_client(frame: bytes) -> list[FromClient]:
    """Raises msgspec.ValidationError (a DecodeError) on anything that is not such a frame."""
    return _from_client.decode(frame)


def decode_from_command(frame: bytes) -> list[FromCommand]:
    """Raises msgspec.ValidationError (a DecodeError) on anything that is not such a frame."""
    return _from_command.decode(frame)


def chunks(data: bytes) -> Iterator[bytes]:
    """Pieces that each fit into one Data."""
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


class Allowance:
    """What a peer may still send, as whoever receives or passes it on sees it."""

    def __init__(self) -> None:
        self._left = WINDOW_BYTES

    def spend(self, count: int) -> None:
        """Raises ValueError where the peer sends more than it was given."""
        if count > self._left:
            raise ValueError(f"{count} bytes were sent where {self._left} are allowed")
        self._left -= count

    def grant(self, count: int) -> None:
        """Raises ValueError where more is given back than was sent."""
        if self._left + count > WINDOW_BYTES:
            raise ValueError("more credit was given than bytes had been sent")
        self._left += count


class Window:
    """The sender's side: ``take`` waits until so much may be sent, in the order of the calls."""

    def __init__(self) -> None:
        self._left = WINDOW_BYTES
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()

    async def take(self, count: int) -> None:
        async with self._turn:
            while self._left < count:
                self._more.clear()
                await self._more.wait()
            self._left -= count

    def grant(self, count: int) -> None:
        self._left = min(WINDOW_BYTES, self._left + count)
        self._more.set()


class Returns:
    """The receiver's side: gathers what was written out into few Credits."""

    def __init__(self) -> None:
        self._owed = 0

    def written(self, count: int) -> Credit | None:
        self._owed += count
        if self._owed < WINDOW_BYTES // 4:
            return None
        owed, self._owed = self._owed, 0
        return Credit(owed)
