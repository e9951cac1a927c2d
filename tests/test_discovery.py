"""Every namespace is found, whatever keeps it alive, and lsns(8) says the same of each process."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import skip_or_fail
from fakehost import FakeHost, HostPopen
from inpod import KINDS, detached, namespaces, pod
from procfs import until

pytestmark = pytest.mark.needs_root

DISCOVER = """
import json
from nsbox.linux import discovery
world = discovery.discover()
print(json.dumps({
    "processes": {pid: one._asdict() for pid, one in world.processes.items()},
    "namespaces": {number: row._asdict() | {"holders": [holder._asdict() for holder in row.holders]}
                   for number, row in world.namespaces.items()},
    "own": world.own, "sockets": world.sockets, "unread": [row._asdict() for row in world.unread]}))
"""


def discover(host: FakeHost, **kw: Any) -> dict[str, Any]:
    """What discovery finds when it runs in the fake host; ids and PIDs are texts, for JSON has no others."""
    done = host.python(DISCOVER, check=True, **kw)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@contextlib.contextmanager
def keeping(host: FakeHost, code: str, *argv: str, **kw: Any) -> Iterator[list[int]]:
    """A Python program that prints numbers on one line and then waits; the numbers."""
    keeper = host.popen([sys.executable, "-c", code + "\nprint(flush=True)\nimport time\ntime.sleep(1000)", *argv], **kw)
    try:
        said = keeper.stdout.readline()
        assert said.strip(), keeper.communicate()
        yield [int(word) for word in said.split()]
    finally:
        keeper.end()


def pid_inside(host: FakeHost, command: HostPopen) -> int:
    """The PID, in the fake host, of a command, which may become another program at any moment."""
    real = command.inner_pid()
    for _ in until(20):
        for inside, pid in host.processes().items():
            if pid == real:
                return inside
    raise ProcessLookupError(f"{command.args!r} is not to be found")


def holders(world: dict[str, Any], number: int) -> list[tuple[str, int, str]]:
    row = world["namespaces"].get(str(number))
    assert row, f"{number} was not found"
    return [(holder["how"], holder["pid"], holder["where"]) for holder in row["holders"]]


# ---- what keeps a namespace alive ----

# Mounts a new namespace on a file. unshare(1) can do that too, but not always on new kernels.
PIN = """
pin() {
    touch "$2"
    unshare --$1 sleep 1000 > /dev/null 2>&1 &
    until [ "$(readlink /proc/$!/ns/$1)" != "$(readlink /proc/self/ns/$1)" ]; do sleep 0.02; done
    mount --bind /proc/$!/ns/$1 "$2"
    kill -KILL $!; wait
}
"""

NEW_NET = "import os, sys\nfrom nsbox.linux import syscalls\nfrom nsbox.linux.flags import CloneFlag\n"


def test_a_namespace_of_one_thread_alone_is_found(host):
    """Red when: procfs._strays looks at no thread, or at the kinds of the first one only."""
    code = NEW_NET + """
import threading
def run():
    syscalls.unshare(CloneFlag.CLONE_NEWNET)
    print(os.getpid(), threading.get_native_id(), os.stat(f"/proc/self/task/{threading.get_native_id()}/ns/net").st_ino, end=" ")
    ready.set()
    threading.Event().wait()
ready = threading.Event()
threading.Thread(target=run, daemon=True).start()
ready.wait()
"""
    with keeping(host, code) as (pid, thread, number):
        world = discover(host)
        assert holders(world, number) == [("thread", pid, str(thread))]
        assert world["namespaces"][str(number)]["pids"] == []
        assert world["namespaces"][str(number)]["owner"] == world["own"]["user"]


def test_a_namespace_that_a_descriptor_keeps_is_found(host):
    """Red when: look_at_descriptors passes over links like uts:[4026532345]."""
    code = NEW_NET + """
home = os.open("/proc/self/ns/uts", os.O_RDONLY)
syscalls.unshare(CloneFlag.CLONE_NEWUTS)
number, kept = os.stat("/proc/self/ns/uts").st_ino, os.open("/proc/self/ns/uts", os.O_RDONLY)
syscalls.setns(home, CloneFlag.CLONE_NEWUTS)
print(os.getpid(), kept, number, end=" ")
"""
    with keeping(host, code) as (pid, fd, number):
        world = discover(host)
        assert holders(world, number) == [("descriptor", pid, str(fd))]
        assert world["namespaces"][str(number)]["pids"] == []
        assert world["namespaces"][str(number)]["kind"] == "uts"


def test_a_namespace_that_a_bind_mount_keeps_is_found(host):
    """Red when: look_at_mounts is left out; or it looks at the caller's own mounts only."""
    host.run(["sh", "-c", PIN + "pin uts /run/here; pin net '/run/a b'"], user=0, check=True)
    try:
        world = discover(host)
        where = {place: row["kind"] for row in world["namespaces"].values() for how, _, place in
                 [(one["how"], one["pid"], one["where"]) for one in row["holders"]] if how == "mount"}
        assert where == {"/run/here": "uts", "/run/a b": "net"}
        owners = {row["owner"] for row in world["namespaces"].values() if any(
            one["how"] == "mount" for one in row["holders"])}
        assert owners == {world["own"]["user"]}
    finally:
        host.run(["sh", "-c", "umount /run/here '/run/a b'; rm /run/here '/run/a b'"], user=0, check=True)


def test_a_bind_mount_in_another_mount_namespace_is_found(host):
    """Red when: look_at_mounts reads /proc/self/mountinfo alone."""
    script = PIN + "mount --make-rprivate /; mount -t tmpfs t /mnt; pin uts /mnt/u; stat -L -c %i /mnt/u; exec sleep 1000"
    other = host.popen(["unshare", "--mount", "sh", "-c", script], user=0)
    try:
        number = int(other.stdout.readline())
        pid = pid_inside(host, other)
        assert holders(discover(host), number) == [("mount", pid, "/mnt/u")]
    finally:
        other.end()


def test_mounts_in_a_mount_namespace_without_processes_are_found(host):
    """A mount namespace that is itself only mounted somewhere, and in it a namespace that is too.

    Red when: relate does not go into mount namespaces that have no process; or opens there by its own /proc.
    """
    # Only a younger mount namespace may be mounted, and kernels that number them on each processor
    # by itself take some for older ones: then another one is made.
    script = PIN + """
mount --make-rprivate /; mount -t tmpfs t /run; touch /run/m
make() {
    unshare --mount sh -c 'eval "$PIN"; mount -t tmpfs u /mnt; pin uts /mnt/u; stat -L -c %i /mnt/u > /run/number
                           mount -t tmpfs t /proc; echo > /run/ready; exec sleep 1000' &
    until [ -e /run/ready ]; do sleep 0.02; done
    rm /run/ready
    mount --bind /proc/$!/ns/mnt /run/m 2> /dev/null
}
until make; do kill -KILL $!; wait; done
kill -KILL $!; wait
cat /run/number; stat -L -c %i /run/m
exec sleep 1000"""
    other = host.popen(["unshare", "--mount", "sh", "-c", script], user=0, env={"PIN": PIN})
    try:
        uts, mnt = int(other.stdout.readline()), int(other.stdout.readline())
        pid = pid_inside(host, other)
        world = discover(host)
        assert holders(world, mnt) == [("mount", pid, "/run/m")]
        assert holders(world, uts) == [("mount", 0, f"/mnt/u in mnt:[{mnt}]")]
        assert world["namespaces"][str(uts)]["owner"] == world["own"]["user"]
    finally:
        other.end()


def test_a_descriptor_of_a_mount_that_is_gone_is_found(host):
    """The link of such a descriptor is "/", as that of the root directory.

    Red when: look_at_descriptors looks only at links that begin with a kind.
    """
    script = PIN + "pin uts /run/u; stat -L -c %i /run/u; exec 9</run/u; umount -l /run/u; echo; exec sleep 1000"
    keeper = host.popen(["sh", "-c", script], user=0)
    try:
        number = int(keeper.stdout.readline())
        keeper.stdout.readline()
        pid = pid_inside(host, keeper)
        assert holders(discover(host), number) == [("descriptor", pid, "9")]
    finally:
        keeper.end()
        host.run(["rm", "/run/u"])


def test_a_network_that_a_socket_keeps_is_found(host):
    """Red when: _look_at_sockets is left out."""
    code = NEW_NET + """
import socket
home = os.open("/proc/self/ns/net", os.O_RDONLY)
syscalls.unshare(CloneFlag.CLONE_NEWNET)
number, kept = os.stat("/proc/self/ns/net").st_ino, socket.socket()
syscalls.setns(home, CloneFlag.CLONE_NEWNET)
print(os.getpid(), kept.fileno(), number, end=" ")
"""
    with keeping(host, code) as (pid, fd, number):
        assert holders(discover(host), number) == [("socket", pid, str(fd))]


def test_namespaces_that_only_own_or_bear_others_are_found(host):
    """Red when: relate does not go on with what _follow finds."""
    command = host.popen(["unshare", "-r", "--uts", "unshare", "-r", "--pid", "--fork", "--kill-child",
                          "unshare", "--pid", "--fork", "--kill-child", "sleep", "1000"], user=0)
    try:
        sleeper = None
        while sleeper is None:
            world = discover(host)
            sleeper = next((one for one in world["processes"].values() if one["command"] == ["sleep", "1000"]), None)
            assert command.poll() is None, command.communicate()
        rows = world["namespaces"]
        user = rows[str(sleeper["namespaces"]["user"])]
        outer = rows[str(user["owner"])]
        assert outer["pids"] == [] and ("owner", 0) in {(one["how"], one["pid"]) for one in outer["holders"]}
        assert outer["kind"] == "user" and outer["owner"] == outer["parent"] == world["own"]["user"]
        assert rows[str(sleeper["namespaces"]["uts"])]["owner"] == outer["id"]
        inner = rows[str(sleeper["namespaces"]["pid"])]
        assert inner["owner"] == user["id"]
        assert rows[str(inner["parent"])]["parent"] == world["own"]["pid"]
        assert sleeper["pids"][-1] == 1 and len(sleeper["pids"]) == 3
    finally:
        command.end()


def test_what_a_child_will_be_in_is_told_of_its_parent(host):
    """Red when: procfs._children does not read pid_for_children."""
    command = host.popen(["unshare", "--pid", "sh", "-c", "sleep 1000 & echo $!; wait"], user=0)
    try:
        assert command.stdout.readline().strip()
        world = discover(host)
        [parent] = [one for one in world["processes"].values() if one["children"]]
        [child] = [one for one in world["processes"].values() if one["ppid"] == parent["pid"]]
        assert parent["children"] == {"pid": child["namespaces"]["pid"]}
        assert parent["namespaces"]["pid"] == world["own"]["pid"]
    finally:
        command.end()


def test_a_zombie_is_shown_with_what_it_has_left(host):
    """Red when: procfs._namespaces takes a missing link for a refusal."""
    code = "import os\nchild = os.fork()\nif child == 0: os._exit(0)\n" \
           "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)\nprint(child, end=' ')"
    with keeping(host, code) as (child,):
        one = discover(host)["processes"][str(child)]
        assert (one["state"], one["problem"]) == ("Z", "")
        assert "mnt" not in one["namespaces"] and "pid" in one["namespaces"]


def test_serials_tell_namespaces_apart_that_had_one_number(host):
    """Red when: serial is not asked for, or the id is taken for it."""
    world = discover(host)
    serials = [row["serial"] for row in world["namespaces"].values() if row["serial"] is not None]
    skip_or_fail("" if serials else "needs a kernel with NS_GET_ID")
    assert len(serials) == len(set(serials)) == len(world["namespaces"])


# ---- who may see what ----

def test_an_ordinary_user_sees_the_own_and_is_told_of_the_rest(user_host):
    """Red when: a PermissionError is passed over in silence; or ends the search."""
    with keeping(user_host, NEW_NET + "syscalls.unshare(CloneFlag.CLONE_NEWUSER | CloneFlag.CLONE_NEWUTS)\n"
                 "print(os.getpid(), os.stat('/proc/self/ns/uts').st_ino, end=' ')") as (pid, number):
        world = discover(user_host)
        one = world["processes"][str(pid)]
        assert one["namespaces"]["uts"] == number and not one["problem"]
        row = world["namespaces"][str(number)]
        assert row["owner"] == one["namespaces"]["user"]
        user = world["namespaces"][str(row["owner"])]
        assert (user["uid"], user["owner"]) == (user_host.uid, world["own"]["user"])
        init = world["processes"]["1"]
        assert init["namespaces"] == {} and init["problem"] == "Permission denied" and init["command"]
        [unread] = [row for row in world["unread"] if row["what"] == "namespaces"]
        assert 1 in unread["pids"] and pid not in unread["pids"]


# ---- lsns(8) ----

def lsns(host: FakeHost, *words: str) -> list[dict[str, Any]]:
    done = host.run(["lsns", "-J", *words], check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)["namespaces"] if done.stdout.strip() else []
    return rows


def by_lsns(host: FakeHost, pids: list[int]) -> dict[int, dict[str, int]]:
    """What lsns says of each of these processes."""
    return {pid: {row["type"]: int(row["ns"]) for row in lsns(host, "-o", "NS,TYPE", "-p", str(pid))} for pid in pids}


def test_lsns_says_the_same_of_every_process_and_kind(host):
    """Red when: procfs.read takes a kind from another link, say pid from pid_for_children."""
    with (
        pod(host, "web", "--rootfs", "busybox"), pod(host, "odd", "--with", "user,cgroup,time"),
        detached(host, "web", "--rootfs", "busybox"), detached(host, "web", "--share", "net,ipc"), detached(host, "odd"),
    ):
        foreign = host.popen(["unshare", "--pid", "--fork", "--net", "sleep", "1000"], user=0)
        while len(foreign_tree := host.run(["pgrep", "-f", "sleep 1000"]).stdout.split()) < 2:
            pass
        try:
            ours = discover(host)["processes"]
            still = host.processes()
            mine = {int(pid): one["namespaces"] for pid, one in ours.items() if int(pid) in still}
            assert len(mine) >= 9 and {int(pid) for pid in foreign_tree} <= set(mine)
            assert by_lsns(host, list(mine)) == mine
            for pid in mine:
                assert namespaces(host, pid) == {kind: mine[pid][kind] for kind in KINDS}
        finally:
            foreign.end()


def test_lsns_says_the_same_to_an_ordinary_user(user_host):
    """Red when: the map shows an ordinary user other processes than the kernel lets lsns see."""
    with pod(user_host, "web"), detached(user_host, "web"):
        ours = discover(user_host)["processes"]
        still = user_host.processes()
        ours = {int(pid): one["namespaces"] for pid, one in ours.items() if one["namespaces"] and int(pid) in still}
        assert len(ours) >= 2 and by_lsns(user_host, list(ours)) == ours


def test_lsns_knows_the_same_owners_and_parents(host):
    """Red when: owner and parent are mixed up."""
    with pod(host, "odd", "--with", "user"):
        theirs = {int(row["ns"]): (int(row["pns"]), int(row["ons"])) for row in
                  lsns(host, "-o", "NS,TYPE,PNS,ONS")}
        ours = discover(host)["namespaces"]
        both = [int(number) for number in ours if int(number) in theirs]
        assert len(both) > 10
        for number in both:
            row = ours[str(number)]
            assert (row["parent"] or 0, row["owner"] or 0) == theirs[number], row


def test_ids_have_the_form_of_proc(host):
    """Red when: an id is anything but the number in /proc/PID/ns."""
    link = host.run(["readlink", "/proc/1/ns/net"], check=True).stdout
    assert re.fullmatch(r"net:\[(\d+)\]\n", link)
    assert discover(host)["processes"]["1"]["namespaces"]["net"] == int(re.findall(r"\d+", link)[0])
