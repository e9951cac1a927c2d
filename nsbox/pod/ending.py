"""Ending the processes of one pod: TERM to the members, grace, KILL, then its PID 1.

A PID 1 that went first would take the members along without a word. A pod may hold more
processes than we may open descriptors, so they are held a few at a time.
"""

import os
import select
import signal
import time
from typing import Callable, Iterator, NamedTuple

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import inside, members, store, zombies
from .record import MemberRecord, PodRecord

_PAUSE_TIMEOUT_S = 1.0
_KILL_TIMEOUT_S = 10.0
_ROUND_S = 0.25
_QUIET_S = 1.0
_HELD_AT_ONCE = 12  # fewer than the descriptors that the command line makes sure of

Say = Callable[[str], None]


def silent(_text: str) -> None:
    """For callers who do not show progress."""


class Held(NamedTuple):
    """A process of a pod, held by a pidfd so that nobody else can be meant."""

    who: process.Identity
    pidfd: int


def end(record: PodRecord, timeout_s: float, say: Say = silent) -> None:
    """TERM to the members, up to `timeout_s` seconds, KILL, then the same for the pod's PID 1.

    Args:
        say: told what is waited for, once that takes longer than a second.

    Raises:
        NsboxError: a process does not go away.
    """
    if record.pause is None:
        return
    try:
        pause_fd = process.open_process(record.pause)
    except ProcessLookupError:
        _wake_supervisors(record)
        _end_recorded_members(record)
        return
    try:
        _wake_supervisors(record)
        deadline = time.monotonic() + timeout_s
        if timeout_s > 0:
            signal_members(record, signal.SIGTERM)
            left = _wait_for_members(record, min(deadline, time.monotonic() + _QUIET_S))
            if left and timeout_s > _QUIET_S:
                say(f"waiting for {left} of pod {record.name!r} to end, {timeout_s:g} s at most")
                _wait_for_members(record, deadline)
        stubborn = _kill_members(record)
        _end_pid_one(record, pause_fd, deadline, say)
        for one in _each(stubborn):
            raise NsboxError(f"cannot end pod {record.name!r}: process {one.who.pid} does not go away")
    finally:
        os.close(pause_fd)


def signal_members(record: PodRecord, signum: int) -> int:
    """Send a signal to every process of a running pod but its PID 1; return how many got it."""
    return sum(process.send_signal(one.pidfd, signum) for one in _each(_identities(record)))


def supervisors(record: PodRecord) -> list[int]:
    """The host PIDs of those that look after the detached members of a pod."""
    return [one.who.pid for one in _each(sorted({member.supervisor for member in _members(record)}))]


def who_gets_signals(record: PodRecord) -> list[int]:
    """The host PIDs to which :func:`signal_members` sends, in that order."""
    return [who.pid for who in _identities(record)]


def _identities(record: PodRecord) -> list[process.Identity]:
    boot_id = process.boot_id()
    found = {
        process.Identity(boot_id, one.pid, one.start_time)
        for one in inside.processes(record)
        if one.state != "Z" and (record.pause is None or one.pid != record.pause.pid)
    }
    # A detached member that shares no namespace with the pod is known by its record alone.
    return sorted(found | _recorded(record))


def _recorded(record: PodRecord) -> set[process.Identity]:
    return {
        member.process
        for member in _members(record)
        if member.process is not None and member.exit_status is None
    }


def _members(record: PodRecord) -> list[MemberRecord]:
    if store.is_lent(record):
        return []
    try:
        return members.of_pod(record.name)
    except PodNotFound:
        return []


def _each(identities: list[process.Identity]) -> Iterator[Held]:
    """Each process, held while the caller looks at it, if it is still the same and runs."""
    for who in identities:
        try:
            pidfd = process.open_process(who)
        except ProcessLookupError:
            continue
        try:
            if not process.has_ended(pidfd):
                yield Held(who, pidfd)
        finally:
            os.close(pidfd)


def _wait_for_members(record: PodRecord, deadline: float) -> int:
    """Wait until the pod has none but its PID 1; return how many are left at the deadline."""
    while left := [one.who for one in _each(_identities(record))]:
        if time.monotonic() >= deadline:
            break
        _wait_for_some(left[:_HELD_AT_ONCE], min(deadline, time.monotonic() + _ROUND_S))
    return len(left)


def _wait_for_some(identities: list[process.Identity], deadline: float) -> None:
    """Wait until all of them have ended, or the deadline."""
    poll = select.poll()
    pidfds = set()
    for who in identities:
        try:
            pidfds.add(process.open_process(who))
        except ProcessLookupError:
            continue
    try:
        waiting = set(pidfds)
        for pidfd in pidfds:
            poll.register(pidfd, select.POLLIN)
        while waiting and (left_s := deadline - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(left_s * 1000):
                poll.unregister(pidfd)
                waiting.discard(pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _kill_members(record: PodRecord) -> list[process.Identity]:
    """KILL until none is left, those born meanwhile too; return those that did not go in time.

    Of these, the ones in the pod's PID namespace may yet go along with its PID 1.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while signal_members(record, signal.SIGKILL):
        if not _wait_for_members(record, time.monotonic() + _ROUND_S):
            break
        if time.monotonic() >= deadline:
            return _identities(record)
    return []


def _wake_supervisors(record: PodRecord) -> None:
    """One that somebody stopped collects no member, and PID 1 cannot end before all are collected."""
    for one in _each(sorted({member.supervisor for member in _members(record)})):
        process.send_signal(one.pidfd, signal.SIGCONT)


def _end_pid_one(record: PodRecord, pause_fd: int, deadline: float, say: Say) -> None:
    process.send_signal(pause_fd, signal.SIGTERM)
    patience_s = _PAUSE_TIMEOUT_S
    if record.init:
        patience_s = max(0.0, deadline - time.monotonic()) if _obeys_term(record) else 0.0
        if patience_s > _QUIET_S and not process.has_ended(pause_fd, _QUIET_S):
            say(f"waiting for PID 1 of pod {record.name!r} to end, {patience_s:g} s at most")
    if not _has_ended(record, pause_fd, patience_s):
        process.send_signal(pause_fd, signal.SIGKILL)
        if not _has_ended(record, pause_fd, _KILL_TIMEOUT_S):
            reason, hint = zombies.blocker(record)
            raise NsboxError(f"cannot end pod {record.name!r}: {reason}", hint=hint)


def _has_ended(record: PodRecord, pause_fd: int, timeout_s: float) -> bool:
    """Wait for PID 1; meanwhile who has to collect a member, and is stopped, is continued."""
    deadline = time.monotonic() + timeout_s
    while not process.has_ended(pause_fd, max(0.0, min(_ROUND_S, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            return False
        zombies.wake_parents(record)
    return True


def _obeys_term(record: PodRecord) -> bool:
    """Whether waiting makes sense: a PID 1 that neither catches nor blocks TERM never gets it.

    See pid_namespaces(7), "The namespace init process".
    """
    if record.pause is None:
        return False
    try:
        return bool(inside.signals_awaited(record.pause.pid) & (1 << (signal.SIGTERM - 1)))
    except OSError:
        return False


def _end_recorded_members(record: PodRecord) -> None:
    """The pod's PID 1 is gone already: members that do not share its PID namespace may still run."""
    recorded = sorted(_recorded(record))
    for one in _each(recorded):
        process.send_signal(one.pidfd, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while left := [one.who for one in _each(recorded)]:
        if time.monotonic() >= deadline:
            raise NsboxError(f"cannot end pod {record.name!r}: process {left[0].pid} does not go away")
        _wait_for_some(left[:_HELD_AT_ONCE], deadline)
