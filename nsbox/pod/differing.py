"""In what a process is guarded otherwise than its pod promises its members."""

from typing import Any

from ..filters import UNCONFINED

Facts = dict[str, Any]
_NONE = {"soft": 0, "hard": 0}


def differences(promised: Facts, found: Facts) -> Facts:
    """What stands out, by the key of the posture that says it; {} for a member as its pod wants it.

    A member may differ by its own options (--cap-add, --privileged, -u), by what it did since (a service
    that became another user), or because it was joined by something else than nsbox.

    Args:
        promised: as posture.of_members() returns it; and of `limits`, those that the pod gives.
        found: as posture.of_process() returns it, of the same pod.
    """
    sets, wanted = found["capabilities"], promised["capabilities"]
    told: Facts = {
        "more_capabilities": list(dict.fromkeys(name for one in sets.values() for name in one if name not in wanted)),
        "fewer_capabilities": [name for name in wanted if name not in sets["bounding"]],
        "inheritable": sets["inheritable"],
        "ambient": sets["ambient"],
        "open": [] if promised["privileged"] else found["open"],
    }
    if found["no_new_privs"] is not promised["no_new_privs"]:
        told["no_new_privs"] = found["no_new_privs"]
    if (found["seccomp"] == "off") is not (promised["seccomp"] == UNCONFINED):
        told["seccomp"] = found["seccomp"]
    if "uid_inside" not in found["unread"] and [found["uid_inside"], found["gid_inside"]] != promised["user"]:
        told["user"] = [found["uid_inside"], found["gid_inside"]]
    limits = {**({"core": _NONE} if promised["no_new_privs"] else {}), **promised["limits"]}
    actual = found["limits"]
    told["limits"] = {name: actual.get(name) for name, one in limits.items() if actual.get(name) != one}
    return {key: value for key, value in told.items() if value or value is False}
