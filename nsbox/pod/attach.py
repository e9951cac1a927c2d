"""A member in the foreground: its client passes stdio on, forwards signals, returns its status.

A terminal of the caller is never handed into a pod: a program there could type into it
(TIOCSTI). With a terminal the member has a pty of its own pod's devpts; without, whatever of
stdin, stdout and stderr is a terminal goes through a pipe, and the rest is passed as it is.
"""

import os
import signal
from typing import Callable, NamedTuple

from ..errors import NsboxError
from ..linux import process, relay, terminal
from ..privilege import attributes
from ..spec import MemberSpec
from . import member
from .target import Target

_FORWARDED = frozenset(
    {
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
        signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT,
    }
)  # fmt: skip
# What a terminal would send to the whole foreground group, so that a shell's child gets it too.
_FOR_THE_GROUP = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGSTOP, signal.SIGCONT})
_EOF_BYTE = b"\x04"


class Stream(NamedTuple):
    """Where one of the member's three descriptors leads.

    Attributes:
        inner_fd: what the member gets; -1 is /dev/null.
        outer_fd: our end of the pipe, or -1 if `inner_fd` is the caller's own.
    """

    inner_fd: int
    outer_fd: int


Started = Callable[[process.Spawned], None]


def _nothing(_started: process.Spawned) -> None:
    """For callers who need not know when the member has been started."""


def run(
    target: Target, spec: MemberSpec, *, tty: bool, fds: tuple[int, int, int] = (0, 1, 2),
    started_here: Started = _nothing,
) -> int:  # fmt: skip
    """Run a member to its end; return its exit code, or -n if signal n ended it.

    Only for a process with one thread. The member is killed if the caller is.

    Args:
        tty: give it a pty; fds[0] is then a terminal.
        fds: the caller's stdin, stdout and stderr.
        started_here: told once the command has been executed; then those of `fds` that the
            member has taken over are closed here, unless they are our own 0, 1, 2.

    Raises:
        NsboxError: it could not be started.
    """
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if tty:
            return _run_on_pty(target, spec, fds)
        return _run_on_pipes(target, spec, fds, started_here)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def run_as_client(target: Target, spec: MemberSpec, *, tty: bool) -> int:
    """As :func:`run`, with the caller's streams, for a command line.

    It takes the name by which nsbox rm knows whom it may continue: see zombies.py.
    """
    attributes.set_name("nsbox")
    return run(target, spec, tty=tty)


def _hold_signals(_pid: int) -> None:
    """From here on a signal is for the member; relay.attend() takes those that wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED - {signal.SIGTSTP})


def _run_on_pipes(
    target: Target, spec: MemberSpec, fds: tuple[int, int, int], started_here: Started
) -> int:
    streams = [_stream(fd, number == 0) for number, fd in enumerate(fds)]
    inner = (streams[0].inner_fd, streams[1].inner_fd, streams[2].inner_fd)
    started = member.start(
        target, spec, lambda null_fd: (null_fd if inner[0] < 0 else inner[0], *inner[1:]),
        before_go=_hold_signals,
    )  # fmt: skip
    relays = []
    for number, (fd, stream) in enumerate(zip(fds, streams, strict=True)):
        if stream.outer_fd < 0:
            if fd > 2 and stream.inner_fd >= 0:  # lent by another process: an end of a pipe must not stay open here
                os.close(fd)
        else:
            os.close(stream.inner_fd)
            if number == 0:
                relays.append(relay.Relay(fd, stream.outer_fd, is_input=True, close_dst=True))
            else:
                relays.append(relay.Relay(stream.outer_fd, fd, close_src=True))
    started_here(started)

    def on_signal(signum: int) -> None:
        # The kernel throws SIGTSTP away in a session without a terminal: setpgid(2), orphaned groups.
        _forward(started, signal.SIGSTOP if signum == signal.SIGTSTP else signum)
        if signum == signal.SIGTSTP:
            terminal.suspend_self(None)
            _forward(started, signal.SIGCONT)

    relay.attend(started.pidfd, relays, on_signal, _FORWARDED)
    return _reap(started)


def _stream(fd: int, is_input: bool) -> Stream:
    if not os.isatty(fd):
        return Stream(fd, -1)
    if is_input and _in_background(fd):
        return Stream(-1, -1)  # to read for a member that may never want it would get us stopped
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    return Stream(read_end, write_end) if is_input else Stream(write_end, read_end)


def _in_background(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) != os.getpgrp()
    except OSError:
        return False  # not our controlling terminal, so job control is not ours either


def _run_on_pty(target: Target, spec: MemberSpec, fds: tuple[int, int, int]) -> int:
    import socket  # to hand the pty's master out of the pod; the way without a terminal needs none

    ours, theirs = socket.socketpair()

    def open_inside(_null: int) -> tuple[int, int, int]:
        master, slave = _open_pty_inside()
        terminal.copy_window_size(fds[0], slave)
        socket.send_fds(theirs, [b"m"], [master])
        return (slave, slave, slave if os.isatty(fds[2]) else os.dup(fds[2]))  # 2>FILE is kept

    with ours:
        with theirs:
            started = member.start(target, spec, open_inside, on_terminal=True, before_go=_hold_signals)
        master = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)[1][0]
    relays = [
        relay.Relay(fds[0], master, is_input=True, eof_byte=_EOF_BYTE),
        relay.Relay(master, fds[1], close_src=True),
    ]
    with terminal.RawMode(fds[0]):

        def on_signal(signum: int) -> None:
            if signum == signal.SIGWINCH:
                if not relays[1].finished:
                    terminal.copy_window_size(fds[0], master)
            elif signum not in (signal.SIGTSTP, signal.SIGCONT):
                _forward(started, signum)

        relay.attend(started.pidfd, relays, on_signal, _FORWARDED - {signal.SIGTSTP})
    return _reap(started)


def _open_pty_inside() -> tuple[int, int]:
    for ptmx in ("/dev/pts/ptmx", "/dev/ptmx"):
        try:
            return terminal.open_pty(ptmx)
        except OSError as err:
            failure = err
    raise NsboxError(
        "cannot open a terminal in the pod", hint="its root has no /dev/pts: leave -t out"
    ) from failure


def _forward(started: process.Spawned, signum: int) -> None:
    if signum in _FOR_THE_GROUP:
        try:
            # Our child, not yet collected: its number cannot be somebody else's.
            os.killpg(started.pid, signum)
            return
        except ProcessLookupError:
            pass
    process.send_signal(started.pidfd, signum)


def _reap(started: process.Spawned) -> int:
    wait_status = os.waitpid(started.pid, 0)[1]
    os.close(started.pidfd)
    return os.waitstatus_to_exitcode(wait_status)
