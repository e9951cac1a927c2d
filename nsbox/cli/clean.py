"""A clean process to begin with, whatever the caller left, and an end that says what was lost.

Closed stdio, ignored or blocked signals, a wild umask, a small limit on descriptors: each of
them is common (cron, nohup, daemons), and each would make some later step go wrong.
"""

import errno
import io
import os
import signal
import sys
from types import FrameType
from typing import Any, Callable, NoReturn

from ..errors import Interrupted, NsboxError
from ..linux import borrowed
from ..show.text import printable
from ..words import SPELLED

FREE_FDS = 24  # a pod with a rootfs takes 18; running out half way would leave a record behind
callers_umask = 0o077  # for files that the caller asked for by name
is_rehearsal = False  # then what is done to the host's network is done to a copy of it
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def begin() -> None:
    """Undo what the caller may have left. The first thing that the command does.

    Raises:
        NsboxError: the limit on open files leaves too few descriptors to work with, or the rights
            that we have are not the caller's.
    """
    global callers_umask
    _open_stdio()
    borrowed.refuse()
    callers_umask = os.umask(0o077)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would eat exit statuses
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for signum in _ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:  # nohup(1) shall stay what it is
            signal.signal(signum, _interrupt)
    _check_free_fds()


def _interrupt(signum: int, _frame: FrameType | None) -> None:
    for other in _ENDING:
        signal.signal(other, signal.SIG_IGN)  # a second one must not cut the undoing off
    raise Interrupted(signum)


def _open_stdio() -> None:
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError as err:
            if err.errno == errno.EBADF:  # else the next open would become stdin or stdout
                os.open(os.devnull, os.O_RDWR)
    out: Any = sys.stdout
    if out is None:  # so it is where fd 1 was closed at the interpreter's start
        sys.stdout = open(1, "w", closefd=False)
    elif sys.__stdout__ is not None and out is sys.__stdout__:  # else it is of who called main(), and reads the answer
        writer = io.BufferedWriter(_Answer(1, "w", closefd=False))
        sys.stdout = io.TextIOWrapper(writer, out.encoding, line_buffering=out.line_buffering)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors=SPELLED)  # type: ignore[union-attr]


class _Answer(io.FileIO):
    """Stdout. That it cannot be written says so itself, for it may show in the midst of anything: see front.py."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as err:
            lose_answer(err)


def _check_free_fds() -> None:
    fds: list[int] = []
    try:
        while len(fds) < FREE_FDS:
            fds.append(os.dup(0))
    except OSError as err:
        raise NsboxError(
            f"cannot work with {len(fds)} free file descriptors, {FREE_FDS} are needed",
            hint="raise the limit, as with: ulimit -n 1024",
        ) from err
    finally:
        for fd in fds:
            os.close(fd)


def flush_answer() -> None:
    """Write out what was printed.

    Raises:
        BrokenPipeError: nobody reads it. NsboxError: it cannot be written.
    """
    try:
        sys.stdout.flush()
    except (NsboxError, BrokenPipeError):
        _drop(1)
        raise
    except OSError as err:
        _drop(1)
        lose_answer(err)


def lose_answer(err: OSError) -> NoReturn:
    """Say that it cannot be written.

    Raises:
        BrokenPipeError: nobody reads it. NsboxError: all else.
    """
    if isinstance(err, BrokenPipeError):
        raise err
    raise NsboxError("cannot write the answer to stdout") from err


def answer(make: Callable[[], str], undo: Callable[[], object]) -> None:
    """Print the answer of a verb that makes something. If it cannot be told, undo what was made.

    Once it is told, no signal is taken any more: a status of failure would not be the truth.
    """
    try:
        print(make())
        flush_answer()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    except BaseException:
        undo()
        raise


def tell(*lines: str) -> None:
    """Print lines on stderr, nothing in which steers a terminal. Where stderr is full or broken, the exit
    status alone must do."""
    if lines:
        tell_text("\n".join(printable(line) for line in lines))


def tell_text(text: str) -> None:
    """Print text of many lines on stderr, in the same way."""
    try:
        print(*(printable(line) for line in text.split("\n")), sep="\n", file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        _drop(2)


def say_changes() -> None:
    """Say on stderr what a verb changed on the host for networks, or had to leave, if anything."""
    world = sys.modules.get("nsbox.pod.networld")
    if world is not None and not is_rehearsal:
        tell(*(f"nsbox: {note}" for note in dict.fromkeys(world.notes)))
        world.notes.clear()


def _drop(fd: int) -> None:
    """Let what could not be written go, or Python would try once more at its end, and complain."""
    null_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_fd, fd)
    os.close(null_fd)
