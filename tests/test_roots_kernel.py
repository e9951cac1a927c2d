"""/proc, /sys and /dev of a root: new, in the right namespaces, the same for all members of a pod."""

import os

import pytest
from inpod import detached, inside, namespaces, pod

pytestmark = pytest.mark.needs_root

ROOTS = [[], ["--rootfs", "busybox"], ["--rootfs", "busybox", "--chroot"], ["--rootfs", "busybox", "--with", "user"]]
NODES = """crw-rw-rw- 1:3 /dev/null
crw-rw-rw- 1:5 /dev/zero
crw-rw-rw- 1:7 /dev/full
crw-rw-rw- 1:8 /dev/random
crw-rw-rw- 1:9 /dev/urandom
crw-rw-rw- 5:0 /dev/tty"""
PLACES = """drwxr-xr-x tmpfs /dev
drwxr-xr-x devpts /dev/pts
drwxrwxrwt tmpfs /dev/shm
drwxrwxrwt mqueue /dev/mqueue"""


def mounted(host, *options: str) -> dict[str, str]:
    """By target inside: type, options of the mount, and device."""
    found = {}
    for line in inside(host, "p", "cat /proc/self/mountinfo", *options).splitlines():
        before, _, after = line.partition(" - ")
        found[before.split()[4]] = f"{after.split()[0]} {before.split()[5]} {before.split()[2]}"
    return found


@pytest.mark.parametrize("how", ROOTS, ids=str)
def test_proc_shows_the_pid_namespace_of_the_member(host, how):
    numbers = "echo /proc/[0-9]* | tr ' ' '\\n' | wc -l; cat /proc/1/comm; :"
    with pod(host, "p", *how), detached(host, "p"):
        for options in ([], ["--rootfs", "busybox"], ["--rootfs", "busybox", "--chroot"]):
            count, first = inside(host, "p", numbers, *options).split("\n")
            assert 3 <= int(count) <= 7 and first == "nsbox:pause", options
        for options in (["--share", "net"], ["--share", "net", "--rootfs", "busybox"]):
            count, first = inside(host, "p", numbers, *options).split("\n")
            assert int(count) <= 4 and first == "sh", options


@pytest.mark.parametrize("how", ROOTS[1:], ids=str)
def test_what_is_mounted_can_do_little(host, how):
    nothing = "nosuid,nodev,noexec"
    expected = {"/proc": f"proc rw,{nothing}", "/sys": f"sysfs ro,{nothing}", "/dev": "tmpfs rw,nosuid,noexec",
                "/dev/pts": "devpts rw,nosuid,noexec", "/dev/shm": f"tmpfs rw,{nothing}",
                "/dev/mqueue": f"mqueue rw,{nothing}"}
    with pod(host, "p", *how):
        for options in ([], ["--rootfs", "busybox"]):
            found = mounted(host, *options)
            assert not [path for path, words in expected.items() if not found[path].startswith(words)], found


@pytest.mark.parametrize("how", ROOTS[1:], ids=str)
def test_dev_has_the_usual_nodes_with_the_usual_modes(host, how):
    nodes = "stat -c '%A %t:%T %n' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
    places = "for d in /dev /dev/pts /dev/shm /dev/mqueue; do echo $(stat -c %A $d) $(grep \" $d \" /proc/mounts |" \
             " cut -d' ' -f3) $d; done"
    links = "for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done; ls /dev | wc -l; cat /dev/null;" \
            "head -c3 /dev/zero | wc -c; head -c3 /dev/urandom | wc -c; echo x > /dev/full || echo full"
    with pod(host, "p", *how):
        for options in ([], ["--rootfs", "busybox"]):
            assert inside(host, "p", nodes, *options) == NODES
            assert inside(host, "p", places, *options) == PLACES
            assert inside(host, "p", links, *options) == (
                "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n14\n3\n3\nfull")
            assert inside(host, "p", "stat -c %u:%g /dev /dev/shm /dev/pts", *options) == "0:0\n0:0\n0:0"


@pytest.fixture
def own_nodes(host):
    """Copies of the nodes over those of /dev in the fake host, which are the real machine's: a
    broken build that lets a pod change them must not change them for everybody."""
    nodes = host.work / "nodes"
    nodes.mkdir()
    host.run(["sh", "-ec", """
        mount -t tmpfs -o dev nodes "$1"
        for node in null:3 zero:5 full:7 random:8 urandom:9; do
            mknod -m 666 "$1/${node%:*}" c 1 "${node#*:}"
        done
        mknod -m 666 "$1/tty" c 5 0
        for node in null zero full random urandom tty; do mount --bind "$1/$node" "/dev/$node"; done
        """, "sh", str(nodes)], check=True)
    real = [os.stat(f"/dev/{name}") for name in ("null", "zero", "tty")]
    inner = [os.stat(f"/proc/{host.pid}/root/dev/{name}") for name in ("null", "zero", "tty")]
    assert not any(os.path.samestat(one, other) for one, other in zip(real, inner, strict=True))
    yield
    host.run(["sh", "-c", """
        for node in null zero full random urandom tty; do umount -l "/dev/$node"; done  # the shell has one itself
        umount "$1"
        """, "sh", str(nodes)], check=True)


@pytest.mark.parametrize("how", ROOTS[1:], ids=str)
def test_nothing_done_to_a_node_inside_is_seen_on_the_host(host, own_nodes, how):
    """Red when: _make_device() of pod/devices.py binds the host's node writable."""
    look = ["stat", "-c", "%a %u %g", "/dev/null", "/dev/zero", "/dev/tty"]
    before = host.run(look).stdout
    with pod(host, "p", *how):
        inside(host, "p", "chmod 0600 /dev/null /dev/tty; chown 7:7 /dev/zero; ls -l /dev")
        assert host.run(look).stdout == before


@pytest.mark.parametrize("how", ROOTS[1:], ids=str)
def test_shared_memory_and_queues_go_with_the_ipc_namespace(host, how):
    """Members with root file systems of their own have them in common, and the host has others."""
    read = "cat /dev/shm/memory; ls /dev/mqueue; echo end"
    own, others = ["--rootfs", "busybox"], ["--rootfs", "busybox", "--chroot"]
    host.run(["sh", "-c", "echo host > /dev/shm/memory"], check=True)
    try:
        with pod(host, "p", *how):
            assert inside(host, "p", "ls /dev/shm /dev/mqueue | grep memory; :") == ""
            inside(host, "p", "echo shared > /dev/shm/memory && : > /dev/mqueue/queue", *own)
            for options in ([], others, ["--share", "ipc,net"]):
                assert inside(host, "p", read, *options) == "shared\nqueue\nend", options
            for options in (["--share", "net"], ["--share", "uts", *others]):
                assert inside(host, "p", "ls -A /dev/shm /dev/mqueue | grep -v ^/dev | grep .; :", *options) == "", options
        assert host.run(["cat", "/dev/shm/memory"]).stdout == "host\n"
    finally:
        host.run(["rm", "/dev/shm/memory"], check=True)


def test_a_pod_with_the_host_s_tree_has_its_own_shared_memory(host):
    with pod(host, "p"):
        inside(host, "p", "echo pod > /dev/shm/memory; ls /dev/mqueue 2>/dev/null; :")
        assert inside(host, "p", "cat /dev/shm/memory", "--rootfs", "busybox") == "pod"
        assert inside(host, "p", "ls -A /dev/shm", "--share", "net") == ""
        assert host.run(["ls", "-A", "/dev/shm"]).stdout == ""


def test_system_v_objects_go_with_the_ipc_namespace(host):
    look = "tail -n +2 /proc/sysvipc/shm | wc -l"
    with pod(host, "p", "--rootfs", "busybox") as pid:
        host.run(["nsenter", "-t", str(pid), "-i", "ipcmk", "-M", "4096"], check=True)
        assert inside(host, "p", look) == inside(host, "p", look, "--rootfs", "busybox") == "1"
        assert inside(host, "p", look, "--share", "net") == "0"
        assert host.run(["sh", "-c", look]).stdout.strip() == "0"


def test_each_root_has_its_own_pseudo_terminals(host):
    with pod(host, "p", "--rootfs", "busybox"):
        mine, other = mounted(host)["/dev/pts"], mounted(host, "--rootfs", "busybox")["/dev/pts"]
        assert mine.split()[2] != other.split()[2]
        assert inside(host, "p", "ls /dev/pts") == "ptmx"


def test_sys_shows_the_network_of_the_pod(host):
    host.run(["ip", "link", "add", "name", "outside0", "type", "dummy"])
    with pod(host, "p", "--rootfs", "busybox") as pid:
        assert inside(host, "p", "ls /sys/class/net") == inside(host, "p", "ls /sys/class/net", "--rootfs", "busybox") == "lo"
        assert inside(host, "p", "cat /sys/class/net/lo/flags; ip -o -4 addr show lo | wc -l") == "0x9\n1"
        assert namespaces(host, pid)["net"] != namespaces(host, 1)["net"]
    host.run(["ip", "link", "del", "outside0"])
