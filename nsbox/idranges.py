"""Ranges of ids: the words of --userns as data, and which ids are free. See user_namespaces(7).

Touches nothing.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

MODES = ("auto", "keep-id")
COUNT = 65536  # what `auto` gives a pod: every id that common software knows, nobody's 65534 too
LINES_MAX = 340  # of a map, since Linux 4.15
_END = 2**32 - 1  # the id before it is the last one: this number means "no id"

_NUMBER = "(0|[1-9][0-9]{0,9})"
_RANGE = re.compile(f"{_NUMBER}:{_NUMBER}:{_NUMBER}")


class IdRange(NamedTuple):
    """One line of a uid_map or gid_map."""

    inside: int
    outside: int
    size: int


IdMap = tuple[IdRange, ...]


def userns_fault(text: str) -> str:
    """Why `text` cannot say which ids a user namespace has, or ""."""
    if text in MODES:
        return ""
    words = text.split(",")
    if len(words) > LINES_MAX:
        return f"a map has {LINES_MAX} ranges at most"
    if not all(_RANGE.fullmatch(word) for word in words):
        return "it is neither auto nor keep-id nor INSIDE:OUTSIDE:COUNT in plain numbers"
    return _map_fault(read_map(text))


def read_map(text: str) -> IdMap:
    """The map "INSIDE:OUTSIDE:COUNT,...", in which :func:`userns_fault` finds nothing wrong."""
    return tuple(IdRange(*map(int, word.split(":"))) for word in text.split(","))


def _map_fault(ranges: IdMap) -> str:
    for one in ranges:
        if not one.size:
            return "a range of it is empty"
        if max(one.inside, one.outside) + one.size > _END:
            return f"a range of it goes beyond the last id, {_END - 1}"
    for side, starts in (("inside", 0), ("outside", 1)):
        spans = sorted((one[starts], one[starts] + one.size) for one in ranges)
        if any(end > start for (_, end), (start, _) in zip(spans, spans[1:])):
            return f"two ranges of it overlap {side}"
    if not any(one.inside == 0 for one in ranges):
        return "it has no id 0 inside, so nobody would be root there"
    return ""


def first_free(within: Iterable[tuple[int, int]], used: Iterable[tuple[int, int]], count: int) -> int | None:
    """The first of `count` ids in a row that are in one of `within` and in none of `used`; or None.

    Args:
        within, used: (first, how many) each.
    """
    taken = sorted(used)
    for start, size in within:
        at = start
        for first, many in taken:  # by their starts, so that `at` never has to go back
            if first < at + count and at < first + many:
                at = first + many
        if at + count <= start + size:
            return at
    return None


def around(own: int, start: int, count: int) -> IdMap:
    """A map in which the id `own` is itself, and the others are `count` ids from `start` on."""
    below = min(own, count)
    ranges = (IdRange(0, start, below), IdRange(own, own, 1), IdRange(own + 1, start + below, count - below))
    return tuple(one for one in ranges if one.size)


def is_identity(ranges: Iterable[tuple[int, int, int]]) -> bool:
    """Whether every id that is known inside is the same outside."""
    return all(inside == outside for inside, outside, _ in ranges)
