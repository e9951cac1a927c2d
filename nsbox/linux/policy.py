"""Which rule of a machine keeps ordinary users from user namespaces, so that a person can be told.

The kernel says EPERM for all of them. Ubuntu's AppArmor says it late: the namespace is made, and
nothing may be done in it.
"""

import os
import sys
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Rule(NamedTuple):
    """What forbids it, and how it is changed."""

    what: str
    mend: str


class Place(Protocol):
    """A mount: of that only where it is."""

    @property
    def target(self) -> str: ...


# AppArmor attaches a profile to a path, so the path is a part of what has to be done.
_SETTINGS = (
    ("/proc/sys/user/max_user_namespaces", "0",
     Rule("this machine has no user namespaces left", "sysctl -w user.max_user_namespaces=15000")),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0",
     Rule("this machine has user namespaces for root alone", "sysctl -w kernel.unprivileged_userns_clone=1")),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1",
     Rule("AppArmor lets ordinary users do nothing in a user namespace",
          "an AppArmor profile: write 'abi <abi/4.0>, include <tunables/global> profile nsbox {program} "
          "flags=(unconfined) {{ userns, }}' to /etc/apparmor.d/nsbox, then apparmor_parser -r on it")),
)  # fmt: skip
_FILTER = Rule("a seccomp filter is on this shell, as in a container", "start that without it "
               "(docker: --security-opt seccomp=unconfined)")  # fmt: skip


def against_user_namespaces() -> Rule | None:
    """The rule of this machine that it most likely is; None if none is known."""
    for path, bad, rule in _SETTINGS:
        if read(path) == bad:
            return rule._replace(mend=rule.mend.format(program=os.path.realpath(sys.argv[0] or "nsbox")))
    return _FILTER if has_filter() else None


def has_filter() -> bool:
    """Whether a seccomp filter is on us. See Seccomp in proc_pid_status(5)."""
    return status("Seccomp") == "2"


def status(key: str) -> str | None:
    """A line of our /proc/self/status, as "Seccomp_filters". See proc_pid_status(5)."""
    lines = (line.partition(":") for line in (read("/proc/self/status") or "").splitlines())
    return next((value.strip() for name, _, value in lines if name == key), None)


def limits() -> dict[str, int]:
    """The limits of our user namespace on new ones, by name: "max_pid_namespaces". See namespaces(7).

    Raises:
        OSError: they cannot be read.
    """
    names = sorted(name for name in os.listdir("/proc/sys/user") if name.endswith("_namespaces"))
    return {name: int(read(f"/proc/sys/user/{name}") or -1) for name in names}


def over_proc(mounts: Iterable[Place]) -> list[str]:
    """What lies over parts of /proc: who has masks there gets no new /proc in a user namespace."""
    return sorted(one.target for one in mounts if one.target.startswith("/proc/"))


def read(path: str) -> str | None:
    """What a file of /proc holds, without blanks around it; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None


def link(name: str) -> str:
    """Where a link of /proc/self leads, as "ns/pid" to "pid:[4026531836]"; "" if it cannot be read."""
    try:
        return os.readlink(f"/proc/self/{name}")
    except OSError:
        return ""
