"""The seccomp profile: what its data says, what the program does, and what the kernel makes of it."""

from __future__ import annotations

import errno
import json
import struct
import subprocess
import sys
import tomllib
from importlib.resources import files

import pytest

from towline.runtime.seccomp import Profile, compile_filter, load_profile, native_machine, oci_section

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE_NEWUSER, CLONE_THREAD = 0x10000000, 0x00010000


def interpret(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would do: classic BPF over struct seccomp_data."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, *(arguments + (0,) * 6)[:6])
    accumulator, at = 0, 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x05:
                at += value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(f"no instruction {code:#x}")


def wanted(profile: Profile, number: int, arguments: tuple[int, ...]) -> int:
    name = next((name for name, n in profile.numbers.items() if n == number), None)
    if name is None:
        return ERRNO | errno.ENOSYS
    if name in profile.refused:
        return ERRNO | profile.refused[name]
    if name not in profile.allowed:
        return ERRNO | errno.EPERM
    conditions = profile.allowed[name]
    held = any(arguments[c.argument] & c.mask == c.value for c in conditions)
    return ALLOW if held or not conditions else ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("capabilities", [(), ("SYS_ADMIN",), ("NET_RAW", "SYS_PTRACE")])
def test_the_program_says_what_the_profile_says(machine: str, capabilities: tuple[str, ...]):
    profile = load_profile(machine, frozenset(capabilities))
    program = compile_filter(profile)
    for number in [*range(600), 0x40000000, 0x40000001, 0xFFFFFFFF]:
        for first in (0, 1, 2, 8, 10, 16, 17, 38, 40, 0x20008, CLONE_NEWUSER, CLONE_THREAD, 0xFFFFFFFF):
            arguments = (first, 0)
            found = interpret(program, MACHINES[machine], number, arguments)
            assert found == wanted(profile, number, arguments), (number, first)


def test_the_upper_half_of_an_argument_is_not_looked_at():
    """As the kernel, which cuts these arguments to 32 bits."""
    profile = load_profile("x86_64", frozenset())
    program, numbers = compile_filter(profile), profile.numbers
    for name, value, meant in (("clone", CLONE_NEWUSER, 0), ("socket", 38, 0), ("socket", 2, ALLOW)):
        found = interpret(program, MACHINES["x86_64"], numbers[name], (value | 1 << 32,))
        assert (found == ALLOW) == (meant == ALLOW)


def test_the_calls_of_another_architecture_end_the_process():
    program = compile_filter(load_profile("x86_64", frozenset()))
    assert interpret(program, 0x40000003, 1) == KILL


@pytest.mark.parametrize(
    "name",
    ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "ptrace", "io_uring_setup", "userfaultfd",
     "perf_event_open", "kexec_load", "init_module", "open_by_handle_at", "chroot", "pivot_root", "reboot",
     "process_vm_readv", "syslog", "swapon", "quotactl", "move_mount", "open_tree", "fsopen"],
)  # fmt: skip
def test_what_opens_the_machine_is_not_allowed(name: str):
    profile = load_profile("x86_64", frozenset())
    assert name in profile.numbers
    assert name not in profile.allowed


def test_a_capability_opens_its_own_calls_only():
    assert "ptrace" in load_profile("x86_64", frozenset({"SYS_PTRACE"})).allowed
    assert "mount" not in load_profile("x86_64", frozenset({"SYS_PTRACE"})).allowed
    assert load_profile("x86_64", frozenset({"SYS_ADMIN"})).allowed["clone"] == ()
    assert "clone3" not in load_profile("x86_64", frozenset({"SYS_ADMIN"})).refused


def test_every_call_of_the_profile_is_known_and_has_a_reason():
    document = tomllib.loads((files("towline.runtime.seccomp") / "profile.toml").read_text())
    known = {name for machine in MACHINES for name in load_profile(machine, frozenset()).numbers}
    for group in [*document["allow"], *document["refuse"]]:
        assert group["why"].strip().endswith((".", "?"))
        assert set(group["calls"].split()) <= known


def test_config_json_says_the_same():
    profile = load_profile("x86_64", frozenset())
    section = oci_section(profile)
    assert section["defaultAction"] == "SCMP_ACT_ERRNO"
    assert section["architectures"] == ["SCMP_ARCH_X86_64"]
    allowed = {name for entry in section["syscalls"] for name in entry["names"] if "ALLOW" in entry["action"]}
    assert allowed == set(profile.allowed)
    clone = [entry for entry in section["syscalls"] if entry["names"] == ["clone"]]
    assert clone[0]["args"] == [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS} in section["syscalls"]


UNDER_THE_FILTER = """
import ctypes, errno, json, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
class Fprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Fprog(len(program) // 8, program)), 0, 0) == 0, "refused"
def ask(function, *arguments):
    ctypes.set_errno(0)
    result = getattr(libc, function)(*arguments)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
import socket, subprocess, threading, tempfile
def family(number):
    try:
        socket.socket(number, socket.SOCK_DGRAM).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
thread = threading.Thread(target=len, args=("x",)); thread.start(); thread.join()
with tempfile.TemporaryFile() as file:
    file.write(b"x")
print(json.dumps({
    "unshare": ask("unshare", 0x10000000),
    "mount": ask("mount", b"none", b"/nowhere", b"tmpfs", 0, None),
    "ptrace": ask("ptrace", 16, 1, 0, 0),
    "keyctl": ask("syscall", int(sys.argv[1]), 0, -3, 0),
    "clone3": ask("syscall", int(sys.argv[2]), 0, 0),
    "unknown": ask("syscall", 1000),
    "personality": ask("personality", 0xFFFFFFFF),
    "no randomisation": ask("personality", 0x0040000),
    "inet": family(2), "alg": family(38), "vsock": family(40),
    "child": subprocess.run(["sh", "-c", "exit 7"]).returncode,
}))
"""


def test_the_kernel_takes_it_and_programs_run_under_it():
    machine = native_machine()
    assert machine is not None
    profile = load_profile(machine, frozenset())
    numbers = [str(profile.numbers[name]) for name in ("keyctl", "clone3")]
    argv = [sys.executable, "-c", UNDER_THE_FILTER, *numbers]
    done = subprocess.run(argv, input=compile_filter(profile), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == {
        "unshare": "EPERM",
        "mount": "EPERM",
        "ptrace": "EPERM",
        "keyctl": "EPERM",
        "clone3": "ENOSYS",
        "unknown": "ENOSYS",
        "personality": "done",
        "no randomisation": "EPERM",
        "inet": "done",
        "alg": "EPERM",
        "vsock": "EPERM",
        "child": 7,
    }
