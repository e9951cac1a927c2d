"""How detached members end, and what they print."""

import os
import time
from typing import Iterator

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import store
from .record import MemberRecord

_RECORD_TIMEOUT_S = 5.0
_POLL_S = 0.01
_FOLLOW_POLL_S = 0.1


def members_of(text: str) -> list[tuple[str, MemberRecord]]:
    """The detached members that `text` names, with their pod: all of a pod, or one by host PID.

    Raises:
        PodNotFound: there is no such pod, or no detached member with this PID.
    """
    if not (text.isascii() and text.isdigit()):
        return [(text, member) for member in store.members(text)]
    found = [
        (entry.name, member)
        for entry in store.entries()
        if entry.record is not None
        for member in _members_quietly(entry.name)
        if member.process is not None and member.process.pid == int(text)
    ]
    if not found:
        raise PodNotFound(
            f"cannot find a detached member with PID {text}", hint="nsbox inspect POD lists a pod's members"
        )
    return [max(found, key=lambda pair: pair[1].started_s)]  # a number may come again


def _members_quietly(name: str) -> list[MemberRecord]:
    try:
        return store.members(name)
    except PodNotFound:
        return []


def wait(pod: str, member: MemberRecord) -> int:
    """Wait until a detached member has ended; return its exit status.

    Raises:
        NsboxError: its supervisor was killed, so nobody knows.
    """
    if member.exit_status is not None:
        return member.exit_status
    if member.process is not None:
        try:
            pidfd = process.open_process(member.process)
        except ProcessLookupError:
            pass
        else:
            process.has_ended(pidfd, None)
            os.close(pidfd)
    deadline = time.monotonic() + _RECORD_TIMEOUT_S
    while time.monotonic() < deadline:
        for now in _members_quietly(pod):
            if now.id == member.id and now.exit_status is not None:
                return now.exit_status
        time.sleep(_POLL_S)
    pid = member.process.pid if member.process else "?"
    raise NsboxError(f"cannot know how member {pid} of pod {pod!r} ended: its supervisor was killed")


def log(pod: str, member: MemberRecord, *, follow: bool = False) -> Iterator[bytes]:
    """What a detached member has printed, in pieces; with `follow` until it has ended."""
    dir_fd = store.members_fd(pod)
    try:
        for name in (f"{member.id}.log.1", f"{member.id}.log"):
            try:
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
            except FileNotFoundError:
                continue
            with open(fd, "rb", buffering=0) as file:
                while data := file.read(1 << 16):
                    yield data
                if follow and not name.endswith(".1"):
                    yield from _tail(file, member)
    finally:
        os.close(dir_fd)


def _tail(file: object, member: MemberRecord) -> Iterator[bytes]:
    """New bytes as they come, until the supervisor, which is the one writer, has ended."""
    while True:
        try:
            os.close(process.open_process(member.supervisor))
            ended = False
        except ProcessLookupError:
            ended = True  # looked at before the last read: nothing can come after it
        while data := file.read(1 << 16):  # type: ignore[attr-defined]
            yield data
        if ended:
            return
        time.sleep(_FOLLOW_POLL_S)
