"""Filters of system calls: the built ones, and which of them a member gets. See seccomp(2).

Law: read with open() beside this file, for importlib.resources costs more than a whole join; what
has to be compiled first (compiler.py) is imported only then.
"""

import os
from typing import NamedTuple

from ...capabilities import OF_MEMBERS, bits_of, names_of
from ...errors import SpecError
from ...filters import NESTED, UNCONFINED, Filter
from ...linux import syscalls


class Variant(NamedTuple):
    """One of the filters that profile.py describes.

    Attributes:
        capabilities: those that open further calls, of a member that has them.
        nested: calls for namespaces pass without a capability.
        pause: it is that of the pause, and says nothing of members.
    """

    capabilities: frozenset[str] = frozenset()
    nested: bool = False
    pause: bool = False


# Those that are asked for often: they are compiled beforehand.
BUILT = {
    Variant(): "default",
    Variant(nested=True): "nested",
    Variant(frozenset({"SYS_ADMIN"})): "sys_admin",
    Variant(pause=True): "pause",
}
MACHINES = ("x86_64", "aarch64")


class Program(NamedTuple):
    """A filter as the kernel takes it.

    Attributes:
        code: struct sock_filter, one after another.
        flags: SECCOMP_FILTER_FLAG_* of seccomp(2).
    """

    code: bytes
    flags: int = 0


def program(chosen: Filter, kept: int) -> Program | None:
    """The program of a filter; None: there shall be none.

    Args:
        kept: the capabilities of the process, one bit each.

    Raises:
        NsboxError: it has to be compiled, and that does not work.
    """
    if chosen.profile:
        return of_profile(chosen.profile, frozenset(names_of(kept)))
    if chosen.name == UNCONFINED:
        return None
    return described(Variant(_opening(kept), chosen.name == NESTED))


def described(variant: Variant) -> Program:
    """The program of one that profile.py describes. Raises NsboxError where libseccomp is needed and missing."""
    return Program(built(variant) or compiled(variant))


def is_ready(chosen: Filter, kept: int) -> bool:
    """Whether :func:`program` has nothing to compile for this filter."""
    if chosen.name == UNCONFINED:
        return True
    return not chosen.profile and built(Variant(_opening(kept), chosen.name == NESTED)) is not None


def _opening(kept: int) -> frozenset[str]:
    """Which of these capabilities open further calls. Those that every member has do not."""
    if not kept & ~bits_of(OF_MEMBERS):
        return frozenset()
    from . import profile

    return profile.CAPABILITIES & set(names_of(kept))


def of_profile(text: str, capabilities: frozenset[str]) -> Program:
    """The program of a profile of a file, for a member with these capabilities.

    Raises:
        SpecError: it is no profile that nsbox can use. NsboxError: libseccomp is missing, or refuses.
    """
    from . import compiler, oci

    system = os.uname()
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in system.release.split(".")[:2])
    plan, flags = oci.read(text, oci.Here(capabilities, system.machine, (major, minor)))
    if unknown := compiler.unknown_calls(sorted(oci.must_be_known(plan))):
        raise SpecError(f"cannot use the seccomp profile: it forbids {unknown[0]!r:.80}: libseccomp knows no such call",
                        hint="a call that is misspelt, or newer than the libseccomp2 here")  # fmt: skip
    return Program(compiler.compile_plan(plan), flags)


def load(loaded: Program) -> None:
    """Have the kernel ask the program about every call of the caller, for good, where no launcher does it.

    Without CAP_SYS_ADMIN only who gains no rights by execve(2) may do that: then the caller does not.

    Raises:
        OSError: the kernel does not take it.
    """
    try:
        syscalls.seccomp_filter(loaded.code, loaded.flags)
    except PermissionError:
        syscalls.set_no_new_privs()
        syscalls.seccomp_filter(loaded.code, loaded.flags)


def built(variant: Variant, machine: str | None = None) -> bytes | None:
    """The built program for `machine`, a name as uname(2) gives it; None if there is none.

    Args:
        machine: the running machine if None.
    """
    machine = machine or os.uname().machine
    if variant not in BUILT or machine not in MACHINES:
        return None
    with open(os.path.join(os.path.dirname(__file__), f"{BUILT[variant]}.{machine}.bpf"), "rb") as file:
        return file.read()


def compiled(variant: Variant, machine: str | None = None) -> bytes:
    """The same program, compiled now. Raises NsboxError where libseccomp is missing."""
    from . import compiler, profile

    machine = machine or os.uname().machine
    if variant.pause:
        rules = profile.pause_rules()
    else:
        rules = profile.default_rules(variant.capabilities, nested=variant.nested, machine=machine)
    names = {"x86_64": "X86_64", "aarch64": "AARCH64"}
    return compiler.compile_plan(compiler.Plan(rules, machines=(names[machine],) if machine in names else ()))
