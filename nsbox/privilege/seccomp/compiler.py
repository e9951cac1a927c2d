"""Rules about system calls, made into the program that seccomp(2) takes. The only user of pyseccomp.

pyseccomp takes a tenth of a second to load, so nobody on the way of create and join imports this
module who has a program already.
"""

import errno
import os
from typing import Any, Iterable, NamedTuple, Sequence

from ...errors import NsboxError
from . import profile

_SAFE_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBERS = 512  # of calls: more than there are, and fewer than where x32 had its own
_UNKNOWN = -1  # __NR_SCMP_ERROR: libseccomp does not know the name


class Plan(NamedTuple):
    """A filter to be compiled.

    Attributes:
        rules: of those about one call, one without tests prevails over those with tests.
        no_rule: the action for a call that no rule fits.
        other_machine: the action for a call of a machine that is not among `machines`.
        machines: names of libseccomp's Arch; the running one if empty.
        newer_absent: a call with a higher number than all that are named does not exist (ENOSYS): who wrote the
            rules did not know it. On the running machine alone.
    """

    rules: Sequence["profile.Rule"]
    no_rule: int = profile.NO_RULE
    other_machine: int = profile.OTHER_MACHINE
    machines: tuple[str, ...] = ()
    newer_absent: bool = False


def compile_plan(plan: Plan) -> bytes:
    """The program of a plan: struct sock_filter, one after another.

    Raises:
        NsboxError: libseccomp is missing, or refuses.
    """
    library = _library()
    try:
        here = library.system_arch()
        wanted = _tokens(library, plan.machines) or {here}
        parts = [_part(library, plan, tokens) for tokens in (wanted & {here}, wanted - {here}) if tokens]
        if plan.newer_absent and here in wanted:
            for number in range(_highest(library, plan.rules) + 1, _NUMBERS):
                parts[0].add_rule(profile.ENOSYS, number)
        for part in parts[1:]:
            parts[0].merge(part)
        parts[0].set_attr(library.Attr.CTL_OPTIMIZE, 2)  # a tree: eight comparisons instead of three hundred
        return _exported(parts[0])
    except OSError as err:
        cause = OSError(err.errno, f"libseccomp: {err.strerror}")
        raise NsboxError("cannot compile a filter of system calls") from cause


def unknown_calls(names: Iterable[str]) -> list[str]:
    """Those of `names` that libseccomp does not know, on any machine."""
    library = _library()
    return [name for name in names if library.resolve_syscall(library.Arch.NATIVE, name) == _UNKNOWN]


def _library() -> Any:
    """pyseccomp. It looks for libseccomp by ldconfig, and else by whatever "gcc" is on the PATH."""
    path = os.environ.get("PATH")
    os.environ["PATH"] = _SAFE_PATH
    try:
        import pyseccomp  # type: ignore[import-untyped]
    except (RuntimeError, ImportError, OSError) as err:
        raise NsboxError(
            f"cannot compile a filter of system calls: {err}",
            hint="install libseccomp2, or leave the filter out: --seccomp unconfined",
        ) from None
    finally:
        if path is None:
            del os.environ["PATH"]
        else:
            os.environ["PATH"] = path
    return pyseccomp


def _tokens(library: Any, names: tuple[str, ...]) -> set[int]:
    if unknown := [name for name in names if not hasattr(library.Arch, name)]:
        raise NsboxError(f"cannot compile a filter of system calls: libseccomp knows no machine {unknown[0]!r}")
    return {getattr(library.Arch, name) for name in names}


def _part(library: Any, plan: Plan, tokens: set[int]) -> Any:
    """All rules, for these machines."""
    made = library.SyscallFilter(plan.no_rule)
    made.set_attr(library.Attr.ACT_BADARCH, plan.other_machine)
    for token in sorted(tokens - {library.system_arch()}):
        made.add_arch(token)
    if library.system_arch() not in tokens:
        made.remove_arch(library.Arch.NATIVE)
    for rule in plan.rules:
        if rule.action != plan.no_rule:  # libseccomp takes it for a mistake
            _add(library, made, rule)
    return made


def _highest(library: Any, rules: Iterable["profile.Rule"]) -> int:
    """The highest number of a call that the rules name, here."""
    return max((library.resolve_syscall(library.Arch.NATIVE, name) for rule in rules for name in rule.calls), default=0)


def _add(library: Any, made: Any, rule: "profile.Rule") -> None:
    tests = [_comparison(library, test) for test in rule.tests]
    for name in rule.calls:
        # The number here; libseccomp finds that of other machines, and passes over those that have no such call.
        number = library.resolve_syscall(library.Arch.NATIVE, name)
        if number != _UNKNOWN:
            made.add_rule(rule.action, number, *tests)


def _comparison(library: Any, test: "profile.Test") -> Any:
    if test.operator != "MASKED_EQ":
        return library.Arg(test.argument, getattr(library, test.operator), test.value)
    return library.Arg(test.argument, library.MASKED_EQ, test.mask, test.value)


def _exported(made: Any) -> bytes:
    with open(os.memfd_create("filter", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        made.export_bpf(file)
        file.seek(0)
        program = file.read()
    if not program or len(program) % 8:
        raise OSError(errno.EIO, "an incomplete program")
    return program
