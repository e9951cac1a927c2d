"""`nsbox inspect POD` shows how each process of a pod is guarded, and what differs from what members get (C20).

Each value is compared with what the kernel says by other means (postures.py), and with what the process says of itself.
"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import contextlib
import errno
import json
import os
import re
import struct
import sys
from pathlib import Path

import pytest
from fakehost import NSBOX, UID, FakeHost
from inpod import detached, pod
from nsbox.linux.mounts import MountEntry
from nsbox.linux.mounttree import holding, visible
from nsbox.pod import nodes
from nsbox.pod.posture import closed
from nsbox.show.posture import of_security
from postures import true_posture
from procfs import until
from underfilter import FILTERED
from ptyclient import Terminal

pytestmark = pytest.mark.needs_root

PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}
# Options of the pod and of its member; and what the member is to differ in.
CASES = {
    "plain": ([], [], {}),
    "with a root": (["--rootfs", "busybox"], [], {}),
    "privileged": (["--rootfs", "busybox", "--privileged"], [], {}),
    "capabilities": (["--rootfs", "busybox", "--cap-drop", "ALL", "--cap-add", "kill", "--cap-add", "net_raw"], [], {}),
    "read-only": (["--rootfs", "busybox", "--read-only", "--tmpfs", "/tmp"], [], {}),
    "a user": (["--rootfs", "busybox"], ["-u", "1000:1001"], {"user": [1000, 1001]}),
    "userns": (["--rootfs", "busybox", "--userns"], ["-u", "7:8"], {"user": [7, 8]}),
    "unconfined": (["--rootfs", "busybox", "--seccomp", "unconfined"], [], {}),
    "a profile": (["--rootfs", "busybox", "--seccomp", "PROFILE"], [], {}),
    "chroot": (["--rootfs", "busybox", "--chroot"], [], {}),
    "added and dropped": (["--rootfs", "busybox"], ["--cap-add", "NET_RAW", "--cap-drop", "CHOWN"],
                          {"more_capabilities": ["NET_RAW"], "fewer_capabilities": ["CHOWN"]}),
    "limits": (["--rootfs", "busybox", "--ulimit", "nofile=64:128", "--ulimit", "stack=4194304"], ["--ulimit", "nofile=32", "--ulimit", "core=512"],
               {"limits": {"core": {"soft": 512, "hard": 512}, "nofile": {"soft": 32, "hard": 32}}}),
    "unconfined member": (["--rootfs", "busybox"], ["--seccomp", "unconfined"], {"seccomp": "off"}),
    "confined member": (["--rootfs", "busybox", "--seccomp", "unconfined"], ["--seccomp", "nested"], {"seccomp": "filter"}),
}
# What a process says of itself, a line each; then it waits.
SAYS = """
grep -E '^(Uid|Gid|Groups|Cap|NoNew|Seccomp)' /proc/self/status | tr '\\t' ' '
for what in n s c u l; do echo "limit $what $(ulimit -S$what) $(ulimit -H$what)"; done
touch /written 2>/dev/null && echo root writable; rm -f /written
for file in /proc/interrupts /proc/keys /proc/timer_list; do [ "$(head -c 1 $file)" ] || echo empty $file; done
for place in bus fs irq sys; do grep -q " /proc/$place ro," /proc/self/mountinfo && echo closed /proc/$place; done
find /dev \\( -type c -o -type b \\) -exec ls -l {} + 2>/dev/null
echo said
exec sleep 300
"""


def about(host: FakeHost, *targets: str) -> list[dict]:
    return list(json.loads(host.nsbox("inspect", "--json", *targets, check=True).stdout))


def row_of(facts: dict, pid: int) -> dict:
    [row] = [row for row in facts["processes"] if row["pid"] == pid]
    return dict(row)


def with_profile(host: FakeHost, options: list[str]) -> list[str]:
    path = host.work / "profile.json"
    path.write_text(json.dumps(PROFILE))
    return [str(path) if word == "PROFILE" else word for word in options]


@pytest.mark.parametrize("case", CASES)
def test_C20_each_process_of_a_pod_is_shown_as_the_kernel_has_it(host, case):
    """And each detached member again, by its record. What the member says of itself is the same.

    Red when: a reader of posture.py takes another line, column or field; a mount that another covers counts; guarded.rows()
    reads PID 1 for all; differences() leaves one out.
    """
    of_pod, of_member, differs = CASES[case]
    with pod(host, "p", *with_profile(host, of_pod)), detached(host, "p", *of_member, argv=("sh", "-c", SAYS)) as pid:
        for _ in until(20):
            if host.nsbox("logs", str(pid), check=True).stdout.endswith("said\n"):
                break
        for _ in until(20):  # in the host's tree, the /dev is the machine's, where nodes come and go
            [facts] = about(host, "p")
            truth = [true_posture(host, host.host_pid(row["pid"]), "own at start") for row in facts["processes"]]
            if [row["security"] for row in facts["processes"]] == truth:
                break
        for row, true in zip(facts["processes"], truth, strict=True):
            assert row["security"] == true, row["pid"]
        pause, member = facts["processes"]
        assert (pause["pid"], pause["differs"], pause["security"]) == (facts["pid"], None, facts["security"])
        assert (member["pid"], member["differs"]) == (pid, differs)
        [recorded] = facts["members"]
        assert (recorded["pid"], recorded["security"], recorded["differs"]) == (pid, member["security"], differs)
        agrees(member["security"], host.nsbox("logs", str(pid), check=True).stdout.splitlines())


def agrees(security: dict, said: list[str]) -> None:
    """What SAYS printed in the process is what is shown of it from outside."""
    status = {line.partition(":")[0]: line.partition(":")[2].split() for line in said if ":" in line.split(" ")[0]}
    assert [int(status["Uid"][1]), int(status["Gid"][1])] == [security["uid_inside"], security["gid_inside"]]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ([str(int(security["no_new_privs"]))], ["2" if security["seccomp"] == "filter" else "0"])
    for name, key in (("effective", "CapEff"), ("bounding", "CapBnd"), ("inheritable", "CapInh"), ("ambient", "CapAmb")):
        assert bin(int(status[key][0], 16)).count("1") == len(security["capabilities"][name])
    units = {"n": ("nofile", 1), "s": ("stack", 1024), "c": ("core", 512), "u": ("nproc", 1), "l": ("memlock", 1024)}
    bounds = [line.split()[1:] for line in said if line.startswith("limit ")]
    assert len(bounds) == len(units)
    assert sum(len(pair) == 3 for pair in bounds) >= 4  # there are shells that do not know each
    for letter, *pair in (words for words in bounds if len(words) == 3):
        name, unit = units[letter]
        shown = [one if one == "unlimited" else str(int(one) // unit) for one in security["limits"][name].values()]
        # Shells count core files in blocks of 512 or 1024 bytes.
        assert shown == pair or (name == "core" and [word for word in pair if word not in ("0", "unlimited")]), name
    if security["uid_inside"] == 0:
        assert ("root writable" in said) is not security["root_read_only"]
        assert sorted(line.split()[1] for line in said if line.startswith("closed ")) == sorted(
            place for place in security["read_only"] if place.startswith("/proc/"))
    empty = {line.split()[1] for line in said if line.startswith("empty ")}
    assert empty == {"/proc/interrupts", "/proc/keys", "/proc/timer_list"} & set(security["masked"])
    if security["root_is_uid"] == 0 and len(security["devices"]) > 50:
        return  # the machine's /dev, as above
    nodes = [re.match(r"([bc])\S+\s.*?\s(\d+), +(\d+) .* (/dev/\S+)$", line) for line in said if re.match("[bc][r-][w-]", line)]
    assert sorted((node[4], node[1], int(node[2]), int(node[3])) for node in nodes if node) == [
        (node["path"], node["type"][0], node["major"], node["minor"]) for node in security["devices"]]


def test_C20_in_an_ordinary_users_pod_too(user_host):
    """Shown to that user as to root. Red when: what root alone may read is asked for; a number inside is taken for one outside."""
    with pod(user_host, "p", "--rootfs", "busybox"), detached(user_host, "p", "--cap-add", "net_admin") as pid:
        [facts] = about(user_host, "p")
        for row in facts["processes"]:
            assert row["security"] == true_posture(user_host, user_host.host_pid(row["pid"]), "own at start")
        security = row_of(facts, pid)["security"]
        assert (security["uid"], security["uid_inside"], security["root_is_uid"]) == (UID, 0, UID)
        assert row_of(facts, pid)["differs"] == {"more_capabilities": ["NET_ADMIN"]}
        user_host.run(["install", "-d", "-m", "700", "-o", "12346", "-g", "12346", "/run/lock/other"], user=0, check=True)
        for target in ("p", str(facts["pid"]), str(pid)):
            done = user_host.nsbox("inspect", target, user=12346, env={"NSBOX_STATE": "/run/lock/other"})
            assert (done.returncode, done.stdout) == (125, "") and done.stderr.startswith("nsbox: cannot "), done
        user_host.run(["rm", "-rf", "/run/lock/other"], user=0, check=True)


def test_C20_a_privileged_member_of_a_guarded_pod_stands_out(host):
    """In the text too, with a mark; and what others mount over its /proc hides what is below.

    Red when: closed() counts the masks of the pod's /proc, over which a member without the pod's processes has a new one.
    """
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p", "--privileged", "--share", "net,ipc,uts") as pid:
        [facts] = about(host, "p")
        row = row_of(facts, pid)
        assert row["security"] == true_posture(host, host.host_pid(pid), "own at start")
        places = ["/proc/bus", "/proc/fs", "/proc/interrupts", "/proc/irq", "/proc/keys", "/proc/sys", "/proc/timer_list"]
        assert set(places) <= set(row["security"]["open"]) and not set(places) & set(row["security"]["masked"])
        assert row["differs"]["open"] == row["security"]["open"] and row["differs"]["no_new_privs"] is False
        assert row["differs"]["seccomp"] == "off" and "SYS_ADMIN" in row["differs"]["more_capabilities"]
        text = host.nsbox("inspect", "p", check=True).stdout
        assert "    ! no_new_privs: False\n    ! seccomp: off\n" in text and "    ! more_capabilities: DAC_READ_SEARCH " in text
        assert re.search(r"^  - pid=\d+  pod_pid=1  .*\n    user: 0:0$", text, re.MULTILINE), text


def test_C20_whoever_is_alike_is_told_once(host):
    """Red when: of_processes() compares `security` alone, `differs` alone, or nothing."""
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p"), detached(host, "p"), detached(host, "p", "-u", "1000"), \
            detached(host, "p", "--rootfs", "busybox", "--read-only"):
        text = host.nsbox("inspect", "p", check=True).stdout
        assert text.count("no_new_privs: True\n    seccomp: filter (1)") == 4 and text.count("  - pid=") == 5
        assert text.count("    ! user: 1000:1000\n    user: 1000:1000\n") == text.count("    ! ") == 1


def test_C20_the_terminal_of_a_member_is_shown(host):
    """Red when: _terminal() takes the field of another number."""
    with pod(host, "p", "--rootfs", "busybox"), Terminal(host) as terminal:
        terminal.nsbox("join", "-it", "p", "--", "sh", "-c", "echo begun; exec sleep 300")
        terminal.expect("begun")
        [facts] = about(host, "p")
        member = facts["processes"][1]
        assert member["security"] == true_posture(host, host.host_pid(member["pid"]))
        assert (member["security"]["terminal"], member["differs"], facts["members"]) == ("pts/0", {}, [])
        assert {"path": "/dev/pts/0", "type": "char", "major": 136, "minor": 0} in member["security"]["devices"]


# ---- what is hostile, or gone ----

def test_C20_a_dev_of_somebody_hostile_holds_nobody_up(host):
    """With more entries than anybody needs, names that steer a terminal, links that lead out, a pipe that nobody writes to;
    devices under what hides them are not shown.

    Red when: _below() counts nothing, opens what it finds, or follows a link.
    """
    script = ("cd /dev; mkfifo pipe; ln -s / out; ln -s /dev/null also; mkdir -p a/b/c; i=0; while [ $i -lt 5000 ]; do : > a/b/c/$i; i=$((i+1)); done;"
              "mknod \"$(printf '\\033[31mred')\" c 1 3; mkdir under; mknod under/node c 1 3; mount -t tmpfs x under; echo done; exec sleep 300")
    with pod(host, "p", "--rootfs", "busybox"), detached(
            host, "p", "--privileged", "--rootfs", "busybox", argv=("sh", "-c", script)) as pid:
        for _ in until(60):
            if host.nsbox("logs", str(pid), check=True).stdout.endswith("done\n"):
                break
        [facts] = about(host, "p")
        security = row_of(facts, pid)["security"]
        assert security["unread"] == {"devices": "there are more than 4096 entries"}
        assert not [node for node in security["devices"] if "under" in node["path"]]
        text = host.nsbox("inspect", "p", check=True).stdout
        assert "(not read: there are more than 4096 entries)" in text and "\033" not in text


def test_C20_what_ends_meanwhile_is_no_error(host):
    """Members come and go while they are looked at, in each of many looks.

    Red when: guarded._row() lets an OSError pass; everything() takes a look at one that has gone for whole.
    """
    storm = "while :; do (true) & (sleep 0.01) & wait; done"
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p", argv=("sh", "-c", storm)):
        ended = 0
        for _ in range(25):
            for row in about(host, "p")[0]["processes"]:
                ended += row["security"] is None
                assert row["security"] is None or row["security"]["no_new_privs"] is True
        for _ in range(10):
            brief = host.popen(["sh", "-c", "exec sleep 0.1"])
            pid = [inner for inner, real in host.processes().items() if real == brief.inner_pid()]
            done = host.nsbox("inspect", "--json", *map(str, pid)) if pid else None
            assert done is None or done.returncode == 0 or "cannot find process" in done.stderr, done
            brief.communicate()


# Its first thread ends, and another sleeps on.
_LEADERLESS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).syscall({"x86_64": 60}.get(os.uname().machine, 93), 0)
"""


def test_C20_a_process_does_not_hide_by_the_end_of_its_first_thread(host):
    """The kernel calls it a zombie; a thread of it runs with all rights. Red when: what is in state Z is taken for ended."""
    with pod(host, "p"), detached(host, "p", "--privileged", argv=(sys.executable, "-I", "-S", "-c", _LEADERLESS)) as pid:
        for _ in until(20):
            row = row_of(about(host, "p")[0], pid)
            if row["state"] == "Z":
                break
        assert row["security"]["no_new_privs"] is False and "SYS_ADMIN" in row["security"]["capabilities"]["effective"]
        assert row["differs"]["seccomp"] == "off" and "SYS_ADMIN" in row["differs"]["more_capabilities"]


_LOOK = "import json, sys; from nsbox.pod import posture; print(json.dumps(posture.of_process(int(sys.argv[1]))))"


def test_C20_what_may_not_be_read_is_said_to_be_so(user_host):
    """The kernel shows an ordinary user no root and no namespace of another's process; the rest it does.

    Red when: _mounted() lets the refusal pass as an empty list; _inside() guesses.
    """
    pid = int(user_host.run(["sh", "-c", "sleep 300 > /dev/null 2>&1 & echo $!"], user=0, check=True).stdout)
    said = json.loads(user_host.python(_LOOK, str(pid), check=True).stdout)
    hidden = ("devices", "uid_inside", "gid_inside")
    assert said["unread"] == dict.fromkeys(hidden, "Permission denied") and [said[key] for key in hidden] == [None] * 3
    truth = true_posture(user_host, user_host.host_pid(pid))
    assert {**said, "device_mounts": 0} == {**truth, "device_mounts": 0, **dict.fromkeys(hidden), "unread": said["unread"]}
    lines = list(of_security(said))
    assert lines[0] == "user: ?:? inside, 0:0 here" and "devices: not read: Permission denied" in lines
    done = user_host.nsbox("inspect", str(pid))
    assert done.returncode == 125 and done.stderr.startswith("nsbox: cannot look at process"), done
    user_host.run(["kill", str(pid)], user=0, check=True)


def mount(number: int, parent: int, target: str, fstype: str = "tmpfs", options: str = "rw") -> MountEntry:
    return MountEntry(number, parent, "/", target, options, fstype, "none", "", f"0:{number}", "rw")


def test_a_mount_that_another_covers_is_not_seen():
    """Red when: visible() takes the last mount of each target, or the first; holding() takes the root for all."""
    table = [mount(1, 0, "/"), mount(2, 1, "/proc", "proc"), mount(3, 2, "/proc/sys", "proc", "ro"), mount(4, 2, "/proc/keys"),
             mount(5, 2, "/proc", "proc"), mount(6, 5, "/proc/keys"), mount(7, 6, "/proc/keys", "ramfs"), mount(8, 1, "/a"),
             mount(9, 8, "/a/b/c"), mount(10, 8, "/a/b"), mount(11, 77, "/lost")]  # fmt: skip
    shown = visible(table)
    assert {target: one.mount_id for target, one in shown.items()} == {"/": 1, "/proc": 5, "/proc/keys": 7, "/a": 8, "/a/b": 10}
    assert [one and one.mount_id for one in (holding(place, shown) for place in ("/proc/sys/x", "/a/b/c", "/etc"))] == [5, 10, 1]
    # After chroot(2) to a directory in the midst of a mount there is none at "/".
    assert list(visible([mount(5, 3, "/proc"), mount(6, 3, "/dev"), mount(7, 6, "/dev/pts")])) == ["/proc", "/dev", "/dev/pts"]
    assert holding("/etc", visible([mount(5, 3, "/proc")])) is None
    # What is mounted over a root hides nothing from who has that root.
    over = [mount(2, 1, "/proc", "proc"), mount(1, 9, "/"), mount(3, 1, "/", options="ro"), mount(4, 3, "/dev")]
    assert {target: one.mount_id for target, one in visible(over).items()} == {"/proc": 2, "/": 1}


def test_what_can_be_written_to_below_what_is_read_only_is_open():
    """Red when: closed() looks at the places themselves alone."""
    table = [mount(1, 0, "/"), mount(2, 1, "/proc", "proc"), mount(3, 2, "/proc/sys", "proc", "ro"),
             mount(4, 3, "/proc/sys/kernel", "proc"), mount(5, 3, "/proc/sys/net", "proc", "ro"), mount(6, 3, "/proc/sys/fs")]  # fmt: skip
    found = closed(visible(table))
    assert "/proc/sys/kernel" in found["open"] and not {"/proc/sys", "/proc/sys/net", "/proc/sys/fs"} & set(found["open"])


def test_C20_a_mount_over_a_root_hides_nothing_of_it(host):
    """Red when: _at() goes up at "/" as it does elsewhere: then an open /proc and a root that is written to seem closed."""
    script = "mount -t tmpfs -o ro none /; : > /written && echo wrote; exec sleep 300"
    with pod(host, "p", "--rootfs", "busybox"), detached(
            host, "p", "--privileged", "--rootfs", "busybox", argv=("sh", "-c", script)) as pid:
        for _ in until(20):
            if host.nsbox("logs", str(pid), check=True).stdout == "wrote\n":
                break
        [facts] = about(host, "p")
        security = row_of(facts, pid)["security"]
        assert (security["root_read_only"], "/proc" in security["device_mounts"]) == (False, False)
        assert "/proc/sys" in security["open"] and "/dev" in security["device_mounts"]


def test_nothing_is_asked_of_a_file_system_that_a_program_answers_for(tmp_path, monkeypatch):
    """Red when: of_root() looks at the mount of /dev alone, at that of none, or goes through one to what is mounted below."""
    (tmp_path / "dev" / "x").mkdir(parents=True)
    root_fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        for table in ([mount(1, 0, "/", "fuse.sshfs")], [mount(1, 0, "/"), mount(2, 1, "/dev", "fuse")],
                      [mount(1, 0, "/"), mount(2, 1, "/dev"), mount(3, 2, "/dev/x", "autofs")]):  # fmt: skip
            assert nodes.of_root(root_fd, visible(table)) == ([], f"{table[-1].target} is of type {table[-1].fstype}")
        below = [mount(1, 0, "/"), mount(2, 1, "/dev"), mount(3, 2, "/dev/x", "fuse"), mount(4, 3, "/dev/x/y")]
        opened = []
        monkeypatch.setattr(nodes, "_at", lambda _, path, left: opened.append(path) or ())
        assert nodes.of_root(root_fd, visible(below)) == ([], "/dev/x is of type fuse") and opened == ["/dev"]
        monkeypatch.undo()
        assert nodes.of_root(root_fd, visible([mount(1, 0, "/"), mount(2, 1, "/dev")])) == ([], "")
    finally:
        os.close(root_fd)


def test_C20_it_fits_a_terminal_of_80_columns(host):
    """Cut between words; whole for a pipe. Red when: fitted() takes the pipe's way."""
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p", "--privileged"), Terminal(host, columns=80) as terminal:
        terminal.nsbox("inspect", "p")
        assert terminal.ends_with() == 0
        lines = terminal.said.decode().replace("\r\n", "\n").splitlines()
        assert max(map(len, lines)) <= 80 and len(lines) > 80, max(lines, key=len)
        words = " ".join(" ".join(lines).split())
        assert " ".join(host.nsbox("inspect", "p", check=True).stdout.split()).split("processes:")[1] == words.split("processes:")[1]


KEYCTL = {"x86_64": 250}.get(os.uname().machine, 219)
# The serial number of the session keyring of whoever asks.
ASK = [sys.executable, "-I", "-S", "-c", f"import ctypes, time; print(ctypes.CDLL(None).syscall({KEYCTL}, 0, -3, 0), flush=True); time.sleep(300)"]
_WITH_SESSION = f"import ctypes, os, sys; ctypes.CDLL(None).syscall({KEYCTL}, 1, None); os.execvp(sys.argv[1], sys.argv[1:])"


def test_C20_a_session_keyring_is_only_said_to_be_own_where_it_is(host):
    """The kernel shows it to nobody else, so each member is asked: under a filter that refuses keyctl(2) nsbox cannot leave
    the caller's session. Of who is in no record, nothing is said.

    Red when: of_member() says it of each that is recorded; of_pause() does not count the filters.
    """
    lines = ((0x20, 0, 0, 0), (0x15, 0, 1, KEYCTL), (0x06, 0, 0, 0x0005_0000 | errno.EPERM), (0x06, 0, 0, 0x7FFF_0000))
    denying = b"".join(struct.pack("HBBI", *line) for line in lines).hex()
    session = [sys.executable, "-I", "-S", "-c", _WITH_SESSION]
    without = [*session, sys.executable, "-I", "-S", "-c", FILTERED, denying, *NSBOX]
    with pod(host, "p"), contextlib.ExitStack() as stack:
        own = stack.enter_context(detached(host, "p", "--seccomp", "unconfined", argv=tuple(ASK)))
        kept = host.run([*without, "join", "-d", "p", "--", "sleep", "300"], check=True).stdout.strip()
        host.run([*without, "create", "q"], check=True)
        stray = host.popen(["nsenter", "-t", str(own), "-p", "-n", "sleep", "300"])
        stray.inner_pid()
        for _ in until(20):
            if host.nsbox("logs", str(own), check=True).stdout:
                break
        mine = host.popen([*session, *ASK])
        theirs = int(host.nsbox("logs", str(own), check=True).stdout)
        assert theirs > 0 and theirs != int(mine.stdout.readline()) > 0
        p, q = about(host, "p", "q")
        said = {row["pid"]: row["security"]["session_keyring"] for row in p["processes"]}
        assert (said.pop(p["pid"]), said.pop(own), said.pop(int(kept))) == ("own at start", "own at start", "unknown")
        assert set(said.values()) == {"unknown"}
        assert q["security"]["session_keyring"] == "unknown"
        host.nsbox("rm", "-f", "q", check=True)
        stray.end()
        mine.end()
