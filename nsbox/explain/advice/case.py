"""One call that failed, where, and with what: what the rules are held against.

Plain reading: a Case touches nothing of the machine but files of /proc and /sys.
"""

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

from ...capabilities import NAMES
from ...linux import policy, trouble
from ...linux.flags import CloneFlag
from ...linux.mounts import MountEntry, parse_mountinfo

APPLIES, NOT, UNKNOWN = "applies here", "does not apply here", "cannot be told"
_EVERY_ID = ["0", "0", "4294967295"]
_FIRST_USER = "user:[4026531837]"  # PROC_USER_INIT_INO, linux/proc_ns.h


class Seen(NamedTuple):
    """What a look at one rule found.

    Attributes:
        verdict: APPLIES, NOT or UNKNOWN.
        words: what was looked at, and what it said.
        next: a command that shows or mends it, where the rule's own is not precise enough.
    """

    verdict: str
    words: str
    next: str = ""


def known(applies: bool, words: str, next: str = "") -> Seen:
    """A look that found out."""
    return Seen(APPLIES if applies else NOT, words, next)


def unknown(words: str, next: str = "") -> Seen:
    """A look that did not."""
    return Seen(UNKNOWN, words, next)


class Case:
    """A failed call.

    Attributes:
        call: its name, or "write uid_map", "netlink".
        code: its errno.
        asked: its arguments; () where they are not known. See trouble.asked_of().
    """

    def __init__(self, call: str, code: int, asked: list[Any] | None = None,
                 scene: dict[str, str] | None = None) -> None:  # fmt: skip
        """Args:
        scene: what the process that failed looked like; none: it is this one.
        """
        self.call, self.code, self.asked = call, code, tuple(asked or ())
        self.scene = scene or trouble.scene()

    @cached_property
    def status(self) -> dict[str, str]:
        """See proc_pid_status(5)."""
        lines = (line.partition(":") for line in self.scene.get("status", "").splitlines())
        return {key: value.strip() for key, _, value in lines}

    @property
    def flags(self) -> CloneFlag | None:
        """The CLONE_ flags of clone3, unshare or setns; None where they are not known."""
        at = 1 if self.call == "setns" else 0
        value = self.asked[at] if len(self.asked) > at else None
        return CloneFlag(value) if isinstance(value, int) else None

    def wants(self, *flags: CloneFlag) -> bool:
        """Whether one of these flags was given, or may have been."""
        return self.flags is None or any(flag & self.flags for flag in flags)

    def has(self, capability: str) -> bool | None:
        """Whether the process had it in its own user namespace; None where that cannot be read."""
        bits = self.status.get("CapEff")
        return None if bits is None else bool(int(bits, 16) >> NAMES.index(capability) & 1)

    @property
    def euid(self) -> int:
        return int(self.scene.get("euid", -1))

    @property
    def egid(self) -> int:
        return int(self.scene.get("egid", -1))

    @property
    def is_root_of_machine(self) -> bool:
        return self.euid == 0 and self.scene.get("uid_map", "").split() == _EVERY_ID

    @property
    def in_first_user_namespace(self) -> bool | None:
        name = self.scene.get("ns/user")
        return None if name is None else name == _FIRST_USER

    @property
    def elsewhere(self) -> bool:
        """Whether the process was in other namespaces than we are."""
        mine = ((key, value) for key, value in trouble.scene().items() if key.startswith("ns/"))
        return any(self.scene.get(key, value) != value for key, value in mine)

    @cached_property
    def mounts(self) -> list[MountEntry]:
        """What it saw mounted; empty where that cannot be read."""
        return [parse_mountinfo(os.fsencode(line)) for line in self.scene.get("mountinfo", "").splitlines()]

    def mount_of(self, place: str) -> MountEntry | None:
        """The mount that "root" or "cwd" was in, if it can be seen from its root."""
        number = self.scene.get(f"{place} mount", "")
        return next((one for one in self.mounts if str(one.mount_id) == number), None)

    def text(self, at: int) -> str:
        """An argument as text, or ""."""
        return self.asked[at] if len(self.asked) > at and isinstance(self.asked[at], str) else ""


Probe = Callable[[Case], Seen]


def _always(_case: Case) -> bool:
    return True


class Rule(NamedTuple):
    """One reason for which the kernel, or the machine's policy, gives an errno.

    Attributes:
        calls: which calls.
        errors: which errnos, by name.
        says: the rule, in words that follow "because".
        source: where to read about it.
        probe: looks whether it applies here.
        next: what to type next.
        when: whether the arguments can meet the rule at all.
    """

    calls: tuple[str, ...]
    errors: tuple[str, ...]
    says: str
    source: str
    probe: Probe
    next: str
    when: Callable[[Case], bool] = _always


class Advice(NamedTuple):
    """A rule, and what was found: what --events and --json print."""

    rule: str
    source: str
    verdict: str
    seen: str
    next: str


# ---- looks that many rules share ----

def lacks(capability: str) -> Probe:
    """Whether the process lacked a capability."""
    def probe(case: Case) -> Seen:
        has = case.has(capability)
        if has is None:
            return unknown("/proc/PID/status could not be read")
        return known(not has, f"it has {'' if has else 'no '}CAP_{capability} in its user namespace")

    return probe


def setting(path: str, bad: str, *, of_root: bool = False) -> Probe:
    """Whether a switch of the machine has this value, which is one for ordinary users unless `of_root`."""
    name = path.removeprefix("/proc/sys/").replace("/", ".")

    def probe(case: Case) -> Seen:
        value = policy.read(path)
        if value is None:
            return known(False, f"this kernel has no {name}")
        if value == bad and not of_root and case.is_root_of_machine:
            return known(False, f"{name} = {value}, but root is not bound by it")
        return known(value == bad, f"{name} = {value}")

    return probe


def always(words: str) -> Probe:
    """The errno says it all: no other rule gives it here."""
    return lambda _case: known(True, words)


def never_seen(words: str) -> Probe:
    """It cannot be looked at from outside."""
    return lambda _case: unknown(words)
