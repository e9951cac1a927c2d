"""Which ids a pod had that an ordinary user owned: until the next boot they go to no other user's pod.

When such a pod has ended, its owner may still hold its user namespace open, and can be any of its ids
again at any time. They must not be those of somebody else's processes by then.

Only for who holds the lock under which ids are chosen: see users.py.
"""

import fcntl
import os

from ..errors import NsboxError
from ..idranges import IdMap
from ..linux import process
from . import statedir
from .files import CorruptFile, read_json, write_json

_FILE = "ids.json"
_Row = tuple[int, int, int]  # first, how many, owner


def note(owner: int, uids: IdMap, gids: IdMap) -> None:
    """Write down that these ids are a user's from now on. Raises NsboxError."""
    rows = {"uid": _rows("uid"), "gid": _rows("gid")}
    for what, ids in (("uid", uids), ("gid", gids)):
        rows[what] = sorted({*rows[what], *((one.outside, one.size, owner) for one in ids)})
    fd = statedir.top_fd()
    try:
        write_json(fd, _FILE, {"boot_id": process.boot_id(), **rows})
    except OSError as err:
        raise NsboxError("cannot write down which ids are given away") from err
    finally:
        os.close(fd)


def to_others(owner: int, what: str) -> list[tuple[int, int]]:
    """The ids, of "uid" or "gid", that were given to other users since the boot: (first, how many) each."""
    return [(first, count) for first, count, whose in _rows(what) if whose != owner]


def sweep() -> None:
    """Remove what a command left half written that was killed. For who does not hold the lock."""
    top_fd, lock_fd = statedir.top_fd(), statedir.pods_fd()
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for name in os.listdir(top_fd):
            if name.startswith(f".{_FILE}."):
                os.unlink(name, dir_fd=top_fd)
    except BlockingIOError:
        pass  # somebody is writing: the next one to sweep finds it
    except OSError as err:
        raise NsboxError("cannot remove what was half written") from err
    finally:
        os.close(lock_fd)
        os.close(top_fd)


def _rows(what: str) -> list[_Row]:
    fd = statedir.top_fd()
    try:
        data = read_json(fd, _FILE)
        if data["boot_id"] != process.boot_id():
            return []
        return [(int(first), int(count), int(owner)) for first, count, owner in data[what]]
    except FileNotFoundError:
        return []
    except (CorruptFile, KeyError, TypeError, ValueError):
        path = f"{statedir.state_dir()}/{_FILE}"
        raise NsboxError(f"cannot tell which ids are given away: {path} is corrupt",
                         hint="remove it when the machine has been booted anew") from None  # fmt: skip
    finally:
        os.close(fd)
