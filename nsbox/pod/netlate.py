"""The files with names for a pod that was made without a network and gets one while it runs.

They are bound into its mount namespace, as they would have been at its birth. Members with a root of
their own that run already keep the files that they have.
"""

import os
import stat

from ..linux import mounts, namespaces, process, syscalls
from ..linux.flags import MountAttr
from . import netnames, rootfs
from .record import PodRecord

_ATTRS = mounts.MNT_BASE_ATTRS | MountAttr.MOUNT_ATTR_RDONLY


def bring(record: PodRecord, pidfd: int) -> list[str]:
    """Mount the files of a running pod in its tree; where. A file that the user mounted there stays.

    Raises:
        NsboxError: its mounts cannot be changed.
    """
    if record.net != "none":
        return []  # it was born with them
    from ..net import apart

    found = apart.run(f"give pod {record.name!r} the names of its network", lambda: _bring(record, pidfd))
    return [str(target) for target in found]


def _bring(record: PodRecord, pidfd: int) -> list[str]:
    """In a child of one thread, which ends afterwards."""
    root_fd = -1
    if record.chroot and record.pause is not None:  # its root is not that of its mount namespace
        root_fd = os.open(f"/proc/{record.pause.pid}/root", os.O_PATH | os.O_DIRECTORY)
    fdinfo_fd = os.open("/proc/self/fdinfo", os.O_RDONLY | os.O_DIRECTORY)  # the pod's /proc shows no process of ours
    directory = netnames.directory_of(record.name)
    trees = {target: _clone(f"{directory}/{file}") for file, target in netnames.TARGETS.items()}
    # In place: what is made in the tree would stay there.
    source = os.stat(record.rootfs).st_dev if record.rootfs else -1
    process.seal_imports()  # from here on they would be looked for in the pod's tree
    namespaces.join(pidfd, frozenset({"mnt"}))
    if root_fd < 0:
        root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY)
    make = bool(record.rootfs) and os.fstat(root_fd).st_dev != source
    places = rootfs.Places(root_fd, make, rootfs.reserved_devices(root_fd))
    return [target for target, tree_fd in trees.items() if _mount(target, tree_fd, places, fdinfo_fd)]


def _clone(path: str) -> int:
    tree_fd = mounts.clone_tree(mounts.open_host_path(path), recursive=False)
    syscalls.mount_setattr(tree_fd, _ATTRS, recursive=False)
    return tree_fd


def _mount(target: str, tree_fd: int, places: rootfs.Places, fdinfo_fd: int) -> bool:
    """Mount over a plain file; False where there is no place for it, or one that is taken."""
    try:
        target = netnames.follow(places.root_fd, target)
        parent_fd = mounts.open_in_root(places.root_fd, target.rpartition("/")[0] or "/", os.O_PATH | os.O_DIRECTORY)
        if mount_id(fdinfo_fd, parent_fd) != mount_id(fdinfo_fd, places.root_fd):
            places = places._replace(make=False)  # nothing of ours in somebody's volume
        place_fd = places.open(target, is_dir=False)
    except OSError:
        return False
    taken = mount_id(fdinfo_fd, place_fd) != mount_id(fdinfo_fd, parent_fd)
    if taken or not stat.S_ISREG(os.fstat(place_fd).st_mode):
        return False
    mounts.attach(tree_fd, place_fd)
    return True


def mount_id(fdinfo_fd: int, fd: int) -> str:
    """The number of the mount that a file lies on. See proc_pid_fdinfo(5)."""
    info_fd = os.open(str(fd), os.O_RDONLY, dir_fd=fdinfo_fd)
    try:
        lines = os.read(info_fd, 4096).decode("ascii", "replace").splitlines()
    finally:
        os.close(info_fd)
    return next(line for line in lines if line.startswith("mnt_id:"))
