"""Who stands in for a pod that runs, in a rehearsal of what would be done to it.

A process in namespaces of its own: a network with the links that the pod has, and a copy of the pod's
mounts where these are to be changed. In the copy of the records it is the pod's PID 1. So the very code
of the verb works on it, and where.py tells of it as of the pod. Likewise

- a proxy that serves the pod's published ports, by sockets that no client can reach;
- a process that waits, in the place of the one that waits for the pod's end.

All of them are children of the keeper and end with it, or with who stands in for the pod.
"""

import errno
import os
import signal
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from ..errors import NsboxError
from ..linux import mounts, namespaces, process, syscalls, trouble
from ..linux.flags import CloneFlag, MountFlag
from ..net import control, loopback, podside, proxy
from ..net.listen import Forward, Listening
from ..net.podside import LO_V4
from ..pod import helper, netlate, netnames, netnat, netrecord, portfile, publish, statedir, store
from ..pod.record import PodRecord
from ..privilege import attributes, rights
from . import standroot

_END_S = 5.0
_V6_LOOPBACK = b"0" * 31 + b"1 "
_Ids = dict[str, int]


class Part(NamedTuple):
    """What is to be played: a pod that runs, and those who serve it.

    Attributes:
        ids: the namespaces of its PID 1.
        proxy: who is written down as its proxy, running or not.
        serves: what that serves, or None where there is none that answers.
        guard: the PID of the process that waits for its end, or 0.
    """

    record: PodRecord
    pid: int
    ids: _Ids
    proxy: process.Identity | None
    serves: tuple[Forward, ...] | None
    guard: int


class Double(NamedTuple):
    """Who plays it: a child of the keeper."""

    part: Part
    pid: int
    pidfd: int
    ids: _Ids


def parts(names: Collection[str], *, linked: bool) -> list[Part]:
    """The pods that a rehearsal would touch.

    Args:
        linked: also all that have links.

    Raises:
        NsboxError: one cannot be looked at.
    """
    found = []
    for entry in store.entries(missing_ok=True):
        record = entry.record
        if entry.status != "running" or record is None or record.pause is None:
            continue
        dir_fd = store.directory(entry.name)
        try:
            if entry.name in names or linked and netrecord.POD_FILE in os.listdir(dir_fd):
                found.append(_part(record, record.pause.pid, dir_fd))
        finally:
            os.close(dir_fd)
    return found


def _part(record: PodRecord, pid: int, dir_fd: int) -> Part:
    try:
        ids = namespaces.ids_of(pid)
    except OSError as err:
        raise NsboxError(f"cannot rehearse: pod {record.name!r} cannot be looked at") from err
    who, serves = None, None
    with suppress(NsboxError):
        who = portfile.read(dir_fd).proxy
        serves = tuple(one.forward for one in control.status(dir_fd, publish.SOCKET))
    guard = helper.written(dir_fd, netnat.FILE) if helper.runs(dir_fd, netnat.FILE) else None
    return Part(record, pid, ids, who, serves, guard.pid if guard is not None else 0)


# ---- in the keeper ----

def make(part: Part, *, with_mounts: bool) -> Double:
    """Start who stands in for a pod. Only for a process with one thread.

    Args:
        with_mounts: it gets a copy of the pod's mounts, too.

    Raises:
        NsboxError: it cannot be.
    """
    said_r, said_w = os.pipe2(os.O_CLOEXEC)
    parent_fd = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        _play(part, with_mounts and part.record.net == "none", parent_fd, said_w)
    os.close(said_w)
    os.close(parent_fd)
    said = os.read(said_r, 1 << 16)
    os.close(said_r)
    if said != b".":
        os.waitpid(pid, 0)
        raise trouble.decode(said) if said else NsboxError("cannot rehearse: who stands in for a pod was killed")
    return Double(part, pid, os.pidfd_open(pid), namespaces.ids_of(pid))


def _play(part: Part, with_mounts: bool, parent_fd: int, said_w: int) -> NoReturn:
    try:
        _change_namespaces(part, with_mounts)
        attributes.show_to_own_user()
        attributes.die_with_parent(parent_fd)
        os.write(said_w, b".")
        _wait()
    except NsboxError as err:
        os.write(said_w, trouble.encode(err))
    except OSError as err:
        failure = NsboxError(f"cannot rehearse what is done to pod {part.record.name!r}")
        failure.__cause__ = err
        os.write(said_w, trouble.encode(failure))
    finally:
        os._exit(1)


def _wait() -> NoReturn:
    """Nothing of the caller stays open. The keeper alone ends it: its signals are blocked, as the keeper's."""
    syscalls.close_range(0, cloexec_only=False)
    while True:
        signal.pause()


def _addresses_of(pid: int) -> tuple[bool, bool]:
    """Whether `lo` of a pod has the address for published ports already, and whether there is v6."""
    spare = LO_V4.encode() in _read(f"/proc/{pid}/net/fib_trie")
    return spare, _V6_LOOPBACK in _read(f"/proc/{pid}/net/if_inet6")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""  # a kernel without v6


def _furnish_loopback(spare: bool, v6: bool) -> None:
    """What lo is in the pod, so that who comes later gets the same answers."""
    with suppress(OSError):
        if not v6:
            with open("/proc/sys/net/ipv6/conf/all/disable_ipv6", "w", encoding="ascii") as file:
                file.write("1")
    loopback.bring_up()
    if spare:
        podside.ensure_address()


def _change_namespaces(part: Part, with_mounts: bool) -> None:
    """Root has the right to all that is the pod's; its owner gets it in the pod's user namespace."""
    pidfd = _open_pause(part.record)
    fdinfo_fd = os.open("/proc/self/fdinfo", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    chroots = with_mounts and part.record.chroot
    root_fd = os.open(f"/proc/{part.pid}/root", os.O_PATH | os.O_DIRECTORY) if chroots else -1
    source = os.stat(part.record.rootfs).st_dev if with_mounts and part.record.rootfs else -1
    if os.geteuid() != 0 and part.ids.get("user") != namespaces.ids_of("self").get("user"):
        namespaces.join(pidfd, frozenset({"user"}))
    addresses = _addresses_of(part.pid)
    syscalls.unshare(CloneFlag.CLONE_NEWNET)
    _furnish_loopback(*addresses)
    if not with_mounts:
        return
    process.seal_imports()  # from here on all paths, those of modules and of /proc too, are the pod's
    namespaces.join(pidfd, frozenset({"mnt"}))
    if root_fd >= 0:
        mounts.chroot_into(root_fd)
    syscalls.unshare(CloneFlag.CLONE_NEWNS)
    syscalls.mount_propagation("/", MountFlag.MS_REC | MountFlag.MS_PRIVATE)
    if part.record.rootfs and os.stat("/").st_dev != source:  # else nothing is made in the tree
        standroot.cover(netnames.TARGETS.values(), fdinfo_fd)


def _open_pause(record: PodRecord) -> int:
    """A pidfd of the pod's PID 1. Raises OSError: it has ended, and its number may be another's."""
    if record.pause is None:
        raise ProcessLookupError(errno.ESRCH, "the process has ended")
    return process.open_process(record.pause)


def write_down(double: Double) -> dict[int, int]:
    """In the copy of the records it is the pod's PID 1. Returns whom the helpers that were started play."""
    dir_fd, played = store.directory(double.part.record.name), {double.pid: double.part.pid}
    kinds = tuple((kind, double.ids[kind] if kind in _OWN else number) for kind, number in double.part.record.kinds)
    try:
        with store.Locked(double.part.record.name, os.dup(dir_fd)) as held:
            held.write(double.part.record._replace(pause=process.identify(double.pid), kinds=kinds))
        if double.part.guard:
            pid = _start_waiting()
            helper.remember(dir_fd, netnat.FILE, pid)
            played[pid] = double.part.guard
        elif netnat.FILE in os.listdir(dir_fd):
            os.unlink(netnat.FILE, dir_fd=dir_fd)
    finally:
        os.close(dir_fd)
    return played


_OWN = ("net", "mnt")


def _start_waiting() -> int:
    parent_fd = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid == 0:
        try:
            attributes.die_with_parent(parent_fd)
            _wait()
        finally:
            os._exit(1)
    os.close(parent_fd)
    return pid


def end(doubles: Sequence[Double]) -> None:
    """End them, and wait until those that serve them have ended too."""
    for double in doubles:
        with suppress(NsboxError, OSError):
            dir_fd = store.directory(double.part.record.name)
            try:
                helper.end(dir_fd, netnat.FILE)
                process.kill_and_reap(process.Spawned(double.pid, double.pidfd))
                serves = portfile.read(dir_fd).proxy
                if serves is not None and serves != double.part.proxy:
                    _wait_for(serves)
            finally:
                os.close(dir_fd)


def _wait_for(who: process.Identity) -> None:
    with suppress(ProcessLookupError):
        pidfd = process.open_process(who)
        process.has_ended(pidfd, _END_S)
        os.close(pidfd)


# ---- in the command ----

def serve(parts: Sequence[Part], pids: Mapping[str, int]) -> None:
    """Start a proxy for those that have one. The records are the copy already.

    Args:
        pids: who stands in for each pod.

    Raises:
        NsboxError: one cannot be started.
    """
    for part in parts:
        if part.serves is not None:
            _serve(part.record.name, part.serves, pids[part.record.name])


def _serve(name: str, forwards: Sequence[Forward], pid: int) -> None:
    dir_fd, pidfd = store.directory(name), os.pidfd_open(pid)
    bound = [Listening(forward, _mute(forward, dir_fd)) for forward in forwards]

    def remember(pid: int) -> None:
        portfile.write(dir_fd, portfile.read(dir_fd)._replace(proxy=process.identify(pid)))

    try:
        with control.bind(dir_fd, publish.SOCKET) as desk:
            started = proxy.start(bound, pidfd, desk.fileno(), confine=rights.give_up_all, before_go=remember)
        os.close(started.pidfd)
    finally:
        publish.close(bound)
        os.close(pidfd)
        os.close(dir_fd)


def _mute(forward: Forward, dir_fd: int) -> socket.socket:
    """A socket in the place of a port: of no network, so that no client comes."""
    if forward.proto == "udp":
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    name = f"mute-{store.new_id()}"
    sock.bind(f"/proc/self/fd/{dir_fd}/{name}")
    sock.listen(1)
    os.unlink(name, dir_fd=dir_fd)
    return sock


def mirrored(doubles: Sequence[Double]) -> dict[int, int]:
    """Whose namespaces theirs stand in for, by inode numbers."""
    return {double.ids[kind]: double.part.ids[kind] for double in doubles for kind in _OWN
            if double.ids[kind] != double.part.ids[kind]}  # fmt: skip
