"""Which settings of the kernel a pod may have for itself, and how they are written. Touches nothing.

See sysctl(8) for the words, and Documentation/admin-guide/sysctl in the kernel's source for what
they mean. Only what belongs to a namespace that is the pod's own: anything else is the whole
machine's.
"""

import re

from . import decode
from .errors import SpecError

# Settings of an IPC namespace and of a UTS namespace. The hostname has an option of its own.
_OF_IPC = frozenset({
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shm_rmid_forced",
    "kernel.shmall", "kernel.shmmax", "kernel.shmmni",
})  # fmt: skip
DOMAINNAME = "kernel.domainname"
_OWN = "a pod's own are net.*, fs.mqueue.*, kernel.shm*, kernel.msg*, kernel.sem and kernel.domainname"

_PART = re.compile(r"[A-Za-z0-9_@:+/-]+(\.[A-Za-z0-9_@:+/-]+)*")
_SWAP = str.maketrans("./", "/.")


def path_of(key: str) -> str:
    """The file of a setting below /proc/sys: dots are slashes, and a slash is a dot in a name.

    So net.ipv4.conf.eth0/5.forwarding is of the interface eth0.5.
    """
    return key.translate(_SWAP)


def key_fault(key: str) -> str:
    """Why a pod cannot have the setting `key` for itself, or ""."""
    if not _PART.fullmatch(key) or {"", ".", ".."} & set(path_of(key).split("/")):
        return "it is no name of a setting"
    if key == "kernel.hostname":
        return "the hostname has an option of its own, --hostname"
    if is_of_net(key) or key.startswith("fs.mqueue.") or key in _OF_IPC or key == DOMAINNAME:
        return ""
    return "it is the whole machine's"


def is_of_net(key: str) -> bool:
    """Whether a setting belongs to the network namespace."""
    return key.startswith("net.")


def value_fault(value: str) -> str:
    """Why nothing of this value can be written, or ""."""
    return decode.bytes_fault(value) or ("it holds a newline" if "\n" in value else "" if value else "it is empty")


def parse_sysctl(text: str) -> tuple[str, str]:
    """The setting "KEY=VALUE"; KEY as in sysctl(8), with dots or with slashes.

    Raises:
        SpecError: it is not written so, or the setting is not a pod's own.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise SpecError(f"cannot set {text[:120]!r}: not KEY=VALUE", hint="as in net.ipv4.ip_forward=1")
    separator = re.search("[./]", key)
    if separator and separator[0] == "/":
        key = key.translate(_SWAP)
    if why := key_fault(key):
        raise SpecError(f"cannot set {key[:120]!r} for a pod: {why}", hint=_OWN)
    if why := value_fault(value):
        raise SpecError(f"cannot set {key} to {value[:120]!r}: {why}")
    return key, value
