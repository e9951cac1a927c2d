"""What a pod and a member shall be: plain data, and the laws that it obeys.

Touches nothing outside. Words of a person become this data in parse.py; this module only
holds it, says what is wrong with it, and turns it into plain values for JSON and back.
Named tuples, because this is imported on the way to every create and join, and
dataclasses would cost more than the rest of the module.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import capabilities, decode, filters
from .capabilities import Rights
from .filters import Filter
from .runas import user_fault

if TYPE_CHECKING:  # few pods have limits of their own
    from .ulimits import Ulimits

# The order in which one process may join them, names as under /proc/PID/ns: namespaces(7).
KIND_NAMES = ("user", "cgroup", "ipc", "uts", "net", "pid", "time", "mnt")
POD_KINDS = frozenset({"pid", "uts", "ipc", "net", "mnt"})
EXTRA_KINDS = frozenset({"user", "cgroup", "time"})

PAUSES = ("static", "python")
NET_MODES = ("none", "bridge", "host", "user")
HOSTNAME_MAX_BYTES = 64  # sethostname(2): __NEW_UTS_LEN
STOP_TIMEOUT_MAX_S = 1e6
ID_MAX = 2**32 - 2  # of a user or group; the number above it means "no id"
SIZE_MIN_BYTES = 1
SIZE_MAX_BYTES = 2**60  # the kernel wraps or refuses sizes near 2**63

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_V4 = re.compile(r"\.".join([r"(0|[1-9][0-9]{0,2})"] * 4))
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")  # RFC 1123, section 2.1


class Volume(NamedTuple):
    """A file or directory of the host, bound into a root file system.

    Attributes:
        source: absolute path on the host.
        target: absolute, normalised path inside; :func:`target_fault` finds nothing wrong.
    """

    source: str
    target: str
    read_only: bool = False


class Tmpfs(NamedTuple):
    """A file system in memory, see tmpfs(5). The defaults are podman's.

    Attributes:
        size_bytes: None leaves the kernel's default, half of the memory.
        mode: permissions of its root directory.
    """

    target: str
    size_bytes: int | None = None
    mode: int = 0o1777
    read_only: bool = False
    noexec: bool = True
    nosuid: bool = True
    nodev: bool = True


class RootSpec(NamedTuple):
    """The root file system of a pod or member.

    Attributes:
        path: an absolute directory, or "" for the tree that the host has.
        in_place: use the directory itself, so that what is written stays in it.
        chroot: plain chroot(2) instead of pivot_root(2).
    """

    path: str
    in_place: bool = False
    chroot: bool = False
    read_only: bool = False
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()


class TimeOffsets(NamedTuple):
    """Seconds added to the host's clocks in a time namespace. See time_namespaces(7)."""

    monotonic_s: int = 0
    boottime_s: int = 0


class Owner(NamedTuple):
    """An ordinary user of the host."""

    uid: int
    gid: int


class PodSpec(NamedTuple):
    """What a pod shall be.

    Attributes:
        name: :func:`name_fault` finds nothing wrong with it.
        with_kinds: which of EXTRA_KINDS are made besides POD_KINDS.
        share: what members share unless they say otherwise; None is all that the pod has.
        init: argv of a program that takes the place of the pause; () is the pause.
        stop_timeout_s: seconds between SIGTERM and SIGKILL when the pod is stopped.
        die_with_parent: the pod ends with the process that made it.
        pause: "static", the small program, or "python", the readable one that stays an interpreter.
        net: one of NET_MODES, "pod:NAME", "ns:/PATH" or the name of a network.
        ip: the v4 address in that network, or "" for any free one.
        sysctls: (setting, value) each, as :func:`sysctls.parse_sysctl` takes them.
        userns: which ids a user namespace of its own has: "auto", "keep-id" or a map; "" adds none.
        user: who runs `init`, as for a member.
        owner: who shall own that namespace, if root makes it; None is root.
        rights: those of its members and of `init`, unless a member says otherwise.
        seccomp: the filter of its members and of `init`; None is the usual one.
        ulimits: (name, (soft, hard)) each, of its members and of `init`, as :func:`ulimits.parse_ulimit`
            takes them; each name once. What is not there is the caller's.
    """

    name: str
    hostname: str
    root: RootSpec
    with_kinds: frozenset[str] = frozenset()
    share: frozenset[str] | None = None
    init: tuple[bytes, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    time: TimeOffsets = TimeOffsets()
    stop_timeout_s: float = 10.0
    die_with_parent: bool = False
    pause: str = "static"
    net: str = "none"
    ip: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    userns: str = ""
    user: str = ""
    owner: Owner | None = None
    rights: Rights = Rights()
    seccomp: Filter | None = None
    ulimits: "Ulimits" = ()


class MemberSpec(NamedTuple):
    """What a process joined into a pod shall be.

    Attributes:
        argv: the program and its arguments, at least one.
        share: the kinds shared with the pod; None is the pod's own default.
        root: None is the pod's root; else the member has a mount namespace of its own.
        env: the whole environment, each name once.
        workdir: as the member sees it; None is "/".
        hostname: only for a member that does not share uts.
        user: who runs it, as :func:`runas.parse_user` takes it; "" is root, or whoever else joins.
        rights: changes to those that the pod gives its members.
        seccomp: its filter of system calls; None is the pod's.
        ulimits: its limits, as in PodSpec; one that is not there is the pod's.
    """

    argv: tuple[bytes, ...]
    share: frozenset[str] | None = None
    root: RootSpec | None = None
    env: tuple[tuple[bytes, bytes], ...] = ()
    workdir: bytes | None = None
    hostname: str | None = None
    user: str = ""
    rights: Rights = Rights()
    seccomp: Filter | None = None
    ulimits: "Ulimits" = ()


# Laws: each says in a few words what is wrong, or "".

def name_fault(name: str) -> str:
    """Why `name` cannot name a pod, or "". A valid name is safe as a file name."""
    if not name:
        return "it is empty"
    if not _NAME.fullmatch(name):  # fullmatch: "$" would let a last newline through
        return "a name is 1 to 63 of a-z 0-9 _ . - and begins with a letter or a digit"
    if name.isdigit():
        return "a number would be taken for a PID"
    return ""


def hostname_fault(hostname: str) -> str:
    """Why `hostname` cannot be one, or "". See hostname(7) and sethostname(2)."""
    if not hostname:
        return "it is empty"
    if len(hostname) > HOSTNAME_MAX_BYTES:
        return f"it is longer than {HOSTNAME_MAX_BYTES} bytes"
    if not all(_LABEL.fullmatch(label) for label in hostname.split(".")):
        return "it is made of letters, digits and inner hyphens, in parts joined by dots"
    return ""


def net_fault(net: str) -> str:
    """Why `net` cannot say where a pod's network comes from, or ""."""
    kind, colon, rest = net.partition(":")
    if not colon:
        return name_fault(net)
    if kind == "pod":
        return name_fault(rest)
    if kind == "ns":
        return decode.path_fault(rest)
    return "only pod: and ns: take something after a colon"


def v4_fault(address: str) -> str:
    """Why `address` is no IPv4 address of four plain numbers, or ""."""
    found = _V4.fullmatch(address)
    return "" if found and all(int(part) < 256 for part in found.groups()) else "it is no IPv4 address"


def userns_fault(userns: str) -> str:
    """Why `userns` cannot say which ids a user namespace has, or ""; "" asks for none."""
    from . import idranges  # here, because few pods have one

    return idranges.userns_fault(userns) if userns else ""


def target_fault(target: str) -> str:
    """Why nothing may be mounted at `target`, or "". Any spelling of a path is understood.

    Lexical only: a link inside the root is for those to resolve who mount.
    """
    if why := decode.bytes_fault(target):
        return why
    if not target.startswith("/"):
        return "the destination is not an absolute path"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if ".." in parts:
        return "the destination holds '..'"
    if not parts:
        return "the destination is the root itself"
    if parts[0] in ("proc", "sys"):
        # A fake /proc makes whoever writes /proc/self/attr write elsewhere: CVE-2019-19921.
        return f"nothing may be mounted at or below /{parts[0]}"
    if parts[0] == "dev" and parts[1:2] != ["shm"]:
        return "nothing may be mounted at or below /dev, /dev/shm excepted"
    return ""


def normal_path(path: str) -> str:
    """`path`, absolute and without "..", in its shortest spelling.

    Not os.path.normpath: that keeps two leading slashes, so "//proc" would not be "/proc".
    """
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _sysctl_fault(key: str) -> str:
    from . import sysctls  # as above

    return sysctls.key_fault(key)


def _sysctl_value_fault(value: str) -> str:
    from . import sysctls

    return sysctls.value_fault(value)


def _ulimits(value: Any, where: str) -> "Ulimits":
    if value == []:
        return ()
    from . import ulimits  # as above

    return ulimits.of_list(value, where)


def _mount_point_fault(path: str) -> str:
    return target_fault(path) or ("" if path == normal_path(path) else "it is not normalised")


def _root_fault(path: str) -> str:
    return decode.path_fault(path) if path else ""


def _env_name_fault(name: str) -> str:
    return decode.bytes_fault(name) or ("" if name and "=" not in name else "no variable has it")


def _kinds(allowed: Iterable[str]) -> decode.Decoder:
    law = decode.text(lambda kind: "" if kind in allowed else "no such kind here")
    return decode.sequence(law, frozenset)


# The schema: a decoder for each field, under the field's name.

_FLAG = decode.exactly(bool)
_SECONDS = decode.number(int, -(2**62), 2**62)
_ID = decode.number(int, 1, ID_MAX)
_SIZE = decode.number(int, SIZE_MIN_BYTES, SIZE_MAX_BYTES)
_STRING = decode.text(decode.bytes_fault)
_BYTES = decode.raw(decode.bytes_fault)
_TARGET = decode.text(_mount_point_fault)
_HOSTNAME = decode.text(hostname_fault)
_USER = decode.text(lambda word: user_fault(word) if word else "")

_VOLUME = decode.record(Volume, {
    "source": decode.text(decode.path_fault), "target": _TARGET, "read_only": _FLAG,
})
_TMPFS = decode.record(Tmpfs, {
    "target": _TARGET, "size_bytes": decode.or_none(_SIZE), "mode": decode.number(int, 0, 0o7777),
    "read_only": _FLAG, "noexec": _FLAG, "nosuid": _FLAG, "nodev": _FLAG,
})
_ROOT = decode.record(RootSpec, {
    "path": decode.text(_root_fault), "in_place": _FLAG, "chroot": _FLAG, "read_only": _FLAG,
    "volumes": decode.sequence(_VOLUME, tuple), "tmpfs": decode.sequence(_TMPFS, tuple),
})
_CAPABILITIES = decode.sequence(decode.text(capabilities.name_fault), frozenset)
_RIGHTS = decode.record(Rights, {"added": _CAPABILITIES, "dropped": _CAPABILITIES, "privileged": _FLAG})
_TIME = decode.record(TimeOffsets, {"monotonic_s": _SECONDS, "boottime_s": _SECONDS})
_SHARE = decode.or_none(_kinds(KIND_NAMES))
_SECCOMP = decode.or_none(filters.of_dict)
_POD = decode.record(PodSpec, {
    "name": decode.text(name_fault), "hostname": _HOSTNAME, "root": _ROOT,
    "with_kinds": _kinds(EXTRA_KINDS), "share": _SHARE,
    "init": decode.sequence(_BYTES, tuple),
    "labels": decode.sequence(decode.pair(_STRING, _STRING), tuple), "time": _TIME,
    "stop_timeout_s": decode.number(float, 0, STOP_TIMEOUT_MAX_S), "die_with_parent": _FLAG,
    "pause": decode.text(lambda word: "" if word in PAUSES else "no such pause"),
    "net": decode.text(net_fault), "ip": decode.text(lambda word: v4_fault(word) if word else ""),
    "sysctls": decode.sequence(decode.pair(decode.text(_sysctl_fault), decode.text(_sysctl_value_fault)), tuple),
    "userns": decode.text(userns_fault),
    "user": _USER,
    "owner": decode.or_none(decode.record(Owner, {"uid": _ID, "gid": _ID})),
    "rights": _RIGHTS,
    "seccomp": _SECCOMP,
    "ulimits": _ulimits,
})
_MEMBER = decode.record(MemberSpec, {
    "argv": decode.sequence(_BYTES, tuple, least=1), "share": _SHARE,
    "root": decode.or_none(_ROOT),
    "env": decode.sequence(decode.pair(decode.raw(_env_name_fault), _BYTES), tuple),
    "workdir": decode.or_none(_BYTES), "hostname": decode.or_none(_HOSTNAME),
    "user": _USER,
    "rights": _RIGHTS,
    "seccomp": _SECCOMP,
    "ulimits": _ulimits,
})


# Plain values for JSON, and back.

def rights_from_dict(data: object) -> Rights:
    """The rights in `data`. Raises SpecError as :func:`pod_spec_from_dict` does."""
    rights: Rights = _RIGHTS(data, "rights")
    return rights


def pod_spec_to_dict(spec: PodSpec) -> dict[str, Any]:
    """`spec` as values that JSON knows; :func:`pod_spec_from_dict` gives it back."""
    return decode.plain_record(spec)


def member_spec_to_dict(spec: MemberSpec) -> dict[str, Any]:
    """`spec` as values that JSON knows; :func:`member_spec_from_dict` gives it back."""
    return decode.plain_record(spec)


def pod_spec_from_dict(data: object) -> PodSpec:
    """The spec in `data`, every law checked again: it may come from a file.

    Raises:
        SpecError: a key is unknown or missing, or a value has a wrong type or breaks a law.
    """
    return _POD(data, "pod")


def member_spec_from_dict(data: object) -> MemberSpec:
    """The spec in `data`. Raises SpecError as :func:`pod_spec_from_dict` does."""
    return _MEMBER(data, "member")
