"""What members may do, beyond capabilities: keys, each other, the host, limits; and what inspect says (A22, C12, C13, C15, C20).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import os
import sys
from pathlib import Path

import postures
import pytest
from fakehost import NSBOX
from inpod import detached, inside, pod
from procfs import until

pytestmark = pytest.mark.needs_root

# ---- keys ----

# keyctl(2) by number: there may be no keyutils here. Makes a session of its own, so that the test
# run's keys stay as they are; in it a key that only who possesses it can read; then the command.
_WITH_KEY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
add_key, keyctl = {"x86_64": (248, 250)}.get(os.uname().machine, (217, 219))
def call(*args):
    result = libc.syscall(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
call(keyctl, 1, None)
key = call(add_key, b"user", os.environ["NAME"].encode(), b"secret", 6, -3)
call(keyctl, 5, key, int(sys.argv[1], 16))
os.environ["KEY"] = str(key)
os.execvp(sys.argv[2], sys.argv[2:])
"""
POSSESSOR_ALONE = "0x3f000000"
SEEN_BY_ITS_USER = "0x3f010000"  # its name, in /proc/keys
# Reads the key by its number, and looks for it in the session.
_READ_KEY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
keyctl = {"x86_64": 250}.get(os.uname().machine, 219)
for args in ((11, int(sys.argv[1]), ctypes.create_string_buffer(16), 16), (10, -3, b"user", os.environ["NAME"].encode(), 0)):
    print("got" if libc.syscall(keyctl, *args) >= 0 else "refused")
"""


def read_key(*before: str) -> list[str]:
    """A shell's words that run _READ_KEY after `before`."""
    return ["sh", "-c", '"$@" "$KEY"', "sh", *before, sys.executable, "-I", "-S", "-c", _READ_KEY]


# Without the filter of system calls, which refuses keyctl(2) to everybody: it would be refused anyway.
FREE = ["--seccomp", "unconfined"]
WAYS = {"join": ["join", "p", *FREE], "join --privileged": ["join", "p", "--privileged"], "run": ["run", *FREE],
        "beside a process": ["join", "1", *FREE]}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_A22_a_member_cannot_read_the_keys_of_whoever_called_nsbox(host, way):
    """Red when: _become_member() leaves out leave_session_keyring."""
    session = [sys.executable, "-I", "-c", _WITH_KEY, POSSESSOR_ALONE]
    name = {"NAME": "nsbox-canary"}
    bare = host.run([*session, *read_key()], env=name, check=True)
    assert bare.stdout == "got\ngot\n", "the key cannot be read outside, so it proves nothing"
    with pod(host, "p"):
        done = host.run([*session, *read_key(*NSBOX, *way, "-e", "NAME", "--")], env=name, check=True)
        assert done.stdout == "refused\nrefused\n"


@pytest.mark.parametrize("how", [[], ["--rootfs", "busybox"], ["--init", "sleep 1000"]], ids=str)
def test_A22_nor_does_PID_1_hold_them(host, how):
    """When nobody holds a session any more, its keys are gone. (Not so under --pause python: the files of the
    interpreter, which it has mapped, were opened in the caller's session. It cannot use the keys.)

    Red when: _pid_one() leaves out leave_session_keyring, or calls it after rootfs.enter().
    """
    def canaries() -> list[str]:
        return [line for line in Path("/proc/keys").read_text().splitlines() if name in line]

    name = f"nsbox-canary-{os.urandom(4).hex()}"  # /proc/keys is the whole machine's
    session = [sys.executable, "-I", "-c", _WITH_KEY, SEEN_BY_ITS_USER]
    seen = host.run([*session, "cat", "/proc/keys"], env={"NAME": name}, check=True).stdout
    assert name in seen
    try:
        host.run([*session, *NSBOX, "create", "p", *how], env={"NAME": name}, check=True)
        for _ in until(20):
            if not canaries():
                break
        assert canaries() == []
    finally:
        host.nsbox("rm", "-f", "p", check=True)


# ---- members and each other ----

def test_C13_members_of_different_users_are_closed_to_each_other(host):
    """As two containers of one Kubernetes pod are that share its PID namespace; root is open to root.

    Red when: a member keeps CAP_SYS_PTRACE, or becomes the user without all its three ids.
    """
    look = "for what in environ maps; do cat /proc/{0}/$what > /dev/null 2>&1 && echo $what; done;" \
           "for what in root cwd fd/0; do readlink /proc/{0}/$what > /dev/null && echo $what; done; :"
    everything = "environ\nmaps\nroot\ncwd\nfd/0"
    with pod(host, "p", "--rootfs", "busybox"), detached(host, "p", "-u", "1001", argv=("sleep", "301")), \
            detached(host, "p", argv=("sleep", "302")):
        rows = json.loads(host.nsbox("ps", "--json", "p", check=True).stdout)
        theirs, roots = ([row["pod_pid"] for row in rows if row["command"] == ["sleep", number]][0] for number in ("301", "302"))
        assert inside(host, "p", look.format(theirs), "-u", "1000") == ""
        assert inside(host, "p", look.format(roots), "-u", "1000") == ""
        assert inside(host, "p", look.format(theirs), "-u", "1001") == everything
        assert inside(host, "p", look.format(theirs)) == ""  # root of the pod, without CAP_SYS_PTRACE
        assert inside(host, "p", look.format(roots)) == everything
        assert inside(host, "p", look.format(theirs), "--cap-add", "sys_ptrace") == everything


# ---- the host ----

@pytest.mark.parametrize("how", [[], ["--rootfs", "busybox"], ["--userns"], ["--privileged"], None], ids=str)
def test_C12_a_pod_neither_sees_nor_signals_a_process_of_the_host(request, how):
    """None is an ordinary user's. By a number that no process of the pod has. Red when: member._enter_namespaces leaves CLONE_NEWPID out."""
    host = request.getfixturevalue("user_host" if how is None else "host")
    host.run(["sh", "-c", "echo 30000 > /proc/sys/kernel/ns_last_pid"], user=0, check=True)
    pid = int(host.run(["sh", "-c", "sleep 300 > /dev/null 2>&1 & echo $!"], check=True).stdout)
    assert pid > 30000
    try:
        with pod(host, "p", *(how or [])), detached(host, "p", argv=("sleep", "301")):
            for options in ([], ["--rootfs", "busybox"], ["--share", "net"]):
                said = inside(host, "p", f"kill -0 {pid} 2>&1; [ ! -e /proc/{pid} ] || echo seen; ls -d /proc/[0-9]* | wc -l", *options)
                assert "No such process" in said and "seen" not in said and int(said.split()[-1]) < 9, (options, said)
    finally:
        host.run(["kill", str(pid)], check=True)


# ---- limits ----

LIMITS = ["prlimit", "--nofile=777:888", "--core=unlimited:unlimited", "--nproc=4242:4242", "nice", "-n", "3", "taskset", "1"]
TELL = "cat /proc/self/limits; cut -d' ' -f19 /proc/self/stat; grep Cpus_allowed_list /proc/self/status"


def limits_of(text: str) -> dict[str, str]:
    """The limits of TELL by name, with niceness and processors."""
    lines = text.splitlines()
    found = {line[:26].strip(): " ".join(line[26:].split()[:2]) for line in lines[1:-2]}
    return {**found, "nice": lines[-2], "processors": lines[-1].split()[1]}


@pytest.mark.parametrize("way", [["join", "p"], ["join", "p", "--privileged"], ["run", "--rootfs", "busybox"]], ids=str)
def test_C15_limits_are_the_callers_but_no_core_is_written(host, way):
    """README.md says so. Red when: confine() leaves out forbid_core_files, or sets another limit."""
    with pod(host, "p", "--rootfs", "busybox"):
        caller = limits_of(host.run([*LIMITS, "sh", "-c", TELL], check=True).stdout)
        member = limits_of(host.run([*LIMITS, *NSBOX, *way, "--", "sh", "-c", TELL], check=True).stdout)
    assert caller["Max open files"] == "777 888" and caller["nice"] == "3" and caller["processors"] == "0"
    assert member == (caller if "--privileged" in way else {**caller, "Max core file size": "0 0"})


# ---- inspect ----

def inspected(host, target: "str | int") -> dict:
    return json.loads(host.nsbox("inspect", "--json", str(target), check=True).stdout)[0]


CASES = {
    "plain": ([], []),
    "changed": (["--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"], ["--cap-add", "NET_RAW"]),
    "privileged": (["--privileged", "--rootfs", "busybox"], []),
    "nothing": (["--rootfs", "busybox"], ["--cap-drop", "ALL"]),
    "somebody": (["--rootfs", "busybox"], ["-u", "1000:1001"]),
    "user namespace": (["--userns", "--rootfs", "busybox"], []),
}


@pytest.mark.parametrize("case", CASES)
def test_C20_what_inspect_says_of_a_member_is_what_the_kernel_says(host, case):
    """Red when: a key of posture.of_process() reads another line of /proc/PID/status, or a mask is passed over."""
    of_pod, of_member = CASES[case]
    with pod(host, "p", *of_pod), detached(host, "p", *of_member) as pid:
        for target, number in (("p", None), (pid, pid)):
            inspected_and_true(host, target, host.host_pid(number or inspected(host, target)["pid"]), "unknown" if number else "own at start")
        promised = inspected(host, "p")["members_get"]
        plain = json.loads(json.dumps(inspected(host, pid)["security"]))
        if not of_member:
            assert promised["capabilities"] == plain["capabilities"]["effective"]
            assert promised["no_new_privs"] is plain["no_new_privs"] is (case != "privileged")
        assert promised["privileged"] is (case == "privileged")
        assert plain["uid"] == {"somebody": 1000}.get(case, plain["root_is_uid"])


def inspected_and_true(host, target: "str | int", pid: int, keyring: str = "unknown") -> dict:
    """What is said of a process, which is true. In the host's tree the /dev is the machine's, where nodes come and go."""
    for _ in until(20):
        about, truth = inspected(host, target), postures.true_posture(host, pid, keyring)
        if about["security"]["devices"] == truth["devices"]:
            break
    assert_true(about["security"], truth)
    return about


def assert_true(said: dict, truth: dict) -> None:
    """Each value against /proc, read by another way than nsbox does: see postures.py."""
    for key in said.keys() | truth.keys():
        assert said[key] == truth[key], key


def test_C20_each_value_of_it_is_compared(host):
    """The comparison of the test above notices each single one that is wrong. Red when: assert_true() leaves one out."""
    with pod(host, "p", "--userns", "--rootfs", "busybox"), detached(host, "p", "-u", "1000:1001") as pid:
        real, said = host.host_pid(pid), inspected(host, pid)["security"]
        truth = postures.true_posture(host, real)
        assert_true(said, truth)
        assert said.keys() == truth.keys() and len(said) == 25
        for key, value in said.items():
            for wrong in postures.wrong(value):
                with pytest.raises(AssertionError):
                    assert_true({**said, key: wrong}, truth)
                    pytest.fail(f"{key} may be {wrong}", pytrace=False)


# Three users, two groups besides its own, and five sets of capabilities of which no two are the same. See prctl(2).
_ODD = """
import ctypes, os, sys
from nsbox.linux import syscalls
prctl = ctypes.CDLL(None).prctl
open("/proc/self/oom_score_adj", "w").write("300")
prctl(24, 21, 0, 0, 0)  # PR_CAPBSET_DROP
prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS
os.setgroups([4, 27])
os.setresgid(1001, 1002, 1003)
os.setresuid(1004, 1005, 1006)
syscalls.capset(1 << 13, 1 << 13 | 1 << 7 | 1 << 5, 1 << 7 | 1 << 5)
print(prctl(47, 2, 7, 0, 0), flush=True)  # PR_CAP_AMBIENT_RAISE
sys.stdin.read()
"""


def test_C20_inspect_says_it_of_any_process(host):
    """Red when: two keys of posture.of_process() read one line of /proc/PID/status, or the wrong column of it."""
    odd = host.popen([sys.executable, "-c", _ODD], stdin=-1)
    assert odd.stdout.readline() == "0\n"
    [pid] = [inner for inner, real in host.processes().items() if real == odd.inner_pid()]
    said = inspected_and_true(host, pid, odd.inner_pid())["security"]
    assert (said["uid"], said["gid"], said["groups"], said["oom_score_adj"]) == (1005, 1002, [4, 27], 300)
    assert len({tuple(names) for names in said["capabilities"].values()}) == len(said["capabilities"]) == 5
    odd.communicate("")


def test_C20_inspect_says_the_rest_of_the_posture(host):
    """Root, network, pause and the list of members in the text form too.

    Red when: _pod_facts() leaves out one of these keys.
    """
    with pod(host, "p", "--rootfs", "busybox", "--cap-drop", "ALL", "--cap-add", "kill"):
        about, text = inspected(host, "p"), host.nsbox("inspect", "p", check=True).stdout
    assert (about["root_change"], about["network"], about["pause"]) == ("pivot_root", "none", "static")
    assert about["members_get"] == {"capabilities": ["KILL"], "no_new_privs": True, "privileged": False,
                                    "cap_add": ["KILL"], "cap_drop": ["ALL"], "seccomp": "default", "user": [0, 0]}
    assert "members_get:\n  capabilities: KILL\n  no_new_privs: True\n" in text
