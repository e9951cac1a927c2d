"""Which ids the machine's owner gave whom for user namespaces. See subuid(5), subgid(5)."""

import os
import pwd

from ..errors import NsboxError

FILES = {"uid": "/etc/subuid", "gid": "/etc/subgid"}
FIRST = 100000  # below it are ids that the machine itself may give to people and services

_Line = tuple[str, int, int]


def lines(what: str) -> list[_Line]:
    """(owner, first, how many) for each line of the file for "uid" or "gid"; none where there is no file."""
    try:
        with open(FILES[what], encoding="utf-8", errors="surrogateescape") as file:
            words = [line.strip().split(":") for line in file]
    except FileNotFoundError:
        return []
    except OSError as err:
        raise NsboxError(f"cannot read {FILES[what]}") from err
    return [
        (owner[0], int(owner[1]), int(owner[2]))
        for owner in words
        if len(owner) == 3 and all(word.isascii() and word.isdigit() and len(word) <= 10 for word in owner[1:])
    ]


def name_of(uid: int) -> str:
    """The name by which a user stands in both files; the number of one who has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def of_user(what: str, uid: int) -> list[tuple[int, int]]:
    """The ranges of a user: (first, how many) each."""
    mine = {name_of(uid), str(uid)}
    return [(first, count) for owner, first, count in lines(what) if owner in mine and count]


def largest(what: str) -> tuple[int, int] | None:
    """The caller's largest range, or None."""
    return max(of_user(what, os.geteuid()), key=lambda span: span[1], default=None)


def missing(what: str, why: str) -> NsboxError:
    """The error for a file without a line that would do, which names the line to add."""
    path, name = FILES[what], name_of(os.geteuid())
    start = max((first + count for _, first, count in lines(what)), default=FIRST)
    return NsboxError(
        f"cannot map a range of {what}s: {path} has {why} for {name}",
        hint=f"as root, add the line {name}:{max(start, FIRST)}:65536 to {path}",
    )
