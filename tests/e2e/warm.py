"""``tow`` as a process of its own that has not to load its modules first, which is most of what a command
costs: a process that has loaded them forks for each command.

    done = run(["jobs"], env=…, cwd=…)      # as subprocess.run with captured output

What reads its environment before it loads a module, such as PYTHONPATH, has to be started afresh:
``is_fit`` says which commands may run here. With TOWLINE_TEST_COLD=1 all are started afresh.

python tests/e2e/warm.py      (its end of a socket is stdin)
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

TOW = str(Path(sys.executable).with_name("tow"))
_LOADED = (
    "towline.client.local", "towline.client.sync", "towline.client.submission",
    "towline.cli.screen.display", "towline.client.cluster.access", "towline.client.cluster.nodes",
)  # fmt: skip
"""What commands load when they need it, besides their own modules."""
_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
"""Variables that a program reads before its first line runs."""
_MOST_BYTES = 1 << 18
_PR_SET_PDEATHSIG = 1
_busy = threading.Lock()


def is_fit(env: Mapping[str, str], options: Mapping[str, Any]) -> bool:
    """Whether a command with this environment and these options of subprocess.run may run here."""
    if os.environ.get("TOWLINE_TEST_COLD") or options.keys() - {"input", "text"}:
        return False
    return all(
        env.get(name) == os.environ.get(name) for name in {*env, *os.environ} if name.startswith(_AT_START)
    )


# --- in the tests ----------------------------------------------------------------------------------------
@cache
def _parent() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BYTES)
    started = subprocess.Popen([sys.executable, "-P", __file__], stdin=theirs)
    theirs.close()

    def end() -> None:
        ours.close()
        started.wait()

    atexit.register(end)
    return ours


def run(
    arguments: list[str], *, env: Mapping[str, str], cwd: Path, timeout: float,
    input: str | bytes | None = None, text: bool = True,
) -> subprocess.CompletedProcess[Any]:  # fmt: skip
    """As subprocess.run with ``capture_output``. Raises TimeoutExpired."""
    with _busy:
        out, err, status = _ask(arguments, env, cwd, input, timeout)
    argv = [TOW, *arguments]
    if text:
        return subprocess.CompletedProcess(argv, status, _text(out), _text(err))
    return subprocess.CompletedProcess(argv, status, out, err)


def _text(data: bytes) -> str:
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")


def _ask(
    arguments: list[str], env: Mapping[str, str], cwd: Path, input: str | bytes | None, timeout_s: float
) -> tuple[bytes, bytes, int]:
    parent = _parent()
    (out, out_write), (err, err_write) = os.pipe(), os.pipe()
    given, given_write = (os.dup(0), None) if input is None else os.pipe()
    body = json.dumps({"arguments": arguments, "env": dict(env), "cwd": str(cwd)})
    socket.send_fds(parent, [body.encode()], [given, out_write, err_write])
    for descriptor in (given, out_write, err_write):
        os.close(descriptor)
    pid = int(parent.recv(64))
    data = input.encode() if isinstance(input, str) else input or b""
    feeder = threading.Thread(target=_feed, args=(given_write, data))
    feeder.start()  # beside the reading: who is not read may not read either
    try:
        return *_read([out, err], time.monotonic() + timeout_s), int(parent.recv(64))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)  # not waited for yet: the number is still its own
        parent.recv(64)
        raise subprocess.TimeoutExpired([TOW, *arguments], timeout_s) from None
    finally:
        feeder.join()
        os.close(out)
        os.close(err)


def _feed(descriptor: int | None, data: bytes) -> None:
    if descriptor is not None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as pipe:
            pipe.write(data)


def _read(pipes: list[int], until_s: float) -> list[bytes]:
    """All that comes from each until nobody holds it open any more. Raises TimeoutError."""
    found: dict[int, bytearray] = {pipe: bytearray() for pipe in pipes}
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left_s = until_s - time.monotonic()
            ready = selector.select(left_s) if left_s > 0 else []
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                found[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [bytes(data) for data in found.values()]


# --- in the process that forks ---------------------------------------------------------------------------
def serve(asking: socket.socket) -> Callable[[], object] | None:
    """Forks for each command, one after the other. Returns in each what it is to run; None at the end."""
    while True:
        body, descriptors, _, _ = socket.recv_fds(asking, _MOST_BYTES, 3)
        if not body:
            return None
        pid = os.fork()
        if pid == 0:
            asking.close()
            return _become(json.loads(body), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        asking.send(str(pid).encode())
        if not _waits_for(pid, asking):
            return None
        _, status = os.waitpid(pid, 0)
        asking.send(str(os.waitstatus_to_exitcode(status)).encode())


def _waits_for(pid: int, asking: socket.socket) -> bool:
    """For its end. False where the tests have ended before; it does not go on then."""
    ended = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([ended, asking], [], [])
    finally:
        os.close(ended)
    if asking not in ready:
        return True
    os.kill(pid, signal.SIGKILL)
    return False


def _become(asked: dict[str, Any], descriptors: list[int]) -> Callable[[], object]:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _die_with_parent()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # As an interpreter makes them at its start.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv = [TOW, *asked["arguments"]]
    from towline.cli.main import main

    return main


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start() -> Callable[[], object] | None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asking = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for name in _LOADED:
        import_module(name)
    for name in import_module("towline.cli.main").COMMANDS:
        import_module(f"towline.cli.{name}")
    gc.collect()
    gc.freeze()  # the collector of a child touches none of it, so that it stays shared
    return serve(asking)


def end(status: object) -> NoReturn:
    """As an interpreter ends, but for taking itself apart, which would copy all memory that is shared."""
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


def main() -> None:
    command = start()
    if command is None:
        return
    status: object = None
    try:
        command()
    except SystemExit as ended:
        status = ended.code
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        status = 1
    end(status)


if __name__ == "__main__":
    main()
