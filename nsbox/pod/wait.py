"""How detached members end, and what they print."""

import os
import time
from typing import BinaryIO, Iterator

from ..errors import NsboxError, PodNotFound
from ..linux import process
from . import members, store
from .record import MemberRecord

_RECORD_TIMEOUT_S = 30.0
_POLL_S = 0.01
_FOLLOW_POLL_S = 0.1
_READ_BYTES = 1 << 16


def members_of(text: str) -> list[tuple[str, MemberRecord]]:
    """The detached members that `text` names, with their pod: all of a pod, or one by host PID.

    Raises:
        PodNotFound: there is no such pod, or no detached member with this PID.
    """
    if not (text.isascii() and text.isdigit()):
        if store.look(text).status == "elsewhere":
            raise NsboxError(
                f"cannot look at the members of pod {text!r}: it was made in another PID or time namespace",
                hint="do it from where it was made",
            )
        return [(text, member) for member in members.of_pod(text)]
    found = [
        (entry.name, member)
        for entry in store.entries()
        if entry.record is not None and entry.status != "elsewhere"
        for member in _members_quietly(entry.name)
        if member.process is not None and member.process.pid == int(text[:20])
    ]
    if not found:
        raise PodNotFound(
            f"cannot find a detached member with PID {text[:20]}", hint="nsbox inspect POD lists a pod's members"
        )
    return [max(found, key=lambda pair: pair[1].started_s)]  # a number may come again


def _members_quietly(name: str) -> list[MemberRecord]:
    try:
        return members.of_pod(name)
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
    watched = True
    while watched and time.monotonic() < deadline:
        watched = _is_supervised(member)  # looked at before the record: nothing can come after it
        for now in _members_quietly(pod):
            if now.id == member.id and now.exit_status is not None:
                return now.exit_status
        time.sleep(_POLL_S)
    pid = member.process.pid if member.process else "?"
    why = "its status could not be written" if watched else "its supervisor was killed"
    raise NsboxError(f"cannot know how member {pid} of pod {pod!r} ended: {why}")


def _is_supervised(member: MemberRecord) -> bool:
    """Whether the one process that writes down how the member ends, and its output, still runs."""
    try:
        os.close(process.open_process(member.supervisor))
    except ProcessLookupError:
        return False
    return True


def log(pod: str, member: MemberRecord, *, follow: bool = False) -> Iterator[bytes]:
    """What a detached member has printed, in pieces; with `follow` until nobody can print any more."""
    dir_fd = members.directory(pod)
    try:
        yield from _read_all(dir_fd, f"{member.id}.log.1")
        name = f"{member.id}.log"
        if follow:
            yield from _follow(dir_fd, name, member)
        else:
            yield from _read_all(dir_fd, name)
    finally:
        os.close(dir_fd)


def _open(dir_fd: int, name: str) -> BinaryIO | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    return open(fd, "rb", buffering=_READ_BYTES)


def _read_all(dir_fd: int, name: str) -> Iterator[bytes]:
    file = _open(dir_fd, name)
    if file is not None:
        with file:
            while data := file.read(_READ_BYTES):
                yield data


def _follow(dir_fd: int, name: str, member: MemberRecord) -> Iterator[bytes]:
    """New bytes as they come, until the supervisor, which is the one writer, has ended.

    When the log has grown too big it is renamed, and a new one begins: what is left in the old
    one is read first.
    """
    file = _open(dir_fd, name)
    while True:
        ended = not _is_supervised(member)  # looked at before the last read, as above
        following = _open(dir_fd, name)
        if file is not None:
            while data := file.read(_READ_BYTES):
                yield data
        if following is not None:
            if file is None or not os.path.sameopenfile(file.fileno(), following.fileno()):
                if file is not None:
                    file.close()
                file = following
                continue
            following.close()
        if ended:
            return
        time.sleep(_FOLLOW_POLL_S)
