"""Rules of who a process is: uid_map, gid_map and setgroups; setresuid(2) and its kin; keys, filters, capabilities."""

from ...linux import policy
from . import machine
from .case import Case, Rule, Seen, known, lacks, setting, unknown

_UID_MAP, _GID_MAP, _MAPS = ("write uid_map",), ("write gid_map",), ("write uid_map", "write gid_map")
_FILES = (*_MAPS, "write setgroups")
_IDS = ("setresuid", "setreuid", "setuid", "setresgid", "setregid", "setgid", "setgroups")
_LINES_MAX, _BYTES_MAX = 340, 4096
Row = tuple[int, ...]

# ---- uid_map and gid_map: asked is the text, and the target's uid_map, gid_map and setgroups ----


def _rows(text: str) -> list[Row] | None:
    try:
        rows = [tuple(map(int, line.split())) for line in text.splitlines() if line.strip()]
    except ValueError:
        return None
    return rows if all(len(row) == 3 and min(row) >= 0 for row in rows) else None


def _written(case: Case) -> Seen:
    at = 1 if case.call == "write uid_map" else 2
    if len(case.asked) < 4:
        return unknown("what the file held is not known", "cat /proc/PID/uid_map")
    there = case.text(at).split()
    return known(bool(there), f"it holds {' '.join(there)}" if there else "nothing was in it")


def _malformed(case: Case) -> Seen:
    if not case.asked:
        return unknown("what was written is not known")
    text = case.text(0)
    rows = _rows(text)
    if not rows or any(row[2] == 0 or row[0] + row[2] > 2**32 or row[1] + row[2] > 2**32 for row in rows):
        return known(True, f"written was {text.strip()!r}: each line is INSIDE OUTSIDE COUNT")
    if len(rows) > _LINES_MAX or len(text) >= _BYTES_MAX:
        return known(True, f"{len(rows)} lines, {len(text)} bytes: more than {_LINES_MAX} or than a page")
    for at in (0, 1):
        edges = sorted((row[at], row[at] + row[2]) for row in rows)
        if any(end > following for (_, end), (following, _) in zip(edges, edges[1:])):
            return known(True, f"the {'inner' if at == 0 else 'outer'} ids of {text.split()} overlap")
    return known(False, f"{len(rows)} lines, none of them overlaps another")


def _outer_unknown(case: Case) -> Seen:
    """Whether an outer id is none of the writer's own user namespace."""
    which = case.call.removeprefix("write ")
    rows, have = _rows(case.text(0)), _rows(case.scene.get(which, ""))
    if not rows or have is None:
        return unknown("what was written, or the writer's own map, is not known", f"cat /proc/self/{which}")
    for _, outside, count in rows:
        if not any(first <= outside and outside + count <= first + size for first, _, size in have):
            return known(True, f"{outside} to {outside + count - 1} are not all in {which} of the writer",
                         f"cat /proc/self/{which}")
    return known(False, f"the outer ids are in {which} of the writer")


def _not_own_alone(case: Case) -> Seen:
    """Whether an unprivileged writer asked for more than one id, his own."""
    right = "SETUID" if case.call == "write uid_map" else "SETGID"
    if case.has(right):
        return known(False, f"the writer has CAP_{right}")
    own = case.euid if right == "SETUID" else case.egid
    rows = _rows(case.text(0)) if case.asked else None
    if rows is None:
        return unknown("what was written is not known")
    fine = len(rows) == 1 and rows[0][1:] == (own, 1)
    return known(not fine, f"the writer is {own}, has no CAP_{right}, and wrote {case.text(0).split()}",
                 "grep CapEff /proc/self/status; nsbox doctor")  # fmt: skip


def _groups_allowed(case: Case) -> Seen:
    if case.has("SETGID"):
        return known(False, "the writer has CAP_SETGID")
    said = case.text(3).strip()
    if not said:
        return unknown("what setgroups of the target says is not known", "cat /proc/PID/setgroups")
    return known(said != "deny", f"setgroups of the target says {said}")


def _maps_root(case: Case) -> Seen:
    """Whether id 0 is given away without CAP_SETFCAP, the rule since Linux 5.12."""
    rows = _rows(case.text(0)) if case.asked else None
    if rows is None:
        return unknown("what was written is not known")
    if not any(row[1] == 0 for row in rows):
        return known(False, "outer id 0 is not in the map")
    if case.has("SETFCAP") is None:
        return unknown("the writer's capabilities are not known")
    return known(not case.has("SETFCAP"),
                 f"outer id 0 is in the map, and the writer has {'' if case.has('SETFCAP') else 'no '}CAP_SETFCAP")


def _setgroups_late(case: Case) -> Seen:
    if len(case.asked) < 4:
        return unknown("whether gid_map was written before is not known", "cat /proc/PID/gid_map")
    return known(bool(case.text(2).strip()), f"gid_map {'is written' if case.text(2).strip() else 'was empty'}")


# ---- setresuid and its kin ----

def _groups_denied(case: Case) -> Seen:
    said = case.scene.get("setgroups", "").strip()
    return known(said == "deny",
                 f"/proc/self/setgroups says {said}") if said else unknown("/proc/self/setgroups was not read")


def _unmapped_group(case: Case) -> Seen:
    said = case.scene.get("gid_map")
    if said is None and "status" in case.scene:
        return known(True, "gid_map is empty")
    return known(not (said or "").strip(), "gid_map is " + ("written" if (said or "").strip() else "empty"))


def _not_in_map(case: Case) -> Seen:
    which = "uid_map" if "uid" in case.call else "gid_map"
    have = _rows(case.scene.get(which, ""))
    wanted = [one for one in case.asked if isinstance(one, int) and 0 <= one < 2**32 - 1]
    if have is None or not wanted:
        return unknown("which id was asked for is not known", f"cat /proc/PID/{which}")
    out = [one for one in wanted if not any(first <= one < first + count for first, _, count in have)]
    shown = "; ".join(" ".join(map(str, row)) for row in have)
    return known(bool(out), f"{which} is {shown}, asked for was {' '.join(map(str, sorted(set(wanted))))}")


def _right_over_ids(case: Case) -> Seen:
    return lacks("SETUID" if "uid" in case.call else "SETGID")(case)


# ---- keys, filters, capabilities ----

def _keys(case: Case) -> Seen:
    """Whether the user's quota of keys is used up. See keyrings(7)."""
    if case.euid == 0:
        most, most_bytes = (policy.read(f"/proc/sys/kernel/keys/root_{name}") for name in ("maxkeys", "maxbytes"))
    else:
        most, most_bytes = (policy.read(f"/proc/sys/kernel/keys/{name}") for name in ("maxkeys", "maxbytes"))
    for line in (policy.read("/proc/key-users") or "").splitlines():
        uid, _, rest = line.partition(":")
        if uid.strip() == str(case.euid):
            words = rest.split()  # usage, keys/instantiated, keys/most, bytes/most
            (keys, top), (size, room) = (map(int, word.split("/")) for word in words[2:4])
            return known(keys >= top - 1 or size >= room - 64, f"{keys} of {top} keys, {size} of {room} bytes")
    return unknown(f"/proc/key-users says nothing of uid {case.euid}; the quota is {most} keys, {most_bytes} bytes")


def _no_new_privs(case: Case) -> Seen:
    said = case.status.get("NoNewPrivs")
    if said is None or case.has("SYS_ADMIN") is None:
        return unknown("/proc/PID/status could not be read")
    return known(said == "0" and not case.has("SYS_ADMIN"),
                 f"NoNewPrivs was {said}, and it had {'' if case.has('SYS_ADMIN') else 'no '}CAP_SYS_ADMIN")


def _no_filters(_case: Case) -> Seen:
    there = policy.read("/proc/sys/kernel/seccomp/actions_avail")
    shown = f"the kernel knows the actions {there}" if there else "there is no /proc/sys/kernel/seccomp"
    return known(there is None, shown)


def _bounded(case: Case) -> Seen:
    has = case.status.get("CapPrm")
    if has is None or len(case.asked) < 2 or not isinstance(case.asked[1], int):
        return unknown("which capabilities were asked for is not known", "grep Cap /proc/self/status")
    more = case.asked[1] & ~int(has, 16)
    return known(bool(more), f"of those asked for, {more:#x} are not among the permitted ones, {has}")


_UNMAPPED = "its user namespace has no such user or group: create --userns gives a pod 65536 of each"
RULES = (
    Rule(_MAPS, ("EPERM",), "a map is written once, and stays", "user_namespaces(7)", _written,
         "cat /proc/PID/uid_map"),
    Rule(_GID_MAP, ("EPERM",), "without CAP_SETGID a gid_map needs \"deny\" in setgroups first", "user_namespaces(7)",
         _groups_allowed, "cat /proc/PID/setgroups"),
    Rule(_MAPS, ("EPERM",), "without CAP_SETUID and CAP_SETGID one can map one id, the own one", "user_namespaces(7)",
         _not_own_alone, "nsbox doctor"),
    Rule(_MAPS, ("EPERM",), "only ids that the writer's own user namespace has can be given away", "user_namespaces(7)",
         _outer_unknown, "cat /proc/self/uid_map /proc/self/gid_map"),
    Rule(_UID_MAP, ("EPERM",), "to give outer id 0 away needs CAP_SETFCAP", "user_namespaces(7)", _maps_root,
         "grep CapEff /proc/self/status"),
    Rule(_FILES, ("EPERM", "EACCES"), "AppArmor lets ordinary users do nothing in a user namespace", "apparmor(7)",
         setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
         "sysctl kernel.apparmor_restrict_unprivileged_userns; nsbox doctor"),
    Rule(_FILES, ("EPERM", "EACCES"), "a security module refuses it", "apparmor(7), selinux(8)",
         machine.security_module, "cat /sys/kernel/security/lsm"),
    Rule(_FILES, ("EACCES",), "the file is open to the user who made the namespace, and to root", "proc(5)",
         lacks("DAC_OVERRIDE"), "ls -ln /proc/PID/uid_map"),
    Rule(_MAPS, ("EINVAL",), "a line is INSIDE OUTSIDE COUNT, at most 340 lines, and none overlaps another",
         "user_namespaces(7)", _malformed, "nsbox create --help"),
    Rule(("write setgroups",), ("EPERM",), "setgroups is changed before gid_map is written, not after",
         "user_namespaces(7)", _setgroups_late, "cat /proc/PID/gid_map"),
    Rule(_FILES, ("ENOENT",), "the process of the new user namespace has ended", "proc(5)",
         lambda _case: known(True, "there is no such file any more"), "dmesg | tail"),
    Rule(("setgroups",), ("EPERM",), "this user namespace denies setgroups(2)", "user_namespaces(7)", _groups_denied,
         "cat /proc/self/setgroups"),
    Rule(("setgroups",), ("EPERM",), "no group is mapped yet in this user namespace", "user_namespaces(7)",
         _unmapped_group, "cat /proc/self/gid_map"),
    Rule(_IDS, ("EPERM",), "only root, in a pod its root, becomes somebody else", "credentials(7)", _right_over_ids,
         "grep CapEff /proc/self/status; nsbox inspect POD"),
    Rule(_IDS, ("EINVAL",), _UNMAPPED, "user_namespaces(7)", _not_in_map, "nsbox inspect POD"),
    Rule(("keyctl",), ("EDQUOT",), "the user's quota of keys is used up", "keyrings(7)", _keys,
         "cat /proc/key-users; sysctl kernel.keys.maxkeys"),
    Rule(("keyctl",), ("EPERM", "EACCES", "ENOSYS"), "a seccomp filter refuses the call, as docker's does",
         "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(("keyctl",), ("ENOSYS",), "the kernel is built without keys", "keyctl(2)",
         lambda _case: known(policy.read("/proc/key-users") is None, "/proc/key-users is " +
                             ("missing" if policy.read("/proc/key-users") is None else "there")), "ls /proc/keys"),
    Rule(("seccomp",), ("EACCES",), "a filter needs no_new_privs, or CAP_SYS_ADMIN", "seccomp(2)", _no_new_privs,
         "grep NoNewPrivs /proc/self/status"),
    Rule(("seccomp",), ("EINVAL", "ENOSYS"), "the kernel is built without filters of system calls", "seccomp(2)",
         _no_filters, "nsbox doctor"),
    Rule(("seccomp",), ("EPERM", "ENOSYS"), "a filter that is there already refuses the call", "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(("capset", "prctl"), ("EPERM",), "nobody takes a capability that he may not have", "capabilities(7)", _bounded,
         "grep Cap /proc/self/status"),
)  # fmt: skip
