"""Which filter of system calls a process gets, as a person asks for it. See seccomp(2).

Touches nothing: privilege/seccomp/ makes the program, and pod/ has it loaded.
"""

from typing import NamedTuple

from .decode import bytes_fault

# What there is without a file: the usual filter; the same without its refusal of namespaces; none.
DEFAULT, NESTED, UNCONFINED = "default", "nested", "unconfined"
NAMES = (DEFAULT, NESTED, UNCONFINED)


class Filter(NamedTuple):
    """A filter by its name.

    Attributes:
        name: one of NAMES, or that of the file which holds the profile, for people to read.
        profile: what the file holds; "" for one of NAMES.
    """

    name: str
    profile: str = ""


def filter_fault(chosen: Filter) -> str:
    """Why this is no filter, or ""."""
    if why := bytes_fault(chosen.name):
        return why
    return "" if bool(chosen.profile) != (chosen.name in NAMES) else "no such filter of system calls"
