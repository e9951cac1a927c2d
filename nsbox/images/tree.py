"""Files inside a root file system that is being built, reached by descriptor only.

A path below a tree is never given to the kernel in one piece: /etc or /var/run in it may
be a symlink, which from outside leads into the host. Every step is opened on its own and
symlinks are refused.
"""

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import NsboxError
from ..linux import mounts

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def opened(tree: str, folder: str = "", *, make: bool = False) -> Iterator[int]:
    """Descriptor of the directory `folder` below `tree`, for the length of the block.

    Args:
        make: make the directories that are missing, mode 0755.

    Raises:
        OSError: ELOOP or ENOTDIR where a symlink or a file is in the way.
    """
    fd = os.open(tree, _OPEN_DIR)
    try:
        for part in folder.split("/") if folder else ():
            if make:
                _mkdir_at(part, fd)
            below = os.open(part, _OPEN_DIR, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def make_dir(tree: str, folder: str, mode: int = 0o755) -> None:
    """Make `folder` below `tree`, its parents too, whatever the umask is."""
    with opened(tree, folder, make=True) as fd:
        os.fchmod(fd, mode)


def put_file(tree: str, path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file below `tree`, in place of what was there under that name."""
    folder, _, name = path.rpartition("/")
    with opened(tree, folder, make=True) as dir_fd:
        _unlink_at(name, dir_fd)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=dir_fd), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)


def put_link(tree: str, path: str, target: str) -> None:
    """Make a symlink below `tree`, in place of what was there under that name."""
    folder, _, name = path.rpartition("/")
    with opened(tree, folder, make=True) as dir_fd:
        _unlink_at(name, dir_fd)
        os.symlink(target, name, dir_fd=dir_fd)


def clear_dir(tree: str, folder: str) -> None:
    """Delete the files in `folder` below `tree`; a folder that is not there is fine."""
    try:
        with opened(tree, folder) as fd:
            for name in os.listdir(fd):
                _unlink_at(name, fd)
    except FileNotFoundError:
        pass


def overlay(source: str, tree: str) -> None:
    """Copy the folder `source` over `tree`. Files become the caller's, 0644, or 0755 if executable.

    Raises:
        NsboxError: something in `source` is no file, folder or symlink, or would have to
            go through a symlink of the tree.
    """
    for folder, folders, names in os.walk(source, onerror=_raise):
        inside = os.path.relpath(folder, source).removeprefix(".")
        for name in sorted(folders + names):
            path = os.path.join(inside, name)
            try:
                _copy_one(os.path.join(folder, name), tree, path)
            except OSError as err:
                hint = ""
                if err.errno in (errno.ELOOP, errno.ENOTDIR):
                    hint = "a symlink of the tree is in the way: put the file below its target"
                raise NsboxError(f"cannot copy files/{path} into the tree", hint=hint) from err


def size_bytes(tree: str) -> int:
    """Bytes that `tree` takes on the disk, each inode once, as du(1) counts."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, folders, names in os.walk(tree):
        for name in folders + names:
            found = os.lstat(os.path.join(folder, name))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def delete(path: str) -> None:
    """Delete a tree, whatever modes and owners are in it. Symlinks are not followed.

    Raises:
        NsboxError: something is mounted below it, or something is left.
    """
    refuse_mounts(path)
    mended = [path]
    while mended and os.path.lexists(path):  # each round opens one more level of closed folders
        mended.clear()
        shutil.rmtree(path, onerror=lambda _func, at, _info: mended.extend(_open_up(at)))
    if os.path.lexists(path) and os.geteuid() != 0:  # files of subordinate ids: subuid(5)
        command = ["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", path]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if os.path.lexists(path):
        raise NsboxError(f"cannot delete {path}: something in it withstands")


def refuse_mounts(path: str) -> None:
    """Raise if something is mounted at or below `path`: deleting would reach into it."""
    prefix = os.path.realpath(path)
    for point in (one.target for one in mounts.read_mountinfo()):
        if point == prefix or point.startswith(prefix + "/"):
            raise NsboxError(f"cannot delete {path}: {point} is mounted", hint=f"umount {point}")


def _open_up(path: str) -> list[str]:
    """Give the owner his rights on a folder and the one above; those that lacked them."""
    mended = []
    for folder in (os.path.dirname(path), path):
        try:
            mode = os.lstat(folder).st_mode
            if stat.S_ISDIR(mode) and mode & 0o700 != 0o700:
                os.chmod(folder, 0o700)
                mended.append(folder)
        except OSError:
            continue  # deleted in the meantime, or another owner's: the caller looks in the end
    return mended


def _copy_one(source: str, tree: str, path: str) -> None:
    found = os.lstat(source)
    if stat.S_ISLNK(found.st_mode):
        put_link(tree, path, os.readlink(source))
    elif stat.S_ISDIR(found.st_mode):
        with opened(tree, path, make=True):
            pass
    elif stat.S_ISREG(found.st_mode):
        with open(source, "rb") as file:
            put_file(tree, path, file.read(), 0o755 if found.st_mode & 0o111 else 0o644)
    else:
        raise NsboxError(f"cannot copy files/{path} into the tree: not a file, folder or symlink")


def _mkdir_at(name: str, dir_fd: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        return
    fd = os.open(name, _OPEN_DIR, dir_fd=dir_fd)
    try:
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)


def _unlink_at(name: str, dir_fd: int) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        pass


def _raise(err: OSError) -> None:
    raise err
