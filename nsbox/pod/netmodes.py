"""Where a new pod's network comes from, if not from nowhere: checked and opened before anything is made.

    host       the caller's own network namespace
    pod:NAME   that of another pod, held by its pidfd and its lock
    ns:PATH    one that a file names, as ip-netns(8) keeps them
    bridge, NAME, user   a new one, which something is plugged into at birth

Law: a network namespace that is not the pod's own is entered and never changed.
"""

import fcntl
import os
import stat
from typing import NamedTuple

from ..errors import NsboxError, PodNotFound, SpecError
from ..linux import namespaces, process, syscalls
from ..linux.flags import CloneFlag
from ..spec import PodSpec, RootSpec, Volume
from . import store, target
from .record import PodRecord

_CHAIN_MAX = 16  # of pods that share the network of one that shares that of another
_NS_GET_USERNS, _NS_GET_NSTYPE = 0xB701, 0xB703  # ioctl_ns(2)


class Source(NamedTuple):
    """The network of a pod that is being made.

    Attributes:
        net: as in PodSpec.
        pidfd: of the PID 1 of the pod whose network is shared, or -1.
        ns_fd: of the namespace that a path named, or -1.
        owner_fd: of the user namespace to be entered for the right to that one, or -1.
        joins_user: the pod shares the user namespace that its network belongs to.
        held: the other pod's lock.
    """

    net: str
    ip: str = ""
    pidfd: int = -1
    ns_fd: int = -1
    owner_fd: int = -1
    joins_user: bool = False
    held: store.Locked | None = None

    def close(self) -> None:
        """Let go of all that was opened."""
        for fd in (self.pidfd, self.ns_fd, self.owner_fd):
            if fd >= 0:
                os.close(fd)
        if self.held is not None:
            self.held.close()

    def kinds(self, kinds: frozenset[str]) -> frozenset[str]:
        """Those of `kinds` that are made for this pod."""
        if is_own(self.net):
            return kinds
        return kinds - ({"net", "user"} if self.joins_user else {"net"})

    def enter(self) -> None:
        """Enter a shared network; runs in the middle process of spawn_in."""
        try:
            if self.pidfd >= 0:
                namespaces.join(self.pidfd, frozenset({"net", "user"} if self.joins_user else {"net"}))
            if self.owner_fd >= 0:
                syscalls.setns(self.owner_fd, CloneFlag.CLONE_NEWUSER)
            if self.ns_fd >= 0:
                syscalls.setns(self.ns_fd, CloneFlag.CLONE_NEWNET)
        except PermissionError as err:
            raise _no_right(self.net) from err

    def attach(self, record: PodRecord, pid: int, dir_fd: int) -> None:
        """Plug in what the pod's own network is to have; runs while its PID 1 waits.

        Raises:
            NsboxError: it cannot be; nothing of it is left that undoing the pod does not take along.
        """
        if self.net == "user":
            from . import netuser

            netuser.start(pid, dir_fd)
        elif is_linked(self.net):
            from . import netattach

            netattach.at_birth(record, self.net, self.ip, pid)


def is_own(net: str) -> bool:
    """Whether a pod of this mode has a network namespace made for it."""
    return net != "host" and ":" not in net


def is_linked(net: str) -> bool:
    """Whether a pod of this mode is born on a bridge."""
    return is_own(net) and net not in ("none", "user")


def warning(net: str) -> str:
    """What a person should hear about this mode, or ""."""
    if net != "host":
        return ""
    return "the pod shares the host's network: its ports, its abstract sockets, and what listens on 127.0.0.1"


def check_publish(net: str) -> None:
    """Refuse to publish ports of a pod that has no network of its own. Raises SpecError."""
    kind, _, name = net.partition(":")
    if net == "host":
        raise SpecError("cannot publish ports of a pod on the host's network", hint="they are the host's already")
    if kind == "pod" and name:
        raise SpecError("cannot publish ports of a pod in another's network", hint=f"publish them of pod {name!r}")
    if not is_own(net):
        raise SpecError("cannot publish ports of a pod in a network namespace that is not its own")


def open_source(spec: PodSpec) -> Source:
    """Check where the network of `spec` comes from, and open it. The caller closes it.

    Raises:
        SpecError: the words do not go together. PodNotFound, PodDead: no such pod runs.
        NsboxError: there is no such network, or no right to it.
    """
    kind, _, detail = spec.net.partition(":")
    if spec.ip and not is_linked(spec.net):
        raise SpecError("cannot use an address without a network", hint="--ip goes with --net bridge or --net NAME")
    if detail and (spec.userns or os.geteuid() == 0 and "user" in spec.with_kinds):
        raise SpecError("cannot share a network with a user namespace of one's own: it would have no right to it")
    if kind == "pod" and detail:
        return _of_pod(detail)
    if kind == "ns" and detail:
        return _of_path(detail)
    if is_linked(spec.net):
        if os.geteuid() != 0:
            raise NsboxError(f"cannot use network {spec.net!r}: that needs root",
                             hint="--net user reaches out without root")  # fmt: skip
        if spec.net != "bridge":
            from . import networks

            networks.checked(spec.net)
    if spec.net == "user":
        from ..net import pasta

        pasta.program()
    return Source(spec.net, ip=spec.ip)


def _of_pod(name: str) -> Source:
    target.find(name).close()  # says what is wrong with one that is half made, whose lock is held
    held = store.lock(name, shared=True)
    try:
        found = target.find(name)
        if found.root_fd >= 0:
            os.close(found.root_fd)
        source = Source(f"pod:{name}", pidfd=found.pidfd, held=held,
                        joins_user=os.geteuid() != 0 and "user" in found.kinds)  # fmt: skip
        if "net" not in found.kinds:
            source.close()
            raise NsboxError(f"cannot share the network of pod {name!r}: it is the host's", hint="see --net host")
    except BaseException:
        held.close()
        raise
    return source


def _of_path(path: str) -> Source:
    what = f"ns:{path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as err:
        raise NsboxError(f"cannot use network {what!r}", hint="see what there is with: ip netns list") from err
    try:
        ours = os.stat("/proc/self/ns/net")
        found = os.fstat(fd)
        # All namespaces are files of one file system, and no other file may see the ioctl.
        if not stat.S_ISREG(found.st_mode) or found.st_dev != ours.st_dev or (
            fcntl.ioctl(fd, _NS_GET_NSTYPE) != CloneFlag.CLONE_NEWNET
        ):
            raise NsboxError(f"cannot use network {what!r}: it is no network namespace")
        if found.st_ino == ours.st_ino:
            raise NsboxError(f"cannot use network {what!r}: it is the host's own", hint="see --net host")
        owner_fd = -1 if os.geteuid() == 0 else _owner(fd, what)
    except BaseException:
        os.close(fd)
        raise
    return Source(what, ns_fd=fd, owner_fd=owner_fd, joins_user=owner_fd >= 0)


def _owner(fd: int, what: str) -> int:
    """The user namespace that a network namespace belongs to; an ordinary user gets a right only there."""
    try:
        owner_fd: int = fcntl.ioctl(fd, _NS_GET_USERNS)
    except PermissionError as err:
        raise _no_right(what) from OSError(err.errno, f"NS_GET_USERNS: {err.strerror}")
    if os.fstat(owner_fd).st_ino == os.stat("/proc/self/ns/user").st_ino:
        os.close(owner_fd)
        raise _no_right(what)
    return owner_fd


def _no_right(what: str) -> NsboxError:
    return NsboxError(f"cannot use network {what!r}: it belongs to somebody else", hint="that needs root")


def describe(record: PodRecord) -> str:
    """The mode for people, and "(down)" after it where what serves the network has been killed."""
    if record.net != "user":
        return record.net
    from . import netuser

    try:
        dir_fd = store.directory(record.name)
    except PodNotFound:
        return "user (down)"
    try:
        return "user" if netuser.runs(dir_fd) else "user (down)"
    finally:
        os.close(dir_fd)


def names_for(record: PodRecord, root: RootSpec) -> tuple[Volume, ...]:
    """The files that say the names in the network of a pod, as volumes for `root`."""
    from . import netnames

    if record.net == "host":
        return netnames.volumes_of_host(root)
    owner = names_of(record)
    return netnames.volumes(owner, root) if owner else ()


def names_of(record: PodRecord) -> str:
    """The pod whose files say the names in the network of `record`, or "" if none does.

    That of a shared network; but another pod of its name may have come since, with another one.
    """
    other: PodRecord | None = record
    for _ in range(_CHAIN_MAX):
        if other is None or not other.net.startswith("pod:"):
            break
        try:
            other = store.look(other.net.removeprefix("pod:")).record
        except NsboxError:
            return ""
    if other is None or other.net == "host":
        return ""
    if other.net == "none":
        from . import netnames

        if not netnames.has_files(other.name):
            return ""
    if other is not record and record.pause is not None:
        try:
            inode = namespaces.ids_of(record.pause.pid)["net"]
        except (OSError, KeyError):
            return ""
        if dict(other.kinds).get("net") != inode:
            return ""
    return other.name
