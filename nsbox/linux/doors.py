"""The system calls that Python's own modules make for nsbox, told to the listener of syscalls.py.

A door stands in a module ("os", "signal", "fcntl") in place of a function while somebody listens,
does what the function does, and tells what system call that was. Nobody listening: there are no
doors, and nothing is imported for them.

A new call of os.something that changes a process, a namespace or a mount needs a row in _ROWS, and
one in explain/catalogue.py; the test that holds both to strace(1) says which is missing.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import syscalls
from .flags import AT_FDCWD

# What is made of a function's arguments: the system call and its arguments; None: nothing to be told.
Said = tuple[str, tuple[object, ...]]
Shown = Callable[..., "Said | None"]
_CLONE_OF_FORK = 0x0120_0011  # CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD: what libc's fork(3) asks for
# Files of the kernel's that are written, and by that do something: told by the name they were opened by.
_TELLING_FILES = ("/uid_map", "/gid_map", "/setgroups", "/timens_offsets")
_TELLING_NAMES = ("hosts", "resolv.conf")  # of a pod, in its directory: mounted into it
_TELLING_TREES = ("/proc/sys/", "/sys/fs/cgroup/")


class Door(NamedTuple):
    """One function that is stood in for.

    Attributes:
        module: where it is looked up.
        name: its name there.
        shown: told its arguments.
        through: makes what stands in, where it has more to do than to tell; given the function.
    """

    module: Any
    name: str
    shown: Shown | None
    through: Callable[[Any], Any] | None = None


_written: dict[int, str] = {}  # descriptors of telling files that are open in this process


def written_file(fd: int) -> str:
    """The telling file behind a descriptor."""
    return _written[fd]


def _write(fd: int, data: bytes, *_rest: Any) -> Said | None:
    return ("write", (fd, data, len(data))) if fd in _written else None


def _pwrite(fd: int, data: bytes, offset: int) -> Said | None:
    return ("pwrite64", (fd, data, len(data), offset)) if fd in _written else None


def _ioctl(fd: int, request: int, argument: object = 0, *_rest: Any) -> Said:
    return "ioctl", (fd, request, argument)


def _fcntl(fd: int, command: int, argument: object = 0) -> Said:
    return "fcntl", (fd, command, argument)


def _at(call: str) -> Shown:
    """A call relative to a directory: it is of a tree that is being made. Others are nsbox's records."""
    def shown(path: Any, *args: Any, dir_fd: int | None = None, **_rest: Any) -> Said | None:
        return None if dir_fd is None else (call, (dir_fd, path, *args))

    return shown


def _mknod(path: Any, mode: int, device: int, *, dir_fd: int | None = None) -> Said:
    return "mknodat", (AT_FDCWD if dir_fd is None else dir_fd, path, mode, device)


def _symlink(target: Any, path: Any, *, dir_fd: int | None = None) -> Said | None:
    return None if dir_fd is None else ("symlinkat", (target, dir_fd, path))


def _rename(old: Any, new: Any, **at: Any) -> Said | None:
    return None if at else ("rename", (old, new))


def _chown(path: Any, uid: int, gid: int, *, dir_fd: int | None = None) -> Said | None:
    return None if dir_fd is None else ("fchownat", (dir_fd, path, uid, gid, 0))


def _created(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> Said | None:
    return None if dir_fd is None else ("openat", (dir_fd, path, flags, mode))


def _plain(call: str, *more: object) -> Shown:
    """The arguments as they are, and `more` of the system call's behind them."""
    return lambda *args: (call, (*args, *more))


_ROWS = (
    Door(os, "fork", lambda: ("clone", (None, _CLONE_OF_FORK))),
    Door(os, "setsid", _plain("setsid")),
    Door(os, "setgroups", lambda groups: ("setgroups", (len(groups), list(groups)))),
    Door(os, "setresuid", _plain("setresuid")),
    Door(os, "setresgid", _plain("setresgid")),
    Door(os, "setreuid", _plain("setreuid")),
    Door(os, "setregid", _plain("setregid")),
    Door(os, "setuid", _plain("setuid")),
    Door(os, "setgid", _plain("setgid")),
    Door(os, "chroot", _plain("chroot")),
    Door(os, "chdir", lambda path: ("fchdir" if isinstance(path, int) else "chdir", (path,))),
    Door(os, "fchdir", _plain("fchdir")),
    Door(os, "mknod", _mknod),
    Door(os, "mkdir", _at("mkdirat")),
    Door(os, "symlink", _symlink),
    Door(os, "chmod", _at("fchmodat")),
    Door(os, "chown", _chown),
    Door(os, "fchmod", _plain("fchmod")),
    Door(os, "rename", _rename),
    Door(os, "execve", lambda path, argv, env: ("execve", (path, argv, env))),
    Door(os, "pidfd_open", lambda pid, flags=0: ("pidfd_open", (pid, flags))),
    Door(os, "kill", _plain("kill")),
    Door(os, "killpg", lambda group, signum: ("kill", (-group, signum))),
    Door(signal, "pidfd_send_signal", lambda pidfd, signum, *_: ("pidfd_send_signal", (pidfd, signum, None, 0))),
    Door(fcntl, "ioctl", _ioctl),
    Door(fcntl, "fcntl", _fcntl),
    Door(os, "write", _write),
    Door(os, "pwrite", _pwrite),
)
_INHERITED = object()  # the module is a class, and has the function of the class above it
_open_doors: list[tuple[Any, str, Any]] = []


def open_doors(more: Iterable[Door] = ()) -> None:
    """Stand in for all of _ROWS, and for `more` of other rooms, until :func:`close_doors`."""
    for door in (*_ROWS, *more):
        real = getattr(door.module, door.name)
        through = door.through(real) if door.through else telling(real, door.shown) if door.shown else real
        _stand_in(door.module, door.name, through)
    _stand_in(os, "open", _remembering(os.open))
    _stand_in(os, "close", _forgetting(os.close))


def close_doors() -> None:
    """Put the functions back."""
    while _open_doors:
        module, name, real = _open_doors.pop()
        for able in _ABILITIES:
            able.discard(getattr(module, name))
        if real is _INHERITED:
            delattr(module, name)
        else:
            setattr(module, name, real)
    _written.clear()


# The library asks these sets what a function can do.
_ABILITIES: tuple[set[Any], ...] = (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks)


def _stand_in(module: Any, name: str, through: Any) -> None:
    real = getattr(module, name)
    for able in _ABILITIES:
        if real in able:
            able.add(through)
    _open_doors.append((module, name, real if name in vars(module) else _INHERITED))
    setattr(module, name, through)


def telling(real: Any, shown: Shown) -> Any:
    """A function that does what `real` does, and tells the listener."""
    def through(*args: Any, **named: Any) -> Any:
        listener = syscalls.listener()
        said = shown(*args, **named) if listener is not None else None
        if listener is None or said is None:
            return real(*args, **named)
        listener.begin(*said)
        try:
            result = real(*args, **named)
        except OSError as err:
            listener.end(*said, -1, err.errno or 0)
            raise
        if real is not _FORK or result:  # in the child of a fork nothing has been called
            listener.end(*said, _result(said[0], result), 0)
        return result

    return through


def _result(call: str, result: object) -> int:
    """What the kernel gave: of some of it Python makes None."""
    if call == "setsid":
        return os.getpid()
    return result if isinstance(result, int) else 0


_FORK = os.fork


def _remembering(real: Any) -> Any:
    making = telling(real, _created)

    def through(path: Any, flags: int, *args: Any, **named: Any) -> int:
        fd: int = (making if flags & os.O_CREAT else real)(path, flags, *args, **named)
        _written.pop(fd, None)
        if flags & (os.O_WRONLY | os.O_RDWR) and isinstance(path, str):
            if _is_telling(path) or path in _TELLING_NAMES and named.get("dir_fd") is not None:
                _written[fd] = path
        return fd

    return through


def _is_telling(path: str) -> bool:
    return path.startswith(_TELLING_TREES) or path.startswith("/proc/") and path.endswith(_TELLING_FILES)


def _forgetting(real: Any) -> Any:
    def through(fd: int) -> None:
        _written.pop(fd, None)
        real(fd)

    return through
