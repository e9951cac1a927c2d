"""Which filter of system calls a process gets, as a person asks for it. See seccomp(2).

Touches nothing: privilege/seccomp/ makes the program, and pod/ has it loaded.
"""

from typing import NamedTuple

from . import decode

# What there is without a file: the usual filter; the same without its refusal of namespaces; none.
DEFAULT, NESTED, UNCONFINED = "default", "nested", "unconfined"
NAMES = (DEFAULT, NESTED, UNCONFINED)
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class Filter(NamedTuple):
    """A filter by its name.

    Attributes:
        name: one of NAMES, or that of the file which holds the profile, for people to read.
        profile: what the file holds; "" for one of NAMES.
    """

    name: str
    profile: str = ""


class PodFilter(NamedTuple):
    """The filter of a pod's members, with its program, if that had to be compiled.

    Attributes:
        kept: the capabilities that the program is for, one bit each.
        code: struct sock_filter, one after another, in hexadecimal; "" for a program that is built beforehand.
        flags: SECCOMP_FILTER_FLAG_*.
    """

    chosen: Filter = Filter(DEFAULT)
    kept: int = 0
    code: str = ""
    flags: int = 0


def filter_fault(chosen: Filter) -> str:
    """Why this is no filter, or ""."""
    if why := decode.bytes_fault(chosen.name) or decode.bytes_fault(chosen.profile):
        return why
    return "" if bool(chosen.profile) != (chosen.name in NAMES) else "no such filter of system calls"


def _code_fault(code: str) -> str:
    if len(code) % 16 or len(code) > _MAX_INSTRUCTIONS * 16 or not set(code) <= set("0123456789abcdef"):
        return "it is no program"
    return ""


of_dict = decode.lawful(
    decode.record(Filter, {"name": decode.exactly(str), "profile": decode.exactly(str)}), filter_fault
)
pod_filter_of_dict = decode.record(PodFilter, {
    "chosen": of_dict, "kept": decode.number(int, 0, 2**64 - 1), "code": decode.text(_code_fault),
    "flags": decode.number(int, 0, 2**32 - 1),
})
