"""The end of pods: stop, kill, remove, prune. The order of a stop is TERM to the members, grace,
KILL, then the pause: a pause that went first would take the members along without a word."""

import os
import select
import signal
import time
from typing import Callable, NamedTuple

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import create, inside, store, target
from .record import MemberRecord, PodRecord

_PAUSE_TIMEOUT_S = 1.0
_KILL_TIMEOUT_S = 10.0
_ROUND_S = 0.05
_QUIET_S = 1.0

Say = Callable[[str], None]


def _silent(_text: str) -> None:
    """For callers who do not show progress."""


class Held(NamedTuple):
    """A process of a pod, held by a pidfd so that nobody else can be meant."""

    pid: int
    pidfd: int


def stop(name: str, timeout_s: float | None = None, *, say: Say = _silent) -> None:
    """End a pod's processes and keep its record: exit statuses and logs can still be read.

    Args:
        timeout_s: seconds between TERM and KILL; None is the pod's own.

    Raises:
        PodNotFound: there is none. NsboxError: a process does not go away.
    """
    with store.lock(name) as held:
        entry = store.look(name)
        if entry.status == "broken":
            create.undo(held)
        elif entry.record is not None and entry.status in ("running", "dead"):
            end(entry.record, _grace(entry.record, timeout_s), say)


def remove(
    name: str, *, force: bool = False, timeout_s: float | None = None, say: Say = _silent
) -> None:
    """Stop a pod and forget it. With `force` at once, and a missing or corrupt one is no error.

    Raises:
        PodNotFound: there is none. NsboxError: a process does not go away; the record is kept.
    """
    try:
        held = store.lock(name)
    except PodNotFound:
        if not force:
            raise
        store.discard(name)
        return
    with held:
        entry = store.look(name)
        if entry.record is None:
            if not force:
                raise NsboxError(
                    f"cannot remove pod {name!r}: its record is corrupt ({entry.problem})",
                    hint="its processes, if any run, cannot be known from it; "
                    f"to remove the record: nsbox rm --force {name}",
                )
        elif entry.record.pause is not None:
            end(entry.record, 0.0 if force else _grace(entry.record, timeout_s), say)
        held.forget()


def _grace(record: PodRecord, timeout_s: float | None) -> float:
    return record.stop_timeout_s if timeout_s is None else timeout_s


def end(record: PodRecord, timeout_s: float, say: Say = _silent) -> None:
    """TERM to the members, up to `timeout_s` seconds, KILL, then the same for the pod's PID 1.

    Args:
        say: told what is waited for, once that takes longer than a second.
    """
    if record.pause is None:
        return
    try:
        pause_fd = process.open_process(record.pause)
    except ProcessLookupError:
        _end_recorded_members(record)
        return
    deadline = time.monotonic() + timeout_s
    held = _hold_members(record)
    try:
        if timeout_s > 0:
            _signal_all(held, signal.SIGTERM)
            left = _wait_all(held, min(deadline, time.monotonic() + _QUIET_S))
            if left and timeout_s > _QUIET_S:
                say(f"waiting for {len(left)} of pod {record.name!r} to end, {timeout_s:g} s at most")
                _wait_all(left, deadline)
        _kill_until_none(record, held)
        _end_pause(record, pause_fd, deadline, say)
        _signal_all(held, signal.SIGKILL)  # those outside the pod's PID namespace
        _expect_none(held, record)
    finally:
        for one in held:
            os.close(one.pidfd)
        os.close(pause_fd)


def _hold_members(record: PodRecord) -> list[Held]:
    """The pod's processes but its PID 1, each identified again once it is held."""
    held = []
    for one in inside.processes(record):
        if record.pause is not None and one.pid == record.pause.pid or one.state == "Z":
            continue
        try:
            pidfd = process.open_process(process.Identity(process.boot_id(), one.pid, one.start_time))
        except ProcessLookupError:
            continue
        held.append(Held(one.pid, pidfd))
    return held


def _signal_all(held: list[Held], signum: int) -> None:
    for one in held:
        process.send_signal(one.pidfd, signum)


def _wait_all(held: list[Held], deadline: float) -> list[Held]:
    """Wait for all to end; return those that still run at the deadline."""
    running = {one.pidfd: one for one in held}
    poll = select.poll()
    for fd in running:
        poll.register(fd, select.POLLIN)
    while running:
        left_s = deadline - time.monotonic()
        for fd, _ in poll.poll(max(0.0, left_s) * 1000):
            poll.unregister(fd)
            del running[fd]
        if left_s <= 0:
            break
    return list(running.values())


def _kill_until_none(record: PodRecord, held: list[Held]) -> None:
    """KILL all members, those born meanwhile too. Adds what it finds to `held`."""
    _signal_all(held, signal.SIGKILL)
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while time.monotonic() < deadline:
        newcomers = _hold_members(record)
        held.extend(newcomers)
        if not newcomers:
            return
        _signal_all(newcomers, signal.SIGKILL)
        _wait_all(newcomers, min(deadline, time.monotonic() + _ROUND_S))


def _end_pause(record: PodRecord, pause_fd: int, deadline: float, say: Say) -> None:
    process.send_signal(pause_fd, signal.SIGTERM)
    patience_s = _PAUSE_TIMEOUT_S
    if record.init:
        patience_s = max(0.0, deadline - time.monotonic()) if _obeys_term(record) else 0.0
        if patience_s > _QUIET_S and not process.has_ended(pause_fd, _QUIET_S):
            say(f"waiting for PID 1 of pod {record.name!r} to end, {patience_s:g} s at most")
    if not process.has_ended(pause_fd, patience_s):
        process.send_signal(pause_fd, signal.SIGKILL)
        if not process.has_ended(pause_fd, _KILL_TIMEOUT_S):
            raise NsboxError(f"cannot end pod {record.name!r}: {_blocker(record)}")


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


def _blocker(record: PodRecord) -> str:
    """Who keeps a PID namespace from going away: a zombie is collected by its tracer first."""
    for one in inside.processes(record):
        if record.pause is None or one.pid != record.pause.pid:
            return f"process {one.pid} ({one.state}) does not go away"
    return "its PID 1 does not go away"


def _expect_none(held: list[Held], record: PodRecord) -> None:
    left = _wait_all(held, time.monotonic() + _KILL_TIMEOUT_S)
    if left:
        raise NsboxError(f"cannot end pod {record.name!r}: process {left[0].pid} does not go away")


def _end_recorded_members(record: PodRecord) -> None:
    """The pod's PID 1 is gone already: members that do not share its PID namespace may still run."""
    held = []
    for member in _members(record.name):
        if member.process is not None and member.exit_status is None:
            try:
                held.append(Held(member.process.pid, process.open_process(member.process)))
            except ProcessLookupError:
                continue
    try:
        _signal_all(held, signal.SIGKILL)
        _expect_none(held, record)
    finally:
        for one in held:
            os.close(one.pidfd)


def _members(name: str) -> list[MemberRecord]:
    try:
        return store.members(name)
    except PodNotFound:
        return []


def kill(name: str, signum: int) -> int:
    """Send a signal to every member of a pod, not to its PID 1; return how many got it.

    Raises:
        PodNotFound: there is none. PodDead: its PID 1 has ended.
    """
    found = target.find(name)
    try:
        if found.pod is None:
            return int(process.send_signal(found.pidfd, signum))
        held = _hold_members(found.pod)
        try:
            return sum(process.send_signal(one.pidfd, signum) for one in held)
        finally:
            for one in held:
                os.close(one.pidfd)
    finally:
        found.close()


def prune() -> list[str]:
    """Remove what is dead or was cut off, and only that; return the names of the pods removed."""
    removed = []
    for entry in store.entries():
        try:
            if entry.status == "dead" and _prune_dead(entry.name):
                removed.append(entry.name)
            elif entry.status == "broken" and create.mend(entry.name):
                removed.append(entry.name)
        except PodNotFound:
            continue
    store.sweep()
    return removed


def _prune_dead(name: str) -> bool:
    with store.lock(name) as held:
        entry = store.look(name)
        if entry.status != "dead" or entry.record is None:
            return False
        end(entry.record, 0.0)
        held.forget()
        return True
