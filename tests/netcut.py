"""A program for the inside of a fake host: a command about networks, cut off at each step in turn.

Arguments: what is done (a key of CASES), who is hit ("command", or "child": those that it forks, which
talk to the kernel), the signal, how many steps to go on each time, and where to begin. A step is one
call of a function, of Python or of C. A command that got TERM undoes what it did, or has done it; after
KILL the next prune does it. Then nothing of it is left on the host, its address and its port can be
had again, and what other pods have is as it was. Prints the number of steps.
"""

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import pyroute2  # noqa: F401  (all that the command would import: what is counted are its steps)

import nsbox.pod.create
from nsbox.cli import create, end, front, net, publish  # noqa: F401
from nsbox.images import store as _images  # noqa: F401
from nsbox.net import conntrack, inside, links, pasta, proxy, rules, shape  # noqa: F401
from nsbox.pod import netattach, netmend, netmodes, netnames, netnat, netrecord  # noqa: F401
from nsbox.pod import netreport, nettie, networks, report, store  # noqa: F401

ADDRESS = ("--ip", "10.9.0.5")
ON_LAN = ("create", "t", "--rootfs", "busybox", "--net", "lan", *ADDRESS, "-p", "0.0.0.0:8080:80")
PLAIN = ("create", "t", "--rootfs", "busybox")
# key: (what is done before, what is cut off)
CASES: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "create": ((), ON_LAN),
    "nat": ((), (*ON_LAN, "--publish-mode", "nat")),
    "connect": ((PLAIN,), ("net", "connect", "t", "lan", *ADDRESS)),
    "disconnect": ((ON_LAN,), ("net", "disconnect", "t", "lan")),
    "link": ((PLAIN,), ("net", "link", "t", "other")),
    "rm": ((ON_LAN,), ("rm", "--force", "t")),
    "net-create": ((), ("net", "create", "more", "--subnet", "10.8.0.0/24")),
    "net-rm": ((("net", "create", "more", "--subnet", "10.8.0.0/24"),), ("net", "rm", "more")),
}
WAIT_S = 10.0


def nsbox_(*words: str) -> int:
    """Run a command in a child; its exit status. What it says goes to stderr."""
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        os._exit(status_of(words))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def status_of(words: tuple[str, ...]) -> int:
    try:
        return front.run(list(words))
    except BaseException:
        traceback.print_exc()
        return 99


def cut_off(words: tuple[str, ...], who: str, signum: int, step: int) -> tuple[int, bool]:
    """Run a command and send a signal at a step; its exit status, and whether it had so many."""
    seen = mmap.mmap(-1, 8)  # shared: the steps of several children count as one row
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        counted(words, who, signum, step, seen)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, struct.unpack("q", seen[:8])[0] >= step


def counted(words: tuple[str, ...], who: str, signum: int, step: int, seen: mmap.mmap) -> NoReturn:
    me = os.getpid()

    def count(_frame: object, _event: str, _arg: object) -> None:
        if (os.getpid() == me) != (who == "command"):
            return
        number = struct.unpack("q", seen[:8])[0] + 1
        seen[:8] = struct.pack("q", number)
        if number == step:
            sys.setprofile(None)
            os.kill(os.getpid(), signum)
    sys.setprofile(count)
    status = status_of(words)
    sys.setprofile(None)
    os._exit(status)


def world() -> dict[str, Any]:
    """What a network could leave behind on this host."""
    said = {name: subprocess.run(argv, capture_output=True, text=True, check=True).stdout for name, argv in {
        "links": ["ip", "-o", "link"], "addresses": ["ip", "-o", "addr"], "routes": ["ip", "route"],
        "rules": ["nft", "list", "ruleset"], "ports": ["ss", "-Hltn"]}.items()}
    found: dict[str, Any] = {name: sorted(_timeless(line) for line in text.splitlines()) for name, text in said.items()}
    found["ip_forward"] = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    top = os.environ["NSBOX_STATE"]
    found["state"] = sorted(os.path.relpath(os.path.join(where, name), top)
                            for where, dirs, files in os.walk(top) for name in (*dirs, *files))
    hosts = Path(top, "pods/other/hosts")
    found["hosts"] = hosts.read_text() if hosts.exists() else ""
    return found


def _timeless(line: str) -> str:
    """Without the number of a link, and whether the kernel still looks if its address is free."""
    words = [word for word in line.split() if word != "tentative"]
    return " ".join(words[1:] if words and words[0].rstrip(":").isdigit() else words)


def wait_for(wanted: dict[str, Any], where: str) -> None:
    """The kernel takes a dead pod's network apart in its own time."""
    deadline = time.monotonic() + WAIT_S
    while (now := world()) != wanted:
        if time.monotonic() > deadline:
            lines = [f"{key}: {was} became {now[key]}" for key, was in wanted.items() if was != now[key]]
            raise AssertionError(f"{where}: " + "\n".join(lines))
        time.sleep(0.02)


def must(*words: str) -> None:
    status = nsbox_(*words)
    assert status == 0, f"nsbox {' '.join(words)}: {status}"


def one(case: str, who: str, signum: int, step: int) -> bool:
    """One try; whether the command had so many steps."""
    where = f"{case}: {who} got {signal.Signals(signum).name} at step {step}"
    before, command = CASES[case]
    untouched = world()
    for words in before:
        must(*words)
    first = world()
    status, reached = cut_off(command, who, signum, step)
    where += f", status {status}"
    if signum == signal.SIGKILL and who == "command" and reached:
        assert status in (-signum, 0), where
    elif who == "child":  # it may have been one that nobody waits for any more
        assert status in (0, 125), where
    else:
        assert status in (0, 128 + signum, -signum), where  # the last: it has not begun
    if status > 0 and case not in ("rm", "disconnect", "net-rm"):  # what takes away is finished by doing it again
        wait_for(first, f"{where}, undone by itself")
    must("prune")
    agree(where)
    if case in ("create", "nat") and not alive("t"):
        wait_for(untouched, f"{where}, after prune")
    must("rm", "--force", "t")
    must("net", "rm", "--force", "more")
    wait_for(untouched, f"{where}, after rm")
    return reached


def agree(where: str) -> None:
    """What is written about the cables of the pods that run is what the kernel has."""
    ports, found = 0, {}
    for pod in report.summaries():
        if pod["status"] == "running":
            dir_fd = store.directory(pod["name"])
            links = netrecord.read_pod(dir_fd)
            os.close(dir_fd)
            ports += len(links.plugs)
            inside = [line.partition(":")[0].strip() for line in open(f"/proc/{pod['pid']}/net/dev") if ":" in line]
            wanted = ["lo", *(one.ifname for one in (*links.plugs, *links.ties))]
            found[pod["name"]] = sorted(inside) == sorted(wanted) or (inside, wanted)
    assert all(one is True for one in found.values()), f"{where}, after prune: {found}"
    there = [name for name in os.listdir("/sys/class/net") if name.startswith("nsv")]
    assert len(there) == ports, f"{where}, after prune: {there} for {ports} cables"


def alive(name: str) -> bool:
    return any(row["name"] == name and row["status"] == "running" for row in report.summaries())


def main(case: str, who: str, signame: str, stride: int, step: int) -> int:
    must("net", "create", "lan", "--subnet", "10.9.0.0/24")
    must("create", "other", "--rootfs", "busybox", "--net", "lan")
    while one(case, who, signal.Signals["SIG" + signame], step):
        step += stride
    must("rm", "--force", "other")
    must("net", "rm", "lan")
    return step


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:4], *map(int, sys.argv[4:]))))  # type: ignore[arg-type]
