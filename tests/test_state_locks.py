"""A state directory that somebody holds, stops in, or has made read-only; processes that are slow to go."""

import sys
import time

import pytest
from fakehost import FakeHost
from procfs import until
from test_lifecycle import BUSYBOX, answer, create, detach, is_gone, statuses
from test_state import inside

pytestmark = pytest.mark.slow

# Runs nsbox with little patience for locks.
_IMPATIENT = """
import sys
from nsbox.cli import front
from nsbox.pod import store
store.lock.__defaults__ = (0.5,)
sys.exit(front.run(sys.argv[1:]))
"""


@pytest.mark.parametrize("holder", ["holds", "is stopped"])
def test_E11_a_lock_that_somebody_holds_keeps_no_reader_waiting_and_no_writer_for_ever(host: FakeHost, holder: str) -> None:
    """A writer says who it is; other pods are not touched by it.

    Red when: store.look() takes the lock; wait_for_lock() does not look at its deadline.
    """
    create(host)
    detach(host, "echo up; sleep 300")
    script = 'exec flock -x "$1" sh -c "echo; exec sleep 300"'
    other = host.popen(["sh", "-c", script, "sh", str(host.state / "pods/t")])
    assert other.stdout is not None and other.stdout.readline() == "\n"
    if holder == "is stopped":
        inside(host, "kill -STOP $(pgrep -x flock)")
    [flock] = inside(host, "pgrep -x flock").split()
    for words in (["ls"], ["inspect", "t"], ["ps", "t"], ["logs", "t"], ["prune"]):
        begun = time.monotonic()
        assert host.nsbox(*words, timeout=20).returncode == 0, words
        assert time.monotonic() - begun < 15, words
    for words in (["rm", "-f", "t"], ["stop", "-t", "0", "t"], ["join", "t", "--", "true"]):
        done = host.run([sys.executable, "-P", "-c", _IMPATIENT, *words], timeout=25)
        assert done.returncode == 125 and len(done.stderr.splitlines()) <= 2, (words, done)
        assert done.stderr.startswith(f"nsbox: cannot lock pod 't': process {flock} holds it"), (words, done)
    create(host, "u")
    host.nsbox("rm", "-f", "u", check=True)
    inside(host, "kill -CONT $1; kill -KILL $1", flock)
    other.end()
    host.run(["pkill", "-x", "-n", "sleep"])
    assert statuses(host) == {"t": "running"}
    host.nsbox("rm", "-f", "t", check=True, timeout=25)


def test_I10_a_read_only_state_directory_can_be_looked_at(host: FakeHost) -> None:
    """What would write says why it cannot. Red when: pods_fd() makes the directory before it looks for it."""
    create(host)
    detach(host, "echo up")
    assert host.nsbox("wait", "t").stdout == "0\n"
    assert any("nsbox:member" not in inside(host, "cat /proc/[0-9]*/comm") for _ in until(10))  # nobody writes any more
    inside(host, 'mount -o remount,ro "$1"', host.state)
    try:
        assert statuses(host) == {"t": "running"}
        assert len(answer(host, "inspect", "t")) == 1 and len(answer(host, "ps", "t")) == 1
        assert host.nsbox("logs", "t").stdout == "up\n"
        assert host.nsbox("join", "t", "--", "hostname").stdout == "t\n"
        for words in (["create", "u", *BUSYBOX], ["join", "t", "-d", "--", "true"], ["rm", "-f", "t"]):
            done = host.nsbox(*words)
            assert done.returncode == 125 and "Read-only file system" in done.stderr, (words, done)
            assert len(done.stderr.splitlines()) <= 2, done
    finally:
        inside(host, 'mount -o remount,rw "$1"', host.state)
    assert host.nsbox("rm", "-f", "t").returncode == 0


# ---- E15, E17: what is slow to go ----

STOPPED = {
    "a member": ["sleep"], "its supervisor": ["nsbox:member"], "the pause": ["nsbox:pause"],
    "all": ["sleep", "nsbox:member", "nsbox:pause"],
}  # fmt: skip


@pytest.mark.parametrize("verb, stopped", [("rm -f", "a member"), ("rm -f", "its supervisor"), ("rm -t 1", "the pause"),
                                           ("rm -f", "all"), ("rm -t 1", "all"), ("stop -t 1", "all")])  # fmt: skip
def test_E15_stopped_processes_are_ended_too(host: FakeHost, verb: str, stopped: str) -> None:
    """One that shares all with the pod, and one with a PID namespace of its own.

    Red when: _kill_members() sends TERM, which a stopped process does not take; _wake_supervisors()
    does nothing: the zombie of a member keeps PID 1 from ending until somebody collects it.
    """
    pause = create(host)
    members = [detach(host, "echo up; exec sleep 300"), detach(host, "echo up; exec sleep 300", "--share", "net")]
    for name in STOPPED[stopped]:
        inside(host, 'pkill -STOP -x "$1"', name)
    assert host.nsbox(*verb.split(), "t", timeout=25).returncode == 0
    assert is_gone(host, pause, *members)
    if verb.startswith("stop"):
        assert statuses(host) == {"t": "dead"}
        host.nsbox("rm", "-f", "t", check=True)
    assert any("nsbox:member" not in inside(host, "cat /proc/[0-9]*/comm") for _ in until(10))


def test_E17_a_copy_of_the_pod_s_mounts_that_others_hold_does_not_keep_rm(host: FakeHost, rootfs) -> None:
    """Somebody entered the pod's mounts and made copies of them. He is none of the pod and lives on.

    Red when: rm unmounts what it finds at the rootfs or the volume, and fails where that is busy; or it
    takes whoever has that root for a member.
    """
    source = host.work / "volume"
    source.mkdir()
    words = ["--rootfs", str(rootfs), "--in-place", "-v", f"{source}:/new/volume"]
    pause = int(host.nsbox("create", "t", *words, check=True).stdout)
    copier = host.popen(["nsenter", "-t", str(pause), "-m", "/bin/busybox", "unshare", "-m", "/bin/busybox", "sh", "-c",
                         "cd /new/volume; echo; exec sleep 300"])  # fmt: skip
    assert copier.stdout is not None and copier.stdout.readline() == "\n"
    assert host.nsbox("rm", "-f", "t", timeout=25).returncode == 0
    assert statuses(host) == {} and is_gone(host, pause)
    assert copier.poll() is None
    host.nsbox("create", "t", *words, check=True)  # the same places again, at once
    host.nsbox("rm", "-f", "t", check=True)
    copier.terminate()
    copier.end()
