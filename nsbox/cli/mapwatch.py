"""`nsbox map --watch` and `--serve`: the picture, kept current until a signal ends it."""

import argparse
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Sequence

from . import clean
from .map import text_of

if TYPE_CHECKING:
    from ..show.picture import Picture

_LIT_S = 3.0  # so long a change is lit


def watch(args: argparse.Namespace, wanted: Sequence[int], interval_s: float) -> int:
    """On a terminal one screen that renews itself; else each picture that is another than the last one."""
    from ..show import picture, view

    recent: deque[Picture] = deque()
    shown = ""
    with _Screen(sys.stdout.isatty()) as screen:
        while True:
            taken = picture.take(recent[-1] if recent else None, nets="networks" in args.only)
            recent.append(taken)
            while len(recent) > 1 and taken["taken"] - recent[1]["taken"] >= _LIT_S:
                recent.popleft()
            seen = view.View(taken, _still(wanted, taken), recent[0] if len(recent) > 1 else None)
            text = text_of(seen, args)
            if text != shown:
                screen.show(text, time.strftime("%H:%M:%S"))
                shown = text
            time.sleep(interval_s)


def _still(wanted: Sequence[int], taken: "Picture") -> list[int]:
    """Of the targets those that are left; where all are gone, their numbers say that nothing is to be drawn."""
    there = {one["pid"] for one in taken["processes"]}
    return [pid for pid in wanted if pid in there] or list(wanted)


class _Screen:
    """The terminal's other screen, which leaves no trace in what was printed before."""

    _ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
    _HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def __enter__(self) -> "_Screen":
        self._write(self._ENTER if self._is_terminal else "")
        return self

    def __exit__(self, *_exc: object) -> None:
        self._write(self._LEAVE if self._is_terminal else "")

    def show(self, text: str, clock: str) -> None:
        """Show it, as much as there is room for."""
        if not self._is_terminal:
            return self._write(f"{clock}\n{text}\n\n")
        import shutil

        height = shutil.get_terminal_size().lines
        lines = text.split("\n")
        if more := max(len(lines) - (height - 1), 0):
            lines = lines[: height - 1]
        foot = f"{clock}  Ctrl-C ends" + (f"  {more} more lines" if more else "")
        shown = "".join(f"{line}{self._CLEAR_LINE}\n" for line in lines)
        self._write(f"{self._HOME}{shown}{foot}{self._CLEAR_LINE}{self._CLEAR_BELOW}")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def serve(args: argparse.Namespace, wanted: Sequence[int], port: int, interval_s: float) -> int:
    """Print the address, which has a secret in it, and serve the page there."""
    from ..show import page, picture, view
    from ..show.serve import Server

    latest: list[Picture] = []

    def take() -> str:
        taken = picture.take(latest[0] if latest else None, nets="networks" in args.only)
        latest[:] = [taken]
        return page.html(view.View(taken, _still(wanted, taken)), args.only, unfold=args.all, live=True)

    with Server(port) as server:
        print(server.address)
        clean.flush_answer()
        server.run(take, interval_s)
    return 0
