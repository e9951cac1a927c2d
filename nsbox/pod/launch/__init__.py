"""The step between the interpreter and the command: a sealed program, so that /proc/self/exe leads to it.

One built program per machine; MACHINE.S beside this file says what it does. Law: read with open(),
for importlib.resources costs more than a whole join.
"""

import os
import struct
from typing import Sequence

MACHINES = ("x86_64", "aarch64")
REPORT_FD = 3  # where it tells its parent what execve(2) said

_SIZES_AT = 64 + 32  # p_filesz and p_memsz of the first segment. See elf(5)


def program(candidates: Sequence[bytes], machine: str | None = None) -> bytes | None:
    """Return the program that becomes the first of `candidates` that can be executed.

    Args:
        candidates: paths of the command, tried in this order.
        machine: a name as uname(2) gives it; the running machine if None.

    Returns:
        The bytes of an ELF file without libc; None if there is none for this machine.
    """
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        return None
    with open(os.path.join(os.path.dirname(__file__), f"{machine}.bin"), "rb") as file:
        built = bytearray(file.read())
    for path in candidates:
        built += path + b"\0"
    built += b"\0"
    struct.pack_into("<QQ", built, _SIZES_AT, len(built), len(built))
    return bytes(built)
