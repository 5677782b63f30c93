"""``python -I -S launcher.py SPEC STATUS``: becomes another program, as a child that dies with its parent.

SPEC and STATUS are descriptors: the first has the rest as JSON, the second is told why it did not work, as
``STEP ERRNO``, and closed where it did. What posix_spawn(3) cannot do is done here: a controlling terminal,
a working directory, and the wish to be killed when the agent is.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
import termios

_PR_SET_PDEATHSIG = 1
_NS_GET_PARENT = 0xB702
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_MS_RDONLY, _MS_REC, _MS_SLAVE = 1, 0x4000, 1 << 19
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    spec_fd, status = int(sys.argv[1]), int(sys.argv[2])
    with open(spec_fd, "rb") as file:
        spec = json.load(file)
    os.set_inheritable(status, False)
    step = "exec"
    try:
        if spec["space_of"]:
            step = "space"
            _enter_space(spec["space_of"], spec["hidden"])
        # Not before: to gain rights ends what was asked for earlier.
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != spec["parent"]:
            os._exit(127)
        if spec["terminal"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        step = "directory"
        os.chdir(spec["directory"])
        step = "exec"
        os.execve(spec["program"], spec["argv"], spec["env"])
    except OSError as error:
        os.write(status, f"{step} {error.errno}".encode())
    except ValueError:
        os.write(status, f"{step} 22".encode())
    os._exit(127)


def _enter_space(pid: int, hidden: str | None) -> None:
    """Become root in the namespace in which an ordinary user's engine has made this container, as
    ``oci.rootless.space.enter`` does."""
    own = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    space = fcntl.ioctl(own, _NS_GET_PARENT)
    _check(_libc.setns(space, _CLONE_NEWUSER))
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_SLAVE, None))
    if hidden is not None:
        _check(_libc.mount(b"tmpfs", os.fsencode(hidden), b"tmpfs", _MS_RDONLY, None))


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    main()
