"""The state directory itself, and how its locks are waited for.

Only a directory of ours that nobody else can write to is used; there is no silent fallback.
"""

import fcntl
import os
import stat
import time

from ..errors import NsboxError, PodNotFound

DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_POLL_S = 0.01


def state_dir() -> str:
    """The state directory's path, by the environment and who we are."""
    given = os.environ.get("NSBOX_STATE")
    if given:
        path = given
    elif os.geteuid() == 0:
        path = "/run/nsbox"  # root never trusts a directory of the user who called sudo
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = os.path.join(os.environ["XDG_RUNTIME_DIR"], "nsbox")
    else:
        raise PodNotFound(  # so there is none that could be meant
            "cannot find a state directory: XDG_RUNTIME_DIR is not set",
            hint="log in through the system's login, or set NSBOX_STATE to a directory of yours",
        )
    if not os.path.isabs(path):
        raise NsboxError(f"cannot use state directory {path!r}: it is not an absolute path")
    return path


def _open_checked_dir(path: str, dir_fd: int | None = None) -> int:
    """Open a directory of ours, made if missing; refuse one that others could write to."""
    try:
        os.mkdir(path, 0o700, dir_fd=dir_fd)
    except FileExistsError:
        pass
    except OSError as err:
        raise NsboxError("cannot make the state directory") from _named(err, path)
    try:
        fd = os.open(path, DIR, dir_fd=dir_fd)
    except OSError as err:
        raise NsboxError("cannot use the state directory") from _named(err, path)
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        os.close(fd)
        raise NsboxError(
            f"cannot use the state directory {path!r}: it must belong to you and have mode 0700",
            hint="nsbox keeps its records only where nobody else can write",
        )
    return fd


def _named(err: OSError, path: str) -> OSError:
    return OSError(err.errno, err.strerror, path)


def pods_fd() -> int:
    """The directory that holds one directory for each pod, made if missing."""
    top_fd = _open_checked_dir(state_dir())
    try:
        return _open_checked_dir("pods", top_fd)
    finally:
        os.close(top_fd)


def top_fd() -> int:
    """The state directory itself, made if missing."""
    return _open_checked_dir(state_dir())


def nets_fd() -> int:
    """The directory that holds a file for each network, made if missing."""
    top_fd = _open_checked_dir(state_dir())
    try:
        return _open_checked_dir("nets", top_fd)
    finally:
        os.close(top_fd)


def has_nets() -> bool:
    """Whether there were ever networks."""
    return os.path.isdir(os.path.join(state_dir(), "nets"))


def wait_for_lock(fd: int, what: str, deadline: float, how: int) -> None:
    """Lock the directory `fd` of `what`, waiting until `deadline` (monotonic seconds); else close it.

    Raises:
        NsboxError: somebody else holds the lock for longer; says who.
    """
    while True:
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = _lock_holder(os.fstat(fd).st_ino)
                os.close(fd)
                raise NsboxError(f"cannot lock {what}: {holder} holds it") from None
            time.sleep(_LOCK_POLL_S)


def _lock_holder(inode: int) -> str:
    """Who holds a flock, for the message. See proc_locks(5)."""
    with open("/proc/locks", encoding="ascii") as file:
        for line in file:
            fields = line.split()
            if "FLOCK" in fields and fields[-3].endswith(f":{inode}"):
                return f"process {fields[-4]}"
    return "another process"
