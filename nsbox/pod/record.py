"""What is remembered of a pod and of a detached member: plain data and its JSON form.

Nothing in here is a path or a command that somebody would act on: a tampered record can
name the wrong process at most, and the identity check finds that.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from .. import decode
from ..capabilities import Rights
from ..errors import SpecError
from ..filters import PodFilter, pod_filter_of_dict
from ..linux.process import Identity
from ..spec import ID_MAX, KIND_NAMES, Owner, rights_from_dict
from .files import CorruptFile, check_version

if TYPE_CHECKING:
    from ..ulimits import Ulimits

VERSION = 1


class PodRecord(NamedTuple):
    """One pod.

    Attributes:
        id: 16 random hexadecimal digits, carried by all that was made for it.
        phase: "intent" until the pod is complete, then "ready".
        maker: who makes it; an intent whose maker has ended is to be undone.
        pause: the pod's PID 1, or None while it is not started.
        created_s: Unix time.
        kinds: the kinds of namespaces it holds, with their inode numbers.
        share: what members share by default, or None for all.
        rootfs: the directory, for people to read; never used as a path again.
        chroot: its root is a plain chroot.
        init: its PID 1 is a program of the user's.
        vantage: inode numbers of the PID and time namespaces in which the numbers of the
            identities were read; from anywhere else they mean other processes, or none.
        net: where its network comes from, as in PodSpec.
        sysctls: settings of the kernel written at its birth, as in PodSpec.
        userns: "auto", "keep-id" or "map", or "" for a pod without ranges of ids.
        uid_map: (inside, outside, how many) each: ids that no other pod may get. gid_map: the same.
        owner: the ordinary user to whom root gave the user namespace, or None.
        rights: those of its members, as in PodSpec.
        seccomp: the filter of system calls that members get.
        ulimits: the limits that members get, as in PodSpec.
    """

    id: str
    name: str
    phase: str
    maker: Identity
    pause: Identity | None
    created_s: float
    hostname: str
    kinds: tuple[tuple[str, int], ...] = ()
    share: frozenset[str] | None = None
    rootfs: str = ""
    chroot: bool = False
    init: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_timeout_s: float = 10.0
    vantage: tuple[int, int] = (0, 0)
    net: str = "none"
    sysctls: tuple[tuple[str, str], ...] = ()
    userns: str = ""
    uid_map: tuple[tuple[int, int, int], ...] = ()
    gid_map: tuple[tuple[int, int, int], ...] = ()
    owner: Owner | None = None
    rights: Rights = Rights()
    seccomp: PodFilter = PodFilter()
    ulimits: "Ulimits" = ()


class MemberRecord(NamedTuple):
    """One detached member.

    Attributes:
        id: 16 random hexadecimal digits.
        process: the member, or None while it is not started.
        supervisor: its parent, which writes down how it ended.
        exit_status: the shell's number, or None while it runs.
    """

    id: str
    process: Identity | None
    supervisor: Identity
    argv: tuple[str, ...]
    started_s: float
    exit_status: int | None = None


def pod_to_dict(record: PodRecord) -> dict[str, Any]:
    """The JSON form of a pod's record."""
    return {
        "version": VERSION,
        **record._asdict(),
        "maker": list(record.maker),
        "vantage": list(record.vantage),
        "pause": list(record.pause) if record.pause else None,
        "kinds": dict(record.kinds),
        "share": sorted(record.share) if record.share is not None else None,
        "init": list(record.init),
        "labels": dict(record.labels),
        "sysctls": dict(record.sysctls),
        "owner": list(record.owner) if record.owner else None,
        "rights": decode.plain(record.rights),
        "seccomp": decode.plain(record.seccomp),
        "ulimits": {name: list(bounds) for name, bounds in record.ulimits},
    }


def pod_from_dict(data: dict[str, Any]) -> PodRecord:
    """The record behind its JSON form. Unknown keys are passed over.

    Raises:
        CorruptFile: a value is missing or of the wrong type, or the version is newer than ours.
    """
    _check_version(data)
    share = data.get("share")
    phase = _typed(data, "phase", str)
    if phase not in ("intent", "ready"):
        raise CorruptFile(f"no such phase: {phase!r}")
    pause = _identity(data, "pause") if phase == "intent" else _required_identity(data, "pause")
    return PodRecord(
        id=_hex_id(data),
        name=_typed(data, "name", str),
        phase=phase,
        maker=_required_identity(data, "maker"),
        pause=pause,
        created_s=float(_typed(data, "created_s", (int, float))),
        hostname=_typed(data, "hostname", str),
        kinds=_kinds(data),
        share=frozenset(_strings(data, "share")) if share is not None else None,
        rootfs=_typed(data, "rootfs", str),
        chroot=_typed(data, "chroot", bool),
        init=_strings(data, "init"),
        labels=_pairs(data, "labels"),
        stop_timeout_s=float(_typed(data, "stop_timeout_s", (int, float))),
        vantage=_vantage(data),
        net=_typed(data, "net", str) if "net" in data else "none",  # pods of an nsbox without networks
        sysctls=_pairs(data, "sysctls") if "sysctls" in data else (),
        userns=_typed(data, "userns", str) if "userns" in data else "",  # the same, of one without ranges
        uid_map=_id_map(data, "uid_map"),
        gid_map=_id_map(data, "gid_map"),
        owner=_owner(data),
        rights=_rights(data.get("rights", {})),  # nor had all of them these
        seccomp=_seccomp(data.get("seccomp", {})),
        ulimits=_ulimits(data.get("ulimits", {})),
    )


def member_to_dict(record: MemberRecord) -> dict[str, Any]:
    """The JSON form of a member's record."""
    return {
        "version": VERSION,
        **record._asdict(),
        "process": list(record.process) if record.process else None,
        "supervisor": list(record.supervisor),
        "argv": list(record.argv),
    }


def member_from_dict(data: dict[str, Any]) -> MemberRecord:
    """The record behind its JSON form. Raises CorruptFile as :func:`pod_from_dict` does."""
    _check_version(data)
    status = data.get("exit_status")
    if status is not None and type(status) is not int:
        raise CorruptFile("exit_status: wrong type")
    return MemberRecord(
        id=_hex_id(data),
        process=_identity(data, "process"),
        supervisor=_required_identity(data, "supervisor"),
        argv=_strings(data, "argv"),
        started_s=float(_typed(data, "started_s", (int, float))),
        exit_status=status,
    )


def _check_version(data: dict[str, Any]) -> None:
    if "version" not in data:
        raise CorruptFile("version: missing")
    check_version(data, VERSION)


def _typed(data: dict[str, Any], key: str, kind: Any) -> Any:
    value = data.get(key)
    # bool is an int to isinstance, and a record with "pid": true is none of ours
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise CorruptFile(f"{key}: wrong type")
    return value


def _hex_id(data: dict[str, Any]) -> str:
    text: str = _typed(data, "id", str)
    if len(text) != 16 or not set(text) <= set("0123456789abcdef"):
        raise CorruptFile("id: not of nsbox")
    return text


def _identity(data: dict[str, Any], key: str) -> Identity | None:
    value = data.get(key)
    if value is None:
        return None
    if not (
        isinstance(value, list)
        and len(value) == 3
        and isinstance(value[0], str)
        and type(value[1]) is int
        and type(value[2]) is int
    ):
        raise CorruptFile(f"{key}: wrong type")
    return Identity(*value)


def _required_identity(data: dict[str, Any], key: str) -> Identity:
    found = _identity(data, key)
    if found is None:
        raise CorruptFile(f"{key}: missing")
    return found


def _vantage(data: dict[str, Any]) -> tuple[int, int]:
    value = _typed(data, "vantage", list)
    if len(value) != 2 or not all(type(item) is int for item in value):
        raise CorruptFile("vantage: wrong type")
    return value[0], value[1]


def _owner(data: dict[str, Any]) -> Owner | None:
    value = data.get("owner")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise CorruptFile("owner: wrong type")
    if not all(type(number) is int and 0 < number <= ID_MAX for number in value):
        raise CorruptFile("owner: no ordinary user")
    return Owner(*value)


def _id_map(data: dict[str, Any], key: str) -> tuple[tuple[int, int, int], ...]:
    value = _typed(data, key, list) if key in data else []
    for item in value:
        if not isinstance(item, list) or len(item) != 3 or not all(type(number) is int for number in item):
            raise CorruptFile(f"{key}: wrong type")
    return tuple((inside, outside, count) for inside, outside, count in value)


def _strings(data: dict[str, Any], key: str) -> tuple[str, ...]:
    value = _typed(data, key, list)
    if not all(isinstance(item, str) for item in value):
        raise CorruptFile(f"{key}: wrong type")
    return tuple(value)


def _rights(value: Any) -> Rights:
    try:
        return rights_from_dict(value)
    except SpecError:
        raise CorruptFile("rights: wrong type") from None


def _seccomp(value: Any) -> PodFilter:
    try:
        return pod_filter_of_dict(value, "seccomp")
    except SpecError:
        raise CorruptFile("seccomp: wrong type") from None


def _ulimits(value: Any) -> "Ulimits":
    if value == {}:
        return ()
    from .. import ulimits  # few pods have limits of their own

    try:
        return ulimits.of_list([list(item) for item in value.items()], "ulimits")
    except (SpecError, AttributeError):
        raise CorruptFile("ulimits: wrong type") from None


def _kinds(data: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    value = _typed(data, "kinds", dict)
    for name, number in value.items():
        if name not in KIND_NAMES or type(number) is not int:
            raise CorruptFile("kinds: wrong type")
    return tuple(value.items())


def _pairs(data: dict[str, Any], key: str) -> tuple[tuple[str, str], ...]:
    value = _typed(data, key, dict)
    if not all(isinstance(item, str) for item in value.values()):
        raise CorruptFile(f"{key}: wrong type")
    return tuple(value.items())
