"""What of /proc and /sys is read-only or covered in every root that nsbox enters.

Row ids as in the list of security cases. Each test says how to break the build so that it is red.
"""

import os
from pathlib import Path

import pytest
from fakehost import FakeHost
from inpod import inside, pod

pytestmark = pytest.mark.needs_root

# How a pod's root is made, and how a member's is.
PODS = [[], ["--rootfs", "busybox"], ["--rootfs", "busybox", "--in-place"], ["--rootfs", "busybox", "--read-only"],
        ["--rootfs", "busybox", "--chroot"], ["--rootfs", "busybox", "--with", "user"], ["--rootfs", "busybox", "--userns"], ["--with", "user"]]  # fmt: skip
MEMBERS = [[], ["--rootfs", "busybox"], ["--share", "net"]]

READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip

# Opens for appending, and writes nothing: what succeeds is said. Whoever breaks the build reads
# only that it could have been written to.
_OPEN_ALL = """
for file in $(find "$@" -type f 2>/dev/null); do
    { true >> "$file"; } 2>/dev/null && echo "$file"
done
:
"""
# For each place that there is: its type and numbers, and what can be read of it.
_LOOK = """
for place in "$@"; do
    if [ -d "$place" ]; then echo "$place directory $(ls -A "$place" | wc -l) $(stat -c '%a %h' "$place")"
    elif [ -e "$place" ]; then echo "$place $(stat -c %t:%T "$place") $(wc -c < "$place")"
    fi
done
"""


def look(host: FakeHost, script: str, places: list[str], *options: str) -> list[str]:
    """The lines that a script says in pod p about `places`."""
    return inside(host, "p", f"set -- {' '.join(places)}\n{script}", *options).splitlines()


@pytest.mark.parametrize("how", PODS, ids=str)
def test_B24_nothing_of_the_kernel_s_settings_can_be_opened_for_writing(host, how):
    """Every file below the read-only places, and below /sys; the settings of namespaces too.

    Red when: make_read_only() sets the attributes without MOUNT_ATTR_RDONLY; close_sys() is not
    called, or not recursive (the host's tree).
    """
    with pod(host, "p", *how):
        for options in MEMBERS:
            assert look(host, "find $1 -type f | wc -l", ["/proc/sys"], *options) != ["0"]
            assert look(host, _OPEN_ALL, [*READ_ONLY, "/sys"], *options) == []
            assert inside(host, "p", "touch /proc/sys/x /sys/x 2>&1; :", *options).count("Read-only file system") >= 1


@pytest.mark.parametrize("how", PODS, ids=str)
def test_B24_masked_places_are_there_and_empty(host, how):
    """A file is the null device, a directory is empty; both are read-only.

    Red when: a name is taken out of MASKED_IN_PROC, or mask() is not called for /sys; the null
    device is bound without devices (then it cannot be read at all).
    """
    real = [place for place in MASKED if os.path.lexists(place)]
    assert len(real) >= 3, real
    with pod(host, "p", *how):
        for options in MEMBERS:
            found = {line.split()[0]: line.split()[1:] for line in look(host, _LOOK, MASKED, *options)}
            assert sorted(found) == sorted(real)
            for place, said in found.items():
                assert said == (["directory", "0", "555", "2"] if os.path.isdir(place) else ["1:3", "0"]), place
            assert look(host, 'chmod 600 "$@" 2>&1 | grep -vc "Read-only file system"; :', real, *options) == ["0"]


def test_B24_the_host_s_own_proc_and_sys_stay_as_they_are(host):
    """Also where the pod has the host's tree. Red when: _make_private() is not called first, so that
    the host's /sys becomes read-only with the pod's."""
    script = "cut -d' ' -f4-6 /proc/self/mountinfo | grep -E ' /(proc|sys)'; stat -c '%n %a' /dev/null; [ $(wc -c < /proc/keys) -gt 0 ]"
    before = host.run(["sh", "-c", script], check=True).stdout
    for how in PODS:
        with pod(host, "p", *how):
            inside(host, "p", "chmod 600 /proc/keys; echo x > /proc/keys; :")
            assert host.run(["sh", "-c", script], check=True).stdout == before
    assert host.run(["sh", "-c", script], check=True).stdout == before


# ---- B26: missing, doubled, directories ----

def mounted_on(host: FakeHost, *options: str) -> list[tuple[str, str]]:
    """(target, device) of each mount at or below /proc and /sys that a member sees, oldest first."""
    lines = inside(host, "p", "cut -d' ' -f3,5 /proc/self/mountinfo | grep -E ' /(proc|sys)(/|$)'", *options)
    return [(target, device) for device, _, target in (line.partition(" ") for line in lines.splitlines())]


@pytest.mark.parametrize("how", PODS[1:7], ids=str)
def test_B26_each_place_is_covered_once_and_missing_ones_are_passed_over(host, how):
    """All directories are covered by one and the same file system.

    Red when: the directories get a file system each; a name stands in a list twice and _open_place()
    goes through mounts (no RESOLVE_NO_XDEV); ENOENT is not passed over.
    """
    expected = [place for place in [*READ_ONLY, *MASKED] if os.path.lexists(place)]
    with pod(host, "p", *how):
        for options in MEMBERS[:2]:
            found = mounted_on(host, *options)
            targets = [target for target, _ in found]
            assert sorted(targets) == sorted(["/proc", "/sys", *expected])
            of_directories = {device for target, device in found if target in MASKED and os.path.isdir(target)}
            assert len(of_directories) == 1, found


def test_B26_a_name_that_is_given_twice_or_is_nowhere_does_no_harm(host):
    """Red when: as above."""
    code = """
from nsbox.cli import entry
from nsbox.privilege import masks
masks.MASKED_IN_PROC += ("keys", "nowhere", "no/where", "keys", "acpi")
masks.READ_ONLY_IN_PROC += ("sys", "sysvipc", "nowhere")
entry()
"""
    assert host.python(code, "create", "p", "--rootfs", "busybox").returncode == 0
    try:
        targets = [target for target, _ in mounted_on(host)]
        assert len(targets) == len(set(targets)) and "/proc/sysvipc" in targets, targets
    finally:
        host.nsbox("rm", "-f", "p", check=True)


def test_B26_what_is_covered_already_is_left_alone(host, rootfs):
    """A member with the pod's tree and a PID namespace that it shares: the masks are the pod's.

    Red when: _dress_host_tree() masks a /proc that is not new, going through mounts.
    """
    with pod(host, "p", "--rootfs", rootfs):
        options = ["--share", "pid,net"]
        assert sorted(mounted_on(host, *options)) == sorted(mounted_on(host))


def test_B26_masks_need_nothing_of_a_read_only_rootfs(host, rootfs):
    """Not even mount points: /proc and /sys are the kernel's. Red when: a mask is put where the rootfs
    has a file of that name, by its path."""
    for place in ("proc/keys", "proc/sys/kernel", "sys/firmware"):
        path = Path(rootfs, place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the rootfs")
    with pod(host, "p", "--rootfs", rootfs, "--read-only"):
        assert look(host, _LOOK, ["/proc/keys", "/sys/firmware"]) == ["/proc/keys 1:3 0", "/sys/firmware directory 0 555 2"]
    assert Path(rootfs, "proc/keys").read_text() == "of the rootfs"


# ---- B25: whether they hold ----

_UNDO = """
mkdir -p /dev/shm/new
mount -t tmpfs new /dev/shm/new 2>/dev/null && echo may mount && umount /dev/shm/new
umount /proc 2>/dev/null && echo "umount /proc"
for place in "$@"; do
    for try in "mount -o remount,bind,rw $place" "mount -o remount,rw $place" "umount $place" "umount -l $place" \\
               "mount --move $place /dev/shm/new"; do
        $try 2>/dev/null && echo "$try"
    done
done
for type in proc sysfs; do
    mount -t $type new /dev/shm/new 2>/dev/null || continue
    (: >> /dev/shm/new/kernel/core_pattern) 2>/dev/null
    for file in sys/kernel/core_pattern kernel/uevent_seqnum kernel/profiling keys timer_list firmware/memmap; do
        [ -s /dev/shm/new/$file ] || [ -n "$(head -c1 /dev/shm/new/$file 2>/dev/null)" ] || continue
        case $file in sys/*|kernel/*) (: >> /dev/shm/new/$file) 2>/dev/null || continue;; esac
        echo "new $type: $file"
    done
    umount /dev/shm/new
done
for file in /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches /sys/kernel/profiling; do
    (: >> $file) 2>/dev/null && echo "writable: $file"
done
for file in /proc/keys /proc/timer_list /proc/interrupts; do [ -z "$(head -c1 $file 2>/dev/null)" ] || echo "readable: $file"; done
ls /sys/firmware/* /proc/acpi/* 2>/dev/null
:
"""
NESTED = ["unshare -r -m", "unshare -r -m -p -f", "unshare -r -m -p -f -n", "unshare -r -m -p -f -n -i"]


@pytest.mark.parametrize("how", PODS, ids=str)
def test_B25_nobody_in_a_pod_undoes_a_mask(host, how):
    """By any way that root of a pod has, and by those it has as root of user namespaces of its own.

    Red when: OF_MEMBERS of capabilities.py has SYS_ADMIN; Covers._null() leaves MOUNT_ATTR_RDONLY out; the masks
    are made by the member that is to be held by them, in a user namespace of its own.
    """
    places = ["/proc/sys", "/proc/irq", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/sys", "/sys/firmware"]
    with pod(host, "p", *how):
        for options in MEMBERS:
            for policy in ("default", "unconfined"):
                assert look(host, _UNDO, places, "--seccomp", policy, *options) == [], (policy, options)
            for nested in NESTED:
                script = f"cat > /dev/shm/undo-$$ && {nested} sh /dev/shm/undo-$$ {' '.join(places)} 2>&1; rm /dev/shm/undo-$$"
                done = host.nsbox("join", "p", "--seccomp", "nested", *options, "--", "sh", "-c", script, input=_UNDO)
                refused = "--chroot" in how and done.stdout.startswith("unshare: ")  # see user_namespaces(7)
                assert done.stdout == "may mount\n" or refused, (nested, options, done)


def test_B25_the_ways_to_undo_a_mask_work_for_who_has_the_right(host):
    """Else the test before would prove nothing. Red when: --cap-add SYS_ADMIN gives no right."""
    with pod(host, "p", "--rootfs", "busybox", "--cap-add", "SYS_ADMIN"):
        said = look(host, _UNDO, ["/proc/sys", "/proc/keys"])
        assert said[:2] == ["may mount", "mount -o remount,bind,rw /proc/sys"] and "umount /proc/keys" in said, said


def test_B25_a_privileged_pod_or_member_has_no_masks_and_others_keep_theirs(host):
    """Red when: create.py or member.py does not tell devices.World what is privileged."""
    with pod(host, "p", "--rootfs", "busybox", "--privileged"):
        for options in ([], ["--rootfs", "busybox"], ["--share", "net"]):
            assert [target for target, _ in mounted_on(host, *options) if target not in ("/proc", "/sys")] == [], options
    with pod(host, "p", "--rootfs", "busybox"):
        assert "/proc/sys" not in dict(mounted_on(host, "--privileged", "--rootfs", "busybox"))
        for options in ([], ["--privileged"], ["--rootfs", "busybox"]):
            assert "/proc/sys" in dict(mounted_on(host, *options)), options


# ---- C09, C10, C11: control groups, and what else is below /sys ----

_MOUNT_CGROUPS = """
mkdir -p /dev/shm/c
for what in "cgroup -o pids" "cgroup -o none,name=own" "cgroup -o all" cgroup2; do
    mount -t $what c /dev/shm/c 2>/dev/null && echo "mounted $what" && umount /dev/shm/c
done
:
"""
CGROUP_PODS = [[], ["--rootfs", "busybox"], ["--userns"], ["--with", "cgroup"], ["--rootfs", "busybox", "--with", "user,cgroup"]]


@pytest.mark.parametrize("how", CGROUP_PODS, ids=str)
def test_C09_C10_nobody_in_a_pod_writes_to_a_control_group_or_mounts_one(host, how):
    """Of no hierarchy, not to its release_agent, nor by user and cgroup namespaces of its own.

    Red when: close_sys() makes the top of /sys read-only alone (the host's tree); CAP_SYS_ADMIN is in OF_MEMBERS;
    the filter of system calls lets new user namespaces pass.
    """
    nested = "cat > /dev/shm/s && unshare -U -r -m -C sh /dev/shm/s; unshare -U -r -m sh /dev/shm/s; rm /dev/shm/s"
    with pod(host, "p", *how):
        for options in MEMBERS:
            # Opened and not written to: these are the machine's.
            assert look(host, _OPEN_ALL, ["/sys/fs/cgroup"], *options) == []
            assert_sys_is_read_only(host, options)
            for policy in ("default", "nested", "unconfined"):
                assert look(host, _MOUNT_CGROUPS, [], "--seccomp", policy, *options) == []
            done = host.nsbox("join", "p", *options, "--", "sh", "-c", nested, input=_MOUNT_CGROUPS)
            assert done.stdout == "" and "unshare" in done.stderr, done


def test_C09_the_ways_to_mount_a_control_group_work_for_who_has_the_right(host):
    """Else the test before would prove nothing. Red when: --cap-add SYS_ADMIN gives no right."""
    with pod(host, "p", "--cap-add", "SYS_ADMIN"):
        assert "mounted cgroup -o pids" in look(host, _MOUNT_CGROUPS, [])


@pytest.mark.needs_ns("user")
@pytest.mark.parametrize("how", [[], ["--rootfs", "busybox"], ["--net", "host"], ["--rootfs", "busybox", "--net", "host"]], ids=str)
def test_C10_C11_sys_is_read_only_for_an_ordinary_users_pod_too(user_host, how):
    """Red when: _mount_sys() or _bind_sys() leaves MOUNT_ATTR_RDONLY out; close_sys() is not called."""
    with pod(user_host, "p", *how):
        for options in ([], ["--rootfs", "busybox"]):
            assert_sys_is_read_only(user_host, options)
            assert look(user_host, _OPEN_ALL, ["/sys"], *options) == []


@pytest.mark.parametrize("how", [*PODS, ["--net", "host"], ["--rootfs", "busybox", "--net", "host"]], ids=str)
def test_C11_sys_is_read_only(host, how):
    """Red when: as above."""
    with pod(host, "p", *how):
        for options in MEMBERS:
            assert_sys_is_read_only(host, options)
            assert look(host, _OPEN_ALL, ["/sys"], *options) == []


def assert_sys_is_read_only(host: FakeHost, options: list[str]) -> None:
    lines = inside(host, "p", "cut -d' ' -f5,6 /proc/self/mountinfo | grep '^/sys'", *options).splitlines()
    modes = dict(line.split() for line in lines)  # of several at one place the last is on top
    assert modes and all(words.split(",")[0] == "ro" for words in modes.values()), modes
