"""Run inside of a container, by itself: asks the kernel for what opens the machine, and prints as JSON what
came of each: "done", or the name of the error. ``argv[1]`` is the pid of a process of the machine."""

import ctypes
import errno
import json
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = json.loads(sys.argv[2])
AT = -100


def result(number):
    return "done" if number >= 0 else errno.errorcode[ctypes.get_errno()]


def ask(name, *arguments):
    ctypes.set_errno(0)
    return result(libc.syscall(NUMBERS[name], *arguments))


def write(path, text="1"):
    try:
        handle = os.open(path, os.O_WRONLY)
        os.write(handle, text.encode())
        os.close(handle)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def read(path):
    try:
        return "done" if os.read(os.open(path, os.O_RDONLY), 1) else "empty"
    except OSError as error:
        return errno.errorcode[error.errno]


def open_socket(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol).close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def make_device(path, kind, major, minor):
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


def main():
    outside = int(sys.argv[1])
    own_namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    found = {
        "mount": ask("mount", b"none", b"/tmp", b"tmpfs", 0, 0),
        "umount": ask("umount2", b"/proc", 2),
        "new mount api": ask("fsopen", b"tmpfs", 0),
        "open_tree": ask("open_tree", AT, b"/", 1),
        "pivot_root": ask("pivot_root", b"/", b"/tmp"),
        "chroot": ask("chroot", b"/"),
        "user namespace": ask("unshare", 0x10000000),
        "mount namespace": ask("unshare", 0x00020000),
        "clone with a namespace": ask("clone", 0x10000000 | 17, 0, 0, 0, 0),
        "setns": ask("setns", own_namespace, 0),
        "ptrace of the machine": ask("ptrace", 16, outside, 0, 0),
        "signal to the machine": ask("kill", outside, 0),
        "memory of the machine": ask("process_vm_readv", outside, 0, 0, 0, 0, 0),
        "keyctl": ask("keyctl", 0, -3, 0),
        "add_key": ask("add_key", b"user", b"x", b"y", 1, -3),
        "bpf": ask("bpf", 0, 0, 0),
        "perf": ask("perf_event_open", 0, 0, -1, -1, 0),
        "io_uring": ask("io_uring_setup", 1, 0),
        "userfaultfd": ask("userfaultfd", 0),
        "open by handle": ask("open_by_handle_at", AT, 0, 0),
        "kernel module": ask("init_module", 0, 0, b""),
        "kexec": ask("kexec_load", 0, 0, 0, 0),
        "reboot": ask("reboot", 0, 0, 0, 0),
        "swap": ask("swapon", b"/tmp", 0),
        "clock": ask("clock_settime", 0, 0),
        "host name": ask("sethostname", b"x", 1),
        "kernel log": ask("syslog", 3, 0, 0),
        "packets": open_socket(socket.AF_PACKET, socket.SOCK_RAW),
        "raw ip": open_socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "virtual sockets": open_socket(40, socket.SOCK_STREAM),
        "kernel cryptography": open_socket(38, socket.SOCK_SEQPACKET),
        "block device": make_device("/tmp/disk", 0o060000, 254, 0),
        "memory device": make_device("/tmp/mem", 0o020000, 1, 1),
        "core_pattern": write("/proc/sys/kernel/core_pattern", "|/bin/sh"),
        "modprobe path": write("/proc/sys/kernel/modprobe", "/bin/sh"),
        "sysrq": write("/proc/sysrq-trigger", "b"),
        "its own oom score": write("/proc/self/oom_score_adj", "-1000"),
        "uevent helper": write("/sys/kernel/uevent_helper", "/bin/sh"),
        "huge pages": write("/sys/kernel/mm/transparent_hugepage/enabled", "always"),
        "release agent": write("/sys/fs/cgroup/memory/release_agent", "/bin/sh"),
        "memory limit": write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000000"),
        "more memory": write("/sys/fs/cgroup/memory.max", "max"),
        "more processes": write("/sys/fs/cgroup/pids/pids.max", "max"),
        "irq": write("/proc/irq/default_smp_affinity", "1"),
        "kernel memory": read("/proc/kcore"),
        "keys of the machine": read("/proc/keys"),
        "timers of the machine": read("/proc/timer_list"),
        "root of the machine": read(f"/proc/{outside}/root/etc/hostname"),
    }
    found["descriptors"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))[:4]  # noqa: PTH208
    sys.stdout.write(json.dumps(found))


main()
