"""No mount and no pinned namespace travels back to a host whose mounts are all shared."""

import pytest
from fakehost import NSBOX
from faults import each_fault
from inpod import inside, mount_table, namespaces, pod
from procfs import until

pytestmark = pytest.mark.needs_root

# Each call by which create and join change mounts. After each of them the maker may be killed.
MOUNT_CALLS = ("mount", "move_mount", "pivot_root", "umount2", "mount_setattr")


def is_shared(host) -> bool:
    lines = host.run(["cat", "/proc/1/mountinfo"], check=True).stdout.splitlines()
    [line] = [line for line in lines if line.split()[4] == "/"]
    return " shared:" in line


@pytest.mark.parametrize("how", [
    [], ["--rootfs", "busybox"], ["--rootfs", "busybox", "--chroot"], ["--rootfs", "busybox", "--in-place"],
], ids=str)
def test_B15_no_mount_of_a_pod_or_member_reaches_the_host(host, how):
    """Red when: _make_private() of pod/rootfs.py does nothing."""
    assert is_shared(host), "the fake host must look like systemd's for this to mean anything"
    before = mount_table(host)
    volume = ["-v", f"{host.work}:{'/mnt' if not how else '/vol/one'}"]
    with pod(host, "p", *how, *volume):
        assert mount_table(host) == before
        may = ["--cap-add", "SYS_ADMIN"]
        inside(host, "p", "mkdir -p /tmp/m && mount -t tmpfs m /tmp/m && rmdir /tmp/m 2>/dev/null; umount /tmp/m", *may)
        inside(host, "p", "mount -t tmpfs m /mnt; cat /proc/self/mountinfo", "--rootfs", "busybox", *may)
        inside(host, "p", "mount -t tmpfs m /mnt", "--share", "net", *may)
        assert mount_table(host) == before
    assert mount_table(host) == before


def test_B15_the_host_s_later_mounts_do_not_appear_inside(host, rootfs):
    """The other direction. Red when: _make_private() makes all mounts slaves."""
    there = host.work / "volume"
    (there / "below").mkdir(parents=True)
    with pod(host, "p", "--rootfs", rootfs, "-v", f"{there}:/vol"):
        host.run(["sh", "-c", 'mount -t tmpfs later "$1" && : > "$1/seen"', "sh", str(there / "below")], check=True)
        assert inside(host, "p", "ls /vol/below; grep -c later /proc/self/mountinfo || :") == "0"
        host.run(["umount", str(there / "below")], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("call", MOUNT_CALLS)
def test_B15_killed_at_any_mount_call_create_leaves_no_mount(host, call):
    """The process that mounts is killed as it makes the call; create reports it and undoes.

    Red when: _make_private() does nothing, or create() does not undo.
    """
    before = mount_table(host)
    argv = [*NSBOX, "create", "p", "--rootfs", "busybox", "-v", f"{host.work}:/vol"]
    runs = 0
    for fault in each_fault(host, call, ["signal=SIGKILL"], lambda _: argv, lambda: host.nsbox("rm", "-f", "p")):
        runs += 1
        assert fault.exit_status == 125 and "was killed" in fault.stderr, fault
        assert mount_table(host) == before, fault
        assert host.nsbox("ls", "-q").stdout == "", fault
    assert runs > 0, f"{call} is not called any more"


@pytest.mark.slow
@pytest.mark.parametrize("call", MOUNT_CALLS)
def test_B15_killed_at_any_mount_call_join_leaves_no_mount(host, call):
    """Red when: _make_private() does nothing."""
    before = mount_table(host)
    argv = [*NSBOX, "join", "p", "--rootfs", "busybox", "-v", f"{host.work}:/vol", "--", "true"]
    with pod(host, "p"):
        runs = 0
        for fault in each_fault(host, call, ["signal=SIGKILL"], lambda _: argv, lambda: None):
            runs += 1
            assert fault.exit_status == 125 and "was killed" in fault.stderr, fault
            assert mount_table(host) == before, fault
        assert runs > 0, f"{call} is not called any more"


@pytest.mark.slow
def test_B15_killed_itself_while_its_child_mounts_create_leaves_no_mount(host):
    """The command is killed, not its child; prune takes away what it had begun.

    Red when: the child of a killed create goes on and nothing undoes it.
    """
    before = mount_table(host)
    argv = [*NSBOX, "create", "p", "--rootfs", "busybox"]
    for when in (1, 4, 8):
        spec = f"inject=move_mount:delay_enter=60000000:when={when}"  # a minute, which nobody waits for
        command = host.popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", spec, *argv])
        assert any(is_held(host) and is_held(host) for _ in until(30.0, pause=0.2)), "strace does not hold it"
        command.end()
        host.nsbox("prune")
        assert mount_table(host) == before
        assert any(not host.nsbox("prune").stdout and not host.nsbox("ls", "-q").stdout for _ in until(20.0, pause=0.1))


def is_held(host) -> bool:
    """Whether strace holds a process of the fake host before its move_mount(2). See proc_pid_syscall(5)."""
    return any(line.startswith("429 ") for line in host.run(
        ["sh", "-c", "cat /proc/[0-9]*/syscall 2> /dev/null"]).stdout.splitlines())


# ---- pins ----

def pins(host) -> list[str]:
    """The mounts of namespace files, in every mount namespace of the fake host."""
    return host.run(["sh", "-c", "grep -hs ' nsfs ' /proc/[0-9]*/mountinfo || :"], user=0, check=True).stdout.split("\n")[:-1]


def test_B19_no_pin_keeps_a_removed_pod_s_namespaces(host):
    """Somebody copies all mounts while the pod runs: a pin in the copy would keep the namespace.

    Red when: create() binds /proc/PID/ns/net below the state directory to keep it.
    """
    before = pins(host)
    with pod(host, "p", "--rootfs", "busybox") as pid:
        ids = namespaces(host, pid)
        assert pins(host) == before
        copier = host.popen(["unshare", "--mount", "--propagation", "unchanged", "sleep", "300"])
        copier.inner_pid()
        assert inside(host, "p", "readlink /proc/self/ns/net") == f"net:[{ids['net']}]"
        assert pins(host) == before
    for _ in until(5):
        alive = host.run(["sh", "-c", "lsns -n -o NS 2>/dev/null; readlink /proc/[0-9]*/ns/*"], user=0).stdout
        if not [kind for kind in ("net", "pid", "ipc", "uts", "mnt") if str(ids[kind]) in alive]:
            break
    else:
        raise AssertionError(alive)
    copier.terminate()
    copier.end()
