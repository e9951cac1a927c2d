"""Text from inside a pod, made safe for a terminal, and tables of it."""

import os
import sys
import time
from typing import Sequence

from ..words import printable as printable

_LAST_COLUMN_MIN = 8
_NARROWEST = 40
_UNKNOWN = 80  # the width of a terminal that says 0
_SHELL_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_")


def command_line(words: Sequence[str]) -> str:
    """Arguments as one line that a shell would read back."""
    return " ".join(
        word if word and _SHELL_SAFE.issuperset(word) else "'" + printable(word).replace("'", "'\\''") + "'"
        for word in words
    )


def fitted(line: str) -> list[str]:
    """A line cut between words to the width of the terminal on stdout; whole for a pipe.

    What goes on is indented by four more than the line itself.
    """
    if not os.isatty(1):
        return [line]
    import textwrap

    width = max(os.get_terminal_size(1).columns or _UNKNOWN, _NARROWEST)
    indent = " " * (len(line) - len(line.lstrip(" ")) + 4)
    return textwrap.wrap(
        line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ) or [line]  # fmt: skip


def age(since_s: float) -> str:
    """How long ago a Unix time was, in its largest unit: 42s, 5m, 3h, 2d."""
    seconds = max(0, int(time.time() - since_s))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def clock(seconds: float) -> str:
    """A Unix time as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()
) -> list[str]:
    """Lines of aligned columns: as wide as the terminal on stdout, and whole for a pipe.

    Where the terminal is too narrow the last column is cut, and says so; a number is never cut.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell) for cell in row] for row in rows]
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, title in enumerate(titles):
        last = number == len(titles) - 1  # the only one that may be narrower than what is in it
        grid.add_column(title, justify="right" if title in right else "left", no_wrap=not last)
    for row in cells:
        grid.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row))
    console = Console(highlight=False, soft_wrap=False)
    if not os.isatty(sys.stdout.fileno()):
        console = Console(highlight=False, width=1 << 14)
    least = sum(max(map(cell_len, column)) + 2 for column in list(zip(titles, *cells))[:-1]) + _LAST_COLUMN_MIN
    if console.width < least:
        console = Console(highlight=False, width=least)  # a line goes on in the terminal's next one
    with console.capture() as captured:
        console.print(grid)
    return [line.rstrip() for line in captured.get().splitlines()]
