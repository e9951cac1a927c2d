"""Who a member is: USER[:GROUP] looked up in the passwd and group files of the member's own root.

By a reader of our own, and as bytes: the C library would load what the root's nsswitch.conf names,
and Python's pwd module asks the C library. The files belong to whoever made the root, so a line
says no more than numbers and a home, and one that is not as passwd(5) has it is no line.

A number is never looked up: whatever the files hold, the user 10 is 10. Its line, where it has
one, only says what goes with it: the group, unless that is given too, and the home.
"""

import os
from typing import NamedTuple

from ..errors import NsboxError
from ..linux import mounts
from ..privilege import attributes, credentials
from ..runas import ID_MAX, User

_PASSWD, _GROUP = "/etc/passwd", "/etc/group"
_FILE_MAX_BYTES = 1 << 20


class Account(NamedTuple):
    """A user as the kernel knows one, and where it lives.

    Attributes:
        groups: the supplementary ones.
        home: absolute; "/" if nothing better is known.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: bytes = b"/"


def find(who: User) -> Account:
    """The account of `who` in the caller's present root.

    A number without a line in passwd has the group of the same number, as the private group
    that useradd(8) makes: never group 0, to which much of a host's files is open.

    Supplementary groups come with a name alone: who names a group wants that one.

    Raises:
        NsboxError: a name is not there, or its line or file is not usable.
    """
    line = _passwd_line(who.user)
    uid = who.user if isinstance(who.user, int) else line.uid if line else -1
    if isinstance(who.group, str):
        return Account(uid, _gid_of(who.group), home=_home(line))
    if who.group is not None:
        return Account(uid, who.group, home=_home(line))
    groups = _groups_with(who.user) if isinstance(who.user, str) else ()
    return Account(uid, line.gid if line else uid, groups, _home(line))


def become(who: User, parent_pidfd: int, terminal_fd: int = -1) -> bytes:
    """Be `who`, as the caller's present root knows it; return the home. What follows is execve(2).

    Args:
        parent_pidfd: of the parent whose end is the caller's too; -1: it is not.
        terminal_fd: the caller's terminal, of its own pod, to be that user's; -1: it has none.

    Raises:
        NsboxError: the name is not there, or the kernel refuses.
    """
    account = find(who)
    if terminal_fd >= 0:
        os.fchown(terminal_fd, account.uid, -1)
    credentials.become(account.uid, account.gid, account.groups)
    attributes.hide_from_others()  # both undone by the change of user
    if parent_pidfd >= 0:
        attributes.die_with_parent(parent_pidfd)
    return account.home


class _Line(NamedTuple):
    """One line of passwd(5)."""

    uid: int
    gid: int
    home: bytes


def _passwd_line(user: int | str) -> _Line | None:
    """The first line of a user; None for a number that has none.

    Raises:
        NsboxError: a name has none, or one that is malformed.
    """
    if isinstance(user, int):
        try:
            found = (_parse_passwd(fields) for fields in _lines(_PASSWD))
            return next((line for line in found if line and line.uid == user), None)
        except OSError:
            return None  # a number needs no file
    for fields in _read(_PASSWD, f"use user {user!r}"):
        if fields[0] == user.encode():
            line = _parse_passwd(fields)
            if line is None:
                raise NsboxError(f"cannot use user {user!r}: its line in {_PASSWD} of this root is malformed")
            return line
    raise NsboxError(f"cannot use user {user!r}: {_PASSWD} of this root has none of that name")


def _parse_passwd(fields: list[bytes]) -> _Line | None:
    if len(fields) != 7:
        return None
    uid, gid = _number(fields[2]), _number(fields[3])
    return None if uid is None or gid is None else _Line(uid, gid, fields[5])


def _home(line: _Line | None) -> bytes:
    if line is None or not line.home.startswith(b"/") or b"\0" in line.home:
        return b"/"
    return line.home


def _gid_of(group: str) -> int:
    for fields in _read(_GROUP, f"use group {group!r}"):
        if fields[0] == group.encode():
            gid = _number(fields[2]) if len(fields) == 4 else None
            if gid is None:
                raise NsboxError(f"cannot use group {group!r}: its line in {_GROUP} of this root is malformed")
            return gid
    raise NsboxError(f"cannot use group {group!r}: {_GROUP} of this root has none of that name")


def _groups_with(user: str) -> tuple[int, ...]:
    """The groups that list a user, each once, in the file's order."""
    try:
        lines = _lines(_GROUP)
    except FileNotFoundError:
        return ()
    except OSError as err:
        raise NsboxError(f"cannot look up the groups of user {user!r}") from err
    name, found = user.encode(), dict[int, None]()
    for fields in lines:
        gid = _number(fields[2]) if len(fields) == 4 and name in fields[3].split(b",") else None
        if gid is not None:
            found[gid] = None
    return tuple(found)


def _number(field: bytes) -> int | None:
    """A user's or group's number; no sign, no space, none that the kernel would cut."""
    if not field.isdigit() or len(field) > 10 or int(field) > ID_MAX:
        return None
    return int(field)


def _read(path: str, purpose: str) -> list[list[bytes]]:
    try:
        return _lines(path)
    except OSError as err:
        raise NsboxError(f"cannot {purpose}") from err


def _lines(path: str) -> list[list[bytes]]:
    """The fields of each line. Raises OSError: it is missing, no plain file, or too big."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = mounts.read_in_root(root_fd, path, _FILE_MAX_BYTES)
    finally:
        os.close(root_fd)
    return [line.split(b":") for line in text.split(b"\n")]
