"""Mounts by file descriptor, and the only functions that may touch a root file system.

Law: nothing below a root file system is named by a path string of ours alone: a path can be
swapped between check and use. Every step starts at an open descriptor and walks by
openat2(2), so that no symlink leads out. See mount_namespaces(7), openat2(2).
"""

import errno
import os
import stat
from typing import Mapping, NamedTuple

from . import syscalls, trouble
from .flags import MountAttr, MountFlag, OpenTreeFlag, Resolve

# A symlink is followed, but never out of the root; the links of /proc/PID never.
IN_ROOT = Resolve.RESOLVE_IN_ROOT | Resolve.RESOLVE_NO_MAGICLINKS
NO_SYMLINKS = IN_ROOT | Resolve.RESOLVE_NO_SYMLINKS

MNT_BASE_ATTRS = MountAttr.MOUNT_ATTR_NOSUID | MountAttr.MOUNT_ATTR_NODEV
_FIRST_USER_NAMESPACE = 0xEFFF_FFFD  # PROC_USER_INIT_INO, linux/proc_ns.h
_O_PATH_DIR = os.O_PATH | os.O_DIRECTORY


class MountEntry(NamedTuple):
    """One line of proc_pid_mountinfo(5), unescaped.

    Attributes:
        root: the directory of the file system that is the mount's root.
        target: where it is mounted, seen from the process's root.
        options: of this mount, as "ro,nosuid".
        fstype: the file system's type.
        source: what was mounted, as the file system says it.
        optional: how mounts travel from and to it, as "shared:1 master:2"; "" for private.
        device: of its files, as "254:0".
        super_options: of the file system, whatever the mount says, as "rw,size=64k".
    """

    mount_id: int
    parent_id: int
    root: str
    target: str
    options: str
    fstype: str
    source: str
    optional: str = ""
    device: str = ""
    super_options: str = ""

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written through it."""
        return "ro" in self.options.split(",") or "ro" in self.super_options.split(",")


def read_mountinfo(pid: int | str = "self") -> list[MountEntry]:
    """The mounts that a process sees, in the kernel's order. See proc_pid_mountinfo(5)."""
    with open(f"/proc/{pid}/mountinfo", "rb") as file:
        lines = file.read().split(b"\n")  # a path may hold any other end of a line
    return [parse_mountinfo(line) for line in lines if line]


def parse_mountinfo(line: bytes) -> MountEntry:
    """One line of the file."""
    before, _, after = line.partition(b" - ")  # optional fields end at the lone hyphen
    fields, tail = before.split(b" "), after.split(b" ")
    root, target, options = (_unescape(field) for field in fields[3:6])
    return MountEntry(
        int(fields[0]), int(fields[1]), root, target, options, _unescape(tail[0]), _unescape(tail[1]),
        " ".join(map(os.fsdecode, fields[6:])), os.fsdecode(fields[2]),
        _unescape(tail[2]) if len(tail) > 2 else "",
    )  # fmt: skip


def _unescape(field: bytes) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    parts = field.split(b"\\")
    return os.fsdecode(parts[0] + b"".join(bytes([int(p[:3], 8)]) + p[3:] for p in parts[1:]))


def open_in_root(root_fd: int, path: str, flags: int, *, symlinks: bool = True) -> int:
    """Open `path` as if `root_fd` were "/". With symlinks=False none is followed at all.

    Raises:
        OSError: among others ELOOP, a symlink where none is allowed.
    """
    try:
        return syscalls.openat2(root_fd, path, flags, IN_ROOT if symlinks else NO_SYMLINKS)
    except OSError as err:
        raise _with_name(err, path) from None


def mkdir_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Open the directory `path` below `root_fd`, made with its parents where missing.

    One component at a time, each under the verified descriptor of the one before, so that
    no directory is ever made outside the root.
    """
    current, walked = os.dup(root_fd), ""
    for part in (part for part in path.split("/") if part):
        walked += "/" + part
        try:
            following = open_in_root(root_fd, walked, _O_PATH_DIR)
        except FileNotFoundError:
            try:
                os.mkdir(part, mode, dir_fd=current)
                following = syscalls.openat2(current, part, _O_PATH_DIR, NO_SYMLINKS)
            except OSError as err:
                raise _with_name(err, walked) from None
            finally:
                os.close(current)
        else:
            os.close(current)
        current = following
    return current


def mkfile_in_root(root_fd: int, path: str) -> int:
    """Open the file `path` below `root_fd` as a place to mount on; an empty one is made if missing."""
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        parent_fd = mkdir_in_root(root_fd, parent)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o644, dir_fd=parent_fd))
            return syscalls.openat2(parent_fd, name, os.O_PATH, NO_SYMLINKS)
        except OSError as err:
            raise _with_name(err, path) from None
        finally:
            os.close(parent_fd)


def read_in_root(root_fd: int, path: str, max_bytes: int) -> bytes:
    """A small file below `root_fd`, which may be anything: it neither hangs nor opens a device.

    Raises:
        OSError: there is none (ENOENT), it is a link (ELOOP), no plain file (EINVAL), or has more
            than `max_bytes` (EFBIG).
    """
    # Looked at before it is opened, because to open a device may do something, and again afterwards.
    os.close(_plain_file(root_fd, path, os.O_PATH | os.O_NOFOLLOW, max_bytes))
    fd = _plain_file(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY, max_bytes)
    try:
        parts, left = [], max_bytes + 1  # a file of /proc says that its size is 0
        while left > 0 and (part := os.read(fd, min(left, 65536))):
            parts.append(part)
            left -= len(part)
    except OSError as err:
        raise _with_name(err, path) from None
    finally:
        os.close(fd)
    if left <= 0:
        raise _too_big(path, max_bytes)
    return b"".join(parts)


def _plain_file(root_fd: int, path: str, flags: int, max_bytes: int) -> int:
    fd = open_in_root(root_fd, path, flags)
    about = os.fstat(fd)
    if stat.S_ISREG(about.st_mode) and about.st_size <= max_bytes:
        return fd
    os.close(fd)
    if stat.S_ISREG(about.st_mode):
        raise _too_big(path, max_bytes)
    if stat.S_ISLNK(about.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link", path)
    raise OSError(errno.EINVAL, "it is no plain file", path)


def _too_big(path: str, max_bytes: int) -> OSError:
    return OSError(errno.EFBIG, f"it has more than {max_bytes} bytes", path)


def open_host_path(path: str) -> int:
    """An O_PATH descriptor of a path of the host, symlinks followed. The path is trusted."""
    return os.open(path, os.O_PATH | os.O_CLOEXEC)


def reopen_host_path(path: str, known_fd: int) -> int:
    """Open a host path again in the present mount namespace and check that it is the same file.

    A mount can be cloned only in the namespace it belongs to, and `known_fd` belongs to the
    one we came from.

    Raises:
        OSError: ESTALE, something else is there now.
    """
    fd = open_host_path(path)
    now, known = os.fstat(fd), os.fstat(known_fd)
    if (now.st_dev, now.st_ino) != (known.st_dev, known.st_ino):
        os.close(fd)
        raise OSError(errno.ESTALE, "something else is there now", path)
    return fd


def new_filesystem(fstype: str, options: Mapping[str, str], attributes: MountAttr) -> int:
    """A detached mount of a new file system, for :func:`attach`. See fsopen(2), fsmount(2).

    Args:
        options: those without a value have "".
    """
    fs_fd = syscalls.fsopen(fstype)
    try:
        for key, value in options.items():
            if value:
                syscalls.fsconfig_string(fs_fd, key, value)
            else:
                syscalls.fsconfig_flag(fs_fd, key)
        syscalls.fsconfig_create(fs_fd)
        return syscalls.fsmount(fs_fd, attributes)
    except OSError as err:
        trouble.remember(err, fstype)
        raise
    finally:
        os.close(fs_fd)


def clone_tree(fd: int, *, recursive: bool) -> int:
    """A detached copy of the mount at `fd`, what a bind mount attaches. See open_tree(2)."""
    flags = OpenTreeFlag.OPEN_TREE_CLONE | OpenTreeFlag.AT_EMPTY_PATH
    return syscalls.open_tree(fd, "", flags | (OpenTreeFlag.AT_RECURSIVE if recursive else 0))


def clone_apart(fd: int, *, recursive: bool, userns_fd: int = -1) -> int:
    """The same for another mount namespace: what is mounted on it there does not travel back.

    Args:
        userns_fd: the owners of the files are those inside this user namespace, its root for 0.

    Raises:
        OSError: among others EINVAL, a file system that cannot be idmapped.
    """
    tree_fd = clone_tree(fd, recursive=recursive)
    attributes = MountAttr.MOUNT_ATTR_IDMAP if userns_fd >= 0 else MountAttr(0)
    try:
        syscalls.mount_setattr(
            tree_fd, attributes, recursive=recursive, propagation=MountFlag.MS_PRIVATE, userns_fd=max(userns_fd, 0)
        )
    except BaseException:
        os.close(tree_fd)
        raise
    return tree_fd


def filesystem_of(fd: int) -> str:
    """The type of the file system behind a descriptor, or "". See proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        facts = dict(line.split(":", 1) for line in file if ":" in line)
    return next((one.fstype for one in read_mountinfo() if one.mount_id == int(facts["mnt_id"])), "")


def attach(mount_fd: int, target_fd: int) -> None:
    """Attach a detached mount at an open place. See move_mount(2)."""
    syscalls.move_mount(mount_fd, target_fd)


def overlay(lower_fd: int, scratch_fd: int) -> int:
    """A detached copy-on-write view of the directory `lower_fd`; changes go to `scratch_fd`.

    Layers are named by descriptor, so no character of a path means anything to the
    option parser. See the kernel's overlayfs documentation.

    Args:
        scratch_fd: the root of an empty, attached tmpfs.
    """
    lower = os.fstat(lower_fd)
    layers = {}
    for name, mode in (("upper", stat.S_IMODE(lower.st_mode)), ("work", 0o700)):
        os.mkdir(name, 0o700, dir_fd=scratch_fd)
        os.chmod(name, mode, dir_fd=scratch_fd)  # the root directory's mode is the upper one's
        layers[name] = os.open(name, _O_PATH_DIR | os.O_CLOEXEC, dir_fd=scratch_fd)
    try:
        os.chown("upper", lower.st_uid, lower.st_gid, dir_fd=scratch_fd)
    except OSError as err:
        if err.errno != errno.EINVAL:
            raise
        # An owner that our user namespace does not know: it stays ours.
    options = {
        "lowerdir": f"/proc/self/fd/{lower_fd}",
        "upperdir": f"/proc/self/fd/{layers['upper']}",
        "workdir": f"/proc/self/fd/{layers['work']}",
    }
    try:
        return _new_overlay(options)
    finally:
        for fd in layers.values():
            os.close(fd)


def _new_overlay(options: Mapping[str, str]) -> int:
    """In a user namespace overlayfs keeps its marks in user.* attributes, or it could not
    remember that a directory was replaced. A tmpfs has these since Linux 6.6; before, only
    removing and making again the same directory fails."""
    if os.stat("/proc/self/ns/user").st_ino != _FIRST_USER_NAMESPACE:
        try:
            return new_filesystem("overlay", {**options, "userxattr": ""}, MountAttr.MOUNT_ATTR_NODEV)
        except OSError as err:
            if err.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    return new_filesystem("overlay", options, MountAttr.MOUNT_ATTR_NODEV)


def directory_of(mount_fd: int) -> int:
    """The root directory of what is mounted behind `mount_fd`, as a place to work in."""
    return os.open(".", _O_PATH_DIR | os.O_CLOEXEC, dir_fd=mount_fd)


def pivot_into(root_fd: int) -> None:
    """Make the mount at `root_fd` the root and let go of the old one. See pivot_root(2), NOTES.

    Afterwards nothing of the old tree is attached in this mount namespace.
    """
    os.fchdir(root_fd)
    syscalls.pivot_root(".", ".")  # the old root lands on top of the new one ...
    syscalls.umount_detach(".")  # ... and is taken off
    os.chdir("/")


def chroot_into(root_fd: int) -> None:
    """Make `root_fd` the caller's root directory, nothing more. See chroot(2)."""
    os.fchdir(root_fd)
    os.chroot(".")


def empty_root() -> None:
    """Make an empty read-only directory that is mounted nowhere the caller's root."""
    mount_fd = new_filesystem("tmpfs", {"mode": "0555", "size": "4k"}, MNT_BASE_ATTRS)
    syscalls.mount_setattr(mount_fd, MountAttr.MOUNT_ATTR_RDONLY, recursive=False)
    chroot_into(mount_fd)
    os.close(mount_fd)


def open_mount_of_root(path: str) -> int:
    """A detached copy of the mount at `path` of the caller's present root, no symlink followed."""
    root_fd = os.open("/", _O_PATH_DIR | os.O_CLOEXEC)
    try:
        place_fd = open_in_root(root_fd, path, _O_PATH_DIR, symlinks=False)
    finally:
        os.close(root_fd)
    try:
        return clone_tree(place_fd, recursive=False)
    finally:
        os.close(place_fd)


def _with_name(err: OSError, path: str) -> OSError:
    return trouble.likewise(err, OSError(err.errno, err.strerror, path))

