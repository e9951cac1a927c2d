"""The program's side of the spawner: starts it once, sends requests, reads answers.

Safe in programs with threads, and after a fork of the program: a child gets its own spawner.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
from typing import Any, Sequence

from ..errors import NsboxError
from ..linux import borrowed, process, trouble
from . import wire


# The spawner finds nsbox where this program did, and nothing else: neither beside it nor by the environment.
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[2])
import nsbox
del sys.path[0]
from nsbox.pod import spawner
spawner.serve(int(sys.argv[1]))
"""


class Answer:
    """What comes back for one request: a first message, and for a member another at its end."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def first(self) -> tuple[dict[str, Any], list[int]]:
        """The answer. Raises the NsboxError that the worker met."""
        received = wire.receive(self._channel)
        if received is None:
            self.close()
            raise NsboxError("cannot reach nsbox's spawner: it was killed")
        message, fds = received
        if "error" in message:
            self.close()
            raise trouble.decode(message["error"].encode())
        return message, fds

    def ended(self) -> int:
        """The member's return code, negative for a signal. Blocks until it has ended."""
        received = wire.receive(self._channel)
        if received is None:
            return -9  # the worker was killed, and the member with it
        return int(received[0]["ended"])

    def fileno(self) -> int:
        """Readable once :meth:`ended` would not block."""
        return self._channel.fileno()

    def close(self) -> None:
        """Read no more."""
        self._channel.close()


class _Spawner:
    """One spawner process of this program."""

    def __init__(self) -> None:
        borrowed.refuse()
        ours, theirs = wire.pair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM, str(theirs.fileno()), _package_parent()],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the program, which decides
            )
        self._channel = ours

    def send(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        wire.send(self._channel, request, fds)

    def close(self) -> None:
        self._channel.close()
        self._process.wait()

    def leave_to_parent(self) -> None:
        """In a forked child: as long as we hold the channel too, the spawner would not end."""
        self._channel.close()
        self._process.returncode = 0  # not our child: nothing to wait for, or to warn about


_lock = threading.Lock()
_spawner: _Spawner | None = None


def _package_parent() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def request(verb: str, fds: Sequence[int] = (), **what: Any) -> Answer:
    """Ask for something; the answer comes on a channel of its own.

    Args:
        fds: descriptors that the worker gets.
    """
    global _spawner
    ours, theirs = wire.pair()
    message = {
        "verb": verb,
        "environment": {name: os.environ[name] for name in wire.ENVIRONMENT if name in os.environ},
        **what,
    }
    with contextlib.ExitStack() as on_failure, theirs, _lock:
        on_failure.callback(ours.close)
        if _spawner is None:
            _spawner = _Spawner()
        try:
            _spawner.send(message, [theirs.fileno(), *fds])
        except (BrokenPipeError, ConnectionResetError):  # it was killed: once more with a new one
            _spawner.close()
            _spawner = _Spawner()
            _spawner.send(message, [theirs.fileno(), *fds])
        on_failure.pop_all()
    return Answer(ours)


def _after_fork() -> None:
    global _lock, _spawner
    _lock = threading.Lock()  # some other thread may have held it, which is not here
    if _spawner is not None:
        _spawner.leave_to_parent()
        _spawner = None


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def close() -> None:
    """End the spawner, and with it the members and pods that live as long as this program."""
    global _spawner
    with _lock:
        if _spawner is not None:
            _spawner.close()
            _spawner = None
