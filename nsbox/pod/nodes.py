"""Which device nodes a process finds in its /dev, and on which of its mounts a node works at all.

The /dev may be made by somebody hostile: nothing in it is opened but directories, no link is followed, and
nothing is asked of a file system that a program or another machine answers for: that could take for ever.
"""

import errno
import os
import stat
from collections.abc import Iterator
from typing import Any

from ..linux import mounts, syscalls
from ..linux.flags import Resolve
from ..linux.mounts import MountEntry
from ..linux.mounttree import holding, passed

MOST_ENTRIES = 4096
_DEEPEST = 8
_ANSWERED_FOR = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "afs", "coda", "autofs")
_WITHOUT_NODES = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")
_HERE = Resolve.RESOLVE_BENEATH | Resolve.RESOLVE_NO_XDEV | Resolve.RESOLVE_NO_SYMLINKS


def mounts_with_devices(shown: dict[str, MountEntry]) -> list[str]:
    """The mounts on which a device node works.

    Args:
        shown: the visible mounts of a process, by target.
    """
    return sorted(
        target for target, one in shown.items()
        if "nodev" not in one.options.split(",") and one.fstype not in _WITHOUT_NODES
    )  # fmt: skip


def of_root(root_fd: int, shown: dict[str, MountEntry]) -> tuple[list[dict[str, Any]], str]:
    """The device nodes below /dev, by path, and why these may not be all, or "".

    Args:
        root_fd: the process's root (O_PATH).
        shown: its visible mounts, by target.
    """
    found: dict[str, dict[str, Any]] = {}
    if answered := _answered_for("/dev", shown):
        return [], f"{answered.target} is of type {answered.fstype}"
    try:
        os.close(mounts.open_in_root(root_fd, "/dev", os.O_PATH, symlinks=False))
    except OSError as err:
        return [], "" if err.errno == errno.ENOENT else f"/dev: {os.strerror(err.errno or 0)}"
    left, problem = [MOST_ENTRIES], ""
    for start in ["/dev", *sorted(target for target in shown if target.startswith("/dev/"))]:
        one = holding(start, shown)
        if answered := _answered_for(start, shown):  # to what is mounted below, the way leads through it
            problem = f"{answered.target} is of type {answered.fstype}"
        elif not one or start == "/dev" or "nodev" not in one.options.split(","):
            for path, node in _at(root_fd, start, left):
                found[path] = _row(path, node)
    if not left[0]:
        problem = f"there are more than {MOST_ENTRIES} entries"
    return [found[path] for path in sorted(found)], problem


def _answered_for(path: str, shown: dict[str, MountEntry]) -> MountEntry | None:
    return next((one for one in passed(path, shown) if one.fstype.startswith(_ANSWERED_FOR)), None)


def _row(path: str, node: os.stat_result) -> dict[str, Any]:
    return {
        "path": path,
        "type": "block" if stat.S_ISBLK(node.st_mode) else "char",
        "major": os.major(node.st_rdev),
        "minor": os.minor(node.st_rdev),
    }


def _at(root_fd: int, path: str, left: list[int]) -> Iterator[tuple[str, os.stat_result]]:
    """The nodes at a place where something is mounted, or in it."""
    try:
        fd = mounts.open_in_root(root_fd, path, os.O_PATH, symlinks=False)
    except OSError:
        return
    try:
        node = os.fstat(fd)
        if _is_node(node):
            yield path, node
        elif stat.S_ISDIR(node.st_mode):
            yield from _below(fd, path, left, _DEEPEST)
    finally:
        os.close(fd)


def _below(dir_fd: int, path: str, left: list[int], depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """The nodes of a directory and of those in it, as far as they are of one mount."""
    try:
        list_fd = syscalls.openat2(dir_fd, ".", os.O_RDONLY | os.O_DIRECTORY, Resolve.RESOLVE_NO_SYMLINKS)
    except OSError:
        return
    try:
        with os.scandir(list_fd) as entries:
            for entry in entries:
                left[0] -= left[0] > 0
                if not left[0]:
                    return
                yield from _entry(list_fd, entry.name, f"{path}/{entry.name}", left, depth)
    finally:
        os.close(list_fd)


def _entry(dir_fd: int, name: str, path: str, left: list[int], depth: int) -> Iterator[tuple[str, os.stat_result]]:
    try:
        fd = syscalls.openat2(dir_fd, name, os.O_PATH | os.O_NOFOLLOW, _HERE)
    except OSError:  # another mount, a link, or gone
        return
    try:
        node = os.fstat(fd)
        if _is_node(node):
            yield path, node
        elif stat.S_ISDIR(node.st_mode) and depth:
            yield from _below(fd, path, left, depth - 1)
    finally:
        os.close(fd)


def _is_node(node: os.stat_result) -> bool:
    return stat.S_ISCHR(node.st_mode) or stat.S_ISBLK(node.st_mode)
