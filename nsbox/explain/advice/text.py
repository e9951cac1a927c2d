"""Advice for people: a paragraph for each rule, the ones that apply first."""

import textwrap
from collections.abc import Iterable, Iterator

from .case import APPLIES, NOT, UNKNOWN, Advice

_ORDER = {APPLIES: 0, UNKNOWN: 1, NOT: 2}
_MARGIN = 22
_INDENT = " " * _MARGIN


def lines(title: str, found: Iterable[Advice], width: int) -> Iterator[str]:
    """A title, then verdict, rule and source; what was seen; and the next command where it can be the reason.

    Args:
        width: of the terminal, in columns; a command is never broken.
    """
    rows = sorted(found, key=lambda one: _ORDER[one.verdict])
    yield from _wrapped("", title, width)
    for row in rows:
        yield from _wrapped(f"  {row.verdict}", f"{row.rule} [{row.source}]", width)
        yield from _wrapped("", f"{row.seen}", width, indent=_INDENT)
        if row.verdict != NOT:
            yield f"{_INDENT}$ {row.next}"
    if not rows:
        yield "  no rule is known here: the manual page of the call lists what can give this errno"


def _wrapped(head: str, text: str, width: int, indent: str = "") -> list[str]:
    first = f"{head:<{_MARGIN}}" if head else indent
    following = _INDENT if head or indent else "  "
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=following, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip
