"""The step between the interpreter and the command: a sealed program, so that /proc/self/exe leads to it.

One built program per machine; MACHINE.S beside this file says what it does. Law: read with open(),
for importlib.resources costs more than a whole join.
"""

import os
import struct
from typing import NamedTuple, Sequence

from ...privilege import seccomp

MACHINES = ("x86_64", "aarch64")

# What it shall do besides: bits of `what`.
CLONE = 1  # make the member, a child of its own parent, which waits to be told to go
DIE_WITH_PARENT = 2  # the member
TERMINAL = 4  # descriptor 0 is to be the member's controlling terminal
_FILTER = 8

# What it was at when it failed, and the call that failed: the first number of its report.
STEPS = {1: "clone", 2: "ioctl", 3: "seccomp", 4: "execve", 5: "prlimit64"}

_BASE = 0x400000  # where the file is mapped
_SIZES = struct.Struct("<QQ")  # p_filesz and p_memsz of the first segment. See elf(5)
_SIZES_AT = 64 + 32
# what, report, pid_to, go_from, filter_flags, filter, limits
_ORDERS = struct.Struct("<IIIIQQQQQ")
_DESCRIPTORS = struct.Struct("<III")
_INSTRUCTION_BYTES = 8  # sizeof(struct sock_filter)
_LIMIT_BYTES = 24


class Built(NamedTuple):
    """A program that lacks only the numbers of its descriptors.

    Attributes:
        image: the bytes of an ELF file without libc.
        descriptors_at: where in it :func:`descriptors` is to be written.
    """

    image: bytes
    descriptors_at: int


def program(
    candidates: Sequence[bytes], what: int = 0, filter: seccomp.Program | None = None, machine: str | None = None,
    limits: bytes = b"",
) -> Built | None:  # fmt: skip
    """Return the program that becomes the first of `candidates` that can be executed.

    Args:
        candidates: paths of the command, tried in this order.
        what: CLONE and so on.
        filter: installed as the last thing before that, so that it needs to allow only execve(2).
        machine: a name as uname(2) gives it; the running machine if None.
        limits: of the command, set before the filter: three numbers of eight bytes each, as limits.packed() has them.

    Returns:
        None if there is none for this machine.
    """
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        return None
    with open(os.path.join(os.path.dirname(__file__), f"{machine}.bin"), "rb") as file:
        image = bytearray(file.read())
    orders_at = len(image) - _ORDERS.size
    for path in candidates:
        image += path + b"\0"
    image += b"\0"
    code = filter.code if filter is not None else b""
    _ORDERS.pack_into(
        image, orders_at, what | (_FILTER if filter is not None else 0), 0, 0, 0,
        filter.flags if filter is not None else 0, len(code) // _INSTRUCTION_BYTES, _BASE + len(image),
        len(limits) // _LIMIT_BYTES, _BASE + len(image) + len(code),
    )  # fmt: skip
    image += code + limits
    _SIZES.pack_into(image, _SIZES_AT, len(image), len(image))
    return Built(bytes(image), orders_at + 4)


def descriptors(report: int, pid_to: int = -1, go_from: int = -1) -> bytes:
    """What the program has to know of the process that it is executed in.

    Args:
        report: where it tells a failure: a step and its errno, four bytes each.
        pid_to: with CLONE: where it tells the PID of the member, four bytes.
        go_from: with CLONE: where the member is told to go, by one byte.
    """
    return _DESCRIPTORS.pack(report, pid_to & 0xFFFF_FFFF, go_from & 0xFFFF_FFFF)
