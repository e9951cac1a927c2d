"""A rehearsal: the verb is really done, but beside the stage, and taken away before anybody is there.

What is told is what the kernel really answered. Nothing stays, because

- nsbox's records are a copy, in a file system in memory that belongs to one process, the keeper, and so is what
  tells an owner of his pods;
- a pod that is made is ended again by the keeper, also if this command is killed;
- a member goes as far as its last step, and ends there: no command of the user's is executed.

- what changes the host's network is done in a copy of it, in a network namespace of its own.

What would reach a pod that runs, or a rootfs that is written to in place, is refused.
"""

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from typing import NoReturn

from ..errors import NsboxError
from ..linux import mounts, spawn, syscalls
from ..linux.flags import CloneFlag, MountFlag
from ..pod import lifecycle, owners, statedir, store

_STAGES = ("/run", "/tmp", "/mnt", "/dev/shm")  # where the keeper sees its file system; any directory will do
_SIZE = "64m"


@contextlib.contextmanager
def stage(*, covered: bool = False) -> Iterator[None]:
    """For the length of the block nsbox's records are a copy; what is made by it is gone afterwards.

    Args:
        covered: the copy covers the records, in a mount namespace of ours: needed where files of it are
            mounted, as those with names are for a pod on a network. For root alone.
    """
    given, told = os.environ.get("NSBOX_STATE"), owners.TOP
    real = _real_state()
    here = next((path for path in _STAGES if os.path.isdir(path)), "/")
    if covered and real:
        os.environ["NSBOX_STATE"] = place = _cover(real)
        owners.TOP = f"{place}/owners"
        here, real = "", ""
    said_r, said_w = os.pipe2(os.O_CLOEXEC)
    over_r, over_w = os.pipe2(os.O_CLOEXEC)
    keeper = os.fork()
    if keeper == 0:
        os.close(said_r)
        os.close(over_w)
        _keep(real, here, said_w, over_r)
    os.close(said_w)
    os.close(over_r)
    try:
        if not os.read(said_r, 1):
            raise NsboxError("cannot rehearse: there is no place for a copy of the records")
        if here:
            os.environ["NSBOX_STATE"] = f"/proc/{keeper}/root{here}/state"
            owners.TOP = f"/proc/{keeper}/root{here}/owners"
        yield
    finally:
        if given is None:
            os.environ.pop("NSBOX_STATE", None)
        else:
            os.environ["NSBOX_STATE"] = given
        owners.TOP = told
        os.close(said_r)
        os.close(over_w)
        os.waitpid(keeper, 0)


def _real_state() -> str:
    try:
        return statedir.state_dir()
    except NsboxError:
        return ""  # then there are no records to copy


def _keep(real: str, here: str, said_w: int, over_r: int) -> NoReturn:
    """The keeper: holds the copy until the command has ended, however that was; then clears away."""
    try:
        if here:
            _set_up(real, here)
            os.environ["NSBOX_STATE"] = f"{here}/state"
            owners.TOP = f"{here}/owners"
        _forget_ties()
        known = _known()
        os.write(said_w, b".")
        while os.read(over_r, 1):
            pass
        for entry in store.entries():
            if entry.name not in known:
                with contextlib.suppress(NsboxError, OSError):
                    lifecycle.remove(entry.name, force=True)
    finally:
        os._exit(0)


def _known() -> frozenset[str]:
    """The pods in the copy. Those that are being made, or were cut off, are none of ours to mend."""
    for entry in store.entries():
        if entry.status in ("creating", "broken"):
            shutil.rmtree(f"{statedir.state_dir()}/pods/{entry.name}")
    return frozenset(entry.name for entry in store.entries())


def _cover(real: str) -> str:
    """Put the copy over the records, for this process and those that it will make; where it is.

    Where there are no records yet, there is no directory to put it over, and none is made in the
    host's file system: then it lies over one that no pod is likely to ask for.
    """
    syscalls.unshare(CloneFlag.CLONE_NEWNS)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    if not os.path.isdir(real):
        spare = next((path for path in reversed(_STAGES) if os.path.isdir(path)), "/")
        spare_fd = os.open(spare, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0700", "size": _SIZE}, mounts.MNT_BASE_ATTRS), spare_fd)
        return spare
    source_fd = os.open(real, statedir.DIR)
    mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0700", "size": _SIZE}, mounts.MNT_BASE_ATTRS), source_fd)
    _copy(source_fd, os.open(real, statedir.DIR))
    os.close(source_fd)
    return real


def _forget_ties() -> None:
    """Cables between pods lie in the pods themselves, which are no copies: nobody is to mend them."""
    from ..pod import netrecord

    for name in store.names():
        dir_fd = store.directory(name)
        try:
            if netrecord.POD_FILE in os.listdir(dir_fd):
                netrecord.write_pod(dir_fd, netrecord.read_pod(dir_fd)._replace(ties=()))
        except NsboxError:
            pass  # a record that cannot be read stops the rehearsal as it would the verb
        finally:
            os.close(dir_fd)


def _set_up(real: str, here: str) -> None:
    """Make the file system and the copy in it."""
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(CloneFlag.CLONE_NEWNS if uid == 0 else CloneFlag.CLONE_NEWNS | CloneFlag.CLONE_NEWUSER)
    if uid:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    source_fd = os.open(real, statedir.DIR) if os.path.isdir(real) else -1
    place_fd = os.open(here, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounts.attach(mounts.new_filesystem("tmpfs", {"mode": "0711", "size": _SIZE}, mounts.MNT_BASE_ATTRS), place_fd)
    os.mkdir(f"{here}/state", 0o700)
    if source_fd >= 0:
        _copy(source_fd, os.open(f"{here}/state", statedir.DIR))


def _copy(source_fd: int, target_fd: int) -> None:
    """Directories and files; sockets are not to be talked to in a rehearsal."""
    for name in os.listdir(source_fd):
        with contextlib.suppress(FileNotFoundError):  # it went meanwhile
            found = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(name, stat.S_IMODE(found.st_mode), dir_fd=target_fd)
                below = [os.open(name, statedir.DIR, dir_fd=fd) for fd in (source_fd, target_fd)]
                _copy(*below)
                for fd in below:
                    os.close(fd)
            elif stat.S_ISREG(found.st_mode):
                _copy_file(name, stat.S_IMODE(found.st_mode), source_fd, target_fd)


def _copy_file(name: str, mode: int, source_fd: int, target_fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd), "rb") as source:
        with open(os.open(name, flags, mode, dir_fd=target_fd), "wb") as target:
            shutil.copyfileobj(source, target)


def leave(who: str) -> NoReturn:
    """In the place of the execve of a user's command: what comes after it is for the real run."""
    syscalls.listen(None)
    spawn.stay_as_it()
    while who == "pause":  # a PID 1 stays, so that members can be told about too
        syscalls.close_range(3, cloexec_only=False)
        signal.pause()
    os._exit(0)
