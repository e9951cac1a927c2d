"""Who shares which namespaces: the pod and its caller, the pod and its members."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from fakehost import NSBOX
from hostile import make_rootfs
from inpod import FIVE, detached, differing, inside, namespaces, pod, refused
from procfs import Stopwatch, nspid

pytestmark = pytest.mark.needs_root

LINKS = "for k in cgroup ipc mnt net pid time user uts; do readlink /proc/self/ns/$k; done"


def ns_inside(host, target: str, *options: "str | Path") -> dict[str, int]:
    """The namespaces of a member, as it sees them itself."""
    found = re.findall(r"(\w+):\[(\d+)\]", inside(host, target, LINKS, *options))
    return {kind: int(number) for kind, number in found}


def test_create_makes_exactly_five_namespaces_and_prints_the_pid_alone(host):
    watch = Stopwatch()
    done = host.run(["sh", "-c", 'PID=$("$@"); echo "[$PID]"', "sh", *NSBOX, "create", "web", "--rootfs", "busybox"])
    assert watch.quiet_s() < 10
    assert re.fullmatch(r"\[\d+\]\n", done.stdout) and done.stderr == "", done
    pid = int(done.stdout.strip("[]\n"))
    try:
        assert differing(namespaces(host, pid), namespaces(host, 1)) == FIVE
        assert nspid(host.host_pid(pid))[-2:] == [pid, 1]
        by_pid, by_name = (host.nsbox("join", target, "--", "hostname") for target in (str(pid), "web"))
        assert (by_pid.stdout, by_pid.returncode) == (by_name.stdout, by_name.returncode) == ("web\n", 0)
        assert ns_inside(host, str(pid)) == ns_inside(host, "web") == namespaces(host, pid)
    finally:
        host.nsbox("rm", "-f", "web")


def two_members(host, first: "str | Path", second: "str | Path") -> None:
    """One pod, two members with these root file systems, and a third that has its own processes."""
    with pod(host, "p", "--rootfs", "busybox") as pid, \
            detached(host, "p", "--rootfs", first, argv=("sleep", "301")) as one, \
            detached(host, "p", "--rootfs", second, argv=("sleep", "302")) as two:
        ids = [namespaces(host, one_pid) for one_pid in (pid, one, two)]
        assert [differing(ids[0], other) for other in ids[1:]] == [{"mnt"}, {"mnt"}]
        assert len({one_ids["mnt"] for one_ids in ids}) == 3
        look = "cat /marker; for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done"
        for root, name in ((first, "first"), (second, "second")):
            said = inside(host, "p", look, "--rootfs", root, "--mount", f"type=bind,src={host.work}/{name},dst=/marker")
            assert said.startswith(name + "\n") and "sleep 301" in said and "sleep 302" in said and "pause" in said
        third = inside(host, "p", f"{look.partition(';')[2]}; echo $$; :", "--share", "net,ipc,uts")
        assert "sleep" not in third and "pause" not in third and third.endswith("\n1")
        assert differing(ns_inside(host, "p", "--share", "net,ipc,uts"), ids[0]) == {"pid", "mnt"}


@pytest.fixture
def markers(host):
    for name in ("first", "second"):
        (host.work / name).write_text(name + "\n")


def test_two_members_with_different_roots_in_one_pod(host, rootfs, markers):
    two_members(host, "busybox", rootfs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_members_one_of_them_debian_in_one_pod(host, markers, base):
    """The store is built outside the fake host, which has no network."""
    store = base / "debian-store"
    env = {**os.environ, "NSBOX_STORE": str(store)}
    built = subprocess.run([*NSBOX, "rootfs", "build", "debian"], env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    try:
        two_members(host, "busybox", store / "debian/rootfs")
        said = host.nsbox("run", "--rootfs", store / "debian/rootfs", "--", "sed", "-n", "s/^ID=//p", "/etc/os-release")
        assert said.stdout == "debian\n", said
    finally:
        subprocess.run([*NSBOX, "rootfs", "rm", "debian"], env=env, check=True)


def test_each_member_sees_its_own_root_and_by_proc_the_other_s(host, base, rootfs):
    other = make_rootfs(rootfs.parent / (rootfs.name + "-other"))
    for path in (rootfs, other):
        (path / "name").write_text(f"{path.name}\n")
    with pod(host, "p"), detached(host, "p", "--rootfs", other) as pid:
        inner = nspid(host.host_pid(pid))[-1]
        said = inside(host, "p", f"cat /name /proc/{inner}/root/name; ls /canary 2>/dev/null; :", "--rootfs", rootfs)
        assert said == f"{rootfs.name}\n{other.name}"


@pytest.mark.parametrize("share, differs", [
    ("net,ipc,uts", {"pid", "mnt"}), ("pid", {"net", "ipc", "uts", "mnt"}), ("none", FIVE),
    ("pid,net,uts,ipc,mnt", set()), ("mnt,net", {"pid", "ipc", "uts"}), ("+pid", set()), ("mount,network", {"pid", "ipc", "uts"}),
])
def test_share_says_what_a_member_has_in_common_with_the_pod(host, share, differs):
    """The member is looked at from outside: in the pod's mounts, but not in its PID namespace,
    it has no /proc/self."""
    with pod(host, "p", "--rootfs", "busybox") as pid, detached(host, "p", "--share", share) as member:
        ids = namespaces(host, member)
        assert differing(ids, namespaces(host, pid)) == differs
        assert not {kind for kind in FIVE if ids[kind] == namespaces(host, 1)[kind]}, "never the caller's"
        if share in ("net,ipc,uts", "pid"):
            own = ns_inside(host, "p", "--share", share, "--rootfs", "busybox")
            assert differing(own, namespaces(host, pid)) == differs | {"mnt"}


def test_the_share_of_the_pod_is_the_default_and_plus_adds_to_it(host):
    with pod(host, "p", "--rootfs", "busybox", "--share", "net,ipc") as pid:
        ids = namespaces(host, pid)
        assert differing(ns_inside(host, "p"), ids) == {"pid", "uts", "mnt"}
        assert differing(ns_inside(host, "p", "--share", "+pid,+uts"), ids) == {"mnt"}
        assert differing(ns_inside(host, "p", "--share", "+mnt,+pid"), ids) == {"uts"}
        assert differing(ns_inside(host, "p", "--share", "uts"), ids) == FIVE - {"uts"}
        assert differing(ns_inside(host, "p", "--rootfs", "busybox"), ids) == {"pid", "uts", "mnt"}
        about = json.loads(host.nsbox("inspect", "--json", "p").stdout)[0]
        assert about["share"] == ["ipc", "net"]


@pytest.mark.parametrize("words", [["--share", "nonsense"], ["--share", "pid,+net"], ["--share", ""], ["--share", "none,pid"],
                                   ["--with", "pid"], ["--with", "none"]], ids=str)
def test_wrong_kinds_are_wrong_use(host, words):
    refused(host, "create", "p", *words, status=2)


def test_share_mnt_and_a_rootfs_contradict_each_other(host):
    with pod(host, "p"):
        done = host.nsbox("join", "p", "--share", "mnt,pid", "--rootfs", "busybox", "--", "true")
        assert done.returncode == 2 and "cannot share mnt" in done.stderr, done


# ---- more kinds ----

@pytest.mark.parametrize("kinds", [["user"], ["cgroup"], ["time"], ["user", "cgroup", "time"]], ids=str)
def test_with_adds_namespaces_which_members_share(host, kinds):
    with pod(host, "p", "--rootfs", "busybox", "--with", ",".join(kinds)) as pid:
        ids = namespaces(host, pid)
        assert differing(ids, namespaces(host, 1)) == FIVE | set(kinds)
        assert ns_inside(host, "p") == ids
        assert differing(ns_inside(host, "p", "--rootfs", "busybox"), ids) == {"mnt"}
        assert differing(ns_inside(host, "p", "--share", "net"), ids) - set(kinds) == FIVE - {"net"}
        assert json.loads(host.nsbox("inspect", "--json", "p").stdout)[0]["holds"] == sorted(FIVE | set(kinds))


def test_a_user_namespace_owns_the_others(host):
    """Its root may do with them what root does: set the hostname, and make the loopback go."""
    with pod(host, "p", "--rootfs", "busybox", "--with", "user") as pid:
        script = "hostname other && hostname; ip link set lo down && echo done; id -u"
        assert inside(host, "p", script, "--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN") == "other\ndone\n0"
        owner = host.run(["lsns", "-n", "-o", "ONS", "-t", "net", "-p", str(pid)], user=0).stdout.strip()
        assert owner in ("", str(namespaces(host, pid)["user"]))


def test_clocks_are_shifted(host):
    host_up = float(host.run(["cat", "/proc/uptime"]).stdout.split()[0])
    for words, monotonic, boottime in ((["--boottime", "100000"], 0, 100000), (["--monotonic", "5000"], 5000, 0),
                                       (["--boottime", "-10", "--monotonic", "7"], 7, -10)):
        with pod(host, "p", "--rootfs", "busybox", *words) as pid:
            assert differing(namespaces(host, pid), namespaces(host, 1)) == FIVE | {"time"}
            uptime, offsets = inside(host, "p", "cat /proc/uptime; cat /proc/self/timens_offsets").split("\n", 1)
            assert abs(float(uptime.split()[0]) - host_up - boottime) < 60
            assert offsets.split() == ["monotonic", str(monotonic), "0", "boottime", str(boottime), "0"]
            other = inside(host, "p", "cat /proc/self/timens_offsets", "--rootfs", "busybox")
            assert other.split() == offsets.split()


@pytest.mark.parametrize("words", [["--boottime", "x"], ["--boottime", "1e9"], ["--monotonic", "99999999999999"],
                                   ["--boottime", ""]], ids=str)
def test_bad_offsets_are_refused(host, words):
    refused(host, "create", "p", *words, status=2)


def test_an_offset_before_the_boot_is_refused(host):
    refused(host, "create", "p", "--boottime", "-999999999")
