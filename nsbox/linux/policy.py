"""Which rule of a machine keeps ordinary users from user namespaces, so that a person can be told.

The kernel says EPERM for all of them. Ubuntu's AppArmor says it late: the namespace is made, and
nothing may be done in it.
"""

import os
import sys
from typing import NamedTuple


class Rule(NamedTuple):
    """What forbids it, and how it is changed."""

    what: str
    mend: str


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
    return "\nSeccomp:\t2\n" in (read("/proc/self/status") or "")


def read(path: str) -> str | None:
    """What a file of /proc holds, without blanks around it; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None
