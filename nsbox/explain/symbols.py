"""Arguments of system calls in words: flags by their names, in the notation of strace(1).

Data and formatting only: it runs in processes that have another root already, so nothing is
imported or opened here once it is loaded.
"""

import errno
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..capabilities import NAMES
from ..linux import flags as fl

Show = Callable[[Any], str]
_QUOTED_MAX = 400  # characters of one string


def names(table: Mapping[int, str], value: int, *, none: str = "0") -> str:
    """The names of the bits of `value`, joined by "|"; what has none as a number."""
    if value == 0:
        return table.get(0, none)
    found, left = [], value
    for bit, name in table.items():
        if bit and left & bit == bit:
            found.append(name)
            left &= ~bit
    return "|".join(found + ([hex(left)] if left else []))


def _of_enum(enum: Any) -> dict[int, str]:
    return {int(flag): str(flag.name) for flag in enum}


CLONE = {**_of_enum(fl.CloneFlag), 0x0020_0000: "CLONE_CHILD_CLEARTID", 0x0100_0000: "CLONE_CHILD_SETTID"}
MOUNT = _of_enum(fl.MountFlag)
MOUNT_ATTR = _of_enum(fl.MountAttr)
_OPEN = {os.O_RDWR: "O_RDWR", os.O_WRONLY: "O_WRONLY", os.O_CLOEXEC: "O_CLOEXEC", os.O_PATH: "O_PATH",
         os.O_DIRECTORY: "O_DIRECTORY", os.O_NOFOLLOW: "O_NOFOLLOW", os.O_CREAT: "O_CREAT", os.O_EXCL: "O_EXCL",
         os.O_NONBLOCK: "O_NONBLOCK"}  # fmt: skip
IOCTLS = {0x8914: "SIOCSIFFLAGS", 0x4004_5431: "TIOCSPTLCK", 0x5441: "TIOCGPTPEER", 0x540E: "TIOCSCTTY"}
AF_UNIX, AF_NETLINK = 1, 16
FAMILIES = {2: "AF_INET", 10: "AF_INET6"}
FCNTLS = {fl.F_ADD_SEALS: "F_ADD_SEALS"}


def text(value: object) -> str:
    """A string as C writes it, NULL for None."""
    if value is None:
        return "NULL"
    raw = value if isinstance(value, str) else os.fsdecode(value)  # type: ignore[arg-type]
    short = raw[:_QUOTED_MAX]
    quoted = "".join(_escaped(char) for char in short)
    return f'"{quoted}"' + ("..." if len(raw) > _QUOTED_MAX else "")


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0"}


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() and char.isascii() else "".join(f"\\{byte:o}" for byte in os.fsencode(char))


def number(value: object) -> str:
    """Decimal; flags that came as an enumeration too."""
    return str(int(value)) if isinstance(value, int) else str(value)


def fd(value: int) -> str:
    """A descriptor."""
    return "AT_FDCWD" if value == fl.AT_FDCWD else str(value)


def mode(value: int) -> str:
    """The permissions of a file, in octal."""
    return f"0{value:o}" if value else "000"


def node_mode(value: int) -> str:
    """Kind and permissions of a new node."""
    return f"S_IFCHR|{mode(stat.S_IMODE(value))}" if stat.S_ISCHR(value) else mode(value)


def device(value: int) -> str:
    """A device number."""
    major, minor = (hex(part) if part else "0" for part in (os.major(value), os.minor(value)))
    return f"makedev({major}, {minor})"


def flags(table: Mapping[int, str], none: str = "0") -> Show:
    """A set of flags out of a table."""
    return lambda value: names(table, int(value), none=none)


def choice(table: Mapping[int, str]) -> Show:
    """One of a table of numbers."""
    return lambda value: table.get(int(value), str(int(value)))


def protocol(value: int) -> str:
    """The last argument of socket(2)."""
    return {0: "IPPROTO_IP"}.get(value, str(value))


def socket_address(value: Sequence[Any]) -> str:
    """Address and port, as Python has them, and the size of their struct."""
    if isinstance(value, str):
        return f"{{sa_family=AF_UNIX, sun_path={text(value)}}}, {len(os.fsencode(value)) + 3}"
    address, port = value[:2]
    if len(value) > 2:
        return (f'{{sa_family=AF_INET6, sin6_port=htons({port}), sin6_flowinfo=htonl({value[2]}), '
                f'inet_pton(AF_INET6, "{address}", &sin6_addr), sin6_scope_id={value[3]}}}, 28')  # fmt: skip
    return f'{{sa_family=AF_INET, sin_port=htons({port}), sin_addr=inet_addr("{address}")}}, 16'


def io_vector(value: object) -> str:
    """What is sent in one piece."""
    return f"[{{iov_base={text(value)}, iov_len={len(value) if isinstance(value, bytes) else '?'}}}]"


def open_flags(value: int) -> str:
    """Flags of openat(2)."""
    access = "" if value & (os.O_WRONLY | os.O_RDWR) else "O_RDONLY|"
    return (access + names(_OPEN, value, none="")).rstrip("|")


def signal_name(value: int) -> str:
    """SIGTERM, or the number of one without a name."""
    try:
        return signal.Signals(value).name
    except ValueError:
        return str(int(value))


def words(value: Sequence[object]) -> str:
    """A vector of strings."""
    return "[" + ", ".join(text(word) for word in value) + "]"


def environment(value: Sequence[object] | Mapping[object, object]) -> str:
    """How many variables there are; what is in them may be a secret."""
    return f"/* {len(value)} var{'' if len(value) == 1 else 's'} */"


def integers(value: Sequence[int]) -> str:
    """A vector of numbers."""
    return "[" + ", ".join(map(str, value)) + "]"


def _interface_flags(argument: object) -> str:
    raw = bytes(argument) if isinstance(argument, (bytes, bytearray)) else b""
    name = raw[:16].rstrip(b"\0").decode("ascii", "replace")
    up = "IFF_UP" if raw[16:18] == b"\1\0" else "0"
    return f'{{ifr_name="{name}", ifr_flags={up}}}'


def ioctl_argument(request: int, argument: object) -> str:
    """What is handed to an ioctl."""
    if IOCTLS.get(request) == "SIOCSIFFLAGS":
        return _interface_flags(argument)
    if IOCTLS.get(request) == "TIOCGPTPEER":
        return open_flags(argument if isinstance(argument, int) else 0)
    if isinstance(argument, bytes):
        return f"[{int.from_bytes(argument, 'little')}]"
    return str(argument)


def capability(number: int) -> str:
    """CAP_SYS_ADMIN and so on."""
    return f"CAP_{NAMES[number]}" if number < len(NAMES) else f"{number:#x} /* CAP_??? */"


def capabilities(value: int) -> str:
    """A set of capabilities."""
    return "|".join(f"1<<{capability(bit)}" for bit in range(value.bit_length()) if value >> bit & 1) or "0"


_DUMPABLE = {0: "SUID_DUMP_DISABLE", 1: "SUID_DUMP_USER", 2: "SUID_DUMP_ROOT"}
_PRCTL_VALUES: dict[str, Show] = {
    "PR_SET_PDEATHSIG": signal_name, "PR_CAPBSET_DROP": capability, "PR_SET_NAME": text,
    "PR_SET_DUMPABLE": lambda value: _DUMPABLE.get(value, str(value)),
}  # fmt: skip


def prctl_argument(option: str, value: object) -> str:
    """The second argument of prctl(2), which means something else for each option."""
    show = _PRCTL_VALUES.get(option)
    return str(value) if show is None else show(value)


def errno_name(code: int) -> str:
    """EPERM and so on."""
    return errno.errorcode.get(code, str(code))


def anything(value: object) -> str:
    """An argument of which nothing is known."""
    return number(value) if isinstance(value, int) else text(value) if isinstance(value, (str, bytes)) else str(value)
