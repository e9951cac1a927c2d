"""What of /proc and /sys a pod may not write to, and what it may not even see.

Files in there belong to the host's root and ask for no capability, so a pod whose root is that
user could write to the kernel's settings: /proc/sys/kernel/core_pattern names a program that the
kernel starts on the host. The paths are those of the OCI runtimes. Not among them is
thermal_throttle of each CPU, which would be one more mount for each.

Every place is opened below the descriptor of a file system that the caller mounted itself, and
nothing on the way may be a link or another mount: no root file system can be in between.
"""

import errno
import os
import stat
from collections.abc import Iterable

from ..linux import mounts, syscalls
from ..linux.flags import MountAttr, Resolve

READ_ONLY_IN_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
MASKED_IN_PROC = (
    "acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi",
    "timer_list", "timer_stats",
)  # fmt: skip
MASKED_IN_SYS = ("firmware", "devices/virtual/powercap")

NULL = (1, 3)  # the numbers of /dev/null

_READ_ONLY = MountAttr.MOUNT_ATTR_RDONLY | MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
_NO_WAY_OUT = Resolve.RESOLVE_BENEATH | Resolve.RESOLVE_NO_XDEV | Resolve.RESOLVE_NO_SYMLINKS


def guard(proc_fd: int, sys_fd: int, null_fd: int) -> None:
    """Close what is to be closed in a /proc and in a /sys that is read-only already.

    Args:
        proc_fd: the mount of a /proc made just now; -1 if that is not ours to change.
        sys_fd: the mount of /sys, or -1 where there is none.
        null_fd: /dev/null (O_PATH), from where nobody else could put something in its place.
    """
    covers = Covers(null_fd)
    if proc_fd >= 0:
        make_read_only(proc_fd, READ_ONLY_IN_PROC)
        covers.mask(proc_fd, MASKED_IN_PROC)
    if sys_fd >= 0:
        covers.mask(sys_fd, MASKED_IN_SYS)


def close_sys(root_fd: int) -> int:
    """Make the /sys of the host's tree, and all that is mounted below it, read-only here.

    Returns its mount, or -1 if it has none.
    """
    try:
        sys_fd = mounts.open_in_root(root_fd, "/sys", os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1
    if os.fstat(sys_fd).st_dev == os.fstat(root_fd).st_dev:
        return -1  # a directory, with nothing of the kernel in it
    syscalls.mount_setattr(sys_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=True)
    return sys_fd


class Covers:
    """What is put over a place: the null device over a file, one empty directory over all others."""

    def __init__(self, null_fd: int) -> None:
        """Check that `null_fd` (O_PATH) is the null device.

        Raises:
            OSError: ENODEV, it is something else.
        """
        found = os.fstat(null_fd)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(*NULL):
            raise OSError(errno.ENODEV, "not the null device", "/dev/null")
        self._null_fd, self._empty_fd = null_fd, -1

    def mask(self, root_fd: int, names: Iterable[str]) -> None:
        """Cover those of `names` that there are below the mount `root_fd`, if nothing covers them yet."""
        for name in names:
            place_fd = _open_place(root_fd, name)
            if place_fd >= 0:
                cover_fd = self._directory() if stat.S_ISDIR(os.fstat(place_fd).st_mode) else self._null()
                mounts.attach(cover_fd, place_fd)
                os.close(place_fd)
                if cover_fd != self._empty_fd:
                    os.close(cover_fd)

    def _null(self) -> int:
        # Read-only keeps pod root from changing the device's mode; it can be written to all the
        # same. Not without devices: a masked file shall be empty, not an error.
        cover_fd = mounts.clone_tree(self._null_fd, recursive=False)
        syscalls.mount_setattr(cover_fd, _READ_ONLY, recursive=False)
        return cover_fd

    def _directory(self) -> int:
        if self._empty_fd >= 0:  # attached by now, as it must be to be copied before Linux 6.15
            return mounts.clone_tree(self._empty_fd, recursive=False)
        attrs = _READ_ONLY | MountAttr.MOUNT_ATTR_NODEV
        self._empty_fd = mounts.new_filesystem("tmpfs", {"mode": "0555", "size": "4k"}, attrs)
        return self._empty_fd


def make_read_only(root_fd: int, names: Iterable[str]) -> None:
    """Bind those of `names` that there are below the mount `root_fd` over themselves, read-only."""
    for name in names:
        place_fd = _open_place(root_fd, name)
        if place_fd >= 0:
            tree_fd = mounts.clone_tree(place_fd, recursive=False)
            syscalls.mount_setattr(tree_fd, _READ_ONLY | MountAttr.MOUNT_ATTR_NODEV, recursive=False)
            mounts.attach(tree_fd, place_fd)
            os.close(place_fd)
            os.close(tree_fd)


def _open_place(root_fd: int, name: str) -> int:
    """A descriptor of a place to cover, or -1 if it is missing or something is mounted on it."""
    try:
        return syscalls.openat2(root_fd, name, os.O_PATH, _NO_WAY_OUT)
    except OSError as err:
        if err.errno in (errno.ENOENT, errno.EXDEV):
            return -1
        raise
