"""Which users and groups a user namespace knows. See user_namespaces(7)."""

import os

from ..errors import NsboxError
from ..linux import trouble


_KNOWN = ("uid_map", "gid_map", "setgroups")


def write_maps(pid: int) -> None:
    """Give the new user namespace of `pid` its users and groups; may be done once.

    Root maps every id to itself: the namespace is there to be seen and joined, and is no
    boundary. An ordinary user may map one id only, and becomes root in there.

    Raises:
        NsboxError: the kernel or the machine's policy refuses.
    """
    if os.geteuid() == 0:
        write_file(pid, "uid_map", _same_as_ours("uid_map"))
        write_file(pid, "gid_map", _same_as_ours("gid_map"))
        return
    write_file(pid, "uid_map", f"0 {os.geteuid()} 1")
    # Since Linux 3.19 an unprivileged gid_map needs "deny" in setgroups first.
    write_file(pid, "setgroups", "deny")
    write_file(pid, "gid_map", f"0 {os.getegid()} 1")


def map_self(uid: int, gid: int) -> None:
    """Be root of the user namespace that the caller has just made, with the ids that it had before."""
    write_file("self", "uid_map", f"0 {uid} 1")
    write_file("self", "setgroups", "deny")
    write_file("self", "gid_map", f"0 {gid} 1")


def _same_as_ours(name: str) -> str:
    """A map of every id that our own user namespace knows to itself."""
    with open(f"/proc/self/{name}", encoding="ascii") as file:
        ranges = [line.split() for line in file]
    return "".join(f"{first} {first} {count}\n" for first, _, count in ranges)


def write_file(pid: int | str, name: str, text: str) -> None:
    """Write a map of the user namespace of `pid`, or its setgroups. Raises NsboxError."""
    path = f"/proc/{pid}/{name}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())  # the whole map in one write, or the kernel refuses
        finally:
            os.close(fd)
    except OSError as err:
        cause = trouble.failed(f"write {name}", err.errno, text, *(trouble.of_process(pid, one) for one in _KNOWN))
        raise NsboxError(
            "cannot map users into the new user namespace",
            hint=trouble.advice(cause),
        ) from cause
