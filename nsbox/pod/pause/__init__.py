"""PID 1 of a pod: the built programs, one per machine, and the same in Python (hold.py).

Law: read with open() beside this file, for importlib.resources costs more than a whole join.
"""

import os

MACHINES = ("x86_64", "aarch64")


def program(machine: str | None = None) -> bytes | None:
    """Return the static pause program for `machine`, a name as uname(2) gives it.

    Args:
        machine: the running machine if None.

    Returns:
        The bytes of an ELF file without libc, under 1 KiB; None if there is none for this machine.
    """
    machine = machine or os.uname().machine
    if machine not in MACHINES:
        return None
    with open(os.path.join(os.path.dirname(__file__), f"{machine}.bin"), "rb") as file:
        return file.read()
