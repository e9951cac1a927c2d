"""The fake host itself: it must contain what a test does, and see what a test leaves behind."""

import os
import signal

import faults
import hostile
import pytest
from fakehost import UID, FakeHost
from procfs import until

pytestmark = pytest.mark.needs_root


@pytest.fixture
def plain(base):
    """A fake host in which things may be left behind."""
    with FakeHost(base) as host:
        yield host


@pytest.mark.parametrize("script, kind", [
    ("sleep 300 <&- >&- 2>&- &", "process"),
    ("mount -t tmpfs left /mnt", "mount"),
    ("ip link add left type veth peer name right", "network"),
    ("echo left > $NSBOX_STATE/left", "state"),
    ("echo left > /run/left", "run"),
    ("unshare --uts sleep 300 <&- >&- 2>&- &", "namespace"),
    ("ipcmk -Q", "ipc"),
    ("hostname left", "sysctl"),
])
def test_a_snapshot_shows_what_was_left_behind(plain, script, kind):
    before = plain.snapshot()
    plain.run(["sh", "-c", script], check=True)
    with pytest.raises(AssertionError, match=rf"{kind}: \+ .*"):
        plain.assert_same_as(before, within=0.5)


def test_a_snapshot_of_an_idle_host_does_not_change(bare_host):
    for _ in range(3):
        bare_host.run(["true"], check=True)


def test_nothing_of_a_fake_host_reaches_the_machine(plain):
    plain.run(["sh", "-c", "mount -t tmpfs inside /mnt; hostname inside; ip link add inside type dummy"])
    with open("/proc/self/mountinfo") as mounts:
        assert " - tmpfs inside " not in mounts.read()
    assert os.uname().nodename != "inside"
    assert "inside" not in os.listdir("/sys/class/net")


def test_the_mount_table_of_a_fake_host_is_shared_like_that_of_a_systemd_machine(plain):
    root = plain.run(["findmnt", "-no", "PROPAGATION", "/"], check=True).stdout
    assert root.strip() == "shared"


def test_a_closed_host_leaves_no_process(base):
    with FakeHost(base) as host:
        host.run(["sh", "-c", "setsid sleep 300 <&- >&- 2>&- &"], check=True)
        pids = list(host.processes().values())
        assert len(pids) == 2
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_command_that_is_stopped_does_not_keep_a_closed_host(base):
    """nsenter stops with its child. Red when: close waits for the host before it ends the commands."""
    host = FakeHost(base)
    command = host.popen(["sh", "-c", "kill -STOP $$"])
    assert any(state(command.pid) == "T" for _ in until(10.0))
    unshare = host._unshare
    host.close()
    assert unshare.poll() is not None and command.poll() is not None


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def test_a_command_that_does_not_end_fails_and_is_ended(plain):
    before = plain.snapshot()
    with pytest.raises(AssertionError, match="still running after"):
        plain.run(["sh", "-c", "sleep 300 & wait"], timeout=0.5)
    plain.assert_same_as(before)


def test_signals_reach_the_command_itself(plain):
    command = plain.popen(["sh", "-c", "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.05; done"])
    assert command.stdout.readline() == "ready\n"
    command.send_signal(signal.SIGUSR1)
    assert command.communicate(timeout=10) == ("got\n", "")
    assert command.returncode == 7


def test_bytes_and_exit_statuses_come_through(plain):
    done = plain.run(["sh", "-c", "cat; exit 42"], input=bytes(range(256)), text=False)
    assert (done.returncode, done.stdout) == (42, bytes(range(256)))


def test_the_ordinary_user_has_no_privilege_and_python_works(base):
    with FakeHost(base, uid=UID) as host:
        done = host.python("import os, nsbox.errors; print(os.getuid(), os.getgroups(), os.environ['XDG_RUNTIME_DIR'])")
        assert done.stdout.startswith(f"{UID} [] {host.scratch}/run"), done.stderr
        caps = host.run(["grep", "CapEff", "/proc/self/status"], check=True).stdout
        assert int(caps.split()[1], 16) == 0


def test_a_recycled_pid_is_another_process(plain):
    plain.run(["sh", "-c", "setsid sleep 299 <&- >&- 2>&- &"], check=True)
    [victim] = set(plain.processes()) - {1}
    old = plain.host_pid(victim)
    assert faults.recycle_pid(plain, victim) == victim
    assert plain.host_pid(victim) != old
    assert plain.run(["cat", f"/proc/{victim}/cmdline"]).stdout == "sleep\x00300\x00"


def test_after_a_fake_reboot_the_boot_id_is_another_and_nobody_is_left(plain):
    def boot_id():
        return plain.run(["cat", "/proc/sys/kernel/random/boot_id"], check=True).stdout

    plain.run(["sh", "-c", "setsid sleep 300 <&- >&- 2>&- &"], check=True)
    before = boot_id()
    with faults.fake_reboot(plain):
        assert boot_id() != before
        assert set(plain.processes()) == {1}
    assert boot_id() == before


def test_a_fault_is_injected_at_each_call_in_turn(plain):
    argv = ["sh", "-c", "mkdir $NSBOX_STATE/a && mkdir $NSBOX_STATE/b && echo done"]
    runs = list(faults.each_fault(
        plain, "mkdir", ["error=ENOSPC"], lambda n: ["python3", "-I", "-S", "-c",
        f"import os; os.mkdir({str(plain.state / 'a')!r}); os.mkdir({str(plain.state / 'b')!r})"],
        undo=lambda: plain.run(["sh", "-c", "rm -rf $NSBOX_STATE/*"])))
    assert [(run.when, run.exit_status) for run in runs] == [(1, 1), (2, 1)]
    assert "No space left" in runs[0].stderr
    assert plain.run(argv).stdout == "done\n"


def test_strace_lets_go_of_what_goes_on_running(plain):
    status, out, _, _ = faults.strace(plain, "trace=clone", ["sh", "-c", "sleep 300 & echo started"])
    assert (status, out) == (0, "started\n")
    assert len(plain.processes()) == 2


def test_the_canary_notices_a_touch(plain):
    watched = hostile.Canary.watched(plain)
    next(watched)
    plain.run(["sh", "-c", "echo touched >> /canary/marker"], check=True)
    with pytest.raises(AssertionError, match="marker"):
        next(watched)


@pytest.mark.parametrize("feature", hostile.FEATURES)
def test_a_hostile_rootfs_can_be_built(tmp_path, feature):
    root = hostile.hostile_rootfs(tmp_path, feature)
    assert os.access(root / "bin/busybox", os.X_OK)


def test_poison_goes_off_when_its_code_is_run(rootfs, plain):
    hostile.poison(rootfs)
    assert hostile.pwned(rootfs) == []
    plain.run(["chroot", rootfs, "/usr/bin/python3"])
    assert hostile.pwned(rootfs) == [str(rootfs / "PWNED")]


def test_in_child_returns_and_raises(in_child):
    assert in_child(os.getpid) != os.getpid()
    with pytest.raises(ZeroDivisionError):
        in_child(lambda: 1 / 0)
