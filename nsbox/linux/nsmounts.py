"""Bind mounts of namespaces: `ip netns add`, `unshare --net=FILE` and container runtimes make them."""

import json
import os
from typing import TYPE_CHECKING, NoReturn

from . import mounts, nsfs, syscalls
from .flags import AT_FDCWD, CloneFlag
from .mounts import MountEntry

if TYPE_CHECKING:
    from socket import socket

_MARK = b" - nsfs "
_ANSWER_MAX = 1 << 16


def of_process(pid: int) -> list[MountEntry]:
    """Those that a process sees.

    Raises:
        OSError: the process has ended, or is somebody else's.
    """
    with open(f"/proc/{pid}/mountinfo", "rb", buffering=0) as file:
        return _namespaces(file.read())


def _namespaces(mountinfo: bytes) -> list[MountEntry]:
    if _MARK not in mountinfo:  # most tables have none, and hundreds of others
        return []
    entries = map(mounts.parse_mountinfo, (line for line in mountinfo.split(b"\n") if _MARK in line))
    return [entry for entry in entries if entry.fstype == "nsfs" and named(entry)[0] in nsfs.KIND_NAMES]


def named(entry: MountEntry) -> tuple[str, int]:
    """Kind and id of the namespace that is mounted: the root of such a mount is "net:[4026531840]"."""
    kind, _, number = entry.root.partition(":")
    return kind, int(number.strip("[]"))


def open_mount(pid: int, target: str) -> int:
    """A descriptor of the namespace that `pid` sees mounted at `target`.

    Raises:
        OSError: it cannot be reached, or something else is mounted above it (ENOTTY).
    """
    root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _open_below(root_fd, target)
    finally:
        os.close(root_fd)


def _open_below(root_fd: int, target: str, proc_fd: int = AT_FDCWD) -> int:
    handle = mounts.open_in_root(root_fd, target, os.O_PATH, symlinks=False)
    try:
        return nsfs.open_handle(handle, proc_fd)
    finally:
        os.close(handle)


def of_namespace(mnt_fd: int) -> list[tuple[MountEntry, int]]:
    """Those in a mount namespace, and a descriptor of each namespace, or -1 where it cannot be reached.

    A child goes there and looks, since only who is in a mount namespace sees its mounts.

    Raises:
        OSError: we have no right to go there.
    """
    import socket  # mount namespaces without a process are rare

    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here:
        with there:
            pid = os.fork()
            if pid == 0:
                _tell(mnt_fd, there)
        try:
            found: list[tuple[MountEntry, int]] = []
            while True:
                said, fds, _, _ = socket.recv_fds(here, _ANSWER_MAX, 1)
                if not said:
                    return found
                answer = json.loads(said)
                if isinstance(answer, int):
                    raise OSError(answer, os.strerror(answer))
                found.append((MountEntry(*answer), fds[0] if fds else -1))
        finally:
            os.waitpid(pid, 0)


def _tell(mnt_fd: int, to: "socket") -> NoReturn:
    """In the child: go there, send a message a mount, and end."""
    from socket import send_fds

    try:
        proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # there may be none in there
        syscalls.setns(mnt_fd, CloneFlag.CLONE_NEWNS)
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        table_fd = os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc_fd)
        with open(table_fd, "rb") as file:
            entries = _namespaces(file.read())
        for entry in entries:
            try:
                fds = [_open_below(root_fd, entry.target, proc_fd)]
            except OSError:
                fds = []
            send_fds(to, [json.dumps(entry).encode()], fds)
    except OSError as err:
        to.send(json.dumps(err.errno).encode())
    finally:
        os._exit(0)
