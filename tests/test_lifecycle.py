"""The life of a pod: made at once or not at all, stopped with patience, removed, pruned, rebooted."""

import json
import re
from typing import Any

import pytest
from fakehost import NSBOX, FakeHost
from faults import fake_reboot, kill_inside, recycle_pid
from procfs import Stopwatch, until

pytestmark = pytest.mark.slow
BUSYBOX = ("--rootfs", "busybox")
PATIENT = "trap 'echo got TERM' TERM; echo up; while :; do sleep 0.1; done"
OBEDIENT = "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.1; done"


def answer(host: FakeHost, *words: str) -> Any:
    """What a command answers in JSON."""
    done = host.nsbox(*words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def statuses(host: FakeHost) -> dict[str, str]:
    return {pod["name"]: pod["status"] for pod in answer(host, "ls")}


def create(host: FakeHost, name: str = "t", *words: str) -> int:
    pid: int = json.loads(host.nsbox("create", name, *BUSYBOX, *words, "--json", check=True).stdout)["pid"]
    return pid


def detach(host: FakeHost, script: str, *words: str, name: str = "t") -> int:
    """Start a detached shell; return its PID once it has said "up"."""
    done = host.nsbox("join", name, "-d", *words, "--", "sh", "-c", script, check=True)
    for _ in until(10):
        if "up" in host.nsbox("logs", done.stdout.strip()).stdout:
            return int(done.stdout)
    raise AssertionError("the member does not say that it is up")


def is_gone(host: FakeHost, *pids: int) -> bool:
    return any(not set(pids) & set(host.processes()) for _ in until(10))


# ---- made at once or not at all ----

_STORM = """
import os, sys, json
from nsbox.cli import front, create
from nsbox.pod import create as _, lifecycle
go_r, go_w = os.pipe()
answers = []
for number in range(50):
    answer_r, answer_w = os.pipe()
    if os.fork() == 0:
        os.close(go_w); os.close(answer_r)
        os.read(go_r, 1)
        sys.stdout = os.fdopen(answer_w, "w")
        sys.stderr = sys.stdout
        status = front.run(["create", "t", "--rootfs", "busybox"])
        print(status, flush=True)
        os._exit(0)
    os.close(answer_w)
    answers.append(answer_r)
os.close(go_w)
print(json.dumps([open(fd).read().splitlines() for fd in answers]))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""


def test_E09_fifty_creates_of_one_name(host: FakeHost) -> None:
    """One wins, the others say that the name is taken, and the winner's pod works.

    Red when: a loser's rollback removes the name (reserve() inside the try that undoes).
    """
    for _ in range(3):
        said = json.loads(host.python(_STORM, check=True).stdout)
        won = [lines for lines in said if lines[-1] == "0"]
        lost = [lines for lines in said if lines[-1] == "125" and "the name is taken" in lines[0]]
        assert (len(won), len(lost)) == (1, 49), said
        assert statuses(host) == {"t": "running"}
        assert answer(host, "ls")[0]["pid"] == int(won[0][0])
        assert host.nsbox("join", "t", "--", "hostname").stdout == "t\n"
        host.nsbox("rm", "-f", "t", check=True)


def test_E12_no_lock_is_left_to_anybody(host: FakeHost) -> None:
    """Neither the pause nor a member nor its supervisor holds a lock of the state directory.

    Red when: the pause is not exec'd, or the supervisor keeps the pod's directory open.
    """
    create(host)
    detach(host, "echo up; sleep 300")
    assert "FLOCK" not in host.run(["cat", "/proc/locks"], check=True).stdout
    assert host.nsbox("create", "u", timeout=10).returncode == 0
    host.nsbox("rm", "-f", "t", "u", check=True, timeout=10)


@pytest.mark.parametrize("script", [
    "x=$(nsbox create t --rootfs busybox); echo $x",
    "nsbox create t --rootfs busybox | cat",
    "nsbox create t --rootfs busybox >/dev/null; x=$(nsbox join t -d -- sleep 300 2>&1); echo $x",
    "nsbox create t --rootfs busybox --pause python | cat",
], ids=["substitution", "pipe", "detached", "python"])  # fmt: skip
def test_E13_the_caller_does_not_wait_for_the_pod(host: FakeHost, script: str) -> None:
    """Nobody who stays keeps the caller's stdout open.

    Red when: the pause or the supervisor keeps descriptor 1.
    """
    nsbox = " ".join(NSBOX)
    done = host.run(["timeout", "10", "sh", "-c", f'nsbox() {{ {nsbox} "$@"; }}; {script}'])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()
    host.nsbox("rm", "-f", "t", check=True)


def test_E23_a_pod_is_ready_when_create_returns(host: FakeHost) -> None:
    """Hostname, loopback and mounts are there at the first look.

    Red when: create() returns before the report pipe has ended.
    """
    probe = "hostname; ip -o link show lo; cat /proc/1/comm; ls -d /dev/null"
    for _ in range(5):
        create(host, "t", "--hostname", "ready")
        said = host.nsbox("join", "t", "--", "sh", "-c", probe, check=True).stdout.splitlines()
        assert said[0] == "ready" and "LOWER_UP" in said[1] and said[2:] == ["nsbox:pause", "/dev/null"], said
        host.nsbox("rm", "-f", "t", check=True)


@pytest.mark.parametrize("kind", ["mnt", "pid", "net", "uts", "ipc"])
def test_E24_the_message_names_the_limit_that_is_reached(host: FakeHost, kind: str) -> None:
    """A limit of this user namespace stands at 0: the message names it and its value.

    Red when: the hint of (clone3, ENOSPC) is dropped.
    """
    limit = f"max_{kind}_namespaces"
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    done = host.run(["unshare", "-U", "-r", "sh", "-c", script, "sh", *NSBOX, "create", "t"])
    assert done.returncode == 125, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and "No space left on device" in lines[0], lines
    assert f"{limit} = 0" in lines[1], lines
    assert statuses(host) == {}


# ---- stop, kill, rm, wait ----

def test_stop_is_TERM_then_grace_then_KILL_and_keeps_the_record(host: FakeHost) -> None:
    """A member that obeys ends by itself, one that does not is killed after the grace.

    Red when: stop kills at once, ends the pause first, or forgets the record.
    """
    pause = create(host)
    obedient, patient = detach(host, OBEDIENT), detach(host, PATIENT)
    watch = Stopwatch()
    assert host.nsbox("stop", "t", "-t", "1").returncode == 0
    assert 1 <= watch.s() and watch.quiet_s() < 8
    assert is_gone(host, pause, obedient, patient)
    assert statuses(host) == {"t": "dead"}
    assert host.nsbox("wait", "t").stdout.split() == ["7", "137"]
    assert [row["exit_status"] for row in answer(host, "wait", "t")] == [7, 137]
    # their children, too, got the signal, of which the shells say "Terminated"
    assert host.nsbox("logs", str(obedient)).stdout.splitlines()[-1] == "bye"
    assert host.nsbox("logs", str(patient)).stdout.splitlines()[-1] == "got TERM"
    assert host.nsbox("stop", "t").returncode == 0, "to stop what is stopped is no error"
    assert answer(host, "inspect", "t")[0]["status"] == "dead"
    host.nsbox("rm", "t", check=True)


def test_stop_uses_the_pods_own_grace(host: FakeHost) -> None:
    """Without --time the pod's --stop-timeout counts. Red when: _grace() passes it over."""
    create(host, "t", "--stop-timeout", "0")
    patient = detach(host, PATIENT)
    watch = Stopwatch()
    host.nsbox("stop", "t", check=True)
    assert watch.quiet_s() < 5
    assert "got TERM" not in host.nsbox("logs", str(patient)).stdout
    host.nsbox("rm", "t", check=True)


@pytest.mark.parametrize("verb", [("stop", "t", "-t", "0"), ("rm", "-f", "t"), ("rm", "t", "-t", "0")])
def test_members_with_a_pid_namespace_of_their_own_end_too(host: FakeHost, verb: tuple[str, ...]) -> None:
    """They do not die with its PID 1. Red when: _hold_members() looks at that namespace alone."""
    pause = create(host)
    alone = detach(host, "echo up; sleep 300", "--share", "net,uts,ipc,mnt")
    client = host.nsbox_popen("join", "t", "--share", "net", "--", "sh", "-c", "echo up; exec sleep 300")
    assert client.stdout is not None and client.stdout.readline() == "up\n"
    assert host.nsbox(*verb).returncode == 0
    assert is_gone(host, pause, alone) and client.wait(10) == 137
    host.nsbox("rm", "-f", "t", check=True)


def test_rm_ends_the_members_of_a_pod_whose_PID_1_was_killed(host: FakeHost) -> None:
    """Those that do not share its PID namespace still run then. Red when: end() returns at once."""
    pause = create(host)
    alone = detach(host, "echo up; sleep 300", "--share", "net")
    kill_inside(host, pause)
    assert alone in host.processes()
    assert host.nsbox("rm", "t").returncode == 0
    assert is_gone(host, alone)


def test_kill_reaches_members_and_not_the_pause(host: FakeHost) -> None:
    """Red when: kill() signals the pod's PID 1, or only the first member."""
    create(host)
    first, second = detach(host, OBEDIENT), detach(host, OBEDIENT)
    assert host.nsbox("kill", "-s", "TERM", "t").returncode == 0
    assert host.nsbox("wait", "t").stdout.split() == ["7", "7"]
    assert is_gone(host, first, second)
    assert statuses(host) == {"t": "running"}
    done = host.nsbox("kill", "t")
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 1
    assert statuses(host) == {"t": "running"}
    host.nsbox("rm", "t", check=True)


def test_E14_rm_of_what_is_not_there(host: FakeHost) -> None:
    """With --force no error, without one; and the others that are named are removed all the same.

    Red when: rm ends at the first that is missing.
    """
    assert host.nsbox("rm", "-f", "none").returncode == 0
    create(host)
    done = host.nsbox("rm", "none", "t")
    assert done.returncode == 125 and "cannot find pod 'none'" in done.stderr
    assert statuses(host) == {}
    assert host.nsbox("stop", "none").returncode == 125


# ---- death and reboot ----

def test_E05_a_killed_pause_is_a_dead_pod(host: FakeHost) -> None:
    """Every verb says so plainly, and rm cleans up. Red when: a verb trusts the record."""
    pause = create(host)
    member = detach(host, "echo up; sleep 300")
    kill_inside(host, pause)
    assert statuses(host) == {"t": "dead"}
    assert is_gone(host, member)
    for words in (("join", "t", "--", "true"), ("ps", "t"), ("kill", "t"), ("join", "t", "-d", "--", "true")):
        done = host.nsbox(*words)
        assert done.returncode == 125 and re.match("nsbox: cannot .*'t'", done.stderr), (words, done)
        assert "Cannot allocate" not in done.stderr
    about = answer(host, "inspect", "t")[0]
    assert about["status"] == "dead" and about["pid"] is None
    assert host.nsbox("wait", "t").stdout.split() == ["137"]
    assert host.nsbox("logs", "t").stdout == "up\n"
    assert host.nsbox("rm", "t").returncode == 0


def test_E06_after_a_reboot_all_pods_are_dead_and_nobody_is_signalled(host: FakeHost) -> None:
    """The process that has the recorded PID in the new boot survives.

    Red when: the boot id is left out of the identity, and the start time too.
    """
    pause = create(host)
    member = detach(host, "echo up; sleep 300")
    before = host.snapshot()
    with fake_reboot(host):
        for pid in (pause, member):
            recycle_pid(host, pid)
        assert statuses(host) == {"t": "dead"}
        assert host.nsbox("join", "t", "--", "true").returncode == 125
        assert host.nsbox("stop", "t").returncode == 0
        assert answer(host, "prune") == ["t"]
        assert {pause, member} <= set(host.processes())
        host.run(["kill", "-9", str(pause), str(member)])
    assert before["state"]


# ---- prune ----

def test_prune_removes_the_dead_and_nothing_else(host: FakeHost) -> None:
    """Running pods, corrupt records, what others put there and what is being made all stay.

    Red when: prune goes by "not running".
    """
    pods = host.state / "pods"
    create(host, "live")
    kill_inside(host, create(host, "dead"))
    create(host, "stopped")
    host.nsbox("stop", "stopped", "-t", "0", check=True)
    script = f"""cd {pods} && mkdir corrupt Foreign empty .other && echo '{{' > corrupt/pod.json && echo x > note &&
        echo precious > Foreign/file && mkdir -m 700 .new-0123456789abcdef .gone-0123456789abcdef"""
    host.run(["sh", "-c", script], check=True)
    holder = host.popen(["flock", str(pods / ".new-0123456789abcdef"), "sh", "-c", "echo; exec sleep 300"])
    assert holder.stdout is not None and holder.stdout.readline() == "\n"
    assert sorted(answer(host, "prune")) == ["dead", "stopped"]
    left = host.run(["ls", "-A", str(pods)], check=True).stdout.split()
    assert left == [".new-0123456789abcdef", ".other", "Foreign", "corrupt", "empty", "live", "note"]
    assert host.run(["cat", str(pods / "Foreign/file")]).stdout == "precious\n"
    holder.end()
    assert answer(host, "prune") == []
    assert statuses(host) == {"live": "running", **dict.fromkeys(("Foreign", "corrupt", "empty", "note"), "corrupt")}
    host.run(["sh", "-c", f"cd {pods} && rm -r .other Foreign"], check=True)
    host.nsbox("rm", "-f", "live", "corrupt", "empty", "note", check=True)
