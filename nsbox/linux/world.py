"""What discovery finds: plain data. See :mod:`.discovery`."""

from typing import NamedTuple

from .procfs import Process


class Holder(NamedTuple):
    """What keeps a namespace alive besides the processes in it.

    Attributes:
        how: "thread", "children" (of a process, not born yet), "descriptor", "mount", "socket",
            or "parent" or "owner" of another namespace.
        pid: whose thread, child or descriptor; for a mount, who sees it. 0 for parent and owner, and
            for a mount in a mount namespace in which nobody is.
        where: the thread, the number of the descriptor, the mount point, the other namespace.
    """

    how: str
    pid: int
    where: str


class Namespace(NamedTuple):
    """One namespace.

    Attributes:
        serial: a number that no other namespace gets until the machine is booted again; None before
            Linux 6.18, or where the namespace cannot be opened.
        owner: the user namespace that owns it; of a user namespace the parent. None above ours.
        parent: of pid and user only, None at the top of what we can see.
        uid: who made it, of user namespaces only.
        pids: the processes in it, in order.
        holders: what else keeps it alive.
    """

    id: int
    kind: str
    serial: int | None
    owner: int | None
    parent: int | None
    uid: int | None
    pids: tuple[int, ...]
    holders: tuple[Holder, ...]


class Unread(NamedTuple):
    """Something that could not be read, so that namespaces may be missing.

    Attributes:
        what: "namespaces", "descriptors", "sockets" or "mounts" of processes; "owner" of namespaces, or
            "inside": the mounts in a mount namespace in which no process is.
        why: the kernel's reason.
        pids: of which processes; for "owner" and "inside" the ids of the namespaces.
    """

    what: str
    why: str
    pids: tuple[int, ...]


class World(NamedTuple):
    """All that was found, at about one moment.

    Attributes:
        processes: by PID, in order.
        namespaces: by id, in the order in which they were found.
        own: the ids of the caller's own namespaces, by kind.
        sockets: by inode number, as /proc/PID/net/tcp has it, the first process that has it open.
    """

    processes: dict[int, Process]
    namespaces: dict[int, Namespace]
    own: dict[str, int]
    sockets: dict[int, int]
    unread: tuple[Unread, ...]
