"""Who listens to the system calls and tells them: as text at once, and in a log for what comes after.

One Teller is made by the command; every process that is forked from it has a copy, and tells its
own calls. What they share is one file in memory, without a name:

    four numbers of 8 bytes: how many calls, how many processes, what somebody answered when asked, the last
    process whose birth is told; then a line of JSON for each call

A process that becomes another program loses it with its execve(2): the descriptors are
close-on-exec. Law: nothing is imported here after the start, and nothing opened but links of /proc
read; most of the telling is done by processes that are inside another root.
"""

import errno
import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

from ..errors import NsboxError
from ..linux import doors, namespaces, syscalls
from ..linux.flags import CloneFlag
from . import catalogue, symbols, where

_NUMBER_BYTES = 8
_CALLS_AT, _TASKS_AT, _ANSWER_AT, _BIRTHS_AT, _LINES_AT = (_NUMBER_BYTES * at for at in range(5))
_BIRTH_TOLD_S = 5.0  # by then a parent has told of its child, or never will
_HIGH_FDS = (200, 60, 16)
_BEARING = frozenset({"clone", "clone3", "vfork"})
_MOVING = frozenset({"setns", "unshare"})
_EXECUTING = frozenset({"execve", "execveat"})
# Told of a process that makes a root. What others do to directories is nsbox's own bookkeeping.
_OF_A_TREE = frozenset({"mkdirat", "mknodat", "symlinkat", "fchmodat", "fchownat", "fchmod", "openat", "chdir"})
_VALUES_OF_EXECVE = 3  # of a program of nsbox's own there is a fourth: what it will read
_SETTING_UP = frozenset({"pause", "member"})
_OF_A_STORE, _STORE = frozenset({"rename"}), "store"  # likewise of root file systems that are built or removed
# What a process is, by the function that made it, or by its file: the innermost that is known counts.
_ROLES = {
    "opened_by_child": "helper", "pod/supervise.py": "supervisor", "net/apart.py": "netlink", "net/proxy.py": "proxy",
    "net/pasta.py": "pasta", "pod/netnat.py": "guard", "pod/member.py": "member", "pod/create.py": "pause",
}  # fmt: skip
_MIDDLE = "spawn_in"


class Told(NamedTuple):
    """One call that was made.

    Attributes:
        number: from 1, in the order in which they ended; an execve that of its beginning.
        task: which process, in the order of their births; 0 is the command.
        who: what that process is.
        text: call and arguments in the notation of strace(1).
        result: as the kernel gave it; 0 for an execve that did not fail.
        error: the name of the errno, or "".
        doing: what the caller said that it is for.
        values: the arguments once more, as JSON holds them.
        places: what is behind the descriptors among them, by their position: a path, "pidfd:4711".
        child: the task that it gave birth to, or -1.
        moved: for each kind of namespace that changed, the inode numbers before and after.
        net: of what is done to a network, the inode number of the network namespace, and a process that
            is in it: 0 if that is the command itself, as it began.
    """

    number: int
    task: int
    who: str
    call: str
    text: str
    result: int
    error: str
    doing: str
    why: str
    man: str
    values: list[Any]
    places: dict[str, str]
    child: int = -1
    moved: dict[str, list[int]] = {}
    net: list[int] = []

    @property
    def is_of_nsbox(self) -> bool:
        """Whether an execve is of a program that nsbox itself chose, and not the user."""
        return len(self.values) > _VALUES_OF_EXECVE


class Out(Protocol):
    """Shows what is told while it happens."""

    fds: tuple[int, ...]
    patient: bool

    def asks(self, call: str, who: str) -> bool:
        """Whether somebody is to be asked before this call of that process."""

    def before(self, told: Told) -> str:
        """It is about to be made: what somebody said to that. "q" keeps it and all others from being made."""

    def after(self, told: Told) -> None:
        """It was made. An execve comes twice: at its beginning, and again if it failed."""

    def moved(self, told: Told) -> None:
        """The process that `told` is about is in other namespaces now."""


class Teller(syscalls.Listener):
    """Keeps each call, and shows it on `out`.

    Attributes:
        told: in the command, once it is closed: every call, in the order of their numbers.
    """

    def __init__(
        self, out: Out | None = None, leave: Callable[[str], NoReturn] | None = None, who: str = "nsbox"
    ) -> None:
        """Args:
        out: shows what is told.
        leave: called with who it is in the place of executing a command; the pause is executed.
        who: what the command is: "nsbox", or "store" if it works on root file systems.
        """
        self.told: list[Told] = []
        log_fd = os.memfd_create("nsbox:told", os.MFD_CLOEXEC)
        self._log_fd = out_of_the_way(log_fd)
        os.close(log_fd)
        os.pwrite(self._log_fd, bytes(_LINES_AT), 0)
        self._out, self._leave = out, leave
        self.patient = out is not None and out.patient
        proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        where.proc_fd = out_of_the_way(proc_fd)
        os.close(proc_fd)
        self.fds = (self._log_fd, where.proc_fd, *(out.fds if out is not None else ()))
        self._task, self._who = self._next(_TASKS_AT) - 1, who
        self._bearing, self._child, self._shares_fds = "", -1, False
        self._where, self._goal = where.meant(namespaces.ids_of("self")), dict[str, int]()
        self._unshown: Told | None = None
        self._executing, self._places = 0, dict[str, str]()
        self._opened: dict[int, str] = {}  # where openat2 led to, for when there is no /proc that knows us
        self._networks = where.Networks(self._where.get("net", 0))
        os.register_at_fork(after_in_child=self._born)

    # ---- what the listener of the system calls hears ----

    def begin(self, call: str, args: tuple[object, ...]) -> None:
        if not self._hears(call, args):
            return
        self._places = where.places(call, args, self._opened)  # now: afterwards there may be no /proc to ask
        if call == "sendto":
            self._places |= self._networks.links(args)
        if self._out is not None and self._out.asks(call, self._who) and not self._read(_ANSWER_AT):
            self._ask(self._out, self._told(0, call, args, 0, 0))
        if call in _BEARING:
            self._bearing, self._child = _role(call), self._next(_TASKS_AT) - 1
            self._shares_fds = isinstance(args[0], CloneFlag) and CloneFlag.CLONE_FILES in args[0]
        if call == "setns":
            self._goal = where.goal(*args)
        if call in _EXECUTING:
            self._executing = self._tell(call, args, 0, 0)
            if self._leave is not None and not _is_pause(args):
                self._leave(self._who)
        elif self._is_last(call, args):
            self._tell(call, args, 0, 0)
            self._be_deaf()

    def end(self, call: str, args: tuple[object, ...], result: int, code: int) -> None:
        if not self._hears(call, args):
            return
        number = self._executing if call in _EXECUTING else 0
        number = self._tell(call, args, result, code, number)
        if call == "openat2" and not code:
            self._opened[result] = self._places["0"].rstrip("/") + str(args[1])
        if call in _MOVING and not code:
            self._tell_move(number, self._goal if call == "setns" else where.here())
            self._networks.entered(self._where.get("net", 0), self._places.get("0", ""))
        if call == "vfork" and not code:
            self._tell_program(args)
        elif call in _BEARING and self._log_fd >= 0:
            self._put(_BIRTHS_AT, self._child)
        self._bearing, self._child = "", -1

    def close(self) -> None:
        if self._log_fd >= 0 and self._task == 0:
            self.told = self._all()
        for fd in self.fds if self._log_fd >= 0 else ():
            try:
                os.close(fd)
            except OSError:
                pass  # closed together with others
        self._be_deaf()

    def _be_deaf(self) -> None:
        """The log has been closed with others: this process is heard no more, and works at full speed."""
        self._log_fd = -1
        doors.close_doors()

    def _ask(self, out: Out, told: Told) -> None:
        """Raises NsboxError: somebody said that it shall end here."""
        said = out.before(told)
        if said in ("q", "c"):
            self._put(_ANSWER_AT, ord(said))  # for all processes: undoing asks nobody
        if said == "q":
            raise NsboxError(f"cannot go on: you ended it before {told.call}")

    def _hears(self, call: str, args: Sequence[Any]) -> bool:
        if self._log_fd < 0 or call in _OF_A_TREE and self._who not in _SETTING_UP:
            return False
        if call in _OF_A_STORE and self._who != _STORE:
            return False
        return catalogue.is_told(call, args)

    def _is_last(self, call: str, args: Sequence[Any]) -> bool:
        """Whether it closes the log: then nothing can be told any more when it has been made."""
        return call == "close_range" and not args[2] and args[0] <= self._log_fd <= args[1]

    def _born(self) -> None:
        """Runs first of all in every forked process."""
        if self._log_fd < 0 or not self._bearing:
            return
        self._task, self._who, self._bearing, self._child = self._child, self._bearing, "", -1
        if self._shares_fds:
            self._await_birth()
        self._tell_move(0, where.here())

    def _await_birth(self) -> None:
        """Wait until the parent has told of us: a lock is of all who share descriptors, and keeps neither of us out.

        The parent makes no other call before we have ended.
        """
        deadline = time.monotonic() + _BIRTH_TOLD_S
        while self._read(_BIRTHS_AT) < self._task and time.monotonic() < deadline:
            time.sleep(0.0005)

    # ---- telling ----

    def _tell_program(self, args: tuple[object, ...]) -> None:
        """A program was started, and hears nobody: its execve is told for it."""
        argv, env, given = args
        task, who = self._task, self._who
        self._task, self._who, self._bearing, self._child = self._child, _program(argv), "", -1
        self._tell("execve", (argv[0], argv, env, given), 0, 0)  # type: ignore[index]
        self._task, self._who = task, who

    def _tell(self, call: str, args: tuple[object, ...], result: int, code: int, number: int = 0) -> int:
        try:
            with _Locked(self._log_fd):
                number = number or self._next(_CALLS_AT)
                told = self._told(number, call, args, result, code)
                self._add(told._asdict())
        except OSError:
            self._be_deaf()
            return 0
        if self._out is not None:
            self._show_move()
            self._out.after(told)
        return number

    def _told(self, number: int, call: str, args: tuple[object, ...], result: int, code: int) -> Told:
        doing, args = self._bearing or syscalls.purpose, where.meant_args(call, args)
        places = self._places
        net = self._networks.of(call, args, places, self._where.get("net", 0))
        return Told(
            number, self._task, self._who, call, catalogue.written(call, args), result,
            symbols.errno_name(code) if code else "", doing, catalogue.why(call, args, doing or places.get("0", "")),
            catalogue.man(call, args, places.get("0", "")), [_plain(arg) for arg in args], places, self._child, {}, net,
        )  # fmt: skip

    def _tell_move(self, number: int, now: Mapping[str, int]) -> None:
        """Which namespaces are others than before; of a child, than where its clone was called."""
        moved = {kind: [old, now[kind]] for kind, old in self._where.items() if now.get(kind, old) != old}
        self._where = {**self._where, **now}
        told = Told(number, self._task, self._who, "", "", 0, "", "", "", "", [], {}, -1, moved)
        try:
            with _Locked(self._log_fd):
                self._add({"moved": moved, "number": number, "task": self._task})
        except OSError:
            self._be_deaf()
        self._unshown = told if moved else None
        if number:
            self._show_move()

    def _show_move(self) -> None:
        """At once, or of a process that was born before its first call: then its parent has told of it."""
        told, self._unshown = self._unshown, None
        if self._out is not None and told is not None:
            self._out.moved(told)

    def _next(self, at: int) -> int:
        """One more of a number that all processes share; the lock is held, or only one process there."""
        number = self._read(at) + 1
        self._put(at, number)
        return number

    def _read(self, at: int) -> int:
        return int.from_bytes(os.pread(self._log_fd, _NUMBER_BYTES, at), "little")

    def _put(self, at: int, number: int) -> None:
        os.pwrite(self._log_fd, number.to_bytes(_NUMBER_BYTES, "little"), at)

    def _add(self, what: Mapping[str, Any]) -> None:
        os.lseek(self._log_fd, 0, os.SEEK_END)
        _write_all(self._log_fd, json.dumps(what).encode() + b"\n")

    # ---- afterwards ----

    def _all(self) -> list[Told]:
        size = os.fstat(self._log_fd).st_size
        lines = [json.loads(line) for line in os.pread(self._log_fd, size, _LINES_AT).splitlines()]
        found = {line["number"]: Told(**line) for line in lines if "call" in line}
        births = {told.child: number for number, told in found.items() if told.child >= 0}
        for line in lines:
            if "call" not in line and (number := line["number"] or births.get(line["task"], 0)) in found:
                found[number] = found[number]._replace(moved=line["moved"])
        return [found[number] for number in sorted(found)]


def out_of_the_way(fd: int) -> int:
    """A copy of a descriptor, close-on-exec, with a number that nobody else takes for something fixed."""
    for lowest in _HIGH_FDS:
        try:
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
        except OSError as err:
            if err.errno != errno.EINVAL:  # beyond the limit of this process
                raise
    raise NsboxError("cannot explain: the limit on open file descriptors leaves no room", hint="ulimit -n 1024")


class _Locked:
    """The log is ours for the length of a block: a lock of this process, gone with it if it is killed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, 0)

    def __exit__(self, *_exc: object) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, 0)


def _is_pause(args: Sequence[Any]) -> bool:
    """Whether what is about to be executed is nsbox's own pause."""
    return len(args) > 3 and list(args[2]) == [b"pause"]


def _role(bearing: str) -> str:
    """What the process is that is being born here, seen by who called."""
    if bearing == "vfork":
        return "child"
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        file = "/".join(code.co_filename.split("/")[-2:])
        if bearing == "clone" and code.co_name == _MIDDLE:
            return "middle"
        if (role := _ROLES.get(code.co_name) or _ROLES.get(file)) is not None:
            return role
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "child"


def _program(argv: Any) -> str:
    return str(argv[0]).rpartition("/")[2]


def _plain(value: Any) -> Any:
    """The same, of what JSON knows."""
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return [f"{os.fsdecode(name)}={os.fsdecode(text)}" for name, text in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, int):
        return int(value)
    return value if value is None or isinstance(value, str) else str(value)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
