"""Zombies of a pod, and who keeps them: PID 1 of a PID namespace ends after all others in it are collected.

A process is collected by its parent, or first by who traces it. The parent of a member is outside:
its client, its supervisor, a worker of the library. One that is stopped, by Ctrl-Z say, collects
nobody. Those are ours to wake; anybody else is named, and left alone.
"""

import os
import signal

from ..linux import process
from . import inside
from .record import PodRecord


def wake_parents(record: PodRecord) -> None:
    """Continue each stopped process of nsbox that is the parent of a zombie of the pod.

    It has nothing else to do than to collect its member and end. Stopped again, as by a terminal in
    the background of which it reads, it has to be continued again.
    """
    for one in _zombies(record):
        try:
            pidfd = process.open_pid(one.ppid)
        except OSError:
            continue
        try:
            # Looked at after the open: as long as it is the parent, nobody else has its number.
            if _is_ours(one.ppid) and _state(one.ppid) == "T" and int(process.stat_fields(one.pid)[1]) == one.ppid:
                process.send_signal(pidfd, signal.SIGCONT)
        except OSError:
            continue  # it has gone, or is somebody else's
        finally:
            os.close(pidfd)


def _zombies(record: PodRecord) -> list[inside.Inside]:
    return [one for one in inside.processes(record) if one.state == "Z"]


def _is_ours(pid: int) -> bool:
    """Whether a process has the name of one of nsbox's. Anybody may take it, and is continued then."""
    name = _name(pid)
    return name == "nsbox" or name.startswith("nsbox:")


def blocker(record: PodRecord) -> tuple[str, str]:
    """Who keeps the pod's PID 1 from going away, and what to do about it."""
    for one in sorted(inside.processes(record), key=lambda one: one.state != "Z"):
        if record.pause is None or one.pid != record.pause.pid:
            return _reason(one)
    return "its PID 1 does not go away", ""


def _reason(one: inside.Inside) -> tuple[str, str]:
    tracer = inside.tracer_of(one.pid)
    keeper, kind = (tracer, "tracer") if tracer else (one.ppid, "parent")
    stopped = ", which is stopped," if _state(keeper) in ("T", "t") else ""
    hint = f"when process {keeper} has collected it or has ended, try again"
    who = f"its {kind} {keeper} ({_name(keeper)}){stopped}"
    if one.state == "Z":
        return f"process {one.pid} has ended, and {who} does not collect it", hint
    if tracer:
        return f"process {one.pid} is held by {who}", hint
    return f"process {one.pid} ({one.state}) does not go away", ""


def _state(pid: int) -> str:
    try:
        return process.stat_fields(pid)[0]
    except OSError:
        return ""


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read()).rstrip("\n")
    except OSError:
        return "?"
