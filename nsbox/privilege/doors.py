"""The system calls that python-prctl makes, for the listener of syscalls.py; see linux/doors.py."""

import prctl  # type: ignore[import-untyped]

from ..linux.doors import Door

_C = prctl._prctl  # the calls themselves; what is above it is Python
_NAMES = {
    getattr(_C, name): name for name in dir(_C)
    if name.startswith(("PR_GET_", "PR_SET_", "PR_CAPBSET_", "PR_CAP_AMBIENT"))
    and not name.startswith(("PR_SET_MM_", "PR_SET_PTRACER_", "PR_CAP_AMBIENT_"))
}  # fmt: skip


def _prctl(option: int, *args: object) -> tuple[str, tuple[object, ...]]:
    return "prctl", (_NAMES.get(option, option), *args)


def _set_caps(*lists: list[int]) -> tuple[str, tuple[object, ...]]:
    """capset(2) takes what the process is to have; python-prctl what is added and taken away."""
    now = _C.get_caps(*[list(prctl.ALL_CAPS)] * 3)
    sets = []
    for number, flag in enumerate((_C.CAP_EFFECTIVE, _C.CAP_PERMITTED, _C.CAP_INHERITABLE)):
        have = {cap for cap, has in now[flag].items() if has}
        sets.append(sum(1 << cap for cap in (have | set(lists[number])) - set(lists[number + 3])))
    return "capset", tuple(sets)


DOORS = (Door(_C, "prctl", _prctl), Door(_C, "set_caps", _set_caps))
