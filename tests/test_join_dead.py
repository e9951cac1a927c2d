"""Joining what has ended: a dead pod, one that dies meanwhile, a PID that is another's now (A13, A14).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
import re
from pathlib import Path

import pytest
from fakehost import NSBOX
from faults import kill_inside, recycle_pid
from procfs import comm, until

pytestmark = pytest.mark.needs_root

RACES = 12
DEAD = re.compile(r"nsbox: cannot [^\n]*(is dead|has ended|find (pod|process))[^\n]*\n(hint: [^\n]*\n)?")


def create(host, *options):
    """A pod "web"; the PID of its PID 1 in the fake host."""
    return int(host.nsbox("create", "web", *options, check=True).stdout)


def assert_refused(done):
    """One clear line, 125, and no word of the ENOMEM that the kernel says."""
    assert done.returncode == 125 and done.stdout == "", done
    assert DEAD.fullmatch(done.stderr), done.stderr
    assert "memory" not in done.stderr


def status_of(host, name="web"):
    [row] = [row for row in json.loads(host.nsbox("ls", "--json", check=True).stdout) if row["name"] == name]
    return row["status"]


@pytest.fixture
def remove(host):
    """At the end the pod "web" is removed."""
    yield
    host.nsbox("rm", "--force", "web")


# ---- A13: PID 1 has ended ----

@pytest.mark.rootless_too
@pytest.mark.parametrize("how", [[], ["--rootfs", "busybox"], ["-d"], ["--share", "net,ipc"]], ids=str)
def test_A13_to_join_a_dead_pod_is_refused_with_a_clear_line(host, how):
    """Red when: target._of_pod lets ProcessLookupError out."""
    pid = create(host, "--rootfs", "busybox")
    kill_inside(host, pid)
    try:
        done = host.nsbox("join", "web", *how, "--", "true")
        assert_refused(done)
        assert "cannot use pod 'web': it is dead, its PID 1 has ended" in done.stderr
        assert_refused(host.nsbox("join", str(pid), *how, "--", "true"))
        assert status_of(host) == "dead"
    finally:
        host.nsbox("rm", "web", check=True)


# Where the join stands when PID 1 is killed. The first process of strace to reach the call is held
# there: in the second window setns has succeeded, and the launcher's clone will say ENOMEM.
WINDOWS = {
    "before setns": "inject=setns:delay_enter=1500000:when=1",
    "between setns and clone": "inject=execveat:delay_enter=1500000:when=1",
    "before the root is changed": "inject=setsid:delay_enter=1500000:when=1",
    "before execve": "inject=prctl:delay_enter=1500000:when=1",
}
STRACE = ["strace", "-f", "-qq", "-o", "/dev/null", "-e"]


@pytest.mark.parametrize("window", WINDOWS)
def test_A13_a_pod_that_dies_in_the_midst_of_a_join(host, window):
    """Red when: member._spawn does not turn ENOMEM into "dead" (the second window), and when
    spawn_in's child that was killed is reported as such (the last two)."""
    pid = create(host, "--rootfs", "busybox")
    argv = [*STRACE, WINDOWS[window], *NSBOX, "join", "web", "--", "echo", "ran"]
    joining = host.popen(argv)
    try:
        for _ in until(20):
            if held_in(host, WINDOWS[window].split(":")[0].removeprefix("inject=")):
                break
        kill_inside(host, pid)
        out, err = joining.communicate(timeout=30)
        err = re.sub("strace: .*\n", "", err)  # it wonders at a process that is killed while held
        assert joining.returncode == 125 and out == "", (joining.returncode, out, err)
        assert DEAD.fullmatch(err), err
        assert status_of(host) == "dead"
    finally:
        joining.end()
        host.nsbox("rm", "--force", "web", check=True)


def test_A13_a_member_that_is_killed_before_it_was_told_to_go(host):
    """Red when: spawn.spawn_in lets BrokenPipeError out, which the command takes for a lost reader."""
    done = host.python(
        "import os\nfrom nsbox.errors import NsboxError\nfrom nsbox.linux import spawn\n"
        "def kill(pid):\n    os.kill(pid, 9)\n    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)\n"
        "try:\n    spawn.spawn_in(0, lambda: None, doing='try it', before_go=kill)\n"
        "except NsboxError as err:\n    print(err)\n")
    assert done.stdout == "cannot try it: the new process was killed while it was set up\n", done.stderr


# On x86_64 and on aarch64.
NUMBERS = {"setns": (308, 268), "execveat": (322, 281), "setsid": (112, 157), "prctl": (157, 167)}


def held_in(host, call):
    """Whether strace holds a process of the fake host at this call. See proc_pid_syscall(5)."""
    for real in host.processes().values():
        try:
            words = Path(f"/proc/{real}/syscall").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if words and words[0] == str(NUMBERS[call][os.uname().machine == "aarch64"]):
            return True
    return False


def test_A13_PID_1_killed_while_others_join(host, remove):
    """A race: each join either runs, or is killed with the pod, or is refused. Red when: spawn_in lets
    BrokenPipeError out, or _spawn lets ENOMEM pass; not in every run, so see the tests above."""
    seen = set()
    for race in range(RACES):
        host.nsbox("rm", "--force", "web")
        pid = create(host)
        joins = [host.nsbox_popen("join", "web", "--", "echo", "ran") for _ in range(3)]
        # The first one's progress sets the moment: some ms later each time.
        for _ in until(0.04 + 0.012 * race, pause=0.002):
            pass
        if race == RACES - 1:
            joins[0].wait(timeout=30)
        host.run(["kill", "-9", str(pid)], check=True)
        for join in joins:
            out, err = join.communicate(timeout=30)
            seen.add(join.returncode)
            if join.returncode == 125:
                assert DEAD.fullmatch(err) and out == "", err
            else:
                assert (join.returncode, err) in ((0, ""), (137, "")), (join.returncode, err)
    assert 125 in seen and seen & {0, 137}, seen


# ---- A14: the number is another's now ----

@pytest.fixture
def decoy(host):
    """Call it with a PID of the fake host: from then on that is a process of somebody else."""
    made = []

    def recycle(pid):
        recycle_pid(host, pid)
        made.append(pid)
        return host.host_pid(pid)
    yield recycle
    for pid in made:
        kill_inside(host, pid)


def is_sleeping(real_pid):
    return Path(f"/proc/{real_pid}/cmdline").read_bytes() == b"sleep\x00300\x00"


@pytest.mark.parametrize("verb", [
    ["stop", "web"], ["rm", "web"], ["rm", "--force", "web"], ["kill", "web"], ["prune"],
    ["kill", "PID"], ["wait", "web"]], ids=" ".join)
def test_A14_whoever_has_the_pauses_number_now_is_left_alone(host, decoy, verb):
    """Red when: process.open_process does not compare the start time."""
    pid = create(host)
    real = decoy(pid)
    try:
        assert status_of(host) == "dead"
        host.nsbox(*(word.replace("PID", str(pid)) for word in verb))
        assert is_sleeping(real)
    finally:
        host.nsbox("rm", "--force", "web")
    assert is_sleeping(real)


def test_A14_nobody_joins_the_one_who_has_the_number_now(host, decoy):
    """Red when: process.open_process does not compare the start time (the name), or target._of_pid
    does not ask whether a dead pod had the number (the PID)."""
    pid = create(host)
    decoy(pid)
    try:
        assert_refused(host.nsbox("join", "web", "--", "echo", "ran"))
        assert_refused(host.nsbox("join", "web", "-d", "--", "echo", "ran"))
        assert_refused(host.nsbox("join", str(pid), "--", "echo", "ran"))
        assert host.nsbox("ps", "web").returncode == 125
    finally:
        host.nsbox("rm", "--force", "web", check=True)
    # With the pod's record the claim to the number is gone: it is a process like any other.
    assert host.nsbox("join", str(pid), "--", "echo", "ran", check=True).stdout == "ran\n"


@pytest.mark.parametrize("verb", [["stop", "web"], ["rm", "web"], ["kill", "web"], ["wait", "web"]], ids=" ".join)
def test_A14_whoever_has_a_members_number_now_is_left_alone(host, decoy, verb):
    """Red when: process.open_process does not compare the start time."""
    create(host)
    # Outside the pod's PID namespace, so that the number is one that others can get.
    member = int(host.nsbox("join", "web", "-d", "--share", "net", "--", "sleep", "1000", check=True).stdout)
    [supervisor] = [pid for pid, real in host.processes().items()
                    if comm(real) == "nsbox:member"]
    kill_inside(host, supervisor)  # or it would write down how the member ended
    real = decoy(member)
    try:
        host.nsbox(*verb)
        assert is_sleeping(real)
    finally:
        host.nsbox("rm", "--force", "web", check=True)
    assert is_sleeping(real)


def test_A14_the_number_of_a_pod_of_the_time_before_the_boot_means_nothing(host, decoy):
    """Red when: target._pod_of_pause does not compare the boot id."""
    pid = create(host)
    decoy(pid)
    try:
        code = ("from nsbox.linux import process\nfrom nsbox.pod import target\n"
                "process.boot_id = lambda: '00000000-0000-0000-0000-000000000000'\n"
                f"print(target.find('{pid}').label)\n")
        done = host.python(code)
        assert done.stdout == f"process {pid}\n", done.stderr
    finally:
        host.nsbox("rm", "--force", "web", check=True)
