"""What scripts/bench measures, in the fake host that it makes: a program of its own in there.

Each row is done once in a round, and the rounds are interleaved: what else the machine does meets
all alike.
"""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from peers import SLEEPER, UNSHARE, Bundles, compiled, run, start, start_and_kill
from procfs import TOP, children, until

sys.path.insert(0, str(TOP))  # nsbox is this checkout's, whatever is installed

BUDGET_S = 40.0  # of the rounds; making the host and the pause part take about five seconds more
ROUNDS_MAX = 60
MAP_ROUNDS = 15
WAIT_S = 10.0
UP_S = 0.05      # a resident set that stays the same for so long is that of a process at rest


class Row(NamedTuple):
    """One thing that is done once in each round.

    Attributes:
        group: what it is compared within; its first row is nsbox's, which the ratios are of.
        program: that must be there, or "".
        starts: interpreters that it starts, one after the other: the floor of its time.
    """

    group: str
    name: str
    action: Callable[[], object]
    program: str = ""
    starts: int = 0


# ---- pods ----

def pod_rows(bundles: Bundles, rootfs: str) -> Iterator[Row]:
    """All that is compared. The pod `web` runs while they do."""
    nsbox = [str(Path(sys.executable).with_name("nsbox"))]
    if not os.access(nsbox[0], os.X_OK):
        nsbox = [sys.executable, "-P", "-m", "nsbox"]
    bwrap = ["bwrap", "--unshare-all", "--ro-bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev"]

    def create_and_rm(*options: str) -> None:
        run(*nsbox, "create", "one", *options)
        run(*nsbox, "rm", "one")

    yield Row("floor", "python -I -c pass", lambda: run(sys.executable, "-I", "-c", "pass"), starts=1)

    group = "create, rm"
    yield Row(group, "nsbox create; rm", create_and_rm, starts=2)
    yield Row(group, "unshare sleep; kill", lambda: start_and_kill(*UNSHARE, "--mount-proc", *SLEEPER))

    group = "create, rm with a rootfs"
    yield Row(group, "nsbox create --rootfs; rm", lambda: create_and_rm("--rootfs", rootfs), starts=2)
    yield Row(group, "crun create; delete", bundles.create_and_delete, "crun")
    yield Row(group, "bwrap sleep; kill", lambda: start_and_kill(*bwrap, *SLEEPER), "bwrap")

    group = "join"
    pause = subprocess.run([*nsbox, "create", "web", "--rootfs", rootfs], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.strip()
    enter = ["nsenter", "--target", pause, "--all", "true"]
    yield Row(group, "nsbox join", lambda: run(*nsbox, "join", "web", "--", "true"), starts=1)
    yield Row(group, "nsenter --all", lambda: run(*enter))
    yield Row(group, "crun exec", bundles.exec_true, "crun")
    yield Row(group, "bwrap (new namespaces)", lambda: run(*bwrap, "true"), "bwrap")

    group = "run"
    yield Row(group, "nsbox run --rootfs",
              lambda: run(*nsbox, "run", "--rootfs", rootfs, "--", "true"), starts=1)
    yield Row(group, "unshare chroot", lambda: run(*UNSHARE, "chroot", rootfs, "true"))
    yield Row(group, "bwrap", lambda: run(*bwrap, "true"), "bwrap")
    yield Row(group, "crun run", bundles.run_true, "crun")

    import nsbox as library

    pod = library.Pod("web")
    group = "library"
    yield Row(group, 'pod.run(["true"])', lambda: pod.run(["true"], check=True))
    yield Row(group, 'subprocess.run(["nsenter"])', lambda: subprocess.run(enter, check=True))


def measure_pods(scratch: Path, rootfs: str, quick: bool) -> dict[str, Any]:
    """Time the rows, in rounds, for as long as the budget lasts."""
    bundles = Bundles(scratch, rootfs)
    try:
        rows, left_out = working(pod_rows(bundles, rootfs))
        times: dict[Row, list[float]] = {row: [] for row in rows}
        deadline, count = time.monotonic() + BUDGET_S, 0
        while count < 2 or (not quick and count < ROUNDS_MAX and time.monotonic() < deadline):
            count += 1
            for row in rows:
                began = time.perf_counter()
                row.action()
                times[row].append((time.perf_counter() - began) * 1000)
    finally:
        bundles.end()
    return {"rounds": count, "rows": compare(times), "left_out": left_out}


def working(rows: Iterator[Row]) -> tuple[list[Row], dict[str, str]]:
    """The rows that can be measured here, each done once to warm up; and why the others cannot."""
    good, left_out = [], {}
    for row in rows:
        if row.program and not shutil.which(row.program):
            left_out[row.name] = f"{row.program} is not installed"
            continue
        try:
            row.action()
            good.append(row)
        except RuntimeError as err:
            if not row.program:
                raise
            left_out[row.name] = str(err)
    return good, left_out


def compare(times: dict[Row, list[float]]) -> list[dict[str, Any]]:
    """A row of the answer for each: quartiles, and by how much the group's first is slower."""
    medians = {row: statistics.median(values) for row, values in times.items()}
    floor = next(median for row, median in medians.items() if row.group == "floor")
    answer, first = [], next(iter(medians))
    for row, values in times.items():
        if row.group != first.group:
            first = row
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        answer.append({
            "group": row.group, "name": row.name, "median_ms": medians[row], "quartiles_ms": [low, high],
            "nsbox_to_this": None if row is first else medians[first] / medians[row],
            "to_interpreter": medians[row] / (floor * row.starts) if row.starts else None,
            "interpreters": row.starts,
        })
    return answer


# ---- pause ----

def measure_pauses(scratch: Path, _rootfs: str, _quick: bool) -> dict[str, Any]:
    """Memory and descriptors of each pause, as PID 1 of namespaces, at rest."""
    nsbox = [sys.executable, "-P", "-m", "nsbox"]
    rows, left_out = [], {}
    for kind in ("static", "python"):
        made = subprocess.run([*nsbox, "create", "held", "--pause", kind], check=True,
                              stdout=subprocess.PIPE, text=True)
        rows.append({"name": f"nsbox, {kind}", **weigh(int(made.stdout))})
        run(*nsbox, "rm", "held")
    others = {"catatonit -P": ("catatonit", "-P"), "pause in C, static": (compiled(scratch),)}
    for name, argv in others.items():
        program = shutil.which(argv[0] or "gcc")
        if program is None or not argv[0]:
            left_out[name] = f"{argv[0] or 'a static C library for gcc'} is not installed"
            continue
        pid = start([*UNSHARE, "--kill-child", program, *argv[1:]])
        rows.append({"name": name, **weigh(the_child(pid, program))})
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for row in rows:
        row["nsbox_to_this"] = rows[0]["rss_kib"] / row["rss_kib"]
    return {"rows": rows, "left_out": left_out}


def the_child(pid: int, program: str) -> int:
    """The child of `pid` once it is `program`."""
    for _ in until(WAIT_S):
        for child in children(pid):
            if os.path.samefile(f"/proc/{child}/exe", program):
                return child
    raise RuntimeError(f"{program} did not start")


def weigh(pid: int) -> dict[str, Any]:
    """What /proc says of a process that waits. See proc(5), smaps_rollup."""
    last = -1
    for _ in until(WAIT_S, pause=UP_S):
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        sizes = {line.split()[0]: int(line.split()[1]) for line in rollup[1:]}
        if sizes["Rss:"] == last:
            break
        last = sizes["Rss:"]
    return {"rss_kib": sizes["Rss:"], "pss_kib": sizes["Pss:"],
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "fds": {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in sorted(os.listdir(f"/proc/{pid}/fd"))},
            "exe": os.readlink(f"/proc/{pid}/exe")}


# ---- map ----

CROWD = (100, 5)  # pods, and processes in each: the pause, a shell, and what that started
CROWD_QUICK = (3, 5)


def measure_map(_scratch: Path, _rootfs: str, quick: bool) -> dict[str, Any]:
    """Time the map of many processes beside lsns, which shows the same without networks and pods."""
    import nsbox as library

    pods, each = CROWD_QUICK if quick else CROWD
    nsbox = [str(Path(sys.executable).with_name("nsbox"))]
    made = [library.Pod(f"crowd{number:03}", keep=True).create() for number in range(pods)]
    for pod in made:
        pod.detach(["sh", "-c", "sleep 1000 & " * (each - 2) + "wait"])
    rows = [Row("floor", "python -I -c pass", lambda: run(sys.executable, "-I", "-c", "pass"), starts=1),
            Row("text", "nsbox map", lambda: run(*nsbox, "map"), starts=1),
            Row("text", "lsns", lambda: run("lsns")),
            Row("json", "nsbox map --json", lambda: run(*nsbox, "map", "--json"), starts=1),
            Row("json", "lsns -J", lambda: run("lsns", "-J"))]
    times: dict[Row, list[float]] = {row: [] for row in rows}
    try:
        for _ in range(2 if quick else MAP_ROUNDS):
            for row in rows:
                began = time.perf_counter()
                row.action()
                times[row].append((time.perf_counter() - began) * 1000)
    finally:
        for pod in made:
            pod.remove(force=True)
    return {"pods": pods, "processes": pods * each, "rounds": len(times[rows[0]]), "rows": compare(times), "left_out": {}}


if __name__ == "__main__":
    PARTS = {"pause": measure_pauses, "pods": measure_pods, "map": measure_map}
    scratch, rootfs, speed, *parts = sys.argv[1:]
    json.dump({part: PARTS[part](Path(scratch), rootfs, speed == "quick") for part in parts}, sys.stdout)
