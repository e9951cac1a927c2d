"""Lines for a terminal: pieces of text, each in a style of its own. Rich draws them where there is a terminal.

A pipe or a file gets the texts alone, for which nothing is imported: of a map of hundreds that was half the time.
"""

import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple


class Piece(NamedTuple):
    """Some text. `style` is as rich writes it: "bold red", "dim", or "" for none."""

    text: str
    style: str = ""


Line = list[Piece]


def printed(lines: Sequence[Line]) -> str:
    """The lines, with the escapes that stdout wants."""
    if not _is_styled():
        return "\n".join("".join([piece.text for piece in line]) for line in lines)
    from rich.console import Console
    from rich.segment import Segment, Segments
    from rich.style import Style

    console = Console(highlight=False, soft_wrap=True)
    segments = []
    for line in lines:
        segments += [Segment(text, Style.parse(style) if style else None) for text, style in line]
        segments.append(Segment.line())
    with console.capture() as captured:
        console.print(Segments(segments), end="")
    return captured.get().removesuffix("\n")


def _is_styled() -> bool:
    """Whether stdout is a terminal, or the environment may say that it counts as one: rich knows the rules."""
    return sys.stdout.isatty() or bool(os.environ.get("FORCE_COLOR") or os.environ.get("TTY_COMPATIBLE"))


def terminal_width() -> int:
    """Columns: as COLUMNS says, of the terminal that there is, or 80."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    for fd in (0, 1, 2):
        try:
            return os.get_terminal_size(fd).columns or 80
        except OSError:
            continue
    return 80


def fitted(line: Line, width: int, ellipsis: str) -> Line:
    """As much of a line as fits into so many columns, without blanks at its end."""
    text = "".join([piece.text for piece in line])
    if (len(text) if text.isascii() else width_of(text)) > width:
        line = _cropped(line, width - width_of(ellipsis))
        line.append(Piece(ellipsis))
    while line and not (bare := line[-1].text.rstrip()):
        line = line[:-1]
    return [*line[:-1], line[-1]._replace(text=bare)] if line else []


def _cropped(line: Line, room: int) -> Line:
    found = []
    for text, style in line:
        fits = cut(text, room)
        found.append(Piece(fits, style))
        if fits != text:
            break
        room -= width_of(text)
    return found


def cut(text: str, width: int) -> str:
    """As much of a text as fits into so many columns."""
    if text.isascii():
        return text[: max(width, 0)]
    for number, char in enumerate(text):
        width -= _width(char)
        if width < 0:
            return text[:number]
    return text


def width_of(text: str) -> int:
    """How many columns a text takes: letters of East Asia take two, and accents none."""
    return len(text) if text.isascii() else sum(map(_width, text))


@cache
def _width(char: str) -> int:
    if char < "\u0300" or "\u2010" <= char <= "\u2027" or "\u2190" <= char < "\u231a" or "\u2500" <= char < "\u25fd":
        return 1  # Latin; dashes and dots, arrows, lines and shapes
    import unicodedata  # rarely needed

    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
