"""--userns as root: a pod whose root is nobody on the host, and whose files are nevertheless its own."""

import json
import os
import re
import signal
from pathlib import Path

import faults
import pytest
from fakehost import NSBOX, SETTLE_S, FakeHost
from inpod import inside, pod, refused
from procfs import until

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_ns("user")]

FIXED = 0x7000_0000
SAFE = ("--userns", "--rootfs", "busybox")
HTTPD = ("httpd", "-f", "-p", "80", "-h", "/etc")


def ids_of(host: FakeHost, name: str) -> list[list[list[int]]]:
    """uid_map and gid_map of a pod, as `inspect` shows them."""
    security = json.loads(host.nsbox("inspect", "--json", name, check=True).stdout)[0]["security"]
    return [security["uid_map"], security["gid_map"]]


def give(host: FakeHost, file: str, text: str) -> None:
    """Let a file of /etc of the fake host say something else. `take_back` ends that."""
    path = host.scratch / f"etc.{Path(file).name}"
    path.write_text(text)
    path.chmod(0o644)
    host.run(["mount", "--bind", str(path), file], user=0, check=True)


def take_back(host: FakeHost, *files: str) -> None:
    for file in files:
        host.run(["umount", file], user=0, check=True)


# ---- its root is nobody ----

def test_C05_root_of_the_pod_is_nobody_on_the_host(host: FakeHost) -> None:
    """Red when: users.py maps 0 to 0."""
    secret = host.scratch / "secret"
    secret.write_text("secret")
    secret.chmod(0o600)
    with pod(host, "web", *SAFE) as pid:
        assert ids_of(host, "web") == [[[0, FIXED, 65536]], [[0, FIXED, 65536]]]
        assert "auto" in host.nsbox("inspect", "web").stdout
        status = Path(f"/proc/{host.host_pid(pid)}/status").read_text()
        assert f"Uid:\t{FIXED}\t{FIXED}\t{FIXED}\t{FIXED}\n" in status and f"Gid:\t{FIXED}\t" in status
        said = inside(host, "web", "id -u; id -g; cat /proc/self/uid_map; : >> /proc/sys/vm/drop_caches", status=1)
        assert said.split() == ["0", "0", "0", str(FIXED), "65536"]
        for file in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/power/state"):
            # To users, not to who may write where: it holds without the masks too. Some files this machine lacks.
            said = inside(host, "web", f"[ ! -e {file} ] || (: >> {file}) 2>&1; :")
            assert "Permission denied" in said or not said and not os.path.exists(file), (file, said)
    with pod(host, "tree", "--userns"):
        assert inside(host, "tree", f"cat {secret} || touch {host.scratch}/x || touch /etc/x || echo no") == "no"
        assert inside(host, "tree", "stat -c %u:%g /etc/passwd") == "65534:65534"


def test_C05_nothing_of_the_host_s_root_is_in_a_member(host: FakeHost) -> None:
    """Nor are its groups. Red when: attributes.become leaves the group as it is."""
    with pod(host, "web", *SAFE):
        for options in ([], ["--rootfs", "busybox"], ["--share", "net"]):
            done = host.run(["setpriv", "--groups", "4,27", *NSBOX, "join", "web", *options, "--", "sh", "-c",
                             "grep -E '^(Uid|Gid|Groups)' /proc/self/status"], check=True)
            assert done.stdout.split() == ["Uid:", *"0000", "Gid:", *"0000", "Groups:"], options


def test_C05_the_host_s_root_inside_must_be_written_out_and_is_shown(host: FakeHost) -> None:
    """Red when: _choose lets root have keep-id."""
    for options in (["--userns", "keep-id"], ["--userns=keep-id"]):
        assert "keep the id of root" in refused(host, "create", "web", *options, status=2)
    for text, ranges in (("0:0:1", [[0, 0, 1]]), ("0:0:1,1:300001:99", [[0, 0, 1], [1, 300001, 99]])):
        with pod(host, "web", f"--userns={text}", "--rootfs", "busybox"):
            assert ids_of(host, "web") == [ranges, ranges]
            # The file lets this user in; that it lies on a read-only mount is all that holds.
            said = inside(host, "web", "(: >> /proc/sys/vm/drop_caches) 2>&1; head -c9 /proc/slabinfo; :")
            assert "Read-only file system" in said and said.endswith("slabinfo "), said


@pytest.mark.parametrize("words", [["--userns", "web"], ["web", "--userns=0:100000"], ["web", "--userns="]])
def test_C06_a_bad_word_is_refused_and_a_hint_says_where_the_name_stands(host: FakeHost, words: list[str]) -> None:
    """Red when: pod_spec takes --userns as it is."""
    done = host.nsbox("create", *words)
    assert done.returncode == 2 and "hint: as in --userns=auto" in done.stderr, done
    refused(host, "create", *words, status=2)


def test_C06_each_map_is_one_write(host: FakeHost) -> None:
    """Red when: idmaps writes each line by itself."""
    text = "0:200000:10,10:300000:10,20:400000:10"
    _, _, _, log = faults.strace(host, "trace=openat,write", [*NSBOX, "create", "web", f"--userns={text}"])
    opened = re.findall(
        r"openat\([^\n]*/proc/\d+/([ug]id_map)\", O_WRONLY[^\n]*= (\d+)\n((?:.*\n)*?)(?=.*openat)", log)
    assert [name for name, _, _ in opened] == ["uid_map", "gid_map"], log
    for _, fd, then in opened:
        writes = [line for line in then.splitlines() if f" write({fd}, " in line]
        assert len(writes) == 1 and "0 200000 10\\n10 300000 10\\n20 4000" in writes[0], writes
    assert ids_of(host, "web") == [[[0, 200000, 10], [10, 300000, 10], [20, 400000, 10]]] * 2
    host.nsbox("rm", "-f", "web", check=True)


# ---- its files ----

LOOK = r"""
stat -c '%u:%g %n' / /bin/sh /etc/passwd /dev /dev/pts/ptmx /dev/shm
touch /dev/mqueue/queue /new; mkdir -p /etc/sub; echo x >> /etc/passwd; chown 5:6 /etc/group; rm -r /var; mkdir /var
stat -c '%u:%g %n' /new /etc/sub /etc/passwd /etc/group /var
echo x > /dev/null && head -c 2 /dev/zero | od -An -tx1
awk '$5 ~ "^/(proc|sys|dev|dev/pts|dev/mqueue)$" { sub(".* - ", ""); print $1 }' /proc/self/mountinfo
"""
SEEN = """\
0:0 /
0:0 /bin/sh
0:0 /etc/passwd
0:0 /dev
0:0 /dev/pts/ptmx
0:0 /dev/shm
0:0 /new
0:0 /etc/sub
0:0 /etc/passwd
5:6 /etc/group
0:0 /var
 00 00
"""


def owners(top: Path) -> list[tuple[str, int, int, int, int]]:
    found = []
    for path in sorted([top, *top.rglob("*")]):
        seen = path.lstat()
        found.append((str(path), seen.st_uid, seen.st_gid, seen.st_mode, seen.st_size))
    return found


def test_the_files_of_a_rootfs_are_root_s_inside_and_stay_as_they_are(host: FakeHost) -> None:
    """For the pod's root and a member's own. The directories above it may be closed.

    Red when: _attach_root opens the rootfs by its path again, or _needs_mapping says no.
    """
    closed = host.scratch / "closed"
    closed.mkdir(mode=0o700)
    host.run(["cp", "-a", str(host.store / "busybox/rootfs"), str(closed / "root")], check=True)
    before = owners(closed)
    with pod(host, "web", "--userns", "--rootfs", closed / "root"):
        for options in ([], ["--rootfs", closed / "root"]):
            said = inside(host, "web", LOOK, *options)
            assert said.startswith(SEEN), said
            assert sorted(said[len(SEEN):].split()) == ["devpts", "mqueue", "proc", "sysfs", "tmpfs"]
        assert "/new" not in inside(host, "web", "ls -d /n*", "--rootfs", "busybox", status=1)
    assert owners(closed) == before


@pytest.mark.parametrize("options", [[], ["--chroot"], ["--pause", "python"], ["--init", "sleep 300"],
                                     ["--with", "cgroup,time", "--boottime", "86400"]], ids=" ".join)  # fmt: skip
def test_it_goes_with_the_other_options(host: FakeHost, options: list[str]) -> None:
    """Red when: hide_arguments comes after become in create.py: /proc/self/mem is closed then."""
    with pod(host, "web", *SAFE, *options):
        assert inside(host, "web", "id -u; touch /x; hostname; ls -d /proc/1; stat -c %u /bin").split() == [
            "0", "web", "/proc/1", "0"]  # fmt: skip


def test_C07_files_in_volumes_belong_to_whom_they_belong_inside(host: FakeHost) -> None:
    """Also with --in-place, and in a member's own root. Red when: _mapped leaves the volumes as they are."""
    data, root = host.scratch / "data", host.scratch / "root"
    data.mkdir()
    (data / "file").write_text("x")
    (data / "file").chmod(0o600)
    host.run(["cp", "-a", str(host.store / "busybox/rootfs"), str(root)], check=True)
    script = "cat /v/file; touch /v/{0}; mkdir /v/{0}.d; touch /v/{0}.d/x; chown -R 33:34 /v/{0}.d; touch /new.{0}"
    with pod(host, "web", "--userns", "--rootfs", root, "--in-place", "-v", f"{data}:/v"):
        assert inside(host, "web", script.format("a")) == "x"
        assert inside(host, "web", script.format("b"), "--rootfs", root, "-v", f"{data}:/v") == "x"
    with pod(host, "tree", "--userns", "-v", f"{data}:/mnt"):
        assert inside(host, "tree", "cat /mnt/file; touch /mnt/c") == "x"
    seen = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in [*data.rglob("*"), *root.glob("new*")]}
    assert seen == {"file": (0, 0), "a": (0, 0), "b": (0, 0), "c": (0, 0), "a.d": (33, 34), "b.d": (33, 34),
                    "x": (33, 34), "new.a": (0, 0)}  # fmt: skip


def test_a_file_that_all_may_read_and_that_is_mounted_to_be_read_is_not_the_pod_s(host: FakeHost) -> None:
    """As the host's /etc/hosts with --net host: its root could make the mount writable again.

    Red when: _is_open_to_all says no.
    """
    file = host.scratch / "conf"
    file.write_text("conf\n")
    file.chmod(0o644)
    with pod(host, "web", *SAFE, "--net", "host", "-v", f"{file}:/conf:ro"):
        for path in ("/conf", "/etc/hosts"):
            script = f"mount -o remount,bind,rw {path}; stat -c %u {path}; echo x >> {path}"
            said = inside(host, "web", script, status=1)
            assert said == "65534"
        assert inside(host, "web", "cat /conf") == "conf"
    assert file.read_text() == "conf\n"


def test_a_file_system_that_cannot_be_idmapped_is_named(host: FakeHost) -> None:
    """Red when: _clone lets the bare error out."""
    host.run(["sh", "-c", 'mkdir "$1/m" "$1/e" && mount -t overlay -o "lowerdir=$2:$1/e" o "$1/m"', "sh",
              str(host.scratch), str(host.store / "busybox/rootfs")], check=True)  # fmt: skip
    try:
        for options, named in ((["--rootfs", host.scratch / "m"], "rootfs"),
                               (["--rootfs", "busybox", "-v", f"{host.scratch}/m:/v"], "volume")):  # fmt: skip
            done = host.nsbox("create", "web", "--userns", *options)
            assert (done.returncode, done.stdout) == (125, ""), done
            line, hint = done.stderr.splitlines()
            assert line.startswith(f"nsbox: cannot show {named} '") and "mount_setattr: Invalid argument" in line
            assert "overlay" in hint and "cannot be idmapped" in hint
            refused(host, "create", "web", "--userns", *options)
        with pod(host, "web", *SAFE):
            done = host.nsbox("join", "web", "--rootfs", host.scratch / "m", "--", "true")
            assert done.returncode == 125 and "cannot be idmapped" in done.stderr
    finally:
        host.run(["umount", str(host.scratch / "m")], check=True)


# ---- each pod its own ----

def test_two_pods_have_no_id_in_common_and_a_removed_one_s_are_free(host: FakeHost) -> None:
    """Made at the same time, too; a pod that is dead keeps its ids until its record is gone.

    Red when: reserve takes no lock, or _of_root looks at no record.
    """
    makers = [host.nsbox_popen("create", f"p{number}", "--userns") for number in range(6)]
    for maker in makers:
        out, err = maker.communicate(timeout=60)
        assert maker.returncode == 0, err
    uids, gids = zip(*(ids_of(host, f"p{number}") for number in range(6)), strict=True)
    for ranges in (uids, gids):
        assert sorted(start for [[_, start, _]] in ranges) == [FIXED + 65536 * number for number in range(6)]
    [[_, start, _]] = uids[3]
    host.nsbox("stop", "-t", "0", "p3", check=True)
    with pod(host, "later", "--userns"):
        assert ids_of(host, "later")[0] == [[0, FIXED + 6 * 65536, 65536]]
    host.nsbox("rm", "p3", check=True)
    with pod(host, "again", "--userns"):
        assert ids_of(host, "again")[0] == [[0, start, 65536]]
    host.nsbox("rm", "-f", *(f"p{number}" for number in range(6) if number != 3), check=True)


def test_ids_that_somebody_wrote_out_or_gave_away_are_left_to_them(host: FakeHost) -> None:
    """And a map of all ids to themselves takes none. Red when: _of_root looks at the pods of `auto` alone."""
    give(host, "/etc/subuid", f"bob:{FIXED + 65536}:65536\nbroken\nx:y:z\n")
    try:
        with pod(host, "all", "--userns=0:0:4294967295"), pod(host, "map", f"--userns=0:{FIXED + 10}:1"):
            with pod(host, "web", "--userns"):
                uids, gids = ids_of(host, "web")
                assert uids == [[0, FIXED + 2 * 65536, 65536]] and gids == [[0, FIXED + 11, 65536]]
    finally:
        take_back(host, "/etc/subuid")


def test_the_lines_of_root_are_used_where_there_are_any(host: FakeHost) -> None:
    """By its name or number; what is below 100000 or too small is passed over; what is used up is said.

    Red when: _of_root takes RESERVED whatever root was given.
    """
    give(host, "/etc/subuid", "bob:700000:65536\nroot:90000:75536\n0:300000:140000\nroot:500000:100\n")
    give(host, "/etc/subgid", "root:800000:200000\n")
    try:
        starts = []
        for number in range(3):
            host.nsbox("create", f"p{number}", *SAFE, check=True)
            starts.append([ranges[0][1] for ranges in ids_of(host, f"p{number}")])
        assert starts == [[100000, 800000], [300000, 865536], [365536, 931072]]
        done = host.nsbox("create", "more", "--userns")
        line, hint = done.stderr.splitlines()
        assert done.returncode == 125 and "/etc/subuid has no line with 65536 free ids" in line, line
        assert hint == "hint: as root, add the line root:765536:65536 to /etc/subuid"
        host.nsbox("rm", "-f", "p0", "p1", "p2", check=True)
    finally:
        take_back(host, "/etc/subuid", "/etc/subgid")


def test_a_record_that_nobody_can_read_may_hold_ids(host: FakeHost) -> None:
    """Red when: _of_root passes a corrupt record over."""
    host.nsbox("create", "web", "--userns", check=True)
    record = Path(f"/proc/{host.pid}/root{host.state}/pods/web/pod.json")
    good = record.read_text()
    for bad in ("{", good.replace(str(FIXED), '"x"')):
        record.write_text(bad)
        done = host.nsbox("create", "other", "--userns")
        assert done.returncode == 125 and "which ids are free" in done.stderr, done
        assert "nsbox rm --force web" in done.stderr
    record.write_text(good)
    host.nsbox("rm", "-f", "web", check=True)


NESTED = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
ready_r, ready_w = os.pipe()
mapped_r, mapped_w = os.pipe()
pid = os.fork()
if pid == 0:
    syscalls.unshare(CloneFlag.CLONE_NEWUSER)
    os.write(ready_w, b".")
    os.read(mapped_r, 1)
    os.execv(sys.argv[1], sys.argv[1:])
os.read(ready_r, 1)
for name in ("uid_map", "gid_map"):
    with open(f"/proc/{pid}/{name}", "w") as file:
        file.write("0 0 70000")
os.write(mapped_w, b".")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_ids_that_our_own_user_namespace_does_not_know_are_named(host: FakeHost) -> None:
    """Red when: reserve leaves the refusal to the kernel."""
    done = host.python(NESTED, *NSBOX, "create", "web", "--userns")
    assert done.returncode == 125, done
    assert f"cannot map uids {FIXED} to {FIXED + 65535}: we are in a user namespace ourselves" in done.stderr


# ---- networks ----

def test_networks_and_published_ports_work(host: FakeHost) -> None:
    """Red when: create.py enters the user namespace after the network was made: it could not mount /sys."""
    with pod(host, "left", *SAFE, "--net", "bridge", "-p", "8080:80"), pod(host, "right", *SAFE, "-p", "8081:80"):
        host.nsbox("net", "connect", "right", "bridge", check=True)
        for name, port in (("left", 8080), ("right", 8081)):
            host.nsbox("join", name, "-d", "--rootfs", "busybox", "--", *HTTPD, check=True)
            for _ in until(SETTLE_S, pause=0.05):
                done = host.run(["curl", "-s", f"http://127.0.0.1:{port}/group"])
                if done.stdout:
                    break
            assert done.stdout.startswith("root:x:0:"), done
        inside(host, "left", "ping -c 1 right && ip link set lo down && ip link set lo up", "--cap-add", "NET_RAW", "--cap-add", "NET_ADMIN")
        inside(host, "right", "ping -c 1 left", "--cap-add", "NET_RAW")
    host.nsbox("prune", check=True)


def test_a_network_of_another_pod_is_refused(host: FakeHost) -> None:
    """It belongs to another user namespace. Red when: open_source does not look at spec.userns."""
    with pod(host, "web", *SAFE):
        done = host.nsbox("create", "other", "--userns", "--net", "pod:web")
        assert done.returncode == 2 and "user namespace of one's own" in done.stderr


# ---- nothing is left ----

@pytest.mark.slow
@pytest.mark.parametrize("syscall", ["clone3", "mount_setattr", "setns", "renameat", "wait4"])
def test_killed_at_any_step_it_leaves_nothing(host: FakeHost, syscall: str) -> None:
    """Red when: make in userns.py keeps the end of the pipe open in the keeper."""
    def undo() -> None:
        for _ in until(SETTLE_S, pause=0.05):
            host.nsbox("prune", check=True)
            host.nsbox("rm", "-f", *host.nsbox("ls", "-q", check=True).stdout.split() or ["none"])
            if len(host.processes()) <= 2:
                return
        raise AssertionError(host.processes())

    killed = [one for one in faults.each_fault(host, syscall, ["signal=SIGKILL"],
                                               lambda _: [*NSBOX, "create", "web", *SAFE], undo)]  # fmt: skip
    assert killed and any(one.exit_status in (-signal.SIGKILL, 137, 125) for one in killed), killed


def test_the_library_has_it_too(host: FakeHost) -> None:
    """Red when: Pod drops the keyword."""
    done = host.python("""
import nsbox
with nsbox.Pod(rootfs="busybox", userns="auto") as pod:
    said = pod.run(["cat", "/proc/self/uid_map"], rootfs="busybox", capture_output=True, text=True).stdout
    print(said.split()[1], pod.inspect()["userns"])
try:
    nsbox.Pod(userns="nope")
except nsbox.SpecError:
    print("refused")
""", check=True)
    assert done.stdout == f"{FIXED} auto\nrefused\n"
    assert os.geteuid() == 0
