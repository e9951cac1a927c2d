"""The records of detached members, one file each in the directory of their pod."""

import os

from . import statedir, store
from .files import CorruptFile, read_json, write_json
from .record import MemberRecord, member_from_dict, member_to_dict


def directory(name: str) -> int:
    """The directory of a pod's detached members. Raises PodNotFound."""
    pods_fd = statedir.pods_fd()
    try:
        return os.open(os.path.join(store.checked(name), "members"), statedir.DIR, dir_fd=pods_fd)
    except OSError:
        raise store.not_found(name) from None
    finally:
        os.close(pods_fd)


def write(dir_fd: int, record: MemberRecord) -> None:
    """Replace the record of a detached member. Raises OSError."""
    write_json(dir_fd, f"{record.id}.json", member_to_dict(record))


def of_pod(name: str) -> list[MemberRecord]:
    """The detached members of a pod in the order they were started; unreadable ones left out."""
    dir_fd = directory(name)
    found = []
    try:
        for file in os.listdir(dir_fd):
            if file.endswith(".json") and not file.startswith("."):
                try:
                    found.append(member_from_dict(read_json(dir_fd, file)))
                except (CorruptFile, FileNotFoundError):
                    continue
    finally:
        os.close(dir_fd)
    return sorted(found, key=lambda member: (member.started_s, member.id))
