"""The mounts of a pod or a member: what is opened before, and what is built after the fork.

:class:`Sources` are opened in the caller's own mount namespace. :func:`enter` runs in the new
process, in its new mount namespace, and ends with that process inside its root.
"""

import errno
import os
import stat
from typing import NamedTuple

from ..errors import NsboxError
from ..linux import mounts, process, syscalls
from ..linux.flags import MountAttr, MountFlag
from ..spec import RootSpec, Tmpfs, Volume

_NOTHING_RUNS = (
    MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NODEV | MountAttr.MOUNT_ATTR_NOEXEC
)
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
_O_PATH_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Sources(NamedTuple):
    """What a root is made from, open before anything changes. All O_PATH.

    Attributes:
        root_fd: the directory given as rootfs, or -1 for the host's tree.
        volume_fds: one for each volume, in order.
    """

    root_fd: int
    volume_fds: tuple[int, ...]

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
        fd = os.open(path, _O_PATH_DIR)
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


class World(NamedTuple):
    """Which parts of the new root belong to namespaces of this process.

    Attributes:
        fresh_proc: it is in a PID namespace other than the tree's /proc shows.
        fresh_ipc: it is in an IPC namespace other than the tree's /dev/mqueue shows.
        shm_fd: a detached copy of the pod's /dev/shm, or -1 for a new one.
    """

    fresh_proc: bool = True
    fresh_ipc: bool = True
    shm_fd: int = -1


def enter(root: RootSpec, sources: Sources, world: World) -> int:
    """Build the mounts of the calling process and go inside. Returns an fd of /dev/null in there.

    The caller has a new mount namespace of its own. Nothing can be imported afterwards.

    Raises:
        NsboxError: a step failed; the mount namespace dies with the caller.
    """
    # Private before anything else: on a systemd host mounts would travel back out.
    mounts_step("make all mounts private", _make_private)
    old_umask = os.umask(0)
    try:
        if root.path:
            return _enter_rootfs(root, sources, world)
        return _dress_host_tree(root, sources, world)
    finally:
        os.umask(old_umask)


def _make_private() -> None:
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)


def mounts_step(purpose: str, step, *args):  # type: ignore[no-untyped-def]
    """Run one step; an OSError becomes an NsboxError that says what the step was for."""
    try:
        return step(*args)
    except OSError as err:
        raise NsboxError(f"cannot {purpose}") from err


def _enter_rootfs(root: RootSpec, sources: Sources, world: World) -> int:
    purpose = f"use rootfs {root.path!r}"
    root_fd = mounts_step(purpose, _attach_root, root, sources.root_fd)
    _mount_proc(root_fd)
    _mount_sys(root_fd)
    dev_fd = _mount_dev(root_fd, world)
    _mount_volumes(root, sources, root_fd, make_targets=True)
    if root.read_only:
        mounts_step(
            "make the root read-only",
            lambda: syscalls.mount_setattr(root_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=False),
        )
    process.seal_imports()
    if root.chroot:
        mounts_step("change the root", mounts.chroot_into, root_fd)
    else:
        mounts_step("pivot into the root", mounts.pivot_into, root_fd)
    return os.open("null", os.O_RDWR | os.O_CLOEXEC, dir_fd=dev_fd)


def _attach_root(root: RootSpec, known_fd: int) -> int:
    """Attach the root file system over its own directory, seen here alone; return its fd."""
    lower_fd = mounts.reopen_host_path(root.path, known_fd)
    if root.in_place:
        mount_fd = mounts.clone_tree(lower_fd, recursive=True)
        syscalls.mount_setattr(mount_fd, MountAttr.MOUNT_ATTR_NODEV, recursive=True)
        mounts.attach(mount_fd, lower_fd)
        return mount_fd
    # What is written lives in memory and dies with the mount namespace: nothing to clean up.
    scratch_fd = mounts.new_filesystem("tmpfs", {"mode": "0700"}, mounts.MNT_BASE_ATTRS)
    mounts.attach(scratch_fd, lower_fd)
    mount_fd = mounts.overlay(lower_fd, scratch_fd)
    mounts.attach(mount_fd, mounts.directory_of(scratch_fd))
    return mount_fd


def _own_directory(root_fd: int, path: str) -> int:
    """An ordinary directory of the rootfs for us to mount on; made if missing."""
    try:
        try:
            return mounts.open_in_root(root_fd, path, _O_PATH_DIR, symlinks=False)
        except FileNotFoundError:
            return mounts.mkdir_in_root(root_fd, path)
    except OSError as err:
        if err.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NsboxError(
                f"cannot use the rootfs: its {path} must be an ordinary directory"
            ) from None
        raise NsboxError(f"cannot prepare {path} of the rootfs") from err


def _mount_at(root_fd: int, path: str, fstype: str, options: dict[str, str], attrs: MountAttr) -> int:
    place_fd = _own_directory(root_fd, path)
    return _mount_on(place_fd, path, fstype, options, attrs)


def _mount_on(place_fd: int, path: str, fstype: str, options: dict[str, str], attrs: MountAttr) -> int:
    def step() -> int:
        mount_fd = mounts.new_filesystem(fstype, options, attrs)
        mounts.attach(mount_fd, place_fd)
        os.close(place_fd)
        return mount_fd

    fd: int = mounts_step(f"mount {fstype} on {path}", step)
    return fd


def _mount_proc(root_fd: int) -> None:
    try:
        os.close(_mount_at(root_fd, "/proc", "proc", {}, _NOTHING_RUNS))
    except NsboxError as err:
        if isinstance(err.__cause__, PermissionError):
            err.hint = "a /proc that is masked, as inside most containers, forbids a new one"
        raise


def _mount_sys(root_fd: int) -> None:
    attrs = _NOTHING_RUNS | MountAttr.MOUNT_ATTR_RDONLY
    os.close(_mount_at(root_fd, "/sys", "sysfs", {}, attrs))


def _mount_dev(root_fd: int, world: World) -> int:
    """A /dev of our own with the usual few devices; return its descriptor."""
    attrs = MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
    mount_fd = _mount_at(root_fd, "/dev", "tmpfs", {"mode": "0755", "size": "64k"}, attrs)
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

    mounts_step("make the devices of /dev", populate)
    _mount_devpts(dev_fd)
    _mount_shm(os.open("shm", _O_PATH_DIR, dir_fd=dev_fd), world)
    os.close(_mount_on(os.open("mqueue", _O_PATH_DIR, dir_fd=dev_fd), "/dev/mqueue", "mqueue", {}, _NOTHING_RUNS))
    return dev_fd


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
    mounts.attach(mounts.clone_tree(source_fd, recursive=False), place_fd)


def _mount_devpts(dev_fd: int) -> None:
    attrs = MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NOEXEC
    options = {"ptmxmode": "0666", "mode": "0620", "gid": _GROUP_TTY}
    place_fd = os.open("pts", _O_PATH_DIR, dir_fd=dev_fd)
    try:
        os.close(_mount_on(place_fd, "/dev/pts", "devpts", options, attrs))
    except NsboxError as err:
        if not (isinstance(err.__cause__, OSError) and err.__cause__.errno == errno.EINVAL):
            raise
        del options["gid"]  # a user namespace that knows no such group
        os.close(_mount_on(place_fd, "/dev/pts", "devpts", options, attrs))


def _mount_shm(place_fd: int, world: World) -> None:
    if world.shm_fd >= 0:  # POSIX shared memory goes with the IPC namespace, as in Kubernetes
        mounts_step("attach the pod's /dev/shm", mounts.attach, world.shm_fd, place_fd)
        return
    os.close(_mount_on(place_fd, "/dev/shm", "tmpfs", {"mode": "1777", "size": "64m"}, _NOTHING_RUNS))


def _dress_host_tree(root: RootSpec, sources: Sources, world: World) -> int:
    """Keep the tree as it is, but for what shows the namespaces: /proc, /dev/shm, /dev/mqueue."""
    root_fd = os.open("/", _O_PATH_DIR)
    if world.fresh_proc:
        _mount_proc(root_fd)
    for path, fstype, options in (
        ("/dev/shm", "tmpfs", {"mode": "1777"}),
        ("/dev/mqueue", "mqueue", {}),
    ):
        if world.fresh_ipc:
            try:
                place_fd = mounts.open_in_root(root_fd, path, _O_PATH_DIR)
            except OSError:
                continue  # a host without it has nothing to hide
            os.close(_mount_on(place_fd, path, fstype, options, _NOTHING_RUNS))
    _mount_volumes(root, sources, root_fd, make_targets=False)
    process.seal_imports()
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.chdir("/")
    return null_fd


def _mount_volumes(root: RootSpec, sources: Sources, root_fd: int, *, make_targets: bool) -> None:
    for volume, fd in zip(root.volumes, sources.volume_fds, strict=True):
        purpose = f"mount {volume.source!r} on {volume.target!r}"
        mounts_step(purpose, _mount_volume, volume, fd, root_fd, make_targets)
    for tmpfs in root.tmpfs:
        mounts_step(f"mount tmpfs on {tmpfs.target!r}", _mount_tmpfs, tmpfs, root_fd, make_targets)


def _mount_volume(volume: Volume, known_fd: int, root_fd: int, make_target: bool) -> None:
    source_fd = mounts.reopen_host_path(volume.source, known_fd)
    tree_fd = mounts.clone_tree(source_fd, recursive=True)
    attrs = mounts.MNT_BASE_ATTRS
    if volume.read_only:
        attrs |= MountAttr.MOUNT_ATTR_RDONLY
    syscalls.mount_setattr(tree_fd, attrs, recursive=True)
    is_dir = stat.S_ISDIR(os.fstat(source_fd).st_mode)
    mounts.attach(tree_fd, _target(root_fd, volume.target, is_dir, make_target))


def _mount_tmpfs(tmpfs: Tmpfs, root_fd: int, make_target: bool) -> None:
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
    mounts.attach(mount_fd, _target(root_fd, tmpfs.target, True, make_target))


def _target(root_fd: int, path: str, is_dir: bool, make: bool) -> int:
    if not make:  # the tree is the host's own: nothing is made in it
        return mounts.open_in_root(root_fd, path, _O_PATH_DIR if is_dir else os.O_PATH)
    return mounts.mkdir_in_root(root_fd, path) if is_dir else mounts.mkfile_in_root(root_fd, path)
