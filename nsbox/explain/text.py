"""What was told, for people: a few lines a call, as wide as the terminal, without colour.

    number, process, call and result
    why, and where to read about it
    which namespaces the process is in now
    $ the same by hand
"""

import contextlib
import itertools
import mmap
import os
import signal
import struct
import termios
import textwrap
from collections.abc import Iterable, Iterator

from ..words import SPELLED
from .byhand import Hand
from .teller import Told, out_of_the_way

_WHO = 11
_MARGIN = 5 + _WHO  # "  12 member     "
_FAILURE = struct.Struct("i")
_WIDTH_MIN, _WIDTH_MAX, _WIDTH_UNKNOWN = 60, 120, 100


def call_of(told: Told, width: int, *, result: bool = True) -> Iterator[str]:
    """A call with its result; without a number and a result if it has yet to be made."""
    number = f"{told.number or '':>4}"
    yield from _wrapped(f"{number} {told.who:<{_WHO}}", told.text + (_result(told) if result else ""), width)


def reason_of(told: Told, width: int) -> Iterator[str]:
    """Why, and where to read."""
    why = f"{told.why} " if told.why else ""
    yield from _wrapped(" " * _MARGIN, f"{why}[{told.man}]", width)


def move_of(told: Told, width: int) -> Iterator[str]:
    """From which namespaces to which a process went."""
    words = [f"{kind} {old} -> {new}" for kind, (old, new) in told.moved.items()]
    who = "" if told.number else f"{told.who} is in: "
    yield from _wrapped(" " * _MARGIN, who + ", ".join(words), width)


def _result(told: Told) -> str:
    if told.error:
        return f" = -1 {told.error}"
    return "" if told.call in ("execve", "execveat") else f" = {told.result}"


def _wrapped(head: str, text: str, width: int) -> list[str]:
    if len(text) > width:
        text = text.replace("|1<<", "| 1<<")  # capabilities: too many for a line
    indent = " " * (_MARGIN + 4 if head.strip() else _MARGIN)
    return textwrap.wrap(text, width, initial_indent=head, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False) or [head]  # fmt: skip


def _spelled_out(line: str) -> str:
    """A command whose words cannot steer a terminal, and that bash and zsh still read as it was.

    What is not printable is within single quotes: it becomes $'...' between two of these.
    """
    if line.isprintable():
        return line
    parts = []
    for harmless, chars in itertools.groupby(line, str.isprintable):
        part = "".join(chars)
        parts.append(part if harmless else "'$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(part)) + "''")
    return "".join(parts)


class Screen:
    """Shows each call when it has been made. Told by whichever process made it, each with a copy."""

    patient = False

    def __init__(self, out_fd: int) -> None:
        """A copy of the descriptor, for 0 to 2 will be the member's. It is close-on-exec."""
        self._fd = out_of_the_way(out_fd)
        self.fds: tuple[int, ...] = (self._fd,)
        try:
            columns = os.get_terminal_size(out_fd).columns
        except OSError:
            columns = _WIDTH_UNKNOWN
        self._width = min(max(columns, _WIDTH_MIN), _WIDTH_MAX)
        self._said, self._line = ("", ""), ""
        self._hand = Hand()
        self._is_terminal = os.isatty(out_fd)
        self._failure = mmap.mmap(-1, _FAILURE.size)  # of whichever process

    @property
    def failure(self) -> int:
        """The errno with which a write failed, or 0. Those that show go on with their work all the same."""
        return int(_FAILURE.unpack(self._failure[:])[0])

    def asks(self, call: str, who: str) -> bool:
        return False

    def before(self, told: Told) -> str:
        return ""

    def after(self, told: Told) -> None:
        if told.call in ("execve", "execveat") and told.error:
            self._print(self.result_of(told))  # the call itself is there already
        else:
            self._print(call_of(told, self._width))
            if (told.call, told.why) != self._said:  # of several in a row the first tells why
                self._print(reason_of(told, self._width))
            self._said = told.call, told.why
            self._by_hand(told)

    def planned(self, plan: "Iterable[Told]") -> None:
        """What would be done: it has no results."""
        for told in plan:
            self._print(call_of(told, self._width, result=False))
            self._print(reason_of(told, self._width))
            self._by_hand(told)

    def result_of(self, told: Told) -> list[str]:
        """The result alone."""
        return [" " * (_MARGIN + 4) + _result(told).strip()] if _result(told) else []

    def _by_hand(self, told: Told) -> None:
        for line in self._hand.lines(told):
            if line != self._line:
                first, *more = line.split("\n") if told.is_of_nsbox else [line]  # a program, and what it reads
                shown = _spelled_out(first)  # whole, to be copied
                self._print([" " * _MARGIN + (shown if shown.startswith("#") else f"$ {shown}")])
                self._print([" " * _MARGIN + "> " + _spelled_out(one.expandtabs(4)) for one in more])
            self._line = line

    def moved(self, told: Told) -> None:
        self._print(move_of(told, self._width))

    def _newline(self) -> str:
        """A raw terminal, as it is while a member has one of its own, does not go back by itself."""
        try:
            raw = self._is_terminal and not termios.tcgetattr(self._fd)[1] & termios.OPOST
        except termios.error:
            raw = False
        return "\r\n" if raw else "\n"

    def _print(self, lines: "Iterator[str] | list[str]", end: str | None = None) -> None:
        end = self._newline() if end is None else end
        text = "".join(line + end for line in lines)
        view = memoryview(text.encode(errors=SPELLED))
        with _no_sigpipe():
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError as err:
                self._failure[:] = _FAILURE.pack(err.errno or 0)


@contextlib.contextmanager
def _no_sigpipe() -> Iterator[None]:
    """What is going to be a command does not ignore it any more, and must not be ended by it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
    try:
        yield
    finally:
        if signal.SIGPIPE not in before:
            signal.sigtimedwait({signal.SIGPIPE}, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
