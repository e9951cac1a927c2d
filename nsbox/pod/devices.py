"""The /dev of a root: our own tmpfs with the few devices that everything expects."""

import errno
import os
import stat
from typing import NamedTuple

from ..errors import NsboxError
from ..linux import mounts, syscalls
from ..linux.flags import MountAttr
from .places import NOTHING_RUNS, O_PATH_DIR, mount_at, mount_on, step

_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}  # minor numbers, major 1
_TTY = (5, 0)
_DEV_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_GROUP_TTY = "5"  # the group "tty" on every distribution: pty slaves belong to it


_HOST_NODE = (
    MountAttr.MOUNT_ATTR_RDONLY | MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
)


class World(NamedTuple):
    """Which parts of the new root belong to namespaces of this process.

    Attributes:
        fresh_proc: it is in a PID namespace other than the tree's /proc shows.
        fresh_ipc: it is in an IPC namespace other than the tree's /dev/mqueue shows.
        shm_fd: a detached copy of the pod's /dev/shm, or -1 for a new one.
        host_net: it is in the host's network, over which its user namespace may have no right.
        sysctls: settings of the kernel to be written, as in PodSpec.
        masked: parts of /proc and /sys are read-only or covered.
        pid_of_children: the PID namespace is the one that its children are born in, not its own.
    """

    fresh_proc: bool = True
    fresh_ipc: bool = True
    shm_fd: int = -1
    host_net: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()
    masked: bool = True
    pid_of_children: bool = False


def mount_dev(root_fd: int, world: World) -> int:
    """A /dev of our own with the usual few devices; return its descriptor."""
    attrs = MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
    mount_fd = mount_at(root_fd, "/dev", "tmpfs", {"mode": "0755", "size": "64k"}, attrs)
    dev_fd = mounts.directory_of(mount_fd)
    os.close(mount_fd)

    def populate() -> None:
        for name, minor in _DEVICES.items():
            _make_device(dev_fd, name, (1, minor))
        _make_device(dev_fd, "tty", _TTY)
        for name, target in _DEV_LINKS.items():
            os.symlink(target, name, dir_fd=dev_fd)
        for name in ("pts", "shm", "mqueue"):
            os.mkdir(name, 0o755, dir_fd=dev_fd)

    step("make the devices of /dev", populate)
    _mount_devpts(dev_fd)
    _mount_shm(os.open("shm", O_PATH_DIR, dir_fd=dev_fd), world)
    place_fd = os.open("mqueue", O_PATH_DIR, dir_fd=dev_fd)
    os.close(mount_on(place_fd, "/dev/mqueue", "mqueue", {}, NOTHING_RUNS))
    return dev_fd


def open_null(dev_fd: int) -> int:
    """The null device (O_PATH) of a /dev that :func:`mount_dev` made and nobody else has seen."""
    return os.open("null", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev_fd)


def _make_device(dev_fd: int, name: str, number: tuple[int, int]) -> None:
    """A node of our own: the host's would let pod root change the host's permissions of it.

    A user namespace may not make nodes; there the host's is bound, whose owner is not ours.
    """
    try:
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(*number), dir_fd=dev_fd)
        return
    except PermissionError:
        pass
    source_fd = mounts.open_host_path(f"/dev/{name}")
    found = os.fstat(source_fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(*number):
        raise OSError(errno.ENODEV, "not the device of that name", f"/dev/{name}")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o666, dir_fd=dev_fd))
    place_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev_fd)
    node_fd = mounts.clone_tree(source_fd, recursive=False)
    # Read-only keeps the host's owner and mode from a pod root that is the host's; a device can
    # be written to all the same.
    syscalls.mount_setattr(node_fd, _HOST_NODE, recursive=False)
    mounts.attach(node_fd, place_fd)


def _mount_devpts(dev_fd: int) -> None:
    attrs = MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
    options = {"ptmxmode": "0666", "mode": "0620", "gid": _GROUP_TTY}
    place_fd = os.open("pts", O_PATH_DIR, dir_fd=dev_fd)
    try:
        os.close(mount_on(place_fd, "/dev/pts", "devpts", options, attrs))
    except NsboxError as err:
        if not (isinstance(err.__cause__, OSError) and err.__cause__.errno == errno.EINVAL):
            raise
        del options["gid"]  # a user namespace that knows no such group
        os.close(mount_on(place_fd, "/dev/pts", "devpts", options, attrs))


def _mount_shm(place_fd: int, world: World) -> None:
    if world.shm_fd >= 0:  # POSIX shared memory goes with the IPC namespace, as in Kubernetes
        step("attach the pod's /dev/shm", mounts.attach, world.shm_fd, place_fd)
        return
    os.close(mount_on(place_fd, "/dev/shm", "tmpfs", {"mode": "1777", "size": "64m"}, NOTHING_RUNS))
