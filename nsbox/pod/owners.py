"""By what an ordinary user finds the pods of root's that he owns.

    /run/nsbox-owners/    root's, 0711
      UID/                root's, 0700; by its access control list this user, too, may read it
        ID.json           a pod's record, without what is no business of the user's

Root writes it before the pod is ready and removes it when the pod has ended; prune removes what a
command left that was killed. Nothing in it is secret from that user, and he takes no more from it than
where to look: the process must be the one that is named, and its user namespace be his.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from ..errors import NsboxError
from ..linux import acl, nsfs, process
from . import statedir, store
from .places import O_PATH_DIR
from .files import CorruptFile, NewerFile, read_json, write_json
from .record import PodRecord, pod_from_dict, pod_to_dict

TOP = "/run/nsbox-owners"


def announce(record: PodRecord) -> None:
    """Let the owner of a pod find it. Raises NsboxError."""
    if record.owner is None:
        return
    shown = record._replace(phase="ready", rootfs="", labels=(), init=())
    try:
        with _locked(make=True) as top_fd, _of_user(top_fd, record.owner.uid, make=True) as fd:
            write_json(fd, f"{record.id}.json", pod_to_dict(shown), 0o644)
    except OSError as err:
        raise NsboxError(
            f"cannot tell user {record.owner.uid} of pod {record.name!r}",
            hint="a pod that root alone joins: sudo env -u SUDO_UID nsbox create ...",
        ) from err


def withdraw(record: PodRecord) -> None:
    """Take back what :func:`announce` wrote, if it did. Raises NsboxError."""
    if record.owner is None:
        return
    try:
        with _locked() as top_fd:
            with _of_user(top_fd, record.owner.uid) as fd:
                _unlink(fd, f"{record.id}.json")
            _remove_if_empty(top_fd, str(record.owner.uid))
    except FileNotFoundError:
        pass
    except OSError as err:
        raise NsboxError(f"cannot take pod {record.name!r} from its owner's list") from err


def tidy() -> None:
    """Remove what is of pods that do not run any more, or was never finished. Only for root."""
    try:
        with _locked() as top_fd:
            for user in os.listdir(top_fd):
                with contextlib.suppress(FileNotFoundError, ValueError), _of_user(top_fd, int(user)) as fd:
                    for name in os.listdir(fd):
                        if not _is_needed(fd, name):
                            _unlink(fd, name)
                _remove_if_empty(top_fd, user)
            with contextlib.suppress(OSError):
                os.rmdir(TOP)
    except FileNotFoundError:
        pass
    except OSError as err:
        raise NsboxError("cannot tidy the lists of owners") from err


def _is_needed(fd: int, name: str) -> bool:
    """Whether a file says where a pod is that runs, as far as can be seen from here."""
    try:
        record = pod_from_dict(read_json(fd, name)) if name.endswith(".json") else None
    except NewerFile:
        return True  # as far as we know
    except (CorruptFile, FileNotFoundError):
        record = None
    return record is not None and store.status(record) in ("running", "elsewhere")


# ---- for the owner ----

def mine() -> list[PodRecord]:
    """The pods of root's that run and whose user namespace the caller owns."""
    if os.geteuid() == 0:
        return []
    found = []
    try:
        with _opened(TOP, flags=O_PATH_DIR) as top_fd, _opened(str(os.geteuid()), top_fd) as fd:
            for name in sorted(os.listdir(fd)):
                with contextlib.suppress(CorruptFile, OSError):
                    record = pod_from_dict(read_json(fd, name, owner=0))
                    if _is_mine(record):
                        found.append(record)
    except OSError:
        pass  # nothing was ever given to this user
    return sorted(found, key=lambda record: record.name)


def _is_mine(record: PodRecord) -> bool:
    if record.pause is None or store.status(record) != "running":
        return False
    pidfd = process.open_process(record.pause)
    try:
        # In this order: while the process has not ended, its number is nobody else's.
        return nsfs.owner_uid_of(record.pause.pid) == os.geteuid() and not process.has_ended(pidfd)
    finally:
        os.close(pidfd)


# ---- the directories ----

@contextlib.contextmanager
def _locked(make: bool = False) -> Iterator[int]:
    """The upper directory, under a lock that only root can take."""
    deadline = time.monotonic() + store.LOCK_TIMEOUT_S
    while True:
        if make:
            _mkdir(TOP, 0o711)
        with _opened(TOP) as fd:
            kept = os.dup(fd)
        statedir.wait_for_lock(kept, "the lists of owners", deadline, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(TOP, follow_symlinks=False), os.fstat(kept)):
                break
        os.close(kept)  # it was removed while we waited
    try:
        os.fchmod(kept, 0o711)  # whatever the umask took away
        yield kept
    finally:
        os.close(kept)


@contextlib.contextmanager
def _of_user(top_fd: int, uid: int, make: bool = False) -> Iterator[int]:
    if make:
        _mkdir(str(uid), 0o700, top_fd)
    with _opened(str(uid), top_fd) as fd:
        if make:
            acl.open_directory_to(fd, uid)
        yield fd


@contextlib.contextmanager
def _opened(path: str, dir_fd: int | None = None, flags: int = statedir.DIR) -> Iterator[int]:
    """A directory of root's into which nobody else can write. Raises OSError."""
    fd = os.open(path, flags, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if found.st_uid != 0 or stat.S_IMODE(found.st_mode) & 0o022:
            raise OSError(errno.EPERM, "not root's alone to write to", path)
        yield fd
    finally:
        os.close(fd)


def _mkdir(path: str, mode: int, dir_fd: int | None = None) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode, dir_fd=dir_fd)


def _unlink(fd: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=fd)


def _remove_if_empty(top_fd: int, name: str) -> None:
    """Remove an empty directory of a user, and the upper one if that was the last."""
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=top_fd)
        os.rmdir(TOP)
