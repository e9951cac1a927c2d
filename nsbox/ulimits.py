"""What a process of a pod may use, as a person says it: the limits of setrlimit(2). Touches nothing.

The numbers are the kernel's, in its units: bytes (as core data fsize memlock msgqueue rss stack),
seconds (cpu), microseconds (rttime), how many (locks nofile nproc sigpending), and ceilings of
priorities (nice rtprio).
"""

import re
from collections.abc import Iterable

from . import decode
from .errors import SpecError

# The names of prlimit(1), ulimit and podman: RLIMIT_* of setrlimit(2), in lower case.
NAMES = ("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
         "rtprio", "rttime", "sigpending", "stack")  # fmt: skip
INFINITY = 2**64 - 1  # RLIM64_INFINITY
UNLIMITED = "unlimited"

Bounds = tuple[int, int]  # soft, hard
Ulimits = tuple[tuple[str, Bounds], ...]  # each name once, in the order of NAMES

_FORM = "NAME=SOFT[:HARD], as in nofile=1024:4096; each a whole number or unlimited; NAME is one of"
_HINT = f"{_FORM} {' '.join(NAMES)}"
_NUMBER = re.compile("0|[1-9][0-9]{0,19}")


def name_fault(name: str) -> str:
    """Why there is no limit of this name, or ""."""
    return "" if name in NAMES else f"there is no limit {name[:40]!r}"


def bounds_fault(bounds: Bounds) -> str:
    """Why no process can have this soft and hard limit, or ""."""
    soft, hard = bounds
    return f"the soft limit is above the hard one, {word_of(hard)}" if soft > hard else ""


def _items_fault(items: Ulimits) -> str:
    names = [name for name, _ in items]
    return "" if len(set(names)) == len(names) else "a limit is there twice"


def parse_ulimit(text: str) -> tuple[str, Bounds]:
    """The limit "NAME=SOFT[:HARD]"; SOFT alone is both.

    Raises:
        SpecError: it is not written so, there is no such limit, or the soft one is above the hard one.
    """
    name, equals, value = text.partition("=")
    soft, colon, hard = value.partition(":")
    fault = "" if equals else "not NAME=SOFT[:HARD]"
    fault = fault or name_fault(name)
    if not fault:
        bounds = _number(soft), _number(hard if colon else soft)
        fault = f"not a number up to 2^64-1, nor {UNLIMITED}" if None in bounds else ""
    if not fault:
        made = bounds[0] or 0, bounds[1] or 0
        if not (fault := bounds_fault(made)):
            return name, made
    raise SpecError(f"cannot set limit {text[:120]!r}: {fault}", hint=_HINT)


def _number(word: str) -> int | None:
    """No sign, no space, no leading zero, as everywhere; 2^64-1 is what the kernel calls infinite."""
    if word == UNLIMITED:
        return INFINITY
    number = int(word) if _NUMBER.fullmatch(word) else None
    return None if number is None or number > INFINITY else number


def settle(*given: Iterable[tuple[str, Bounds]]) -> Ulimits:
    """All of `given` as one: of a name that comes again the last counts."""
    found = {name: bounds for some in given for name, bounds in some}
    return tuple((name, found[name]) for name in NAMES if name in found)


def word_of(number: int) -> str:
    """A limit as it is written."""
    return UNLIMITED if number == INFINITY else str(number)


def words_of(bounds: Bounds) -> str:
    """'1024:4096', as after the "=" of --ulimit."""
    return ":".join(map(word_of, bounds))


_BOUND = decode.number(int, 0, INFINITY)
of_list = decode.lawful(
    decode.sequence(
        decode.pair(decode.text(name_fault), decode.lawful(decode.pair(_BOUND, _BOUND), bounds_fault)), tuple
    ),
    _items_fault,
)
