"""The state directory: one directory a pod, and who may change it.

    STATE/                      /run/nsbox, or $XDG_RUNTIME_DIR/nsbox; 0700
      pods/NAME/pod.json        the record: an intent before the first kernel object, then ready
      pods/NAME/members/ID.json a detached member; ID.log is its output
      pods/.new-ID, .gone-ID    being made, being removed: never a pod

A name is taken by renaming a directory that holds the intent into place, and freed by
renaming it away; both are one step. The lock of a pod is flock(2) on its directory.
Readers take none: a record is replaced whole.
"""

import errno
import fcntl
import os
import time
from types import TracebackType
from typing import NamedTuple

from .. import spec
from ..errors import NsboxError, PodExists, PodNotFound, SpecError
from ..linux import namespaces, process
from ..words import quote
from . import statedir
from .files import CorruptFile, read_json, write_json
from .record import PodRecord, pod_from_dict, pod_to_dict

LOCK_TIMEOUT_S = 30.0
_TAKE_TRIES = 100
_REMOVE_TRIES = 10
_SPARE_BYTES = 4 << 20
RECORD = "pod.json"


class Entry(NamedTuple):
    """What stands under one name.

    Attributes:
        status: "running", "dead", "creating", "broken" (its maker was killed), "corrupt",
            "elsewhere" (made in another PID or time namespace: nothing is known of it here).
        problem: what is wrong with a corrupt one.
    """

    name: str
    status: str
    record: PodRecord | None
    problem: str = ""


def spare_memory() -> list[bytes]:
    """What a command that makes something holds until it has to end that again: clear() gives it back.

    Where a limit lets a pod be made and no more, it could not be removed. Nobody writes to it, so it is
    address space alone: bytes() asks calloc(3), while bytearray() writes its zeros itself.
    """
    return [bytes(_SPARE_BYTES)]


def new_id() -> str:
    """16 random hexadecimal digits."""
    return os.urandom(8).hex()


class Locked:
    """A pod's directory, held under its lock. ``with`` lets go of it."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    def __enter__(self) -> "Locked":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def write(self, record: PodRecord) -> None:
        """Replace the pod's record. Raises NsboxError; the old one is then still there."""
        try:
            write_json(self.fd, RECORD, pod_to_dict(record))
        except OSError as err:
            raise NsboxError(f"cannot write the record of pod {self.name!r}") from err

    def read(self) -> PodRecord:
        """The pod's record. Raises CorruptFile or FileNotFoundError."""
        return pod_from_dict(read_json(self.fd, RECORD))

    def forget(self) -> None:
        """Free the name and remove all that was written about the pod."""
        import shutil  # only removals need it

        pods_fd = statedir.pods_fd()
        try:
            gone = f".gone-{new_id()}"
            os.rename(self.name, gone, src_dir_fd=pods_fd, dst_dir_fd=pods_fd)
            # The name is free now. A supervisor may write into it until its directory is gone, so
            # once may not be enough; what is left even then goes with the next prune.
            for _ in range(_REMOVE_TRIES):
                shutil.rmtree(gone, dir_fd=pods_fd, ignore_errors=True)
                if gone not in os.listdir(pods_fd):
                    break
        except OSError as err:
            raise NsboxError(f"cannot remove the record of pod {self.name!r}") from err
        finally:
            os.close(pods_fd)


def reserve(record: PodRecord) -> Locked:
    """Take the pod's name, its intent written, its lock held.

    Raises:
        PodExists: the name is taken. NsboxError: the state directory does not work.
    """
    pods_fd = statedir.pods_fd()
    try:
        for _ in range(_TAKE_TRIES - 1):
            try:
                return _take_name(pods_fd, record)
            except (FileNotFoundError, BlockingIOError):
                continue  # another command's sweep came before our lock
        return _take_name(pods_fd, record)
    except OSError as err:
        if err.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise PodExists(
                f"cannot create pod {record.name!r}: the name is taken",
                hint=f"see it with: nsbox ls; remove it with: nsbox rm {record.name}",
            ) from None
        raise NsboxError(f"cannot create pod {record.name!r}") from err
    finally:
        os.close(pods_fd)


def _take_name(pods_fd: int, record: PodRecord) -> Locked:
    new = f".new-{record.id}"
    held = Locked(record.name, -1)
    try:
        os.mkdir(new, 0o700, dir_fd=pods_fd)
        held.fd = os.open(new, statedir.DIR, dir_fd=pods_fd)
        fcntl.flock(held.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.mkdir("members", 0o700, dir_fd=held.fd)
        held.write(record)
        os.rename(new, record.name, src_dir_fd=pods_fd, dst_dir_fd=pods_fd)
    except BaseException:
        held.close()
        _remove_tree(pods_fd, new)
        raise
    try:
        os.fsync(pods_fd)
    except BaseException:
        held.forget()
        held.close()
        raise
    return held


def _remove_tree(pods_fd: int, name: str) -> None:
    import shutil  # only removals need it

    shutil.rmtree(name, dir_fd=pods_fd, ignore_errors=True)


def lock(name: str, timeout_s: float = LOCK_TIMEOUT_S, *, shared: bool = False) -> Locked:
    """The directory of the pod `name`, under its lock: alone, or shared with other joiners.

    Raises:
        PodNotFound: there is none (any more).
        NsboxError: somebody else holds the lock for longer than `timeout_s`.
    """
    pods_fd = statedir.pods_fd()
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            try:
                fd = os.open(checked(name), statedir.DIR, dir_fd=pods_fd)
            except OSError as err:
                if err.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise not_found(name) from None
                raise NsboxError(f"cannot lock pod {name!r}") from err
            statedir.wait_for_lock(fd, f"pod {name!r}", deadline, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
            # It may have been renamed away while we waited: then the lock is of nothing.
            try:
                now = os.stat(name, dir_fd=pods_fd, follow_symlinks=False)
            except FileNotFoundError:
                now = None
            here = os.fstat(fd)
            if now is not None and (now.st_dev, now.st_ino) == (here.st_dev, here.st_ino):
                return Locked(name, fd)
            os.close(fd)
    finally:
        os.close(pods_fd)


def directory(name: str) -> int:
    """A descriptor of the pod's directory, without its lock. Raises PodNotFound."""
    pods_fd = statedir.pods_fd()
    try:
        return os.open(checked(name), statedir.DIR, dir_fd=pods_fd)
    except OSError:
        raise not_found(name) from None
    finally:
        os.close(pods_fd)


def written(name: str) -> PodRecord:
    """The record of a pod, without its lock, and without a look at how the pod is.

    Raises:
        PodNotFound, CorruptFile, FileNotFoundError: there is none.
    """
    with Locked(name, directory(name)) as unlocked:
        return unlocked.read()


def checked(name: str) -> str:
    """`name`, if it is a valid name of a pod. Raises SpecError."""
    fault = spec.name_fault(name)
    if fault:
        raise SpecError(f"cannot use pod name {quote(name)}: {fault}")
    return name


def not_found(name: str) -> PodNotFound:
    """The error for a name that no pod has."""
    return PodNotFound(f"cannot find pod {name!r}", hint="see what exists with: nsbox ls")


def names() -> list[str]:
    """The names that are taken, sorted. Takes no lock."""
    pods_fd = statedir.pods_fd()
    try:
        return _names(pods_fd)
    finally:
        os.close(pods_fd)


def _names(pods_fd: int) -> list[str]:
    return sorted(name for name in os.listdir(pods_fd) if not name.startswith("."))


def look(name: str) -> Entry:
    """What stands under `name`, without taking its lock. Raises PodNotFound."""
    pods_fd = statedir.pods_fd()
    try:
        return _look(name, pods_fd, vantage())
    finally:
        os.close(pods_fd)


def _look(name: str, pods_fd: int, here: tuple[int, int]) -> Entry:
    try:
        fd = os.open(checked(name), statedir.DIR, dir_fd=pods_fd)
    except FileNotFoundError:
        raise not_found(name) from None
    except OSError as err:
        if err.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise NsboxError(f"cannot look at pod {name!r}") from err
        return Entry(name, "corrupt", None, f"not a directory of ours: {err.strerror}")
    try:
        record = pod_from_dict(read_json(fd, RECORD))
        if record.name != name:
            return Entry(name, "corrupt", None, "the record is of another pod")
        return Entry(name, _status(record, here), record)
    except FileNotFoundError:
        if not _stands(name, fd, pods_fd):  # it was being removed while we looked
            raise not_found(name) from None
        return Entry(name, "corrupt", None, "no record")
    except CorruptFile as err:
        return Entry(name, "corrupt", None, str(err))
    finally:
        os.close(fd)


def _stands(name: str, fd: int, pods_fd: int) -> bool:
    """Whether the directory `fd` still has the name."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=pods_fd, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def vantage() -> tuple[int, int]:
    """From where we see PIDs and start times: our PID and time namespaces. See PodRecord."""
    try:
        ids = namespaces.ids_of("self")
    except ProcessLookupError:
        process.require_own_proc()
        raise
    return ids.get("pid", 0), ids.get("time", 0)


def status(record: PodRecord) -> str:
    """How the pod is: see Entry."""
    return _status(record, vantage())


def _status(record: PodRecord, here: tuple[int, int]) -> str:
    if record.maker.boot_id == process.boot_id() and record.vantage != here:
        return "elsewhere"
    if record.phase == "intent":
        return "creating" if _is_running(record.maker) else "broken"
    return "running" if record.pause and _is_running(record.pause) else "dead"


def is_lent(record: PodRecord | None) -> bool:
    """Whether root keeps this pod's state, and the caller owns its user namespace: see owners.py."""
    return record is not None and record.owner is not None and os.geteuid() != 0


def _is_running(who: process.Identity) -> bool:
    try:
        os.close(process.open_process(who))
    except ProcessLookupError:
        return False
    return True


def entries(*, missing_ok: bool = False) -> list[Entry]:
    """All that exists. A pod that vanishes meanwhile is left out.

    Args:
        missing_ok: nothing exists where there is no state directory.
    """
    try:
        pods_fd = statedir.pods_fd()
    except PodNotFound:
        if not missing_ok:
            raise
        return []
    found, here = [], vantage()
    try:
        for name in _names(pods_fd):
            try:
                found.append(_look(name, pods_fd, here))
            except PodNotFound:
                continue
            except SpecError as err:
                found.append(Entry(name, "corrupt", None, str(err)))
    finally:
        os.close(pods_fd)
    pauses = [entry.record.pause for entry in found if entry.status == "running" and entry.record]
    if len(pauses) == len(set(pauses)):
        return found
    from . import rivals  # somebody copied a record

    return rivals.marked(found)


def sweep() -> list[str]:
    """Remove directories of creations and removals that were cut off: those whose locks are free.

    Returns their names. The lock is held meanwhile, so that nobody else takes one up.
    """
    pods_fd = statedir.pods_fd()
    swept = []
    try:
        for name in sorted(os.listdir(pods_fd)):
            if name.startswith((".new-", ".gone-")) and _sweep_one(pods_fd, name):
                swept.append(name)
    finally:
        os.close(pods_fd)
    return swept


def _sweep_one(pods_fd: int, name: str) -> bool:
    try:
        fd = os.open(name, statedir.DIR, dir_fd=pods_fd)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove_tree(pods_fd, name)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def discard(name: str) -> bool:
    """Remove what stands under a name without being a directory; False if nothing does."""
    pods_fd = statedir.pods_fd()
    try:
        os.unlink(checked(name), dir_fd=pods_fd)
        return True
    except OSError:
        return False
    finally:
        os.close(pods_fd)
