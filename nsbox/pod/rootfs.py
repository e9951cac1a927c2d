"""The mounts of a pod or a member: what is opened before, and what is built after the fork.

:class:`Sources` are opened in the caller's own mount namespace. :func:`enter` runs in the new
process, in its new mount namespace, and ends with that process inside its root.
"""

import errno
import os
import stat
from typing import NamedTuple

from ..errors import NsboxError
from ..linux import mounts, process, spawn, syscalls
from ..linux.flags import MountAttr, MountFlag
from ..privilege import masks
from ..spec import RootSpec, Tmpfs, Volume
from . import devices
from .places import NOTHING_RUNS, O_PATH_DIR, mount_at, mount_on, own_directory, step

_OPEN_TO_ALL = "/tmp"  # on every machine


class Sources(NamedTuple):
    """What a root is made from, open before anything changes. All O_PATH.

    Attributes:
        root_fd: the directory given as rootfs, or -1 for the host's tree.
        volume_fds: one for each volume, in order.
        idmapped: they are detached copies of the mounts, with the ids of the pod; see users.py.
    """

    root_fd: int
    volume_fds: tuple[int, ...]
    idmapped: bool = False

    def close(self) -> None:
        """Let go of all of them."""
        for fd in (self.root_fd, *self.volume_fds):
            if fd >= 0:
                os.close(fd)


def open_sources(root: RootSpec) -> Sources:
    """Open and check what `root` names.

    Raises:
        NsboxError: a path does not exist, the rootfs is no directory or is "/".
    """
    root_fd = _open_rootfs(root.path) if root.path else -1
    volume_fds = []
    try:
        for volume in root.volumes:
            volume_fds.append(mounts.open_host_path(volume.source))
    except OSError as err:
        Sources(root_fd, tuple(volume_fds)).close()
        raise NsboxError(f"cannot use volume {volume.source!r}") from err
    return Sources(root_fd, tuple(volume_fds))


def _open_rootfs(path: str) -> int:
    try:
        fd = os.open(path, O_PATH_DIR)
    except OSError as err:
        raise NsboxError(f"cannot use rootfs {path!r}") from OSError(err.errno, f"open: {err.strerror}")
    here, top = os.fstat(fd), os.stat("/")
    if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
        os.close(fd)
        raise NsboxError(
            f"cannot use rootfs {path!r}: it is the host's own root",
            hint="leave --rootfs out: then the pod sees the host's tree",
        )
    return fd


def enter(root: RootSpec, sources: Sources, world: devices.World) -> int:
    """Build the mounts of the calling process and go inside. Returns an fd of /dev/null in there.

    The caller has a new mount namespace of its own. Nothing can be imported afterwards.

    Raises:
        NsboxError: a step failed; the mount namespace dies with the caller.
    """
    # Private before anything else: on a systemd host mounts would travel back out.
    step("make all mounts private", _make_private)
    old_umask = os.umask(0)
    try:
        if root.path:
            return _enter_rootfs(root, sources, world)
        return _dress_host_tree(root, sources, world)
    finally:
        os.umask(old_umask)


def _make_private() -> None:
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)


def _enter_rootfs(root: RootSpec, sources: Sources, world: devices.World) -> int:
    purpose = f"use rootfs {root.path!r}"
    root_fd = step(purpose, _attach_root, root, sources)
    proc_fd = _mount_proc(root_fd, world)
    sys_fd = _mount_sys(root_fd, world)
    dev_fd = devices.mount_dev(root_fd, world)
    _mount_volumes(root, sources, root_fd, make_targets=True)
    if world.masked:
        step("mask parts of /proc and /sys", masks.guard, proc_fd, sys_fd, devices.open_null(dev_fd))
    if root.read_only:
        step(
            "make the root read-only",
            lambda: syscalls.mount_setattr(root_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=False),
        )
    process.seal_imports()
    if root.chroot:
        step("change the root", mounts.chroot_into, root_fd)
    else:
        step("pivot into the root", mounts.pivot_into, root_fd)
    return os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=dev_fd)


def _attach_root(root: RootSpec, sources: Sources) -> int:
    """Attach the root file system over its own directory, seen here alone; return its fd.

    With the ids of a pod it goes elsewhere, for the way to its directory may be closed to them. Not
    over "/": what is stacked there would stay when the old root is taken off.
    """
    if sources.idmapped:
        lower_fd, place_fd = sources.root_fd, os.open(_OPEN_TO_ALL, O_PATH_DIR)
    else:
        lower_fd = place_fd = mounts.reopen_host_path(root.path, sources.root_fd)
    if root.in_place:
        mount_fd = lower_fd if sources.idmapped else mounts.clone_tree(lower_fd, recursive=True)
        attrs = MountAttr.MOUNT_ATTR_NODEV
        if root.read_only:  # what is mounted in the tree too, and before ours come on top
            attrs |= MountAttr.MOUNT_ATTR_RDONLY
        syscalls.mount_setattr(mount_fd, attrs, recursive=True)
        mounts.attach(mount_fd, place_fd)
        return mount_fd
    if sources.idmapped:
        mounts.attach(lower_fd, place_fd)
    # What is written lives in memory and dies with the mount namespace: nothing to clean up.
    scratch_fd = mounts.new_filesystem("tmpfs", {"mode": "0700"}, mounts.MNT_BASE_ATTRS)
    mounts.attach(scratch_fd, lower_fd)
    mount_fd = mounts.overlay(lower_fd, scratch_fd)
    mounts.attach(mount_fd, mounts.directory_of(scratch_fd))
    return mount_fd


def _mount_proc(root_fd: int, world: devices.World) -> int:
    try:
        if world.pid_of_children:
            proc_fd = step("mount proc on /proc", _mount_proc_of_children, own_directory(root_fd, "/proc"))
        else:
            proc_fd = mount_at(root_fd, "/proc", "proc", {}, NOTHING_RUNS)
    except NsboxError as err:
        if isinstance(err.__cause__, PermissionError):
            err.hint = "a /proc that is masked, as inside most containers, forbids a new one"
        raise
    if world.sysctls:
        from . import settings  # of few pods; loaded before the fork, by who checked them

        settings.write(proc_fd, world.sysctls)
    return proc_fd


def _mount_proc_of_children(place_fd: int) -> int:
    """A /proc of the PID namespace that our children are born in: an option since Linux 6.17.

    Before, a child has to make it, which is in there for a moment, hidden as we are.
    """
    options = {"pidns": "/proc/self/ns/pid_for_children"}
    try:
        mount_fd = mounts.new_filesystem("proc", options, NOTHING_RUNS)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        mount_fd = spawn.opened_by_child(lambda: mounts.new_filesystem("proc", {}, NOTHING_RUNS))
    mounts.attach(mount_fd, place_fd)
    os.close(place_fd)
    return mount_fd


def _mount_sys(root_fd: int, world: devices.World) -> int:
    attrs = NOTHING_RUNS | MountAttr.MOUNT_ATTR_RDONLY
    try:
        return mount_at(root_fd, "/sys", "sysfs", {}, attrs)
    except NsboxError as err:
        if not (world.host_net and isinstance(err.__cause__, PermissionError)):
            raise
        # A new one needs the right over the network that it shows. This one shows the same.
        return step("bind the host's /sys", _bind_sys, root_fd, attrs)


def _bind_sys(root_fd: int, attrs: MountAttr) -> int:
    tree_fd = mounts.clone_tree(mounts.open_host_path("/sys"), recursive=True)
    syscalls.mount_setattr(tree_fd, attrs, recursive=True)
    mounts.attach(tree_fd, own_directory(root_fd, "/sys"))
    return tree_fd


def _dress_host_tree(root: RootSpec, sources: Sources, world: devices.World) -> int:
    """Keep the tree as it is, but for what shows the namespaces: /proc, /dev/shm, /dev/mqueue."""
    root_fd = os.open("/", O_PATH_DIR)
    proc_fd = _mount_proc(root_fd, world) if world.fresh_proc else -1
    for path, fstype, options in (
        ("/dev/shm", "tmpfs", {"mode": "1777"}),
        ("/dev/mqueue", "mqueue", {}),
    ):
        if world.fresh_ipc:
            try:
                place_fd = mounts.open_in_root(root_fd, path, O_PATH_DIR)
            except OSError:
                continue  # a host without it has nothing to hide
            os.close(mount_on(place_fd, path, fstype, options, NOTHING_RUNS))
    _mount_volumes(root, sources, root_fd, make_targets=False)
    if world.masked:
        sys_fd = step("make /sys read-only", masks.close_sys, root_fd)
        null_fd = step("use /dev/null", mounts.open_in_root, root_fd, "/dev/null", os.O_PATH)
        step("mask parts of /proc and /sys", masks.guard, proc_fd, sys_fd, null_fd)
    process.seal_imports()
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.chdir("/")
    return null_fd


def _mount_volumes(root: RootSpec, sources: Sources, root_fd: int, *, make_targets: bool) -> None:
    wanted: list[tuple[Volume | Tmpfs, int]] = [(tmpfs, -1) for tmpfs in root.tmpfs]
    # All sources before the first mount: that one may hide the next one's source.
    for volume, fd in zip(root.volumes, sources.volume_fds, strict=True):
        wanted.append((volume, step(_purpose(volume), _clone_source, volume, fd, sources.idmapped)))
    if not wanted:
        return
    places = Places(root_fd, make_targets, reserved_devices(root_fd))
    for what, fd in sorted(wanted, key=_depth):  # a parent first, or it would hide its child
        if isinstance(what, Volume):
            step(_purpose(what), _mount_volume, what, fd, places)
        else:
            step(f"mount tmpfs on {what.target!r}", _mount_tmpfs, what, places)


def _depth(item: tuple[Volume | Tmpfs, int]) -> int:
    return item[0].target.count("/")


class Places(NamedTuple):
    """Where volumes may go.

    Attributes:
        make: a target that is missing is made; not so in the host's own tree.
        reserved: the devices (st_dev) of /proc, /sys and /dev, on which nothing is mounted.
    """

    root_fd: int
    make: bool
    reserved: frozenset[int]

    def open(self, path: str, is_dir: bool) -> int:
        """A descriptor of the place for a volume. A link of the rootfs may not lead it astray."""
        if not self.make:
            fd = mounts.open_in_root(self.root_fd, path, O_PATH_DIR if is_dir else os.O_PATH)
        elif is_dir:
            fd = mounts.mkdir_in_root(self.root_fd, path)
        else:
            fd = mounts.mkfile_in_root(self.root_fd, path)
        if os.fstat(fd).st_dev in self.reserved:
            os.close(fd)
            reason = "nothing may be mounted in /proc, /sys or /dev, where a link leads to"
            raise OSError(errno.EPERM, reason, path)
        return fd


def reserved_devices(root_fd: int) -> frozenset[int]:
    """The devices (st_dev) of /proc, /sys and /dev below a root."""
    found = set()
    for path in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/mqueue"):
        try:
            fd = mounts.open_in_root(root_fd, path, os.O_PATH)
        except OSError:
            continue  # the host's tree need not have them all
        found.add(os.fstat(fd).st_dev)
        os.close(fd)
    return frozenset(found - {os.fstat(root_fd).st_dev})


def _purpose(volume: Volume) -> str:
    return f"mount {volume.source!r} on {volume.target!r}"


def _clone_source(volume: Volume, known_fd: int, is_clone: bool) -> int:
    """A copy of the mount at the source, attached nowhere, with the attributes of a volume."""
    tree_fd = known_fd
    if not is_clone:
        tree_fd = mounts.clone_tree(mounts.reopen_host_path(volume.source, known_fd), recursive=True)
    attrs = mounts.MNT_BASE_ATTRS
    if volume.read_only:
        attrs |= MountAttr.MOUNT_ATTR_RDONLY
    syscalls.mount_setattr(tree_fd, attrs, recursive=True)
    return tree_fd


def _mount_volume(volume: Volume, tree_fd: int, places: Places) -> None:
    is_dir = stat.S_ISDIR(os.fstat(tree_fd).st_mode)
    mounts.attach(tree_fd, places.open(volume.target, is_dir))


def _mount_tmpfs(tmpfs: Tmpfs, places: Places) -> None:
    options = {"mode": f"{tmpfs.mode:o}"}
    if tmpfs.size_bytes is not None:
        options["size"] = str(tmpfs.size_bytes)
    attrs = MountAttr(0)
    for wanted, attr in (
        (tmpfs.nosuid, MountAttr.MOUNT_ATTR_NOSUID),
        (tmpfs.nodev, MountAttr.MOUNT_ATTR_NODEV),
        (tmpfs.noexec, MountAttr.MOUNT_ATTR_NOEXEC),
    ):
        attrs |= attr if wanted else MountAttr(0)
    mount_fd = mounts.new_filesystem("tmpfs", options, attrs)
    if tmpfs.read_only:
        syscalls.mount_setattr(mount_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=False)
    mounts.attach(mount_fd, places.open(tmpfs.target, is_dir=True))
