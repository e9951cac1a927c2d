"""A letter for each namespace, by kind: equal letters in one column are one namespace.

A is the caller's own. An earlier picture can lend its letters: what is still there keeps them.
"""

from typing import Any, Iterator, Mapping, Sequence

from ..linux.world import World

# In the order in which they are drawn: rights first, then what a program sees, then its clock.
COLUMNS = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time")

Key = tuple[str, int, int | None]


def assign(world: World, order: Sequence[int], earlier: Mapping[str, Any] | None) -> dict[int, str]:
    """The letter of each namespace, by its id.

    Args:
        order: PIDs as they will be drawn; letters are given in this order.
        earlier: a picture of the same boot, or None.
    """
    lent = lend(earlier)
    found: dict[int, str] = {}
    for kind in COLUMNS:
        ids = dict.fromkeys([world.own[kind]] if kind in world.own else [])
        ids |= dict.fromkeys(number for pid in order if (number := world.processes[pid].namespaces.get(kind)))
        ids |= dict.fromkeys(row.id for row in world.namespaces.values() if row.kind == kind)
        keys = {number: key_of(kind, number, world.namespaces[number].serial) for number in ids}
        taken = {letter for (of, _, _), letter in lent.items() if of == kind}
        free = (letter for letter in _all() if letter not in taken)
        for number, key in keys.items():
            found[number] = lent.get(key) or next(free)
    return found


def lend(picture: Mapping[str, Any] | None) -> dict[Key, str]:
    """The letters of a picture, by what tells its namespaces from all others."""
    rows = picture["namespaces"] if picture else ()
    return {key_of(row["kind"], row["id"], row["serial"]): row["letter"] for row in rows}


def key_of(kind: str, number: int, serial: int | None) -> Key:
    """What is the same in two pictures of one boot if, and only if, it is the same namespace.

    On a kernel without serials the number may have been given out again.
    """
    return kind, number, serial


def place(kind: str, letter: str) -> tuple[int, int, str]:
    """For sorting: column by column, A to Z before AA."""
    return COLUMNS.index(kind), len(letter), letter


def _all() -> Iterator[str]:
    """A to Z, then AA to ZZ, and so on."""
    number = 0
    while True:
        number += 1
        left, letters = number, ""
        while left:
            left, digit = divmod(left - 1, 26)
            letters = chr(ord("A") + digit) + letters
        yield letters
