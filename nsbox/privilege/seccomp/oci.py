"""Profiles out of a file: linux.seccomp of the OCI runtime specification, or what docker and podman read.

The second form adds conditions: a rule is for members with a capability, for a machine, from some kernel on.
Law: what a profile says and is not understood here is refused, for it may be what matters in it.
"""

import errno
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ...errors import SpecError
from .compiler import Plan
from .profile import ALLOW, ENOSYS, ERRNO, KILL_PROCESS, OTHER_MACHINE, Rule, Test

_KILL_THREAD, _TRAP, _TRACE, _LOG = 0, 0x0003_0000, 0x7FF0_0000, 0x7FFC_0000
_ACTIONS = {
    "SCMP_ACT_KILL": _KILL_THREAD, "SCMP_ACT_KILL_THREAD": _KILL_THREAD, "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": _TRAP, "SCMP_ACT_ERRNO": ERRNO, "SCMP_ACT_TRACE": _TRACE, "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_LOG": _LOG,
}  # fmt: skip
_WITH_NUMBER = (ERRNO, _TRACE)  # an errno, or what a tracer is told; EPERM if nothing is said
_GRANTING = (ALLOW, _LOG)
_MAX_ERRNO = 4095
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,  # for the other threads, and there is none
    "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}  # fmt: skip
_OPERATORS = {f"SCMP_CMP_{name}": name for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")}
# What docker and podman call the machine that uname(2) calls so.
_DOCKERS_NAMES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "x86", "armv7l": "arm"}
_ARCHITECTURE = {"aarch64": "SCMP_ARCH_AARCH64", "i686": "SCMP_ARCH_X86", "armv7l": "SCMP_ARCH_ARM",
                 "ppc64le": "SCMP_ARCH_PPC64LE"}  # fmt: skip
# Made under the filter by what executes the command; the last two where that fails.
_NEEDED = ("execve", "write", "exit_group")

_TOP = {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags", "syscalls",
        "comment", "$schema", "listenerPath", "listenerMetadata"}  # fmt: skip
_CALL = {"names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}
_ARG = {"index", "value", "valueTwo", "op"}
_CONDITION = {"caps", "arches", "minKernel"}


class Here(NamedTuple):
    """What the conditions of a profile are about.

    Attributes:
        capabilities: of the member, as "SYS_ADMIN".
        machine: as uname(2) names it.
        kernel: (major, minor).
    """

    capabilities: frozenset[str]
    machine: str
    kernel: tuple[int, int]


def read(text: str, here: Here) -> tuple[Plan, int]:
    """The plan of a profile, and the flags to load it with.

    Raises:
        SpecError: it is none, or it asks for what nsbox does not do.
    """
    top = _table(_parsed(text), "profile", _TOP)
    if top.get("listenerPath") or top.get("listenerMetadata"):
        raise _fault("listenerPath", "nsbox passes no calls on to another program")
    no_rule = _action(top, "defaultAction", "defaultErrnoRet", "defaultErrno", "profile")
    rules = [rule for at, call in enumerate(_list(top, "syscalls"))
             for rule in _rules(_table(call, f"syscalls[{at}]", _CALL), f"syscalls[{at}]", here)]  # fmt: skip
    flags = 0
    for word in _list(top, "flags"):
        flags |= _choice(word, _FLAGS, "flags")
    for name in _NEEDED:
        _check_needed(name, rules, no_rule)
    plan = Plan(rules, no_rule, OTHER_MACHINE, _machines(top, here), no_rule >> 16 == ERRNO >> 16 and no_rule != ENOSYS)
    return plan, flags


def must_be_known(plan: Plan) -> set[str]:
    """The calls that the profile forbids where it allows what it does not name: if one of them has no number
    here, it would be allowed after all."""
    if plan.no_rule not in _GRANTING:
        return set()
    return {call for rule in plan.rules if rule.action not in _GRANTING for call in rule.calls}


def _fault(where: str, why: str) -> SpecError:
    return SpecError(f"cannot use the seccomp profile: {where}: {why}")


def _parsed(text: str) -> Any:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(table := dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return table

    try:
        return json.loads(text, object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as err:
        raise SpecError(f"cannot use the seccomp profile: it is no JSON: {err}",
                        hint='as in {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": […]}') from None  # fmt: skip


def _table(value: Any, where: str, known: set[str]) -> dict[str, Any]:
    if type(value) is not dict:
        raise _fault(where, "it is not an object")
    if unknown := value.keys() - known:
        raise _fault(where, f"nothing is known of {min(unknown)!r:.80}")
    return {key: item for key, item in value.items() if item is not None}


def _list(table: Mapping[str, Any], key: str, kind: type = object) -> list[Any]:
    value = table.get(key, [])
    if type(value) is not list or not all(kind is object or type(item) is kind for item in value):
        raise _fault(key, "it is not a list" + (" of words" if kind is str else ""))
    return value


def _number(table: Mapping[str, Any], key: str, most: int, default: int) -> int:
    value = table.get(key, default)
    if type(value) is not int or not 0 <= value <= most:
        raise _fault(key, f"{value!r:.40} is not a number from 0 to {most}")
    return value


def _choice(word: Any, choices: Mapping[str, Any], where: str) -> Any:
    if type(word) is not str or word not in choices:
        raise _fault(where, f"{word!r:.80} is none that nsbox knows")
    return choices[word]


def _action(table: Mapping[str, Any], key: str, number: str, name: str, where: str) -> int:
    """An action with its errno, which podman also writes by its name."""
    if table.get(key) == "SCMP_ACT_NOTIFY":
        raise _fault(where, "SCMP_ACT_NOTIFY asks another program, and nsbox has none")
    action: int = _choice(table.get(key), _ACTIONS, f"{where}: {key}")
    code = _number(table, number, _MAX_ERRNO, errno.EPERM)
    if name in table:
        code = _choice(table[name], {text: value for value, text in errno.errorcode.items()}, f"{where}: {name}")
    return action | code if action in _WITH_NUMBER else action


def _rules(call: Mapping[str, Any], where: str, here: Here) -> Iterable[Rule]:
    names = _list(call, "names", str)
    if "name" in call:  # an old form of docker's
        if names or type(call["name"]) is not str:
            raise _fault(where, "either 'names' or 'name' says which calls it is about")
        names = [call["name"]]
    action = _action(call, "action", "errnoRet", "errno", where)
    tests = [_test(_table(arg, f"{where}: args", _ARG), f"{where}: args") for arg in _list(call, "args")]
    includes = _table(call.get("includes", {}), f"{where}: includes", _CONDITION)
    excludes = _table(call.get("excludes", {}), f"{where}: excludes", _CONDITION)
    wanted = all(_holds(includes, f"{where}: includes", here, all))
    if not wanted or any(_holds(excludes, f"{where}: excludes", here, any)):
        return []
    if len({test.argument for test in tests}) < len(tests):  # one of several values, as in runc and crun
        return [Rule(tuple(names), action, (test,)) for test in tests]
    return [Rule(tuple(names), action, tuple(tests))]


def _holds(condition: Mapping[str, Any], where: str, here: Here, of_capabilities: Any) -> list[bool]:
    """Whether each part of a condition is true here."""
    capabilities = _list(condition, "caps", str)
    machines = _list(condition, "arches", str)
    found = []
    if capabilities:
        have = (word.upper().removeprefix("CAP_") in here.capabilities for word in capabilities)
        found.append(of_capabilities(have))
    if machines:
        found.append(_DOCKERS_NAMES.get(here.machine, here.machine) in machines)
    if "minKernel" in condition:
        found.append(here.kernel >= _kernel(condition["minKernel"], where))
    return found


def _kernel(text: Any, where: str) -> tuple[int, int]:
    parts = text.split(".") if type(text) is str else []
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        raise _fault(where, f"minKernel {text!r:.40} is no version such as 4.8")
    return int(parts[0]), int(parts[1])


def _test(arg: Mapping[str, Any], where: str) -> Test:
    operator = _choice(arg.get("op"), _OPERATORS, f"{where}: op")
    argument = _number(arg, "index", 5, -1)
    value = _number(arg, "value", 2**64 - 1, 0)
    if operator != "MASKED_EQ":
        return Test(argument, value, operator=operator)
    return Test(argument, _number(arg, "valueTwo", 2**64 - 1, 0), mask=value)


def _machines(top: Mapping[str, Any], here: Here) -> tuple[str, ...]:
    """The machines whose calls the rules are about, libseccomp's names; the running one is among them."""
    names = _list(top, "architectures", str)
    native = _ARCHITECTURE.get(here.machine, f"SCMP_ARCH_{here.machine.upper()}")
    for row in _list(top, "archMap"):
        row = _table(row, "archMap", {"architecture", "subArchitectures"})
        if row.get("architecture") == native:
            names = [*names, *_list(row, "subArchitectures", str)]
    if wrong := [name for name in names if not name.startswith("SCMP_ARCH_")]:
        raise _fault("architectures", f"{wrong[0]!r:.80} is none that nsbox knows")
    found = {name.removeprefix("SCMP_ARCH_") for name in (native, *names)} if names else set()
    return tuple(sorted(found))


def _check_needed(name: str, rules: Iterable[Rule], no_rule: int) -> None:
    """A filter is in force when the command is executed, and when it is told why that failed."""
    about = [rule for rule in rules if name in rule.calls]
    plain = [rule.action for rule in about if not rule.tests]
    actions = plain or [rule.action for rule in about] + [no_rule]
    if not all(action in _GRANTING for action in actions):
        raise _fault(name, "it is not allowed, and without it no command can be started")
