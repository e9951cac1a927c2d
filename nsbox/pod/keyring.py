"""Whose session keyring a process has, as far as that can be known. See session-keyring(7).

The kernel shows nobody the session of another process, root neither. What is known is what nsbox did: PID 1
of a pod and each member left the caller's session for a new one before their program began. It failed, and
nsbox went on, where a filter of system calls around nsbox refuses keyctl(2), or the kernel has no keys. So it
is said only of who is in the records, and where it is certain that neither was so.
"""

import os
from typing import Any

from ..filters import UNCONFINED
from ..linux import process
from .inside import status_of
from .record import MemberRecord, PodRecord

OWN = "own at start"
UNKNOWN = "unknown"


def of_pause(pod: PodRecord, security: dict[str, Any]) -> str:
    """That of a pod's PID 1, whose posture is `security`: it has one filter of nsbox's or none, and any
    other may have been around nsbox."""
    filters = security["seccomp_filters"]
    return _said(filters is not None and filters == (pod.seccomp.chosen.name != UNCONFINED))


def of_member(member: MemberRecord) -> str:
    """That of a detached member that runs: its supervisor has what filters there were around nsbox, and no other."""
    try:
        pidfd = process.open_process(member.supervisor)
    except OSError:
        return UNKNOWN
    try:
        return _said(status_of(member.supervisor.pid).get("Seccomp_filters") == "0" and not process.has_ended(pidfd))
    except OSError:
        return UNKNOWN
    finally:
        os.close(pidfd)


def _said(no_filter_around: bool) -> str:
    return OWN if no_filter_around and os.path.exists("/proc/sys/kernel/keys") else UNKNOWN
