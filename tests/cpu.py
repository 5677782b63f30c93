"""``pytest --cpu``: what each file and test costs in CPU time, with all processes that are started for it.

The tests run in a child process. Their parent adopts whatever they leave behind, such as servers in sessions
of their own, so that the times of all that has ended are its own, and all that lives is below it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from towline.runtime.linux.spaces import become_subreaper

_TICKS = os.sysconf("SC_CLK_TCK")
_SHOWN_TESTS = 25
_spent: Counter[str] = Counter()
"""CPU seconds of each test, and of what is before the first one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", action="store_true", help="show CPU seconds of files and tests, all processes")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--cpu"):
        _adopt()


def _adopt() -> None:
    """Goes on in a child."""
    become_subreaper()
    child = os.fork()
    if child == 0:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child hears it too
    pid = status = 0
    while pid != child:
        pid, status = os.wait()
    while True:  # what the tests have left behind and has ended since
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(-1, os.WNOHANG)[0] != 0:
                continue
        break
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    user_s, system_s = sum(one.ru_utime for one in used), sum(one.ru_stime for one in used)
    sys.stderr.write(f"CPU of all: {user_s + system_s:.1f} s ({user_s:.1f} user, {system_s:.1f} system)\n")
    sys.stderr.flush()
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _all_spent_s() -> float:
    """CPU seconds of our parent's other descendants, of what they have waited for, and of us."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(fields[1])
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    return sum(spent for pid, spent in ticks.items() if _is_below(pid, parents)) / _TICKS


def _is_below(pid: int, parents: dict[int, int]) -> bool:
    root = os.getppid()
    while pid not in (0, root):
        pid = parents.get(pid, 0)
    return pid == root


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    if not item.config.getoption("--cpu"):
        return (yield)
    before = _all_spent_s()
    if not _spent:
        _spent["(before the first test)"] = before
    try:
        return (yield)
    finally:
        _spent[item.nodeid] = _all_spent_s() - before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _spent:
        return
    files: Counter[str] = Counter()
    for test, spent in _spent.items():
        files[test.partition("::")[0]] += spent
    counts = Counter(test.partition("::")[0] for test in _spent)
    terminalreporter.section("CPU seconds of files")
    for name, spent in files.most_common():
        terminalreporter.write_line(f"{spent:8.2f}  {counts[name]:4d} tests  {name}")
    terminalreporter.section(f"CPU seconds of the {_SHOWN_TESTS} that cost most")
    for name, spent in _spent.most_common(_SHOWN_TESTS):
        terminalreporter.write_line(f"{spent:8.2f}  {name}")
