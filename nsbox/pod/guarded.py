"""The processes of a pod, each with how it is guarded and in what that is not as its pod promises."""

from collections.abc import Mapping
from typing import Any

from . import differing, inside, keyring, posture
from .record import MemberRecord, PodRecord

Row = dict[str, Any]
Detached = Mapping[tuple[int, int], MemberRecord]


def rows(record: PodRecord, detached: Detached, promised: Row) -> list[tuple[inside.Inside, Row]]:
    """Each process, PID 1 first, with `security` and `differs`: None where it has ended or is not to be looked at.

    Args:
        detached: those members that are in the records, by PID and start time.
        promised: as posture.of_members() returns it.
    """
    return [(one, _row(one, record, detached, promised)) for one in inside.processes(record)]


def _row(one: inside.Inside, record: PodRecord, detached: Detached, promised: Row) -> Row:
    pause = record.pause
    is_pause = pause is not None and (pause.pid, pause.start_time) == (one.pid, one.start_time)
    try:
        security: Row | None = posture.of_process(one.pid, one.start_time)
    except OSError:
        security = None
    if security is None:
        return {"security": None, "differs": None}
    if is_pause:
        security["session_keyring"] = keyring.of_pause(record, security)
    elif member := detached.get((one.pid, one.start_time)):
        security["session_keyring"] = keyring.of_member(member)
    return {"security": security, "differs": None if is_pause else differing.differences(promised, security)}
