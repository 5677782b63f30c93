"""``tow exec`` as people and scripts use it: pipes, terminals, endings, and nothing left over."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.home import LONG_S, TOW, Home, Maker, until
from tests.engines import engine

ENGINES = [
    "process",
    pytest.param("crun", marks=pytest.mark.containers),
    pytest.param("runc", marks=[pytest.mark.containers, pytest.mark.own_home]),
]
ONCE_EACH = ENGINES[:2]
TREE = "sleep 4321 & setsid sleep 4322 & (trap '' TERM HUP INT; sleep 4323) & echo up; sleep 4324"
LOOP = "while :; do sleep 0.1; done"
LISTEN = "sleep 1000 & while :; do wait; done"
"""For traps: a shell loses a signal that comes in the moment in which it forks, and this one forks once."""


@pytest.fixture
def task(request: pytest.FixtureRequest, home: Home) -> Maker:
    engine = request.param
    if engine == "process":
        return Maker()
    if engine != "crun":  # which is taken where nothing is said
        home.env["TOWLINE_OCI_RUNTIME"] = engine
    return Maker(request.getfixturevalue("busybox_image"))


def each(*engines: Any) -> Any:
    return pytest.mark.parametrize("task", engines, indirect=True)


def submitted(home: Home, task: dict[str, Any], **fields: Any) -> str:
    """A job of one task whose elements all run."""
    job = home.submit({"t": task}, **fields)

    def run() -> bool:
        elements = home.json("job", job)["tasks"][0]["elements"]
        states = [each["attempts"][-1]["state"] for each in elements if each["attempts"]]
        return len(states) == len(elements) and set(states) == {"running"}

    until(run, "all elements run")
    return job


def sleeping(home: Home, task: Maker, **fields: Any) -> str:
    return submitted(home, task("sleep 1000", **fields))


def inside(home: Home, *arguments: str, **options: Any) -> subprocess.CompletedProcess[Any]:
    return home.tow("exec", *arguments, status=options.pop("status", 0), **options)


def left(home: Home) -> list[str]:
    """What runs of anything that was started inside of attempts of this home."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"TOW_EXEC=" in (folder / "environ").read_bytes():
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "sleep 432" in command:
                    found.append(command)
    return found


# --- pipes -----------------------------------------------------------------------------------------------


@each(*ONCE_EACH)
def test_streams_are_apart_and_the_status_is_the_commands(home: Home, task: Maker) -> None:
    sleeping(home, task)
    said = inside(home, "job/t", "--", "sh", "-c", "echo out; echo err >&2; exit 7", status=7)
    assert (said.stdout, said.stderr) == ("out\n", "err\n")
    assert inside(home, "job", "--", "sh", "-c", "kill -9 $$", status=137).stderr == ""
    assert inside(home, "job/t.0", "-i", "--", "cat", input="x\n").stdout == "x\n"
    assert inside(home, "job", "-n", "--", "cat", input="x\n").stdout == ""
    options = ("--workdir", "/", "--env", "A=b c", "-e", "LANG")
    home.env["LANG"] = "C.UTF-8"
    shown = inside(home, "job", *options, "--", "sh", "-c", 'pwd; echo "$A $LANG $TOW_TASK $TOW_ATTEMPT"')
    assert shown.stdout == "/\nb c C.UTF-8 t 1\n"


@each(*ONCE_EACH)
def test_bytes_pass_through_both_ways_and_their_end_too(home: Home, task: Maker) -> None:
    sleeping(home, task)
    data = os.urandom(3_000_000)
    assert inside(home, "job", "--", "cat", input=data, text=False).stdout == data
    flood = inside(home, "job", "--", "sh", "-c", "head -c 1000000 /dev/zero; head -c 2000000 /dev/zero >&2")
    assert (len(flood.stdout), len(flood.stderr)) == (1_000_000, 2_000_000)
    # Who does not read its input, and who does not wait for what it has started, ends all the same.
    assert inside(home, "job", "--", "true", input=data, text=False).stdout == b""
    assert inside(home, "job", "--", "sh", "-c", "sleep 4321 & echo started").stdout == "started\n"
    assert left(home) == []
    reader = f"{TOW[0]} exec job -- cat /dev/zero | head -c 5 | wc -c"
    assert subprocess.check_output(["sh", "-c", reader], env=home.env, timeout=LONG_S).strip() == b"5"


@each(*ENGINES)
def test_what_cannot_be_started_says_why(home: Home, task: Maker) -> None:
    sleeping(home, task)
    for command, status, word in (
        (["nosuch"], 127, "'nosuch'"),
        (["/nosuch/program"], 127, "/nosuch/program"),
        (["/etc"], 126, "/etc"),
        (["--workdir", "/nosuch", "--", "pwd"], 126, "/nosuch"),
    ):
        dashes = command if "--" in command else ["--", *command]
        said = inside(home, "job", *dashes, status=status)
        assert said.stdout == ""
        assert said.stderr.startswith("error: ")
        assert word in said.stderr
        assert said.stderr.count("\n") == 1, "the engine's own words are not shown beside it"


@each("process")
def test_an_interrupt_without_a_terminal_reaches_the_command(home: Home, task: Maker) -> None:
    sleeping(home, task)
    command = home.start("exec", "job", "--", "sh", "-c", f"trap 'echo got; exit 9' INT; echo up; {LISTEN}")
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    command.send_signal(signal.SIGINT)
    assert command.stdout.readline() == "got\n"
    assert command.wait(LONG_S) == 9
    command = home.start("exec", "job", "--", "sh", "-c", f"trap 'echo got' INT; echo up; {LISTEN}")
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    command.send_signal(signal.SIGINT)
    assert command.stdout.readline() == "got\n"
    command.send_signal(signal.SIGINT)
    assert command.wait(LONG_S) == 130


# --- terminals -------------------------------------------------------------------------------------------


class Screen:
    """A person's terminal with a command in it.

    runc relays the terminal inside, and makes it raw a moment after the command has begun: what was said
    before comes with one return more. What any other engine shows is taken as it comes."""

    def __init__(self, home: Home, *arguments: str) -> None:
        self._runc = home.env.get("TOWLINE_OCI_RUNTIME") == "runc"
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(TOW[0], [*TOW, *arguments], home.env)
        self.resize(33, 101)
        self.usual = termios.tcgetattr(self._fd)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def until(self, words: bytes) -> None:
        while words not in self.shown:
            assert self._more(), self.shown

    def _more(self) -> bool:
        assert select.select([self._fd], [], [], LONG_S)[0], self.shown
        try:
            data = os.read(self._fd, 65_536)
        except OSError:
            return False
        self.shown += data
        if self._runc:
            self.shown = self.shown.replace(b"\r\r\n", b"\r\n")
        return bool(data)

    def ends(self, status: int) -> None:
        """With this exit status, after all that was shown; and the terminal is as it was."""
        while self._more():
            pass
        _, found = os.waitpid(self.pid, 0)
        assert termios.tcgetattr(self._fd) == self.usual, "the terminal was not given back"
        os.close(self._fd)
        assert os.waitstatus_to_exitcode(found) == status, self.shown


@each(*ENGINES)
def test_a_terminal_is_as_if_one_were_there(home: Home, task: Maker) -> None:
    sleeping(home, task)
    _has_size_colours_and_status(home)
    _follows_its_window(home)
    _gets_every_key(home)


def _has_size_colours_and_status(home: Home) -> None:
    # An engine starts the command a moment before its terminal has a size.
    sized = "until stty size 2>/dev/null | grep -v '^0 '; do :; done"
    script = f"{sized}; printf '\\033[31mred\\033[0m\\n'; echo $TERM; exit 3"
    home.env["TERM"] = "xterm-256color"
    screen = Screen(home, "exec", "job", "--", "sh", "-c", script)
    screen.ends(3)
    assert screen.shown == b"33 101\r\n\x1b[31mred\x1b[0m\r\nxterm-256color\r\n"


def _follows_its_window(home: Home) -> None:
    script = """echo ready; until [ "$(stty size)" = "44 111" ]; do sleep 0.1; done; exit 4"""
    screen = Screen(home, "exec", "job", "-it", "--", "sh", "-c", script)
    screen.until(b"ready")
    screen.resize(44, 111)
    screen.ends(4)


def _gets_every_key(home: Home) -> None:
    script = "stty -echo -icanon -isig -icrnl; echo go; dd bs=1 count=7 2>/dev/null | od -An -tx1; echo done"
    screen = Screen(home, "exec", "job", "--", "sh", "-c", script)
    screen.until(b"go\r\n")
    screen.type(b"\x03\x1a\x00\xff\r\x04q")
    screen.ends(0)
    assert b"03 1a 00 ff 0d 04 71" in screen.shown
    screen = Screen(home, "exec", "job", "--", "sh", "-c", f"trap 'echo got; exit 5' INT; echo go; {LISTEN}")
    screen.until(b"go\r\n")
    screen.type(b"\x03")
    screen.ends(5)
    assert screen.shown.endswith(b"got\r\n")


@each("process")
def test_a_terminal_is_given_back_however_it_ends(home: Home, task: Maker) -> None:
    job = sleeping(home, task)
    screen = Screen(home, "exec", "job", "--", "nosuch")
    screen.ends(127)
    screen = Screen(home, "exec", "job", "--", "sh", "-c", f"trap '' TERM; echo go; {LOOP}")
    screen.until(b"go\r\n")
    os.kill(screen.pid, signal.SIGHUP)
    screen.ends(129)
    screen = Screen(home, "exec", "job", "--", "sh", "-c", f"echo go; {LOOP}")
    screen.until(b"go\r\n")
    home.tow("cancel", job, "--kill")
    screen.ends(137)
    assert b"error: job/t.0 has ended, and the command in it with it." in screen.shown


# --- which element ---------------------------------------------------------------------------------------


def test_of_several_elements_one_has_to_be_named(home: Home, script: Maker) -> None:
    submitted(home, script("sleep 1000", array=3))
    said = inside(home, "job", "--", "true", status=2).stderr
    assert said == (
        "error: Several elements of job run; say which:\n  job/t.0\n  job/t.1\n  job/t.2\n"
    )  # fmt: skip
    assert inside(home, "job/t.2", "--", "sh", "-c", "echo $TOW_INDEX").stdout == "2\n"
    home.tow("cancel", "job/t.0", "--kill")
    home.tow("cancel", "job/t.1", "--kill")
    until(lambda: inside(home, "job", "--", "true", status=None).returncode == 0, "one is left")
    assert "has no element 9" in inside(home, "job/t.9", "--", "true", status=2).stderr
    assert "it has ended: cancelled" in inside(home, "job/t.0", "--", "true", status=2).stderr


def test_what_does_not_run_says_its_state(home: Home, script: Maker) -> None:
    tasks = {
        "first": script("sleep 1000"),
        "next": script("true", needs=["first"]),
        "large": script("true", where={"nosuch": "label"}),
    }
    home.submit(tasks)
    until(lambda: inside(home, "job/first", "--", "true", status=None).returncode == 0, "the first one runs")
    assert "it is waiting for what it needs" in inside(home, "job/next", "--", "true", status=2).stderr
    assert "it is queued" in inside(home, "job/large", "--", "true", status=2).stderr
    home.tow("cancel", "job/first", "--kill")
    home.tow("wait", "job/first", status=None)
    until(
        lambda: "it has ended: cancelled" in inside(home, "job/first", "--", "true", status=None).stderr,
        "it has ended",
    )


@pytest.mark.own_home
def test_bad_input_is_refused_before_anything_is_started(home: Home) -> None:
    for arguments, word in (
        (["job"], "what to run"),
        (["job", "--"], "what to run"),
        (["job", "sh", "-c", "true"], "Put -- before the command"),
        (["job", "--usr", "1", "--", "true"], "no option --usr"),
        (["job", "--", ""], "is empty"),
        (["job/", "--", "true"], "is not JOB"),
        (["job", "--env", "=x", "--", "true"], "--env"),
        (["job", "--user", "", "--", "true"], "--user is empty"),
    ):
        assert word in inside(home, *arguments, status=2).stderr
    assert home.is_untouched()


@pytest.mark.own_home
def test_a_node_may_forbid_it(home: Home, script: Maker) -> None:
    home.env["TOWLINE_POLICY_EXEC"] = "false"
    sleeping(home, script)
    said = inside(home, "job", "--", "true", status=2).stderr
    assert "not allowed on this node" in said
    assert "TOWLINE_POLICY_EXEC=true" in said


# --- isolation -------------------------------------------------------------------------------------------


def comparable(home: Home, limits: str) -> str:
    """runc before 1.2 sets the number of open files of a further command while Go raises it for itself, and
    now and then Go is last: it has the hard limit then, which it could take anyhow (runc's issue 4195)."""
    if home.env.get("TOWLINE_OCI_RUNTIME") != "runc":
        return limits
    found, count = re.subn(r"^.*\(-n\) \d+$", "open files", limits, flags=re.MULTILINE)
    assert count == 1
    return found


@each(*ENGINES[1:])
def test_it_has_no_more_rights_than_the_container(home: Home, task: Maker) -> None:
    probe = "grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/self/status; cat /proc/self/uid_map; ulimit -a"
    namespaces = "for n in /proc/self/ns/*; do readlink $n; done; cat /proc/1/cgroup"
    script = f"( {probe}; {namespaces} ) > $TOW_OUT/now; mv $TOW_OUT/now $TOW_OUT/own; sleep 1000"
    submitted(home, task(script, user="1000"))
    until(
        lambda: inside(home, "job", "--", "ls", "/tow/out/own", status=None).returncode == 0, "it has looked"
    )
    own = inside(home, "job", "--", "cat", "/tow/out/own").stdout
    further = inside(home, "job", "--", "sh", "-c", f"{probe}; {namespaces}").stdout
    assert comparable(home, further) == comparable(home, own)
    assert "NoNewPrivs:\t1" in own
    assert "Seccomp:\t2" in own
    assert inside(home, "job", "--", "id", "-u").stdout == "1000\n"
    as_root = inside(home, "job", "--user", "0:0", "--", "sh", "-c", f"id -u; {probe}").stdout
    assert comparable(home, as_root) == comparable(home, "0\n" + own[: own.index("cgroup:")])
    assert "no user 'nosuch'" in inside(home, "job", "--user", "nosuch", "--", "id", status=2).stderr


# --- nothing left over -----------------------------------------------------------------------------------


@contextmanager
def busy(home: Home) -> Iterator[subprocess.Popen[str]]:
    """A command inside that has started all sorts of processes."""
    command = home.start("exec", "job", "--", "sh", "-c", TREE, stdin=subprocess.DEVNULL)
    assert command.stdout is not None
    assert command.stdout.readline() == "up\n"
    until(lambda: len(left(home)) >= 4, "its processes are there")
    yield command
    until(lambda: not left(home), "nothing is left")


def again(home: Home) -> None:
    """The job still runs, and can be entered again."""
    until(lambda: inside(home, "job", "--", "true", status=None).returncode == 0, "it can be entered")


@each(*ONCE_EACH)
def test_whoever_dies_takes_the_command_with_him(home: Home, task: Maker) -> None:
    sleeping(home, task)
    with busy(home) as command:
        command.kill()
    for role in ("server", "agent"):
        with busy(home) as command:
            for pid in home.processes()[role]:
                os.kill(pid, signal.SIGKILL)
            _, said = command.communicate(timeout=LONG_S)
            assert command.returncode == 3
            assert "is lost" in said
        again(home)
    with busy(home) as command:
        home.tow("cancel", "job", "--kill")
        assert "job/t.0 has ended, and the command in it with it." in command.communicate(timeout=LONG_S)[1]
        assert command.returncode == 137
    assert len(home.json("job", "job")["tasks"][0]["elements"][0]["attempts"]) == 1


def test_a_flood_delays_nobody_else(home: Home, script: Maker) -> None:
    """Neither one that is read as fast as it comes nor one that nobody reads."""
    sleeping(home, script)
    read = home.start("exec", "job", "--", "cat", "/dev/zero", stdout=subprocess.DEVNULL)
    stuck = subprocess.Popen(
        [*TOW, "exec", "job", "--", "sh", "-c", "cat /dev/zero"], env=home.env, stdout=subprocess.PIPE
    )
    try:
        assert stuck.stdout is not None
        assert stuck.stdout.read(1) == b"\0"
        assert home.run({"a": script("true", array=20)}, name="beside")["state"] == "succeeded"
        assert home.json("nodes")["nodes"][0]["state"] == "ready"
        assert stuck.poll() is None
    finally:
        for process in (read, stuck):
            process.kill()
            process.wait()
        assert stuck.stdout is not None
        stuck.stdout.close()


@pytest.mark.containers
@pytest.mark.own_home
def test_a_container_of_docker_is_entered_alike(home: Home, busybox_image: str) -> None:
    home.env["DOCKER_HOST"] = str(engine("docker").url)
    submitted(home, Maker(busybox_image)("sleep 1000", runtime="docker"))
    said = inside(home, "job", "--user", "1000", "--", "sh", "-c", "id -u; echo err >&2; exit 7", status=7)
    assert (said.stdout, said.stderr) == ("1000\n", "err\n")
    data = os.urandom(500_000)
    assert inside(home, "job", "--", "cat", input=data, text=False).stdout == data
    assert "'nosuch'" in inside(home, "job", "--", "nosuch", status=127).stderr.replace('"', "'")
    screen = Screen(
        home,
        "exec",
        "job",
        "--",
        "sh",
        "-c",
        """echo go; until [ "$(stty size)" = "44 111" ]; do sleep 0.1; done; exit 4""",
    )
    screen.until(b"go\r\n")
    screen.resize(44, 111)
    screen.ends(4)
    with busy(home) as command:
        command.kill()
    with busy(home) as command:
        home.tow("cancel", "job", "--kill")
        assert "job/t.0 has ended, and the command in it with it." in command.communicate(timeout=LONG_S)[1]
