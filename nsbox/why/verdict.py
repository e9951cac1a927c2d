"""The answer: for each kind what the kernel says, what was proved, why it is so, and what would change it."""

from typing import NamedTuple

from ..spec import EXTRA_KINDS, KIND_NAMES
from . import probes
from .sides import Side, relation

# Beside the kinds of namespaces: two things that people take for one of them.
MORE = {"root": "mnt", "shm": "mnt"}
KINDS = (*KIND_NAMES, *MORE)

# Why, by kind: if they share it, if not.
_REASONS = {
    "user": ("user and group ids, and capabilities, mean the same to both",
             "ids and capabilities of one mean nothing in the other"),
    "cgroup": ("both name control groups from one root", "each sees its own control group as the root of all"),
    "ipc": ("System V objects and POSIX message queues belong to both",
            "each has System V objects and POSIX message queues of its own"),
    "uts": ("there is one hostname, and who sets it sets it for both", "each has a hostname of its own"),
    "net": ("there is one set of links, addresses, ports and abstract sockets",
            "each has links, addresses, ports and abstract sockets of its own"),
    "pid": ("each sees the other, by one set of numbers", "neither has a number for the other"),
    "time": ("the clocks since boot are shared; the time of day always is",
             "each may have other clocks since boot; the time of day is always shared"),
    "mnt": ("there is one table of mounts: what one mounts, both see", "what one mounts, the other does not see"),
    "root": ("both start at the same directory", "each starts at a directory of its own"),
    "shm": ("POSIX shared memory is a file in /dev/shm, and both have the same one mounted there",
            "POSIX shared memory is a file in /dev/shm, and each has another one mounted there"),
}  # fmt: skip
_NESTED = {
    "pid": "the outer one sees and signals the inner one by a number of its own, and not the other way round",
    "user": "who is root in the outer one has all rights in the inner one, and not the other way round",
}


class Row(NamedTuple):
    """One kind.

    Attributes:
        kind: a kind of namespace, or "root" or "shm".
        relation: by the kernel's ids: "same", "different", "inside" (A in B), "around" (B in A), or
            "" for what has none, or may not be seen.
        proved: what the probe found, in the same words; "" if it cannot tell.
        probe: what was tried, and what came of it.
        agree: whether the two say the same; None if one of them says nothing.
        reason: one sentence.
        change: the words that would make it otherwise.
    """

    kind: str
    relation: str
    proved: str
    probe: str
    agree: bool | None
    reason: str
    change: str


def compare(a: Side, b: Side) -> list[Row]:
    """What the two share, kind by kind."""
    return [_row(kind, a, b) for kind in KINDS if kind in MORE or kind in a.ids]


def _row(kind: str, a: Side, b: Side) -> Row:
    found = "" if kind in MORE else relation(kind, a, b)
    proof = probes.prove(kind, a, b)
    agree = found == proof.how if found and proof.how else None
    how = found or proof.how
    return Row(kind, found, proof.how, proof.seen, agree, _reason(kind, how), _change(kind, how, a, b) if how else "")


def _reason(kind: str, how: str) -> str:
    if how in ("inside", "around"):
        return _NESTED[kind]
    return _REASONS[kind][0 if how == "same" else 1] if how else ""


def _change(kind: str, how: str, a: Side, b: Side) -> str:
    pods = [side for side in (a, b) if side.found.pod is not None]
    at = (pods or [a])[0]
    if how != "same":
        return f"nsbox join {at.word} --share {MORE.get(kind, kind)} -- CMD"
    if kind in MORE:
        return f"nsbox join {at.word} --rootfs DIR -- CMD"
    held = [name for name, _ in at.found.pod.kinds] if at.found.pod is not None else []
    if kind in held:
        return f"nsbox join {at.word} --share {','.join(name for name in held if name != kind) or 'none'} -- CMD"
    return f"nsbox create --with {kind}" if kind in EXTRA_KINDS else "nsbox run -- CMD"
