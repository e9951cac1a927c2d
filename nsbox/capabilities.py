"""The capabilities of Linux by name, and which of them a process shall keep. See capabilities(7).

Touches nothing: privilege/rights.py does what is settled here.
"""

from collections.abc import Iterable
from typing import NamedTuple

# Named without "CAP_", each at its own number, from linux/capability.h. A newer kernel may know more.
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
)  # fmt: skip
ALL = "ALL"
# What a member has unless somebody says otherwise: to own, serve and drop rights inside; nothing
# that reaches the kernel's settings, the network's, other processes' memory, devices or mounts.
OF_MEMBERS = frozenset({
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "NET_BIND_SERVICE", "AUDIT_WRITE", "SETFCAP",
})  # fmt: skip
MOST = 64  # as many as capset(2) has room for
EVERY = 2**MOST - 1  # those too that have no name yet
SETPCAP = NAMES.index("SETPCAP")
SYS_PTRACE = NAMES.index("SYS_PTRACE")


class Rights(NamedTuple):
    """What a person asked for: changes to what would be kept.

    Attributes:
        added, dropped: names as in NAMES, or ALL.
        privileged: everything, and execve(2) may give more.
    """

    added: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    privileged: bool = False


class Keep(NamedTuple):
    """What a process keeps of its rights when it becomes the user's program.

    Attributes:
        bits: the capabilities, one bit each; what it does not have is not gained.
        named: those of them that somebody asked for by name: to lack one is an error.
        no_new_privs: it gains none by execve(2) either.
    """

    bits: int
    named: int = 0
    no_new_privs: bool = True


NOTHING = Keep(0)


def settle(*layers: Rights, chrooted: bool = False) -> Keep:
    """What is kept when each of `layers` changes what those before it say.

    Args:
        chrooted: the root is a plain chroot(2), which CAP_SYS_CHROOT leads out of: then "all" is
            without it, and only its name gives it.
    """
    bits, named, privileged = bits_of(OF_MEMBERS), 0, False
    for one in layers:
        if one.privileged:
            bits, privileged = EVERY, True
        if ALL in one.dropped:
            bits, named = 0, 0
        if ALL in one.added:
            bits = EVERY
        asked, refused = bits_of(one.added), bits_of(one.dropped)
        bits, named = (bits | asked) & ~refused, (named | asked) & ~refused
    if chrooted:
        bits &= ~bits_of({"SYS_CHROOT"}) | named
    return Keep(bits, named, not privileged)


def name_fault(name: str) -> str:
    """Why `name` names no capability, nor all of them, or ""."""
    return "" if name == ALL or name in NAMES else "no such capability"


def rights_fault(rights: Rights) -> str:
    """Why these changes contradict each other, or ""."""
    both = sorted(rights.added & rights.dropped)
    return f"{both[0]} is both added and dropped" if both else ""


def bits_of(names: Iterable[str]) -> int:
    """The capabilities of these names, one bit each."""
    return sum(1 << NAMES.index(name) for name in names if name != ALL)


def names_of(bits: int) -> list[str]:
    """The names of a set as /proc/PID/status shows it; a number for what has no name yet."""
    return [
        NAMES[number] if number < len(NAMES) else str(number)
        for number in range(bits.bit_length()) if bits >> number & 1
    ]  # fmt: skip
