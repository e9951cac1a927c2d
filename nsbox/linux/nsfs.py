"""What the kernel says of one namespace, asked of an open file of it. See ioctl_nsfs(2).

A file of the kernel's nsfs is a namespace: /proc/PID/ns/KIND, a descriptor, a bind mount. What
is opened here keeps the namespace alive until it is closed.
"""

import errno
import fcntl
import os
import sys
from typing import NamedTuple

from . import syscalls
from .flags import AT_FDCWD
from .namespaces import KINDS

# linux/nsfs.h, and for sockets linux/sockios.h. _IO(0xb7, n) as most machines count.
NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_NSTYPE = 0xB703
NS_GET_OWNER_UID = 0xB704
NS_GET_ID = 0x8008B70D
SIOCGSKNS = 0x894C

KIND_NAMES = frozenset(kind.name for kind in KINDS)
_NAMES = {int(kind.flag): kind.name for kind in KINDS}
_FIRST_INO = 0xEFFF_FFF0  # linux/proc_ns.h: the initial namespaces from about here, all others above


class About(NamedTuple):
    """One namespace, as its own file tells it.

    Attributes:
        id: the inode number, as in "net:[4026531840]".
        kind: a name of the table of kinds.
    """

    id: int
    kind: str


def about(fd: int) -> About:
    """What namespace an open file is.

    Raises:
        OSError: it is no file of a namespace (ENOTTY), or of a kind that we do not know (EINVAL).
    """
    flag = fcntl.ioctl(fd, NS_GET_NSTYPE)
    if flag not in _NAMES:
        raise OSError(errno.EINVAL, f"NS_GET_NSTYPE: a namespace of an unknown kind, {flag:#x}")
    return About(os.fstat(fd).st_ino, _NAMES[flag])


def owner(fd: int) -> int:
    """A descriptor of the user namespace that owns a namespace; of a user namespace its parent.

    Raises:
        PermissionError: it is outside of our own user namespace, or there is none.
    """
    return fcntl.ioctl(fd, NS_GET_USERNS)


def parent(fd: int) -> int:
    """A descriptor of the parent of a pid or user namespace; other kinds have none (EINVAL).

    Raises:
        PermissionError: it is above our own, or there is none.
    """
    return fcntl.ioctl(fd, NS_GET_PARENT)


def owner_uid(fd: int) -> int:
    """Who made a user namespace, as our own user namespace counts; 65534 for somebody it does not know."""
    number = bytearray(4)  # uid_t
    fcntl.ioctl(fd, NS_GET_OWNER_UID, number)
    return int.from_bytes(number, sys.byteorder)


def owner_uid_of(pid: int) -> int:
    """Who made the user namespace of a process, and so has every right over what is in it.

    Raises:
        PermissionError: we have no right over the process. FileNotFoundError: it has ended.
    """
    fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return owner_uid(fd)
    finally:
        os.close(fd)


def serial(fd: int) -> int | None:
    """The number of a namespace that is never given out again; None if the kernel has none for it."""
    number = bytearray(8)
    try:
        fcntl.ioctl(fd, NS_GET_ID, number)
    except OSError:
        return None
    return int.from_bytes(number, sys.byteorder)


def of_socket(pidfd: int, number: int) -> int:
    """A descriptor of the network namespace of a socket that another process has open.

    Args:
        number: of the socket, in that process.

    Raises:
        PermissionError: no right to its descriptors (ptrace(2)), or to its network (CAP_NET_ADMIN).
    """
    socket_fd = syscalls.pidfd_getfd(pidfd, number)
    try:
        return fcntl.ioctl(socket_fd, SIOCGSKNS)
    finally:
        os.close(socket_fd)


def open_link(path: str) -> int:
    """Open one of the links in /proc/PID/ns, each of which leads to a namespace. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def reopen(path: str) -> int:
    """Open a file if it is one of nsfs. It is looked at before: nobody's pipe or device is opened.

    Raises:
        OSError: it cannot be reached, or is another file (ENOTTY).
    """
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return open_handle(handle)
    finally:
        os.close(handle)


def open_handle(handle: int, proc_fd: int = AT_FDCWD) -> int:
    """The same for a file that is open with O_PATH, which alone answers no ioctl.

    Args:
        proc_fd: of /proc, for who has another root by now.
    """
    found = os.fstat(handle)
    proc = "/proc/self" if proc_fd == AT_FDCWD else "self"
    if found.st_ino < _FIRST_INO or found.st_dev != os.stat(f"{proc}/ns/mnt", dir_fd=proc_fd).st_dev:
        raise OSError(errno.ENOTTY, "not a file of a namespace")
    return os.open(f"{proc}/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
