"""A copy of as much of a pod's tree as a file with names may be made in.

What stands in for a pod has a copy of its mounts, but the files behind them are the pod's own. So its root
is covered by a tree in memory: the directories on the way to these files are there, with what is in them
by name, and the mounts below; nothing else is looked at there.
"""

import os
import stat
from collections.abc import Iterable

from ..linux import mounts
from ..linux.flags import MountAttr
from ..pod import netlate, netnames

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_SIZE = "4m"
_INODES = "16k"  # a pod may have any number of names in a directory


def cover(targets: Iterable[str], fdinfo_fd: int) -> None:
    """Cover the root of the caller, whose mounts are its own, and make the copy its root.

    Args:
        targets: where the files would be.
        fdinfo_fd: /proc/self/fdinfo of a /proc that knows the caller.

    Raises:
        OSError: it cannot be mounted.
    """
    root_fd = os.open("/", _DIR)
    paths = [netnames.follow(root_fd, one) for one in targets]
    ways = {os.path.realpath(os.path.dirname(path)) for path in paths if path}
    mount_fd = mounts.new_filesystem("tmpfs", {"mode": "0755", "size": _SIZE, "nr_inodes": _INODES}, MountAttr(0))
    mounts.attach(mount_fd, root_fd)
    _Mirror(ways, fdinfo_fd).fill("/", root_fd, mounts.directory_of(mount_fd))
    mounts.chroot_into(mount_fd)


class _Mirror:
    def __init__(self, ways: set[str], fdinfo_fd: int) -> None:
        self._ways, self._fdinfo_fd = ways, fdinfo_fd

    def fill(self, path: str, source_fd: int, target_fd: int) -> None:
        """Give the directory of the copy what is in that of the tree."""
        here = netlate.mount_id(self._fdinfo_fd, source_fd)
        for name in os.listdir(source_fd):
            below = f"{path.rstrip('/')}/{name}"
            fd = os.open(name, _PLACE, dir_fd=source_fd)
            try:
                self._copy(below, name, fd, target_fd, netlate.mount_id(self._fdinfo_fd, fd) != here)
            finally:
                os.close(fd)

    def _copy(self, path: str, name: str, fd: int, target_fd: int, is_mount: bool) -> None:
        kind = os.fstat(fd).st_mode
        if stat.S_ISLNK(kind):
            os.symlink(os.readlink("", dir_fd=fd), name, dir_fd=target_fd)
            return
        if stat.S_ISDIR(kind):
            os.mkdir(name, 0o755, dir_fd=target_fd)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=target_fd))
        place_fd = os.open(name, _PLACE, dir_fd=target_fd)
        if is_mount:
            mounts.attach(mounts.clone_tree(fd, recursive=True), place_fd)
        elif any(f"{way}/".startswith(f"{path}/") for way in self._ways):
            self.fill(path, os.open(".", _DIR, dir_fd=fd), os.open(".", _DIR, dir_fd=place_fd))
        os.close(place_fd)
