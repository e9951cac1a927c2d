"""A detached member and its parent, which keeps its log and writes down how it ended.

client                     supervisor                      member
  fork ------------------->  own session, /dev/null
                             record written, start --------> runs
  <---- PID or error ------
  exits                      pipe -> log; waits
                             exit status -> record
"""

import os
import select
import signal
import time
from typing import NoReturn, Sequence

from ..errors import NsboxError, exit_status_of
from ..linux import process, syscalls, trouble
from ..privilege import attributes
from ..spec import MemberSpec
from . import member, members, store
from .record import MemberRecord
from .target import Target

_AGAIN_MS = 1000
_SHOWN_BYTES = 1024
_SHOWN_WORDS = 64
LOG_MAX_BYTES = 8 << 20  # then the log becomes ID.log.1 and a new one begins


def detach(target: Target, spec: MemberSpec) -> int:
    """Start a member that outlives the caller; return its host PID.

    Only for a process with one thread.

    Raises:
        NsboxError: it could not be started.
    """
    answer_r, answer_w = os.pipe2(os.O_CLOEXEC)
    members_fd = members.directory(target.pod.name) if target.pod and not store.is_lent(target.pod) else -1
    try:
        pid = os.fork()
    except OSError as err:
        raise NsboxError(f"cannot join {target.label}") from trouble.failed("fork", err.errno)
    if pid == 0:
        os.close(answer_r)
        _supervise(target, spec, members_fd, answer_w)
    os.close(answer_w)
    if members_fd >= 0:
        os.close(members_fd)
    with open(answer_r, "rb") as file:
        answer = file.read()
    if not answer:
        raise NsboxError(f"cannot join {target.label}: its supervisor was killed")
    if answer.isdigit():
        return int(answer)
    raise trouble.decode(answer)


def _supervise(target: Target, spec: MemberSpec, members_fd: int, answer_w: int) -> NoReturn:
    """Never returns into the caller's code."""
    try:
        _leave_the_terminal()
        process.close_all_but((answer_w, members_fd, target.pidfd, target.root_fd, *syscalls.listening_fds()))
        attributes.set_name("nsbox:member")
        output_r, output_w = os.pipe2(os.O_CLOEXEC)
        record = _new_record(spec)

        def write_identity(pid: int) -> None:
            nonlocal record
            record = record._replace(process=process.identify(pid))
            _write(members_fd, record)

        _write(members_fd, record)
        try:
            started = member.start(
                target, spec, lambda null_fd: (null_fd, output_w, output_w),
                detached=True, before_go=write_identity,
            )  # fmt: skip
        except NsboxError as err:
            _forget(members_fd, record)
            os.write(answer_w, trouble.encode(err))
            os._exit(process.EXIT_SETUP_FAILED)
        os.close(output_w)
        syscalls.listen(None)  # who listens ends with the caller
        try:
            os.write(answer_w, b"%d" % started.pid)
        except OSError:  # the caller was interrupted: nobody would know of this member
            process.kill_and_reap(started)
            _forget(members_fd, record)
            os._exit(0)
        os.close(answer_w)
        answer_w = -1
        target.close()
        _look_after(started, members_fd, record, output_r)
    except NsboxError as err:
        if answer_w >= 0:
            os.write(answer_w, trouble.encode(err))
    except OSError as err:
        failure = NsboxError(f"cannot join {target.label}")
        failure.__cause__ = err
        if answer_w >= 0:
            os.write(answer_w, trouble.encode(failure))
    finally:
        os._exit(0)


def _leave_the_terminal() -> None:
    os.setsid()
    os.chdir("/")
    null_fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null_fd, number)
    os.close(null_fd)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)  # the log and the status would be lost


def _new_record(spec: MemberSpec) -> MemberRecord:
    return MemberRecord(
        id=store.new_id(),
        process=None,
        supervisor=process.identify(os.getpid()),
        argv=_shortened(spec.argv),
        started_s=time.time(),
    )


def _shortened(argv: Sequence[bytes]) -> tuple[str, ...]:
    """The command for people to read; all of it may be two megabytes."""
    words = [os.fsdecode(word[:_SHOWN_BYTES]) for word in argv[:_SHOWN_WORDS]]
    return (*words, "...") if len(argv) > _SHOWN_WORDS else tuple(words)


def _write(members_fd: int, record: MemberRecord) -> None:
    if members_fd < 0:
        return
    try:
        members.write(members_fd, record)
    except OSError as err:
        raise NsboxError("cannot write the member's record") from err


def _forget(members_fd: int, record: MemberRecord) -> None:
    if members_fd >= 0:
        try:
            os.unlink(f"{record.id}.json", dir_fd=members_fd)
        except OSError:
            pass


def _look_after(
    started: process.Spawned, members_fd: int, record: MemberRecord, output_r: int
) -> None:
    """Keep the log until nobody can write to it, and the exit status as soon as there is one."""
    log = Log(members_fd, f"{record.id}.log")
    poll = select.poll()
    poll.register(output_r, select.POLLIN)
    poll.register(started.pidfd, select.POLLIN)
    waiting = {output_r, started.pidfd}
    unwritten: MemberRecord | None = None
    while waiting:
        for fd, _ in poll.poll(_AGAIN_MS if unwritten else None):
            if fd == output_r:
                data = os.read(output_r, 65536)
                log.write(data)
                if data:
                    continue
            else:
                code = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
                unwritten = record._replace(exit_status=exit_status_of(code))
            poll.unregister(fd)
            waiting.discard(fd)
        if unwritten is not None and _write_quietly(members_fd, unwritten):
            unwritten = None  # else the disk is full: tried again as long as we are here


def _write_quietly(members_fd: int, record: MemberRecord) -> bool:
    try:
        _write(members_fd, record)
    except NsboxError as err:
        # Removed together with its pod: nobody is left who would want to know.
        return isinstance(err.__cause__, FileNotFoundError)
    return True


class Log:
    """The output of one member, bounded: the newest 8 to 16 MiB are kept."""

    def __init__(self, dir_fd: int, name: str) -> None:
        self._dir_fd = dir_fd
        self._name = name
        self._fd = -1
        self._bytes = 0
        self._open()

    def _open(self) -> None:
        if self._dir_fd < 0:
            return
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self._name, flags, 0o600, dir_fd=self._dir_fd)
        except OSError:
            self._fd = -1  # the pod was removed

    def write(self, data: bytes) -> None:
        """Add `data`. A full disk loses it, but never holds the member up."""
        if self._fd < 0:
            return
        try:
            self._bytes += os.write(self._fd, data)
            if self._bytes >= LOG_MAX_BYTES:
                os.rename(self._name, self._name + ".1", src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
                os.close(self._fd)
                self._bytes = 0
                self._open()
        except OSError:
            pass  # this piece is lost
