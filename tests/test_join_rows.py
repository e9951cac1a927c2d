"""Joining, seen as system calls, without rights, again and again, and beside an rm (rows A15, A18, A20, A23).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import os
import re
import signal

import pytest
from fakehost import NSBOX
from faultpoints import EVERY
from faults import strace
from inpod import detached, pod, refused
from procfs import until

pytestmark = pytest.mark.needs_root

WAYS = {
    "in all": [], "some": ["--share", "net,uts"], "its own root": ["--rootfs", "busybox"], "another user": ["-u", "7"],
    "detached": ["-d"],
}  # fmt: skip


# ---- A15: one call ----

@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_A15_all_namespaces_of_one_process_are_joined_by_one_call(host, way):
    """By its pidfd. Red when: namespaces.join makes a call for each kind, or by the files of /proc/PID/ns."""
    with pod(host, "web", "--rootfs", "busybox") as pause:
        status, _, err, log = strace(host, "trace=setns,pidfd_open", [*NSBOX, "join", "web", *way, "--", "/bin/true"])
        assert status == 0, err
        pidfds = set(re.findall(rf"pidfd_open\({pause}, 0\)\s+= (\d+)", log))
        calls = re.findall(r"setns\((\d+), ([A-Z_|]+)\)\s+= 0", log)
        assert calls and {fd for fd, _ in calls} <= pidfds, log
        # A child of its own looks for the pod's /dev/shm by one more, of the mounts alone.
        joined = [flags for _, flags in calls if flags != "CLONE_NEWNS" or "--rootfs" not in way]
        assert len(joined) == 1, log
        wanted = {"some": {"NEWNET", "NEWUTS", "NEWNS"}, "its own root": {"NEWNET", "NEWUTS", "NEWIPC", "NEWPID"}}
        kinds = {flag.removeprefix("CLONE_") for flag in joined[0].split("|")}
        name = next(name for name in WAYS if WAYS[name] == way)
        assert kinds == wanted.get(name, {"NEWNET", "NEWUTS", "NEWIPC", "NEWPID", "NEWNS"}), log


def test_A15_where_the_kernel_refuses_nothing_else_is_tried(host):
    """Red when: namespaces.join goes on by the files of /proc/PID/ns."""
    with pod(host, "web", "--rootfs", "busybox"):
        for error in ("EINVAL", "EPERM", "ENOSYS"):
            status, out, err, log = strace(host, f"inject=setns:error={error}", [*NSBOX, "join", "web", "--", "/bin/echo", "ran"])
            assert (status, out) == (125, "") and err.startswith("nsbox: cannot join pod 'web': setns: "), err
            assert len(re.findall(r"setns\(", log)) == 1, log


# ---- A18: rights that are missing ----

LESS = ["setpriv", "--bounding-set=-net_raw,-sys_ptrace", "--inh-caps=-net_raw,-sys_ptrace"]


def test_A18_a_capability_that_the_caller_lacks_is_named(host):
    """Red when: target._of_pid says that the process belongs to somebody else."""
    stranger = host.popen(["unshare", "--uts", "sh", "-c", "echo up; exec sleep 1000"])
    assert stranger.stdout.readline() == "up\n"
    [pid] = set(host.processes()) - {1}
    done = host.run([*LESS, *NSBOX, "join", str(pid), "--", "true"])
    assert (done.returncode, done.stdout) == (125, ""), done
    assert re.fullmatch(
        rf"nsbox: cannot look at process {pid}: .*Permission denied\nhint: it has capabilities that you lack: "
        r"NET_RAW SYS_PTRACE; SYS_PTRACE stands for all\n", done.stderr), done.stderr
    stranger.kill()
    stranger.communicate()
    with pod(host, "web", "--rootfs", "busybox"):  # whose pause has no capability that somebody could lack
        assert host.run([*LESS, *NSBOX, "join", "web", "--", "true"]).returncode == 0


# ---- A20: nothing is left ----

@pytest.mark.slow
def test_A20_a_join_leaves_nothing_whether_it_works_or_fails(host):
    """Red when: supervise._supervise leaves the record of a command that cannot be run; a killed client's
    member lives on (no die_with_parent)."""
    with pod(host, "web", "--rootfs", "busybox"):
        host.nsbox("join", "web", "--", "true", check=True)
        before = host.snapshot()
        for _ in range(100 if EVERY else 15):
            assert host.nsbox("join", "web", "--", "true").returncode == 0
            assert host.nsbox("join", "web", "--", "/no/such").returncode == 127
            assert host.nsbox("join", "web", "-d", "--", "/etc/passwd").returncode == 126
            assert host.nsbox("join", "web", "--rootfs", "busybox", "-u", "none", "--", "true").returncode == 125
        for number in range(20):
            client = host.nsbox_popen("join", "web", "--", "sh", "-c", "echo up; exec sleep 1000")
            if number % 2:
                assert client.stdout.readline() == "up\n"
            client.kill()
            client.communicate(timeout=20)
        host.assert_same_as(before, within=20)


# ---- A23: beside an rm ----

GONE = ("nsbox: cannot find pod 'web'", "nsbox: cannot use pod 'web': it is dead, its PID 1 has ended")
# Joins again and again until there is no pod; says how often that worked, and what was said at last.
_JOINER = 'n=0; while "$@" >out.$$ 2>err.$$; s=$?; [ $s = 0 ]; do n=$((n+1)); done; echo $s $n; cat out.$$ err.$$; rm out.$$ err.$$'


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_A23_a_join_beside_an_rm_runs_whole_or_is_refused(host):
    """Red when: member.start takes no lock of the pod, and _spawn says what the kernel says of one that ended."""
    worked = 0
    for _ in range(50 if EVERY else 8):
        host.nsbox("create", "web", "--rootfs", "busybox", check=True)
        joiners = [host.popen(["sh", "-c", _JOINER, "sh", *NSBOX, "join", "web", *way, "--", "/bin/echo", "ran"], cwd=host.work)
                   for way in ([], ["--rootfs", "busybox"], ["--share", "net"])]  # fmt: skip
        for _ in until(0.4):
            pass
        assert host.nsbox("rm", "--force", "web").returncode == 0
        for joiner in joiners:
            head, *said = joiner.communicate(timeout=60)[0].splitlines()
            status, times = map(int, head.split())
            worked += times
            if status == 128 + signal.SIGKILL:  # it ran when the pod ended
                assert said in ([], ["ran"])
            else:
                assert status == 125 and 1 <= len(said) <= 2, (status, said)
                assert said[0] in GONE, said
        assert os.listdir(host.work) == []
    assert worked > 0
