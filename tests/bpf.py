"""A small machine for filter programs: what a program of seccomp(2) decides about a call, and how it reads.

Only the instructions that a filter of system calls may hold; anything else is an error. See bpf(4) and the
kernel's Documentation/networking/filter.rst.
"""

import errno
import struct
from collections.abc import Iterator

AUDIT_ARCH = {"x86_64": 0xC000_003E, "i386": 0x4000_0003, "aarch64": 0xC000_00B7, "arm": 0x4000_0028}
X32 = 0x4000_0000  # set in the number of a call that is made as an x32 program would
WORD = 0xFFFF_FFFF

_JMP, _RET = 0x05, 0x06
_COMPARE = {0x10: "==", 0x20: ">", 0x30: ">=", 0x40: "&"}
_MAX_STEPS = 4096  # BPF_MAXINSNS: jumps go forward only


def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    """(code, jump if true, jump if false, k) of each struct sock_filter."""
    return list(struct.iter_unpack("=HBBI", program))


def decide(program: bytes | list[tuple[int, int, int, int]], number: int, machine: str = "x86_64",
           args: tuple[int, ...] = ()) -> int:  # fmt: skip
    """What the program returns for one call: an action, with the errno in its lower half."""
    steps = instructions(program) if isinstance(program, bytes) else program
    words = _seccomp_data(number, machine, args)
    value = at = 0
    for _ in range(_MAX_STEPS):
        code, if_true, if_false, k = steps[at]
        at += 1
        kind = code & 0x07
        if code == 0x20:  # ld [k]
            value = words[k // 4]
        elif kind == _RET:
            return k if code & 0x18 == 0 else value
        elif kind == _JMP and code & 0xF0 == 0:  # ja
            at += k
        elif kind == _JMP and code & 0x08 == 0:
            at += if_true if _holds(code & 0xF0, value, k) else if_false
        elif code == 0x54:  # and #k
            value &= k
        else:
            raise ValueError(f"instruction {at - 1} is none of a filter of calls: {code:#x}")
    raise ValueError("the program does not end")


def _holds(test: int, value: int, k: int) -> bool:
    if test == 0x40:
        return bool(value & k)
    return {0x10: value == k, 0x20: value > k, 0x30: value >= k}[test]


def _seccomp_data(number: int, machine: str, args: tuple[int, ...]) -> tuple[int, ...]:
    """struct seccomp_data as words: number, machine, address of the instruction, six arguments."""
    filled = [*args, *[0] * 6][:6]
    raw = struct.pack("<IIQ6Q", number & WORD, AUDIT_ARCH[machine], 0x1000, *(arg & (1 << 64) - 1 for arg in filled))
    return struct.unpack("<16I", raw)


def action_name(value: int) -> str:
    """ALLOW, EPERM, KILL_PROCESS and so on."""
    if value & 0xFFFF_0000 == 0x0005_0000:
        return errno.errorcode.get(value & 0xFFFF, f"ERRNO {value & 0xFFFF}")
    names = {0x7FFF_0000: "ALLOW", 0x8000_0000: "KILL_PROCESS", 0: "KILL_THREAD", 0x7FFC_0000: "LOG",
             0x0003_0000: "TRAP", 0x7FF0_0000: "TRACE", 0x7FC0_0000: "USER_NOTIF"}  # fmt: skip
    return names.get(value & 0xFFFF_0000, hex(value))


def listing(program: bytes) -> Iterator[str]:
    """One line an instruction, with the places that jumps lead to."""
    for at, (code, if_true, if_false, k) in enumerate(instructions(program)):
        if code == 0x20:
            field = {0: "number", 4: "machine", 8: "ip low", 12: "ip high"}.get(k)
            what = f"load {field or f'argument {(k - 16) // 8} ' + ('high' if k % 8 else 'low')}"
        elif code & 0x07 == _RET:
            what = f"return {action_name(k)}"
        elif code & 0x07 == _JMP and code & 0xF0 == 0:
            what = f"go to {at + 1 + k}"
        elif code & 0x07 == _JMP:
            what = f"if {_COMPARE[code & 0xF0]} {k:#x} go to {at + 1 + if_true} else {at + 1 + if_false}"
        else:
            what = f"and {k:#x}"
        yield f"{at:5}  {what}"
