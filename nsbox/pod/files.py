"""Small files that survive a crash: written whole or not at all, read with suspicion.

Reading is hardened because the state directory may have been tampered with or half written:
no symlink, no FIFO that blocks, no foreign owner, no size without bound.
"""

import errno
import json
import os
import stat
from typing import Any, Collection

_MAX_BYTES = 1 << 20
_REPLACED_MAX = 1000  # in a row, between our open(2) and our fstat(2): nobody writes as fast as that
# Nothing is said about the file by these: it is not there, or we are short of something.
_NOT_THE_FILE = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class CorruptFile(Exception):
    """A file of the state directory is not what nsbox wrote there. str() says what is wrong."""


class NewerFile(CorruptFile):
    """A file that a newer nsbox wrote, in a form that this one does not know: it is left as it is."""


def check_version(data: dict[str, Any], newest: int = 1) -> None:
    """Refuse what is of a newer form. Files without a version are of the first. Raises CorruptFile, NewerFile."""
    version = data.get("version", 1)
    if type(version) is not int or version < 1:
        raise CorruptFile(f"version {version!r}: not of nsbox")
    if version > newest:
        raise NewerFile(f"version {version}: written by a newer nsbox")


def newer(dir_fd: int, *names: str) -> str:
    """What a newer nsbox wrote among these files, in words; "" if nothing."""
    for name in names:
        try:
            check_version(read_json(dir_fd, name))
        except NewerFile as err:
            return f"{name} is of {err}"
        except (CorruptFile, OSError):
            continue
    return ""


def unknown_keys(dir_fd: int, name: str, known: Collection[str]) -> dict[str, Any]:
    """What the file holds besides, written by an nsbox that knows more: who writes it anew keeps that."""
    try:
        return {key: value for key, value in read_json(dir_fd, name).items() if key not in known}
    except (CorruptFile, FileNotFoundError):
        return {}


def write_json(dir_fd: int, name: str, data: dict[str, Any], mode: int = 0o600) -> None:
    """Replace the file `name` in one step: afterwards the old or the new content is there.

    Args:
        mode: who may read it; the umask does not count.

    Raises:
        OSError: the disk is full or the like; the old content is still there.
    """
    raw = json.dumps(data, sort_keys=True).encode()
    if len(raw) > _MAX_BYTES:  # it could not be read back
        raise OSError(errno.EFBIG, f"write: larger than {_MAX_BYTES} bytes")
    temporary = f".{name}.{os.getpid()}.tmp"
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    except FileExistsError:  # of a process that had our number and was killed
        os.unlink(temporary, dir_fd=dir_fd)
        fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
    try:
        try:
            _write_all(fd, raw)
            if mode != 0o600:
                os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=dir_fd)
        except FileNotFoundError:
            pass
        raise
    os.fsync(dir_fd)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def read_json(dir_fd: int, name: str, owner: int | None = None) -> dict[str, Any]:
    """The JSON object in the file `name`.

    Args:
        owner: whose file it must be; None is the caller's own.

    Raises:
        FileNotFoundError: there is none.
        CorruptFile: it is not a plain file of theirs, or holds no such object.
        OSError: it cannot be looked at now, for want of descriptors or memory.
    """
    raw = None
    for _ in range(_REPLACED_MAX):
        if (raw := _read_plain(dir_fd, name, os.geteuid() if owner is None else owner)) is not None:
            break
    if raw is None:
        raise OSError(errno.EAGAIN, f"open: {name} is replaced all the time")
    if len(raw) > _MAX_BYTES:
        raise CorruptFile(f"{name}: larger than {_MAX_BYTES} bytes")
    return _parse(name, raw)


def _read_plain(dir_fd: int, name: str, owner: int) -> bytes | None:
    """What the file holds, and a byte more if it is too large. None: it was replaced or removed meanwhile."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError as err:
        if err.errno in _NOT_THE_FILE:
            raise
        raise CorruptFile(f"{name}: {err.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_nlink > 1:
            raise CorruptFile(f"{name}: not a plain file of ours")
        return os.read(fd, _MAX_BYTES + 1) if found.st_nlink else None
    finally:
        os.close(fd)


def _parse(name: str, raw: bytes) -> dict[str, Any]:
    try:
        data = json.loads(raw, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise CorruptFile(f"{name}: no valid JSON") from err
    if not isinstance(data, dict):
        raise CorruptFile(f"{name}: no JSON object")
    return data


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise ValueError("a key stands twice")
    return data


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
