"""The kinds of namespaces, which ones a process is in, and joining them.

Owns the one table of kinds. See namespaces(7).
"""

import errno
import os
from typing import Iterable, NamedTuple

from . import syscalls
from .flags import CloneFlag


class NamespaceKind(NamedTuple):
    """One row of namespaces(7).

    Attributes:
        name: the file under /proc/PID/ns.
        flag: its flag for clone3, unshare and setns.
    """

    name: str
    flag: CloneFlag


# The order in which they are joined. "user" first: it gives the right to join the others.
# "mnt" last: after it the paths of the old world are gone. See nsenter(1).
KINDS = (
    NamespaceKind("user", CloneFlag.CLONE_NEWUSER),
    NamespaceKind("cgroup", CloneFlag.CLONE_NEWCGROUP),
    NamespaceKind("ipc", CloneFlag.CLONE_NEWIPC),
    NamespaceKind("uts", CloneFlag.CLONE_NEWUTS),
    NamespaceKind("net", CloneFlag.CLONE_NEWNET),
    NamespaceKind("pid", CloneFlag.CLONE_NEWPID),
    NamespaceKind("time", CloneFlag.CLONE_NEWTIME),
    NamespaceKind("mnt", CloneFlag.CLONE_NEWNS),
)


def flags_of(names: Iterable[str]) -> CloneFlag:
    """The CLONE_NEW* flags of namespace kinds given by name."""
    wanted = frozenset(names)
    flags = CloneFlag(0)
    for kind in KINDS:
        if kind.name in wanted:
            flags |= kind.flag
    return flags


def ids_of(pid: int | str) -> dict[str, int]:
    """Inode numbers of the namespaces that `pid` ("self" too) is in: equal is the same namespace.

    Kinds that the kernel lacks are left out.

    Raises:
        ProcessLookupError: there is no such process, or it is a zombie.
        PermissionError: it belongs to somebody else. See ptrace(2), PTRACE_MODE_READ.
    """
    ids = {}
    for kind in KINDS:
        try:
            ids[kind.name] = os.stat(f"/proc/{pid}/ns/{kind.name}").st_ino
        except FileNotFoundError:
            if kind.name in ("mnt", "uts"):  # every kernel has these: the process has ended
                raise ProcessLookupError(errno.ESRCH, "the process has ended") from None
    return ids


def kinds_that_differ(pid: int) -> frozenset[str]:
    """The kinds in which `pid` is not in the caller's own namespace."""
    theirs, ours = ids_of(pid), ids_of("self")
    return frozenset(name for name, number in theirs.items() if ours.get(name) != number)


def join(pidfd: int, names: frozenset[str]) -> None:
    """Enter the namespaces of the process behind `pidfd`; "pid" and "time" count for children.

    One call, all or nothing, which a recycled PID cannot mix up. The kernel looks at the rights
    that we have now for each of them, and takes the user namespace first: no order of our own
    is needed, as nsenter(1) has one for kernels before 5.8.

    Raises:
        ProcessLookupError: the process has ended.
        PermissionError: the caller has no right to one of them.
    """
    if names:
        syscalls.setns(pidfd, flags_of(names))


def unshare_time(monotonic_s: int, boottime_s: int) -> None:
    """Make a time namespace for the caller's children, with offsets. See time_namespaces(7).

    Here, because they can be set only while nobody is inside.
    """
    syscalls.unshare(CloneFlag.CLONE_NEWTIME)
    fd = os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, f"monotonic {monotonic_s} 0\nboottime {boottime_s} 0\n".encode())
    os.close(fd)
