"""Joining processes of other programs: unshare, bwrap, crun, a chroot, odd user namespaces.

What a member shares is proved by inode numbers; what it does not share stays the caller's.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator

import pytest
from conftest import needs_program, skip_or_fail
from fakehost import FakeHost
from inpod import FIVE, differing, inside, namespaces
from procfs import nspid, until
from test_sharing import ns_inside

pytestmark = pytest.mark.needs_root


@contextlib.contextmanager
def foreign(host: FakeHost, *argv: "str | os.PathLike[str]", name: str = "sleep 987") -> Iterator[int]:
    """Start a program of somebody else; the PID, in the fake host, of the process whose command is `name`."""
    command = host.popen(argv, user=0)
    try:
        for _ in until(20, pause=0.02):
            found = [pid for pid, real in host.processes().items() if cmdline(real) == name]
            if found:
                break
            assert command.poll() is None, command.communicate()
        yield found[0]
    finally:
        for pid in sorted(found, reverse=True):
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(host.host_pid(pid), 9)
        command.end()


def cmdline(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def partition(host: FakeHost, pid: int, *options: str, shares: set[str], differs: set[str]) -> None:
    """A member of `pid` is in its namespaces of the kinds `shares`, of `differs` in the caller's."""
    mine, its, callers = ns_inside(host, str(pid), *options), namespaces(host, pid), namespaces(host, 1)
    assert {kind for kind in mine if mine[kind] == its[kind] != callers[kind]} == shares
    assert differing(mine, callers) == differs


SHOW = "echo $(tr '\\0' ' ' < /proc/1/cmdline)"
UNSHARE = {"--uts": "uts", "--ipc": "ipc", "--net": "net", "--mount": "mnt", "--cgroup": "cgroup", "--time": "time"}


@pytest.mark.parametrize("words", [[word] for word in UNSHARE] + [list(UNSHARE)], ids="".join)
def test_a_process_of_unshare_is_joined_in_what_it_has(host, words):
    kinds = {UNSHARE[word] for word in words}
    fork = ["--fork"] if "time" in kinds else []
    with foreign(host, "unshare", *fork, *words, "sleep", "987") as pid:
        partition(host, pid, shares=kinds, differs=kinds)
        for kind in sorted(kinds)[:2]:
            partition(host, pid, "--share", kind, shares={kind}, differs={kind})
        partition(host, pid, "--share", "none", shares=set(), differs=set())


def test_what_is_not_shared_with_a_process_stays_the_callers(host):
    with foreign(host, "unshare", "--pid", "--fork", "--mount-proc", "--uts", "--net", "--ipc", "sleep", "987") as pid:
        assert nspid(host.host_pid(pid))[-1] == 1
        partition(host, pid, shares=FIVE, differs=FIVE)
        partition(host, pid, "--share", "net", shares={"net"}, differs={"net"})
        partition(host, pid, "--share", "uts,ipc", shares={"uts", "ipc"}, differs={"uts", "ipc"})
        assert inside(host, str(pid), SHOW) == "sleep 987"
        own = ns_inside(host, str(pid), "--rootfs", "busybox")
        assert differing(own, namespaces(host, pid)) == {"mnt"}
        assert inside(host, str(pid), SHOW, "--rootfs", "busybox") == "sleep 987"


def test_A08_a_chrooted_process_keeps_its_root(host, canary, rootfs):
    """Red when: a member goes to the root of the target's mount namespace (leave _change_root out)."""
    (rootfs / "marker").write_text("its own\n")
    for words in (["chroot"], ["unshare", "--mount", "chroot"], ["unshare", "--mount", "--uts", "--net", "chroot"]):
        with foreign(host, *words, str(rootfs), "sleep", "987") as pid:
            if words == ["chroot"]:  # its mounts are the caller's: nothing is joined, nothing hidden
                continue
            said = inside(host, str(pid), "cat /marker; ls /canary 2>/dev/null; pwd; readlink /proc/self/ns/mnt 2>/dev/null; :")
            assert said == "its own\n/"


def bwrap(host: FakeHost, *words: str) -> "contextlib.AbstractContextManager[int]":
    needs_program("bwrap")
    tree = ["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    return foreign(host, "bwrap", *tree, *words, "sleep", "987")


@pytest.mark.parametrize("words, kinds", [
    ([], {"mnt"}), (["--unshare-net", "--unshare-uts", "--hostname", "wrapped"], {"mnt", "net", "uts"}),
    (["--unshare-pid", "--unshare-ipc", "--unshare-cgroup"], {"mnt", "pid", "ipc", "cgroup"}),
    (["--unshare-all", "--unshare-user"], {*FIVE, "user", "cgroup"}),
], ids=["mnt", "net uts", "pid ipc cgroup", "all"])
def test_a_process_of_bwrap_is_joined(host, words, kinds):
    with bwrap(host, *words) as pid:
        partition(host, pid, shares=kinds, differs=kinds)
        assert inside(host, str(pid), "ls -A /tmp; touch /x 2>&1 | grep -c Read-only") == "1"
        if "uts" in kinds and "user" not in kinds:
            assert inside(host, str(pid), "hostname") == "wrapped"
        if not {"user", "pid"} & kinds:  # without the PID namespace its /proc has no /proc/self
            partition(host, pid, "--share", "mnt", shares={"mnt"}, differs={"mnt"})


CRUN = {
    "ociVersion": "1.0.0", "root": {"path": "", "readonly": True}, "hostname": "crun-host",
    "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["sleep", "987"], "cwd": "/",
                "env": ["PATH=/bin"], "noNewPrivileges": True,
                "capabilities": {key: ["CAP_KILL"] for key in ("bounding", "effective", "permitted")}},
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
               {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}],
    "linux": {"namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")],
              "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]},
}


def test_a_container_of_crun_is_joined(host, rootfs):
    needs_program("crun")
    bundle = host.work / "bundle"
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps({**CRUN, "root": {"path": str(rootfs), "readonly": True}}))
    # crun refuses a machine with both versions of cgroups, so it is shown one alone, and uses none.
    hidden = ["unshare", "--mount", "sh", "-c", 'umount -l /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]
    crun = [*hidden, "crun", "--root", str(host.work / "crun"), "--cgroup-manager=disabled"]
    with open(host.work / "said", "w+") as said:
        trial = host.run([*crun, "run", "--detach", "--bundle", str(bundle), "trial"], stdout=said, stderr=said)
    if trial.returncode:
        skip_or_fail(f"crun cannot make a container here: {(host.work / 'said').read_text()}")
    try:
        pid = json.loads(host.run([*crun, "state", "trial"], check=True).stdout)["pid"]
        partition(host, pid, shares=FIVE, differs=FIVE)
        assert inside(host, str(pid), "hostname; touch /x 2>&1 | grep -c Read-only") == \
            "crun-host\n1"
        partition(host, pid, "--share", "net,uts", shares={"net", "uts"}, differs={"net", "uts"})
        assert inside(host, str(pid), "ls /; :", "--rootfs", "busybox").split()[0] == "bin"
    finally:
        host.run([*crun, "delete", "--force", "trial"])


# ---- user namespaces ----

def test_a_target_with_a_user_namespace_alone(host):
    with foreign(host, "unshare", "--user", "--map-root-user", "sleep", "987") as pid:
        partition(host, pid, shares={"user"}, differs={"user"})
        assert inside(host, str(pid), "id -u; cat /proc/self/uid_map").split() == ["0", "0", "0", "1"]
        own = ns_inside(host, str(pid), "--share", "none")
        assert not differing(own, namespaces(host, 1))


def test_a_target_with_a_user_namespace_without_a_map(host):
    """Nobody is root in there, so the member keeps its ids and still runs."""
    with foreign(host, "unshare", "--user", "sleep", "987") as pid:
        assert inside(host, str(pid), "id -u") == "65534"


NESTED = ("unshare --user --map-root-user --net sleep 987", {"mnt", "uts"}, {"user", "net"})


def test_a_user_namespace_that_owns_only_some_of_the_others(host):
    """mnt and uts belong to the first user namespace, net to the target's.

    Red when: namespaces.join() enters one kind after the other, "user" first.
    """
    script, outer, owned = NESTED
    with foreign(host, "unshare", "--mount", "--uts", *script.split()) as pid:
        partition(host, pid, shares=outer | owned, differs=outer | owned)
        partition(host, pid, "--share", "uts,user", shares={"uts", "user"}, differs={"uts", "user"})


def test_a_user_namespace_below_the_owner_of_the_others(host):
    """All belong to one user namespace, the target is in a second one below it."""
    script = "unshare --user --map-root-user --net --uts unshare --user --map-root-user --ipc sleep 987"
    with foreign(host, *script.split()) as pid:
        kinds = {"user", "net", "uts", "ipc"}
        partition(host, pid, shares=kinds, differs=kinds)


def test_a_pod_in_a_pod_s_pid_namespace_is_joined_from_outside(host):
    """A process two PID namespaces down is found by the caller's number of it."""
    script = "unshare --pid --fork --mount-proc unshare --pid --fork --mount-proc sleep 987"
    with foreign(host, *script.split()) as pid:
        assert len(nspid(host.host_pid(pid))) == len(nspid(host.pid)) + 2
        partition(host, pid, shares={"pid", "mnt"}, differs={"pid", "mnt"})
        assert inside(host, str(pid), SHOW) == "sleep 987"


def test_the_caller_itself_as_target_shares_everything_already(host):
    done = host.run([sys.executable, "-P", "-m", "nsbox", "join", "1", "--", "readlink", "/proc/self/ns/net"])
    assert done.stdout == f"net:[{namespaces(host, 1)['net']}]\n", done
