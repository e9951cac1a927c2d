"""The posture of a process, read by other means than nsbox's: capsh, prlimit, ps, find, nsenter, statvfs.

The keys are those of `security` in what `nsbox inspect --json` says.
"""

import os
import re
from pathlib import Path
from typing import Any

from fakehost import FakeHost

SETS = {"effective": "CapEff", "permitted": "CapPrm", "inheritable": "CapInh", "bounding": "CapBnd", "ambient": "CapAmb"}
IDS = ("real", "effective", "saved", "filesystem")
# What the OCI runtimes cover, and what they make read-only.
MASKED = ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
          "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
          "/sys/devices/virtual/powercap"]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"]
LINES_OF_LIMITS = dict(zip(
    ["Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
     "Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks", "Max pending signals",
     "Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout"],
    "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split(), strict=True))
KERNELS = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2")


def true_posture(host: FakeHost, pid: int, keyring: str = "unknown") -> dict[str, Any]:
    """All of it, of a process of `host`; its numbers are those of whoever looks from the user namespace of the machine.

    Args:
        pid: on the real host.
        keyring: what is to be said of its session keyring, which nobody can read.
    """
    proc = Path(f"/proc/{pid}")
    status = lines_of(proc / "status")
    found: dict[str, Any] = {
        "uid": int(status["Uid"][1]),
        "gid": int(status["Gid"][1]),
        "groups": [int(word) for word in status["Groups"]],
        "uids": {name: int(word) for name, word in zip(IDS, status["Uid"], strict=True)},
        "gids": {name: int(word) for name, word in zip(IDS, status["Gid"], strict=True)},
        **ids_inside(host, pid),
        "capabilities": {name: capabilities(host, status[key][0]) for name, key in SETS.items()},
        "no_new_privs": status["NoNewPrivs"] == ["1"],
        "seccomp": {"0": "off", "2": "filter"}[status["Seccomp"][0]],
        "seccomp_filters": int(status["Seccomp_filters"][0]),
        "session_keyring": keyring,
        "limits": limits(host, pid),
        "terminal": (host.run(["ps", "-o", "tty=", "-p", inner(host, pid)], check=True).stdout.strip() or "?").replace("?", ""),
        "oom_score_adj": int((proc / "oom_score_adj").read_text()),
        "unread": {},
    }
    for name in ("uid_map", "gid_map"):
        found[name] = [[int(word) for word in line.split()] for line in (proc / name).read_text().splitlines()]
    found["root_is_uid"] = found["uid_map"][0][1]
    return {**found, "terminal": found["terminal"] or None, **mounted(pid)}


def lines_of(path: Path) -> dict[str, list[str]]:
    """The words after each key of a file like /proc/PID/status."""
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in path.read_text().splitlines()}


def inner(host: FakeHost, pid: int) -> str:
    """The number in the fake host."""
    [number] = [one for one, real in host.processes().items() if real == pid]
    return str(number)


def ids_inside(host: FakeHost, pid: int) -> dict[str, int]:
    """As the kernel tells them to who is in the user namespace of the process."""
    same = os.stat(f"/proc/{pid}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino
    number = inner(host, pid)
    words = [] if same else ["nsenter", "-t", number, "-U", "--preserve-credentials"]
    said = host.run([*words, "grep", "-E", "^[UG]id:", f"/proc/{number}/status"], user=0, check=True).stdout.splitlines()
    return {"uid_inside": int(said[0].split()[2]), "gid_inside": int(said[1].split()[2])}


def capabilities(host: FakeHost, digits: str) -> list[str]:
    decoded = host.run(["capsh", f"--decode={digits}"], check=True).stdout.strip().partition("=")[2]
    return [word.removeprefix("cap_").upper() for word in decoded.split(",") if word]


def limits(host: FakeHost, pid: int) -> dict[str, dict[str, int | str]]:
    """By prlimit(2), which answers only who has all three users of the process; else by the lines for people."""
    status = lines_of(Path(f"/proc/{pid}/status"))
    (uid, *uids), (gid, *gids) = status["Uid"][:3], status["Gid"][:3]
    if {uid} == set(uids) and {gid} == set(gids):
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
        words = ["prlimit", "--pid", inner(host, pid), "--noheadings", "--raw", "-o", "RESOURCE,SOFT,HARD"]
        rows = [line.split() for line in host.run([*become, *words], user=0, check=True).stdout.splitlines()]
        return {name.lower(): {"soft": number(soft), "hard": number(hard)} for name, soft, hard in rows}
    lines = [re.split(r"  +", line)[:3] for line in Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]]
    return {LINES_OF_LIMITS[name]: {"soft": number(soft), "hard": number(hard)} for name, soft, hard in lines}


def number(word: str) -> int | str:
    return word if word == "unlimited" else int(word)


def mounted(pid: int) -> dict[str, Any]:
    """Of its mounts: each place is asked by its path, below the root of the process."""
    root = f"/proc/{pid}/root"
    table = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    # A mount that is under another is not what its path leads to.
    types = {fields[4]: fields[fields.index("-") + 1] for fields in table if device(root + fields[4]) == fields[2]}
    flags = {place: os.statvfs(root + place).f_flag for place in types}
    below = [place for place in types if f"{place}/".startswith(("/proc/", "/sys/"))]
    masked = [place for place in below if types[place] in ("tmpfs", "devtmpfs") and place in MASKED and is_empty(Path(root + place))]
    read_only = [place for place in below if flags[place] & os.ST_RDONLY and place not in masked]
    kernel = {place for place in (*MASKED, *READ_ONLY) if os.path.lexists(root + place) and filesystem(root, place, types) in KERNELS}
    nodes = devices(root)
    return {
        "read_only": sorted(read_only),
        "masked": sorted(masked),
        "open": sorted(kernel - set(masked) - {place for place in READ_ONLY if place in kernel and os.statvfs(root + place).f_flag & os.ST_RDONLY}),
        "root_read_only": bool(os.statvfs(root).f_flag & os.ST_RDONLY),
        "device_mounts": sorted(place for place in types if not flags[place] & 4 and types[place] not in KERNELS
                                and os.path.isdir(root + place)),  # 4 is ST_NODEV
        "devices": nodes,
    }  # fmt: skip


def device(path: str) -> str:
    """The file system that a path leads to, as mountinfo has it."""
    try:
        found = os.lstat(path).st_dev
    except OSError:
        return ""
    return f"{os.major(found)}:{os.minor(found)}"


def filesystem(root: str, place: str, types: dict[str, str]) -> str:
    """The type of the file system that a place is on: that of the nearest mount above."""
    while place not in types and place != "/":
        place = os.path.dirname(place)
    return types.get(place, "")


def is_empty(place: Path) -> bool:
    return not (os.listdir(place) if place.is_dir() else place.read_bytes())


def devices(root: str) -> list[dict[str, Any]]:
    found = []
    for directory, _, names in os.walk(f"{root}/dev"):
        for name in names:
            node = os.lstat(f"{directory}/{name}")
            kind = {0o020000: "char", 0o060000: "block"}.get(node.st_mode & 0o170000)
            if kind:
                found.append({"path": f"{directory}/{name}".removeprefix(root), "type": kind,
                              "major": os.major(node.st_rdev), "minor": os.minor(node.st_rdev)})  # fmt: skip
    return sorted(found, key=lambda row: str(row["path"]))


def wrong(value: Any) -> list[Any]:
    """What is not `value`, but of its kind: with one thing in it changed."""
    if value is None:
        return ["x", 0]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, str):
        return [f"{value}x"]
    if isinstance(value, dict):
        changed = [{**value, key: other} for key, one in value.items() for other in wrong(one)]
        return [*changed, {**value, "x": "x"}, *({name: one for name, one in value.items() if name != key} for key in value)]
    assert isinstance(value, list)
    return [[*value, "/proc/1"], *([value[:-1], *([*value[:-1], other] for other in wrong(value[-1]))] if value else [])]
