"""Places inside a root to mount on, and one mount there with the reason in its error."""

import errno
import os
from typing import Callable, TypeVar

from ..errors import NsboxError
from ..linux import mounts, syscalls
from ..linux.flags import MountAttr

NOTHING_RUNS = (
    MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NODEV | MountAttr.MOUNT_ATTR_NOEXEC
)
O_PATH_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

T = TypeVar("T")


def step(purpose: str, call: Callable[..., T], *args: object) -> T:
    """Do one call; an OSError becomes an NsboxError that says what it was for."""
    before, syscalls.purpose = syscalls.purpose, purpose
    try:
        return call(*args)
    except OSError as err:
        raise NsboxError(f"cannot {purpose}") from err
    finally:
        syscalls.purpose = before


def own_directory(root_fd: int, path: str) -> int:
    """An ordinary directory of the rootfs for us to mount on; made if missing."""
    try:
        try:
            return mounts.open_in_root(root_fd, path, O_PATH_DIR, symlinks=False)
        except FileNotFoundError:
            return mounts.mkdir_in_root(root_fd, path)
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NsboxError(
                f"cannot use the rootfs: its {path} must be an ordinary directory"
            ) from None
        raise NsboxError(f"cannot prepare {path} of the rootfs") from err


def mount_at(root_fd: int, path: str, fstype: str, options: dict[str, str], attrs: MountAttr) -> int:
    """Mount a new file system on an ordinary directory of the rootfs; return its mount's fd."""
    place_fd = own_directory(root_fd, path)
    return mount_on(place_fd, path, fstype, options, attrs)


def mount_on(place_fd: int, path: str, fstype: str, options: dict[str, str], attrs: MountAttr) -> int:
    """Mount a new file system on an open directory, and close that; return the mount's fd."""

    def attach() -> int:
        mount_fd = mounts.new_filesystem(fstype, options, attrs)
        mounts.attach(mount_fd, place_fd)
        os.close(place_fd)
        return mount_fd

    return step(f"mount {fstype} on {path}", attach)
