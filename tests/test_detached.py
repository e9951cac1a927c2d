"""Members that outlive their caller, and those that must not: logs, statuses, supervisors, zombies."""

import json
import os
import sys
from pathlib import Path

import pytest
from fakehost import NSBOX, FakeHost
from faults import kill_inside
from procfs import until
from test_lifecycle import BUSYBOX, answer, create, detach, is_gone, statuses

pytestmark = pytest.mark.slow


def supervisors(host: FakeHost) -> list[int]:
    """PIDs inside of the processes that look after detached members."""
    found = []
    for inside, outside in host.processes().items():
        try:
            comm = Path(f"/proc/{outside}/comm").read_text()
        except OSError:
            continue
        if comm == "nsbox:member\n" and Path(f"/proc/{outside}/status").read_text().count("State:\tZ") == 0:
            found.append(inside)
    return found


def zombies(host: FakeHost) -> list[str]:
    return [line for line in host.snapshot()["process"] if line.startswith("zombie")]


def ends(host: FakeHost, look: object) -> bool:
    """Whether `look` (a function of the host) has nothing to show, soon."""
    return any(not look(host) for _ in until(10))  # type: ignore[operator]


def test_a_detached_member_has_a_log_and_a_status(host: FakeHost) -> None:
    """Both outputs are kept, also after its end, and its supervisor goes.

    Red when: the supervisor does not write the status, or reads only stdout.
    """
    create(host)
    done = host.nsbox("join", "t", "-d", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    told = json.loads(done.stdout)
    assert told["pod"] == "t"
    assert answer(host, "wait", str(told["pid"])) == [{"pod": "t", "pid": told["pid"], "exit_status": 3}]
    assert ends(host, supervisors)
    assert host.nsbox("logs", "t").stdout == "out\nerr\n"
    row = answer(host, "inspect", "t")[0]["members"][0]
    assert (row["pid"], row["exit_status"]) == (told["pid"], 3)
    assert zombies(host) == []
    host.nsbox("rm", "t", check=True)


def test_a_member_killed_by_a_signal_is_128_and_that(host: FakeHost) -> None:
    """Red when: the wait status is written down instead of the shell's number."""
    create(host)
    kill_inside(host, detach(host, "echo up; exec sleep 300"))
    assert host.nsbox("wait", "t").stdout == "137\n"
    host.nsbox("rm", "t", check=True)


def test_a_command_that_cannot_be_run_leaves_no_record(host: FakeHost) -> None:
    """127, one line, and no member is listed. Red when: _forget() is left out."""
    create(host)
    done = host.nsbox("join", "t", "-d", "--", "no-such-program")
    assert (done.returncode, done.stdout) == (127, "") and len(done.stderr.splitlines()) <= 2
    assert answer(host, "inspect", "t")[0]["members"] == []
    assert ends(host, supervisors)
    host.nsbox("rm", "t", check=True)


def test_a_log_is_bounded_and_keeps_the_newest(host: FakeHost) -> None:
    """40 MiB of output leave 8 to 16 MiB, and the last line. Red when: LOG_MAX_BYTES is not looked at."""
    create(host)
    script = "dd if=/dev/zero bs=1048576 count=40 2>/dev/null; echo; echo last"
    pid = host.nsbox("join", "t", "-d", "--", "sh", "-c", script, check=True).stdout.strip()
    assert host.nsbox("wait", pid).stdout == "0\n"
    assert ends(host, supervisors)
    kept = host.run(["sh", "-c", f"cat {host.state}/pods/t/members/*.log* | wc -c"], check=True).stdout
    assert 8 << 20 <= int(kept) <= (16 << 20) + (1 << 17)
    assert host.nsbox("logs", pid, text=False).stdout.endswith(b"\0\nlast\n")
    host.nsbox("rm", "t", check=True)


def test_a_full_disk_holds_no_member_up(host: FakeHost) -> None:
    """The log loses, the member runs on to its end. Red when: ENOSPC ends the supervisor."""
    create(host)
    script = "trap : USR1; echo up; sleep 300; yes | head -c 3000000; sleep 300; exit 5"
    detach(host, script)
    fill = f"mount -o remount,size=1m {host.state}; yes > {host.state}/pods/.fill; true"
    host.run(["sh", "-c", fill], check=True)
    host.nsbox("kill", "-s", "USR1", "t", check=True)
    [supervisor] = supervisors(host)
    for _ in until(10):
        if sum(row["command"][0] == "sleep" for row in answer(host, "ps", "t")) == 1:
            break
    assert supervisor in supervisors(host)
    host.run(["sh", "-c", f"rm {host.state}/pods/.fill; mount -o remount,size=50% {host.state}"], check=True)
    host.nsbox("kill", "-s", "TERM", "t", check=True)
    assert host.nsbox("wait", "t").returncode == 0
    host.nsbox("rm", "-f", "t", check=True)


def test_a_killed_supervisor_loses_the_status_and_nothing_more(host: FakeHost) -> None:
    """The member runs on; wait says that nobody knows; rm ends it.

    Red when: wait() does not give up, or rm looks for members among the supervisor's children.
    """
    create(host)
    member = detach(host, "echo up; exec sleep 300")
    [supervisor] = supervisors(host)
    kill_inside(host, supervisor)
    assert member in host.processes()
    second = detach(host, "echo up; exec sleep 300")
    kill_inside(host, member)
    done = host.nsbox("wait", str(member), timeout=20)
    assert done.returncode == 125 and "supervisor was killed" in done.stderr
    assert answer(host, "inspect", "t")[0]["members"][0]["exit_status"] is None
    assert host.nsbox("rm", "-f", "t").returncode == 0
    assert is_gone(host, second) and ends(host, supervisors)


def test_signals_do_not_end_a_supervisor(host: FakeHost) -> None:
    """TERM, INT, HUP and QUIT would lose log and status. Red when: they are not ignored."""
    create(host)
    detach(host, "trap 'exit 4' USR1; echo up; while :; do sleep 0.1; done")
    [supervisor] = supervisors(host)
    for signum in (15, 2, 1, 3):
        kill_inside(host, supervisor, signum)
    host.nsbox("kill", "-s", "USR1", "t", check=True)
    assert host.nsbox("wait", "t").stdout == "4\n"
    host.nsbox("rm", "t", check=True)


# ---- E19: what dies with its client ----

_LOCK = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX)
os.write(1, b"locked\\n")
time.sleep(300)
"""
_FREE = """
import fcntl, os, sys, time
fd, deadline = os.open(sys.argv[1], os.O_RDWR), time.monotonic() + float(sys.argv[2])
while True:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sys.exit(0)
    except OSError:
        if time.monotonic() > deadline:
            sys.exit(1)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("words", [("run", "--name", "t"), ("join", "t"), ("join", "t", "--share", "net")], ids=str)
def test_E19_a_member_dies_with_its_client(host: FakeHost, words: tuple[str, ...]) -> None:
    """The kernel frees the member's lock (fcntl) within two seconds of the client's kill -9.

    Red when: die_with_parent() is left out of _become_member(), for run also out of _pid_one().
    """
    lock = host.work / "lock"
    lock.touch()
    if words[0] == "join":
        host.nsbox("create", "t", check=True)
    client = host.nsbox_popen(*words, "--", sys.executable, "-c", _LOCK, lock)
    assert client.stdout is not None and client.stdout.readline() == "locked\n"
    assert host.run([sys.executable, "-c", _FREE, lock, "0"]).returncode == 1
    os.kill(client.inner_pid(), 9)
    assert host.run([sys.executable, "-c", _FREE, lock, "2"]).returncode == 0
    assert statuses(host) == {"t": "dead" if words[0] == "run" else "running"}
    if words[0] == "run":
        assert answer(host, "prune") == ["t"]
    else:
        host.nsbox("rm", "t", check=True)


def test_E19_a_detached_member_outlives_its_client(host: FakeHost) -> None:
    """Its client's whole process group may be killed. Red when: the supervisor stays in the session."""
    create(host)
    script = f'{" ".join(NSBOX)} join t -d -- sleep 300; kill -9 0'
    done = host.run(["sh", "-c", script])
    member = int(done.stdout)
    assert done.returncode != 0 and len(supervisors(host)) == 1
    assert member in host.processes()
    host.nsbox("rm", "-f", "t", check=True)
    assert is_gone(host, member)


# ---- E20 ----

_CARELESS = """
import os, subprocess, sys
nsbox = sys.argv[1:]
subprocess.run([*nsbox, "create", "t", "--rootfs", "busybox"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([*nsbox, "join", "t", "-d", "--", "true"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([*nsbox, "wait", "t"], check=True, stdout=subprocess.DEVNULL)
subprocess.run([*nsbox, "rm", "-f", "t"], check=True)
print("done", flush=True)
sys.stdin.read()
"""


def test_E20_a_caller_that_never_waits_has_no_zombies(host: FakeHost) -> None:
    """Pause, supervisor and member are nobody's defunct children; who waits on has none either: see the next test."""
    import subprocess

    caller = host.popen([sys.executable, "-c", _CARELESS, *NSBOX], stdin=subprocess.PIPE)
    assert caller.stdout is not None and caller.stdout.readline() == "done\n"
    assert ends(host, zombies)
    caller.communicate(timeout=10)


def test_E20_who_waits_for_a_member_has_no_zombies(host: FakeHost) -> None:
    """Neither a client nor a supervisor keeps the process that made the member and ended.

    Red when: _learn_pid() of process.py does not wait for the middle.
    """
    import subprocess

    create(host)
    client = host.nsbox_popen("join", "t", "--", "sh", "-c", "echo up; read x", stdin=subprocess.PIPE)
    assert client.stdout is not None and client.stdout.readline() == "up\n"
    host.nsbox("join", "t", "-d", "--", "sleep", "300", check=True)
    assert ends(host, zombies), zombies(host)
    client.communicate("\n", timeout=10)
    host.nsbox("rm", "-f", "t", check=True)


def test_E20_orphans_in_a_pod_are_reaped(host: FakeHost) -> None:
    """Red when: the pause does not wait4(2)."""
    create(host)
    host.nsbox("join", "t", "--", "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.05 &); done", check=True)
    assert any([row["command"] for row in answer(host, "ps", "t")] == [["pause"]] for _ in until(10))
    assert zombies(host) == []
    host.nsbox("rm", "t", check=True)
