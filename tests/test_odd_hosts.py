"""Hosts that lack something: a /proc of their own, a system call, memory; PIDs that wrap, thousands of mounts.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import re
import time
from pathlib import Path

import pytest
from fakehost import NSBOX
from faults import strace
from inpod import detached, inside, pod, python_path

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

# Without each of these there is no pod; 424 and on are of Linux 5.1 and later.
CALLS = ("openat2", "clone3", "close_range", "pidfd_open", "mount_setattr", "fsopen", "fsconfig", "fsmount", "open_tree",
         "move_mount", "memfd_create", "execveat", "pivot_root", "setns")


def within(host, setup: str, *words: "str | Path"):
    """nsbox in a mount namespace of its own, after a line of shell."""
    return host.run(["unshare", "--mount", "sh", "-c", f'{setup}; exec "$@"', "sh", *NSBOX, *words])


@pytest.mark.parametrize("setup", ["mount -t tmpfs none /proc", "umount -l /proc"],
                         ids=["nothing", "another namespace's"])
def test_H15_where_proc_tells_of_others_nobody_is_taken_for_dead(host, setup):
    """A pod that runs would be listed as dead, and prune would forget it.

    Red when: process.open_process or stat_fields does not call require_own_proc.
    """
    with pod(host, "web") as pid:
        for words in (["ls"], ["prune"], ["rm", "--force", "web"], ["join", "web", "--", "true"], ["create", "other"], ["stop", "web"]):
            done = within(host, setup, *words)
            assert done.returncode == 125 and done.stdout == "", (words, done)
            assert done.stderr.splitlines()[0] == "nsbox: cannot tell who is who: /proc is missing, or of another PID namespace", done
            assert "mount -t proc" in done.stderr.splitlines()[1]
        assert json.loads(host.nsbox("ls", "--json").stdout)[0]["pid"] == pid
        assert inside(host, "web", "hostname") == "web"


def test_H15_a_proc_that_hides_the_processes_of_others_is_enough(user_host):
    """Nothing of the processes of others is needed; what nsbox asks when all is not well is not reached here."""
    def hidden(*words: str):
        script = 'mount -t proc -o hidepid=2 none /proc; exec setpriv --reuid "$0" --regid "$0" --clear-groups "$@"'
        return user_host.run(["unshare", "--mount", "sh", "-c", script, str(user_host.uid), *NSBOX, *words],
                             user=0, env=user_host.environment())

    with pod(user_host, "web") as pid:
        row = json.loads(hidden("ls", "--json").stdout)[0]
        assert (row["status"], row["pid"]) == ("running", pid)
        assert hidden("join", "web", "--", "hostname").stdout == "web\n"


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("call", CALLS)
def test_H16_a_call_that_is_not_there_or_forbidden_is_named_and_nothing_is_left(host, rootfs, call, error):
    """Red when: the call is made by a function that does not put its name into the error."""
    before = host.snapshot()
    status, out, err, _ = strace(host, f"inject={call}:error={error}", [*NSBOX, "create", "web", "--rootfs", str(rootfs)])
    lines = err.splitlines()
    if status == 0:  # it does without
        host.nsbox("rm", "--force", "web", check=True)
    else:
        assert (status, out) == (125, ""), (status, out, err)
        assert f" {call}: " in lines[0] and len(lines) <= 2, lines
        host.nsbox("prune", check=True)  # without pidfd_open, say, nothing could be undone
    host.assert_same_as(before)


def test_E28_a_clock_that_jumps_changes_nothing(host):
    """A process sees start times shifted by its own time namespace, which is how a clock can jump in a test.

    Red when: status() in store.py does not look at the vantage.
    """
    with pod(host, "web") as pid:
        for clock in ("--boottime", "--monotonic"):
            there = ["unshare", "--time", "--fork", clock, "86400"]
            assert json.loads(host.run([*there, *NSBOX, "ls", "--json"]).stdout)[0]["status"] == "elsewhere"
            assert host.run([*there, *NSBOX, "prune"]).returncode == 0
            assert host.run([*there, *NSBOX, "join", "web", "--", "true"]).returncode == 125
            row = json.loads(host.nsbox("ls", "--json").stdout)[0]
            assert (row["status"], row["pid"]) == ("running", pid)
        assert inside(host, "web", "echo here") == "here"


def test_J08_PIDs_may_wrap(host):
    """In the fake host's own PID namespace numbers end at 400, so that those from 300 on are given out again and again.

    Red when: a member is known by its number alone (open_process without the start time).
    """
    limit = host.run(["sh", "-c", "echo 400 > /proc/sys/kernel/pid_max && cat /proc/sys/kernel/pid_max"])
    if limit.stdout.strip() != "400" or Path("/proc/sys/kernel/pid_max").read_text().strip() == "400":
        pytest.fail("this kernel has one pid_max for all; it must be 6.14 or newer")
    host.run(["sh", "-c", "for i in $(seq 300); do (:); done"], check=True)
    with pod(host, "web", "--rootfs", "busybox"), detached(host, "web") as sleeper, pod(host, "gone", "--rootfs", "busybox") as gone:
        host.run(["kill", "-KILL", str(gone)], check=True)
        numbers = []
        for _ in range(5):
            with pod(host, "other", "--rootfs", "busybox") as pid:
                numbers.append(pid)
                host.run(["sh", "-c", "for i in $(seq 45); do (:); done"], check=True)  # on with the numbers
                assert inside(host, "other", "echo fine; exit 7", status=7) == "fine"
        assert any(later < earlier for earlier, later in zip(numbers, numbers[1:], strict=False)), numbers  # they did wrap
        # Until somebody has the dead pause's number.
        taken = host.popen(["sh", "-c", f"for i in $(seq 1000); do sleep 300 & [ $! != {gone} ] || break; kill $!; done; echo $!; wait"])
        assert int(taken.stdout.readline()) == gone
        states = {row["name"]: row["status"] for row in json.loads(host.nsbox("ls", "--json").stdout)}
        assert states == {"web": "running", "gone": "dead"}
        assert sleeper in [row["pid"] for row in json.loads(host.nsbox("ps", "--json", "web").stdout)]
        taken.end()


def test_J07_a_big_rootfs_is_not_walked(host, rootfs):
    """Counted, not timed: no directory of it is listed, whatever is in it.

    Red when: create lists the rootfs, by os.walk or shutil.disk_usage's neighbours.
    """
    (rootfs / "many").mkdir()
    for number in range(2000):
        (rootfs / f"many/{number}").touch()
    counts = []
    for _ in range(2):
        status, _, err, log = strace(host, "trace=getdents64,newfstatat,statx,openat,openat2", [*NSBOX, "create", "big", "--rootfs", str(rootfs)])
        assert status == 0, err
        assert "many" not in log, [line for line in log.splitlines() if "many" in line]
        counts.append(log.count("getdents64("))
        host.nsbox("rm", "--force", "big", check=True)
        for path in (rootfs / "many").iterdir():
            path.unlink()
    assert counts[0] == counts[1], counts


def test_J06_thousands_of_mounts_on_the_host_cost_little(host):
    """Red when: create makes a system call for each mount of the host, as by a walk over mountinfo."""
    def calls_of_create() -> tuple[int, float]:
        start = time.monotonic()
        status, _, err, log = strace(host, "trace=%file,%desc", [*NSBOX, "create", "web"])
        assert status == 0, err
        took = time.monotonic() - start
        host.nsbox("rm", "--force", "web", check=True)
        return len(log.splitlines()), took

    few, _ = calls_of_create()
    # Each binds all that is there so far: 2^12 mounts by 13 commands.
    host.run(["sh", "-c", "mkdir /run/many; mount -t tmpfs none /run/many; mount --make-private /run/many; "
              "for i in $(seq 12); do mkdir /run/many/$i; mount --rbind /run/many /run/many/$i; done"], check=True)
    assert len(host.run(["cat", "/proc/self/mountinfo"]).stdout.splitlines()) > 4000
    try:
        many, took = calls_of_create()
    finally:
        host.run(["sh", "-c", "umount -l /run/many; rmdir /run/many"], check=True)
    assert many < few * 2 + 200, (few, many)
    assert took < 20.0, took


def test_E18_a_pod_of_three_thousand_processes_ends_in_seconds(host):
    """Red when: rm ends the members one after the other and waits for each."""
    fork = ("import os, time\nfor _ in range(3000):\n    if os.fork() == 0:\n        time.sleep(1000)\n        os._exit(0)\n"
            "print('there', flush=True)\ntime.sleep(1000)")
    with pod(host, "crowd"):
        client = host.nsbox_popen("join", "crowd", "--", python_path(), "-I", "-S", "-c", fork)
        assert client.stdout.readline() == "there\n"
        start = time.monotonic()
        assert host.nsbox("rm", "--force", "crowd").returncode == 0
        took = time.monotonic() - start
        client.end()
    assert took < 10.0, took  # half a second on a machine with nothing else to do


def test_F13_a_program_as_PID_1_that_ignores_TERM_is_killed_after_the_grace(host):
    """Red when: stop waits for PID 1 without end, or does not wait at all."""
    with pod(host, "deaf", "--rootfs", "busybox", "--init", "sh -c 'trap : TERM; while :; do sleep 1; done'"):
        start = time.monotonic()
        assert host.nsbox("stop", "-t", "2", "deaf").returncode == 0
        took = time.monotonic() - start
        assert 2.0 <= took < 15.0, took
        assert json.loads(host.nsbox("ls", "--json").stdout)[0]["status"] == "dead"


NO_PROC = {"empty": "mount -t tmpfs none /proc", "not mounted": "mount --bind {work}/none /proc"}


@pytest.mark.parametrize("how", NO_PROC)
def test_without_a_proc_every_look_says_so_in_one_line(host, how):
    """Red when: own_pid in linux/procfs.py lets the bare errno out."""
    (host.work / "none").mkdir()
    blind = ["unshare", "--mount", "--propagation", "private", "sh", "-ec",
             NO_PROC[how].format(work=host.work) + '; exec "$@"', "sh", *NSBOX]
    for words in (["map"], ["map", "--html"], ["map", "--json"], ["map", "web"], ["map", "--dot"], ["ls"], ["ps", "web"],
                  ["inspect", "1"], ["why", "1", "2"], ["xlate", "pid", "1"], ["create", "web"], ["run", "--", "true"], ["prune"]):
        done = host.run([*blind, *words])
        assert (done.returncode, done.stdout) == (125, ""), (words, done)
        first, hint = done.stderr.splitlines()
        assert first == "nsbox: cannot tell who is who: /proc is missing, or of another PID namespace", words
        assert hint == "hint: mount it: mount -t proc proc /proc; with unshare(1): --mount-proc"


@pytest.mark.parametrize("how", NO_PROC)
def test_without_a_proc_the_doctor_says_so_and_looks_at_what_it_can(host, how):
    """Red when: findings in doctor/checks.py lets an error out; or the row for /proc is left out."""
    (host.work / "none").mkdir()
    blind = ["unshare", "--mount", "--propagation", "private", "sh", "-ec",
             NO_PROC[how].format(work=host.work) + '; exec "$@"', "sh", *NSBOX]
    done = host.run([*blind, "doctor", "--json"])
    assert (done.returncode, done.stderr) == (1, "")
    found = {row["key"]: row for row in json.loads(done.stdout)}
    whole = {row["key"]: row for row in json.loads(host.nsbox("doctor", "--json").stdout)}
    assert found.keys() == whole.keys() and whole["own-proc"]["status"] == "ok"
    row = found["own-proc"]
    assert (row["status"], row["seen"]) == ("missing", "cannot tell who is who: /proc is missing, or of another PID namespace")
    assert "mount -t proc proc /proc" in row["mend"]
    assert found["userns-users"]["status"] == "note" and "cannot be looked at: /proc/self/uid_map" in found["userns-users"]["seen"]
    assert {found[key]["status"] for key in ("kinds", "calls", "busybox", "packages")} == {"ok"}, found
    assert all(row["mend"].startswith("mount /proc first") for row in found.values()
               if row["status"] == "missing" and row["key"] != "own-proc")
    said = host.run([*blind, "doctor"])
    assert said.returncode == 1 and said.stderr == "" and re.search(r"^missing +/proc ", said.stdout, re.MULTILINE)


@pytest.mark.parametrize("when", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_where_no_pidfd_can_be_had_any_more_run_leaves_nothing(host, error, when):
    """Red when: end_process in pod/create.py gives up where open_process does."""
    before = host.snapshot()
    status, _, err, _ = strace(host, f"inject=pidfd_open:error={error}:when={when}+", [*NSBOX, "run", "--", "true"])
    assert status == 125 and err.startswith("nsbox: cannot "), err
    assert host.nsbox("ls", "-q", check=True).stdout == ""
    host.assert_same_as(before)
