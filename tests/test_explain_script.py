"""--sh: the script that is written builds by hand what nsbox built.

Both are done in one fake host, and then looked at in the same way: which processes share which
namespaces, the mounts, the maps of users and groups, the links, the nodes of /dev, the hostname.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
from collections.abc import Iterator

import pytest
from fakehost import FakeHost
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]
KINDS = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup", "time")
CREATES = {
    "with a rootfs": ["--rootfs", "busybox"],
    "of the host's tree": ["--hostname", "box"],
    "with volumes": ["--rootfs", "busybox", "-v", "/usr/share:/mnt/share:ro", "--tmpfs", "/x:size=1m,mode=700",
                     "-v", "/etc/passwd:/etc/of-the-host"],
    "in place": ["--rootfs", "busybox", "--in-place", "--read-only"],
    "with more namespaces": ["--rootfs", "busybox", "--with", "user,cgroup,time", "--boottime", "1000"],
}  # fmt: skip
JOINS = {
    "of all": [],
    "of net alone": ["--share", "net"],
    "with a root of its own": ["--rootfs", "busybox", "--tmpfs", "/x", "-w", "/x", "-e", "A=b c"],
}


@pytest.fixture
def host(host: FakeHost) -> Iterator[FakeHost]:
    """A fake host in which nothing runs any more afterwards."""
    yield host
    host.run(["sh", "-c", "kill -9 -1"])
    host.nsbox("rm", "--force", "web")


def namespaces(host: FakeHost, pid: str) -> dict[str, str]:
    said = host.run(["stat", "-Lc", "%i", *(f"/proc/{pid}/ns/{kind}" for kind in KINDS)], check=True).stdout
    return dict(zip(KINDS, said.split(), strict=True))


def partition(host: FakeHost, *pids: str) -> list[list[int]]:
    """For each kind a number for each process, the host's first: equal numbers share."""
    found = [namespaces(host, pid) for pid in ("self", *pids)]
    return [[[one[kind] for one in found].index(each[kind]) for each in found] for kind in KINDS]


def inside(host: FakeHost, pid: str, *words: str) -> str:
    return host.run(["nsenter", "-t", pid, "-p", "-m", "-n", "-u", *words], check=True).stdout


def mounts(host: FakeHost, pid: str) -> list[str]:
    """Place, kind and options of each mount, without numbers and paths of layers."""
    found = []
    for line in inside(host, pid, "cat", "/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        place, options, *optional = before.split(" ")[4:]
        fstype, _, more = after.split(" ")
        more = ",".join(sorted(word for word in more.split(",") if not word.startswith(("lowerdir", "upperdir", "workdir"))))
        found.append(f"{place} {options} {[re.sub(r':.*', '', word) for word in optional]} {fstype} {more}")
    return sorted(found)


def links(host: FakeHost, pid: str) -> list[tuple[str, bool, list[str]]]:
    rows = json.loads(host.run(["nsenter", "-t", pid, "-n", "ip", "-j", "address"], check=True).stdout)
    return [(row["ifname"], "UP" in row["flags"], sorted(one["local"] for one in row["addr_info"])) for row in rows]


def shape(host: FakeHost, pid: str) -> dict[str, object]:
    maps = [host.run(["cat", f"/proc/{pid}/{name}"], check=True).stdout.split() for name in ("uid_map", "gid_map", "setgroups")]
    nodes = inside(host, pid, "sh", "-c", "cd /dev && stat -c '%n %A %t:%T %N' *")
    return {"mounts": mounts(host, pid), "maps": maps, "links": links(host, pid), "hostname": inside(host, pid, "hostname"),
            "nodes": nodes, "time": host.run(["cat", f"/proc/{pid}/timens_offsets"]).stdout}


def same_shape(host: FakeHost, ours: str, theirs: str) -> None:
    mine, hand = shape(host, ours), shape(host, theirs)
    for what, seen in mine.items():
        assert hand[what] == seen, what


def by_hand(host: FakeHost, *words: str, **kw):
    """Do it with nsbox, and then again by the script: what both answered."""
    script = host.scratch / "by-hand.sh"
    verb, *rest = words
    first = host.nsbox(verb, "--sh", script, *rest, check=True)
    return first.stdout.strip(), host.run(["sh", script], check=True, timeout=30).stdout.strip()


@pytest.mark.parametrize("how", CREATES)
def test_the_script_makes_the_same_pod(host, how):
    """Red when: byhand.Hand leaves the attributes of a mount out, or script.Script a kind of UNSHARE."""
    ours, theirs = by_hand(host, "create", "web", *CREATES[how])
    assert partition(host, ours) == partition(host, theirs)
    same_shape(host, ours, theirs)
    assert "hold" not in host.run(["cat", f"/proc/{theirs}/comm"]).stdout


@pytest.mark.parametrize("how", JOINS)
def test_the_script_joins_in_the_same_way(host, how):
    """Red when: the middle process's setns is not written, or a member's own mount namespace."""
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    pause = json.loads(host.nsbox("ls", "--json", check=True).stdout)[0]["pid"]
    ours, _ = by_hand(host, "join", "-d", "web", *JOINS[how], "--", "sleep", "1000")
    theirs = ""
    for _ in until(20):
        found = set(host.run(["pgrep", "-x", "sleep"], check=True).stdout.split()) - {ours}
        if found:
            [theirs] = found
            break
    assert partition(host, str(pause), theirs) == partition(host, str(pause), ours)
    same_shape(host, ours, theirs)
    for name in ("environ", "cmdline"):
        assert host.run(["cat", f"/proc/{theirs}/{name}"]).stdout == host.run(["cat", f"/proc/{ours}/{name}"]).stdout
    assert [host.run(["readlink", f"/proc/{pid}/cwd"]).stdout for pid in (ours, theirs)] == ["/x\n" if "-w" in JOINS[how] else "/\n"] * 2


def test_the_script_of_a_run_does_it_all_and_leaves_nothing(host):
    """Red when: the name of the pause is not put in the place of its PID, or the status is not kept."""
    script = host.scratch / "by-hand.sh"
    before = host.snapshot()
    done = host.nsbox("run", "--rootfs", "busybox", "--hostname", "box", "--sh", script, "--", "sh", "-c", "hostname; ps; exit 3")
    again = host.run(["sh", script], timeout=30)
    assert done.returncode == again.returncode == 3, again.stderr
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0] == "box"
    assert len(again.stdout.splitlines()) == len(done.stdout.splitlines())
    host.assert_same_as(before)


LIMITS = ["--ulimit", "nofile=64:128", "--ulimit", "core=0:unlimited", "--ulimit", "stack=2097152"]


@pytest.mark.parametrize("more", [[], ["--rootfs", "busybox"], ["-w", "/tmp"]], ids=str)
def test_the_script_gives_a_member_its_limits(host, more):
    """By prlimit(1), outside: there may be none in the root. Red when: _birth() writes none, or for the pause."""
    host.nsbox("create", "web", "--rootfs", "busybox", *LIMITS, check=True)
    ours, theirs = by_hand(host, "join", "web", *more, "--", "cat", "/proc/self/limits")
    assert theirs == ours and " 64                   128 " in ours
    script = (host.scratch / "by-hand.sh").read_text()
    assert script.count("prlimit --core=0:unlimited --nofile=64:128 --stack=2097152:2097152 nsenter ") == 1


def test_the_script_gives_a_program_as_PID_1_its_limits(host):
    """Red when: _birth() writes none for the pause."""
    _, theirs = by_hand(host, "create", "web", *LIMITS, "--init", "sleep 1000")
    said = host.run(["cat", f"/proc/{theirs}/limits"], check=True).stdout
    assert " 64                   128 " in said, said


def test_a_word_of_any_bytes_is_in_the_script_as_it_is(host):
    """What steers a terminal, and what is no UTF-8, in an argument and in the environment; to stdout too.

    Red when: _write() encodes the script as strict UTF-8.
    """
    script = host.scratch / "by-hand.sh"
    evil = b"\x1b[31m\n'\xff\xe2\x80\xae$"
    words = ["run", "--rootfs", "busybox", "-e", b"X=" + evil, "--", "sh", "-c", 'printf %s "$1$X"', "sh", evil]
    done = host.nsbox(words[0], "--sh", script, *words[1:], text=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, evil * 2, b"")
    assert host.run(["sh", script], text=False, check=True, timeout=30).stdout == evil * 2
    shown = host.nsbox("explain", "--sh", *words, text=False, check=True, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert evil.replace(b"'", b"'\"'\"'") in shown.stdout
