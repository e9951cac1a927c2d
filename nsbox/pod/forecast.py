"""What a signal would do to a process, read from /proc before it is sent. See signal(7), kill(2).

The rules, in the kernel's order:

    may we send it?  ->  is it blocked?  ->  is it ignored, or caught?  ->  the default action
    PID 1 of a namespace has no default action, but for KILL and STOP that come from outside
"""

import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

from ..linux import process
from . import ending, inside, target

_IGNORED_BY_DEFAULT = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH}
_STOPPING = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
_KERNEL_THREAD = 0x0020_0000  # PF_KTHREAD of linux/sched.h, in field 9 of proc_pid_stat(5)


class Forecast(NamedTuple):
    """What would become of one process.

    Attributes:
        pid: on the host.
        pod_pid: in its own PID namespace.
        outcome: "ends", "stops", "continues", "handled" (its own code decides), "waits" (until
            something else happens), "ignored", "nothing" (what the signal does by default),
            "dropped" (it is PID 1, or the kernel's own), "refused" (we may not send it) or "gone".
        reason: why, in one sentence.
    """

    pid: int
    pod_pid: int
    command: tuple[str, ...]
    outcome: str
    reason: str


def of_target(text: str, signum: int) -> list[Forecast]:
    """What `nsbox kill` with this signal would do to each process that it would send it to.

    Raises:
        PodNotFound: there is none. PodDead: its PID 1 has ended.
    """
    found = target.find(text)
    try:
        pids = [found.pid] if found.pod is None else ending.who_gets_signals(found.pod)
    finally:
        found.close()
    return list(_each(pids, signum))


def _each(pids: list[int], signum: int) -> Iterator[Forecast]:
    for pid in pids:
        try:
            fields, status = process.stat_fields(pid), inside.status_of(pid)
            pod_pid = int(status["NSpid"].split()[-1])
            outcome, reason = _outcome(pid, signum, fields, status)
            yield Forecast(pid, pod_pid, inside.command_of(pid, status["Name"]), outcome, reason)
        except (FileNotFoundError, ProcessLookupError):
            yield Forecast(pid, 0, (), "gone", "it has ended meanwhile")


def _outcome(pid: int, signum: int, fields: list[str], status: dict[str, str]) -> tuple[str, str]:
    if status["State"][:1] in "ZX":
        return "gone", "it has ended, and waits for its parent to collect it"
    if not _may_send(pid):
        return "refused", "it belongs to somebody else, and we lack CAP_KILL"
    if signum == 0:
        return "nothing", "0 asks only whether it could be sent"
    if int(fields[6]) & _KERNEL_THREAD:
        return "dropped", "it is a thread of the kernel"
    first = status["NSpid"].split()[-1] == "1"
    within = first and _is_ours(pid)
    if signum in (signal.SIGKILL, signal.SIGSTOP):
        return _forced(signum, status, first, within)
    if status["TracerPid"] != "0":
        return "waits", f"process {status['TracerPid']} traces it, and decides"
    return _by_disposition(pid, signum, fields, status, first)


def _may_send(pid: int) -> bool:
    try:
        pidfd = process.open_pid(pid)
    except OSError:
        raise ProcessLookupError from None
    try:
        return process.send_signal(pidfd, 0)
    except PermissionError:
        return False
    finally:
        os.close(pidfd)


def _is_ours(pid: int) -> bool:
    """Whether it lives in our own PID namespace: then a signal of ours comes from inside."""
    return os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino


def _forced(signum: int, status: dict[str, str], first: bool, within: bool) -> tuple[str, str]:
    """KILL and STOP, which nobody can block, ignore or catch."""
    name = signal.Signals(signum).name
    if within:
        return "dropped", f"it is PID 1 here: even {name} does nothing to it from inside its namespace"
    if signum == signal.SIGSTOP:
        if status["State"][:1] == "T":
            return "nothing", "it is stopped already"
        return "stops", "STOP cannot be blocked, ignored or caught"
    if status["State"][:1] == "D":
        return "waits", "it sleeps in the kernel and cannot be woken; it ends when that sleep does"
    if first:
        return "ends", "it is PID 1 of its namespace: all other processes in there end with it"
    return "ends", "KILL cannot be blocked, ignored or caught"


def _by_disposition(
    pid: int, signum: int, fields: list[str], status: dict[str, str], first: bool
) -> tuple[str, str]:
    bit, stopped = 1 << (signum - 1), status["State"][:1] == "T"
    if signum == signal.SIGCONT and stopped:
        caught = int(status["SigCgt"], 16) & bit
        return "continues", "it is stopped" + ("; then its handler runs" if caught else "")
    if _all_block(pid, bit):
        return "waits", "it is blocked, until it is unblocked or asked for with sigwait(3) or signalfd(2)"
    if int(status["SigIgn"], 16) & bit:
        return "ignored", "the process, or who started it (nohup does), set it to be ignored"
    if int(status["SigCgt"], 16) & bit:
        if stopped:
            return "waits", "it is stopped: its handler runs after CONT"
        return "handled", "it has a handler, which may do anything"
    if first:
        return "dropped", "it is PID 1 of its namespace and has no handler: only KILL and STOP from outside work"
    return _by_default(signum, fields, stopped)


def _all_block(pid: int, bit: int) -> bool:
    """Whether every thread blocks it: one that does not is enough to take it."""
    return all(
        int(inside.status_of(pid, tid)["SigBlk"], 16) & bit for tid in map(int, os.listdir(f"/proc/{pid}/task"))
    )


def _by_default(signum: int, fields: list[str], stopped: bool) -> tuple[str, str]:
    if signum in _IGNORED_BY_DEFAULT:
        return "nothing", "by default this signal does nothing"
    if signum == signal.SIGCONT:
        return "nothing", "it is not stopped"
    if signum in _STOPPING:
        if stopped:
            return "nothing", "it is stopped already"
        if _is_orphaned(int(fields[2]), int(fields[3])):
            return "nothing", "no shell could continue it: its process group is orphaned, see setpgid(2)"
        return "stops", "that is what the signal does by default"
    if stopped:
        return "waits", "it is stopped: it ends after CONT, or at once by KILL"
    return "ends", "it has no handler: that is what the signal does by default"


def _is_orphaned(group: int, session: int) -> bool:
    """Whether no member of a process group has a parent in another group of the same session."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            _, parent, own_group, *_ = process.stat_fields(name)
            if int(own_group) != group:
                continue
            above = process.stat_fields(parent)
        except ProcessLookupError:
            continue
        if int(above[2]) != group and int(above[3]) == session:
            return False
    return True
