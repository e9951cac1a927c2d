"""One call after the other, each when somebody at the terminal says so."""

import os
import termios

from . import catalogue
from .teller import Told, out_of_the_way
from .text import Screen, call_of, reason_of

_PROMPT = "    Enter: do it    c: go on without asking    q: end here and undo "
_NOT_ASKED = frozenset({"helper"})  # what it meets is of no account to its parent


class Steps(Screen):
    """Shows each call before it is made, and waits for a key.

    The processes ask one after the other: where one works, the others wait for it.
    """

    patient = True

    def __init__(self, out_fd: int, in_fd: int) -> None:
        super().__init__(out_fd)
        self._in_fd = out_of_the_way(in_fd)
        self.fds = (*self.fds, self._in_fd)
        self._asked = ""

    def asks(self, call: str, who: str) -> bool:
        known = catalogue.CALLS.get(call)
        return (known is None or not known.plumbing) and who not in _NOT_ASKED and self._has_lines()

    def _has_lines(self) -> bool:
        """Whether the terminal waits for whole lines: it is the member's while it does not."""
        try:
            return bool(termios.tcgetattr(self._in_fd)[3] & termios.ICANON)
        except termios.error:
            return False

    def before(self, told: Told) -> str:
        self._asked = told.text
        self._print(call_of(told, self._width, result=False))
        self._print(reason_of(told, self._width))
        self._print([_PROMPT], end="")
        said = os.read(self._in_fd, 1024)  # nothing at all: the terminal has gone
        return said.strip().lower()[:1].decode(errors="replace") if said else "q"

    def after(self, told: Told) -> None:
        if told.text != self._asked:
            super().after(told)
            return
        self._asked, self._said = "", (told.call, told.why)
        self._print(self.result_of(told))
        self._by_hand(told)
