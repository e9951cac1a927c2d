"""The filter of system calls that members live under, asked in real pods on this kernel.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import errno
import json
import platform
import re
import signal

import pytest
from fakehost import NSBOX
from faults import strace
from inpod import inside, pod, python_path, refused
from ptyclient import Terminal

pytestmark = pytest.mark.needs_root

PYTHON = (python_path(), "-I", "-S", "-c")
X86 = platform.machine() == "x86_64"
# What is free of the filter: the kernel's own answers.
FREE = ("--seccomp", "unconfined")
# The same, and no want of a right keeps the kernel from answering.
MIGHTY = ("--privileged",)

# Makes calls by their numbers; prints a JSON list of the errnos, 0 for none.
_CALLS = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
answers = []
for number, args in json.loads(sys.argv[1]):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_ulong(arg & 2**64 - 1) for arg in args))
    answers.append(ctypes.get_errno() if result == -1 else 0)
print(json.dumps(answers))
"""
BAD = 1  # an address at which nothing is
NEW = {"NS": 0x2_0000, "CGROUP": 0x200_0000, "UTS": 0x400_0000, "IPC": 0x800_0000, "USER": 0x1000_0000,
       "PID": 0x2000_0000, "NET": 0x4000_0000}  # fmt: skip
# Numbers by hand: what is on the list must not depend on a library or on profile.py. The arguments are such
# that nothing happens where the call goes through: a bad address, an unknown command, no such descriptor.
REFUSED = {
    "mount": (165, BAD, BAD, BAD), "umount2": (166, BAD, 0), "pivot_root": (155, BAD, BAD), "chroot": (161, BAD),
    "open_tree": (428, -1, BAD, 0), "move_mount": (429, -1, BAD, -1, BAD, 0), "fsopen": (430, BAD, 0), "fsconfig": (431, -1, 0),
    "fsmount": (432, -1, 0), "fspick": (433, -1, BAD), "mount_setattr": (442, -1, BAD), "setns": (308, -1, 0),
    "sethostname": (170, BAD, 8), "setdomainname": (171, BAD, 8), "bpf": (321, -1, BAD, 0), "perf_event_open": (298, BAD, 0, -1, -1, 0),
    "syslog": (103, -1), "fanotify_init": (300, -1, 0), "quotactl": (179, -1, BAD, 0, BAD), "quotactl_fd": (443, -1, -1),
    "userfaultfd": (323, -1), "add_key": (248, BAD, BAD), "request_key": (249, BAD, BAD), "keyctl": (250, -1),
    "kexec_load": (246, 0, 1, BAD, -1), "kexec_file_load": (320, -1, -1, 0, 0, -1), "swapon": (167, BAD, 0), "swapoff": (168, BAD),
    "init_module": (175, BAD, 1, BAD), "finit_module": (313, -1, BAD, -1), "delete_module": (176, BAD, 0), "reboot": (169, 0, 0, 0),
    "acct": (163, BAD), "settimeofday": (164, BAD, 0), "clock_settime": (227, -1, BAD), "iopl": (172, 4), "ioperm": (173, -1, -1, 1),
    "vhangup": (153,), "open_by_handle_at": (304, -1, BAD, 0), "kcmp": (312, -1, -1, -1), "pidfd_getfd": (438, -1, -1, 0),
    "process_madvise": (440, -1, BAD, 1, 4, 0), "mbind": (237, 1, 1, -1), "set_mempolicy": (238, -1, 0, 0), "get_mempolicy": (239, 0, 0, 0, 0, -1),
    "set_mempolicy_home_node": (450, 1, 1, 0, -1), "migrate_pages": (256, -1, 0, 0, 0), "move_pages": (279, -1, 1, BAD, BAD, BAD, -1),
    "lookup_dcookie": (212, 0, BAD, 0), **{f"unshare {kind}": (272, bits) for kind, bits in NEW.items() if kind != "PID"},
    "unshare TIME": (272, 0x80), "unshare USER and a bit more": (272, 1 << 32 | NEW["USER"]),
}  # fmt: skip
# What does not exist in there: unknown, forgotten, or with flags that no filter sees.
ABSENT = {
    "clone3": (435, BAD, 0), "io_uring_setup": (425, 0, BAD), "io_uring_enter": (426, -1), "io_uring_register": (427, -1),
    "modify_ldt": (154, 0, 0, 0), "uselib": (134, BAD), "sysfs": (139, 3), "ustat": (136, -1, BAD), "_sysctl": (156, BAD),
    "personality ADDR_COMPAT_LAYOUT": (135, 0x20_0000), "an unknown one": (999,), "none": (-1,),
}  # fmt: skip


def answers(host, target: str, calls: list[tuple[int, ...]], *options: str) -> list[int]:
    """The errnos of calls that a member makes."""
    words = json.dumps([[number, args] for number, *args in calls])
    done = host.nsbox("join", target, *options, "--", *PYTHON, _CALLS, words)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found: list[int] = json.loads(done.stdout)
    return found


@pytest.fixture
def web(host):
    """A host with a pod "web" that has the host's tree, and so its interpreter."""
    with pod(host, "web"):
        yield host


def mode_of(host, target: str, *options: str) -> str:
    """The line of /proc/self/status: 2 is a filter, 0 is none."""
    return inside(host, target, "grep ^Seccomp: /proc/self/status", *options).split()[1]


def test_every_process_of_a_pod_has_a_filter(web, rootfs):
    """Red when: member.start() passes None on; create._pid_one does for --init; supervise has its own way."""
    assert mode_of(web, "web") == mode_of(web, "web", "--rootfs", rootfs) == mode_of(web, "web", "--share", "none") == "2"
    assert mode_of(web, "web", *FREE) == "0"
    said = web.nsbox("run", "--rootfs", "busybox", "--", "grep", "Seccomp:", "/proc/self/status", check=True).stdout
    assert said.split() == ["Seccomp:", "2"]
    pid = int(web.nsbox("join", "web", "-d", "--", "sleep", "100", check=True).stdout)
    assert status(web, pid)["Seccomp"] == "2"
    about = json.loads(web.nsbox("inspect", "--json", "web", check=True).stdout)[0]
    assert about["members_get"]["seccomp"] == "default"
    assert [row["seccomp"] for row in about["processes"]] == ["filter", "filter"]
    assert status(web, about["pid"])["Seccomp"] == "2" and about["security"]["seccomp"] == "filter"
    with pod(web, "own", "--rootfs", "busybox", "--init", "sleep 1000") as pid:
        assert status(web, pid)["Seccomp"] == "2"


def status(host, pid: int) -> dict[str, str]:
    """Of a process of the fake host. See proc_pid_status(5)."""
    lines = host.run(["cat", f"/proc/{pid}/status"], check=True).stdout.splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(not X86, reason="the numbers are those of x86_64")
def test_what_a_member_does_not_need_is_refused(web):
    """Each is called by its number, with and without the filter.

    Red when: any of these names is moved to _EVERYONE in profile.py, and built.
    """
    calls = [*REFUSED.values(), *ABSENT.values()]
    filtered, free = answers(web, "web", calls), answers(web, "web", calls, *MIGHTY)
    wanted = dict.fromkeys(REFUSED, errno.EPERM) | dict.fromkeys(ABSENT, errno.ENOSYS)
    assert dict(zip(wanted, filtered)) == wanted
    # The kernel by itself answers otherwise, but for calls that it does not have either: so it was the filter.
    same = {what for what, code in zip(wanted, free) if code == wanted[what]}
    assert len(same) < len(wanted) // 5, same


def test_a_pod_s_filter_is_its_members_and_a_member_s_own_prevails(web):
    """Red when: PodRecord.seccomp is not written, or member._filter looks at the pod's first."""
    with pod(web, "free", *FREE), pod(web, "deep", "--seccomp", "nested"):
        assert mode_of(web, "free") == "0" and mode_of(web, "free", "--seccomp", "default") == "2"
        assert json.loads(web.nsbox("inspect", "--json", "free").stdout)[0]["members_get"]["seccomp"] == "unconfined"
        assert inside(web, "deep", "unshare --user --map-root-user id -u") == "0"
        assert "not permitted" in inside(web, "deep", "unshare --user true 2>&1", "--seccomp", "default", status=1)
    with pod(web, "own", "--init", "sleep 1000", *FREE) as pid:
        assert status(web, pid)["Seccomp"] == "0"


def test_nested_lets_members_make_namespaces(web):
    """Red when: default_rules() does not look at `nested`."""
    script = "unshare --user --map-root-user --mount --pid --uts --fork sh -c 'mount -t tmpfs x /mnt && hostname x && echo $$'"
    assert "not permitted" in inside(web, "web", script + " 2>&1", status=1)
    assert inside(web, "web", script, "--seccomp", "nested") == "1"


# ---- C14: tricks ----

# Machine code of x86: getpid by int 0x80, which is number 20 of the 32-bit kernel interface.
_INT_80 = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("b814000000cd80c3"))
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))(), flush=True)
"""
_X32 = "import ctypes; libc = ctypes.CDLL(None); print(libc.syscall(ctypes.c_long(0x40000027)), flush=True)"
# A 32-bit program: mov ebx, 42; mov eax, 1; int 0x80. ELF header, one segment, code.
_ELF32 = bytes.fromhex(
    "7f454c46010101000000000000000000" "02000300010000005480040834000000" "00000000000000003400200001000000"
    "00000000" "01000000000000000080040800800408" "60000000600000000500000000100000" "bb2a000000b801000000cd80"
)  # fmt: skip


@pytest.mark.skipif(not X86, reason="other machines have no such calls")
def test_C14_calls_of_other_machines_end_the_process(web):
    """By int 0x80 out of a 64-bit program, by an x32 number, and by a whole program of 32 bits.

    Red when: OTHER_MACHINE is ALLOW, and built.
    """
    program = web.work / "program32"
    program.write_bytes(_ELF32)
    program.chmod(0o755)
    killed = 128 + signal.SIGSYS
    free = web.nsbox("join", "web", *FREE, "--", *PYTHON, _INT_80)
    if free.returncode == 0:  # the kernel has the 32-bit interface
        assert int(free.stdout) > 1
        assert web.nsbox("join", "web", *FREE, "--", program).returncode == 42
        assert web.nsbox("join", "web", "--", program).returncode == killed
    done = web.nsbox("join", "web", "--", *PYTHON, _INT_80)
    assert (done.returncode in (killed, 128 + signal.SIGSEGV), done.stdout) == (True, "")
    assert free.returncode != 0 or done.returncode == killed
    assert web.nsbox("join", "web", *FREE, "--", *PYTHON, _X32).returncode == 0
    assert web.nsbox("join", "web", "--", *PYTHON, _X32).returncode == killed


# Types with TIOCSTI on its own terminal, where 32 bits that the kernel does not look at are set.
_TYPE_WIDE = """
import ctypes, os
libc, tty = ctypes.CDLL(None, use_errno=True), os.open("/dev/tty", os.O_RDWR)
for command in (0x5412, 1 << 32 | 0x5412, 1 << 63 | 0x5412):
    result = libc.ioctl(tty, ctypes.c_ulong(command), ctypes.c_char_p(b"x"))
    print("answer", result, ctypes.get_errno() if result else 0, flush=True)
    ctypes.set_errno(0)
"""


def test_C14_G01_G02_nobody_types_into_a_terminal_not_by_a_wide_number_either(web):
    """Not even into his own, where the kernel would let root. Without the filter it works.

    Red when: Test.mask is 2**64 - 1, and built.
    """
    for options, answer in ((FREE, b"answer 0 0\r\n"), ((), b"answer -1 1\r\n"), (("--seccomp", "nested"), b"answer -1 1\r\n")):
        with Terminal(web) as terminal:
            terminal.nsbox("join", "web", "-t", *options, "--", *PYTHON, _TYPE_WIDE)
            assert terminal.ends_with() == 0, terminal.said
            assert terminal.said.count(answer) == 3, (options, terminal.said)


# ---- what must go on working ----

ORDINARY = {
    "a shell": "echo $(echo a | tr a b) && (sleep 0.01 & wait) && ls / > /dev/null && test -w /tmp",
    "perl": "perl -e 'fork // die; use POSIX; print POSIX::getpid() > 0; wait'",
    "a debugger": "command -v strace > /dev/null || exit 0; strace -o /dev/null true",
    "sockets and threads": f"{python_path()} -I -c 'import asyncio, socket, threading, subprocess as s\n"
                           "t = threading.Thread(target=print); t.start(); t.join()\n"
                           "asyncio.run(asyncio.sleep(0)); s.run([\"true\"], check=True)\n"
                           "[socket.socket(f, socket.SOCK_DGRAM).close() for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)]'",
    "processes": f"{python_path()} -I -c 'import multiprocessing as m\nwith m.Pool(2) as p: print(p.map(abs, [-1]))'",
    "a change of user": "test $(setpriv --reuid 1000 --regid 1000 --clear-groups id -u) = 1000",
    "interfaces": "ip -brief link > /dev/null",
    "no random addresses": "setarch -R true",
    "packages": "dpkg -l dpkg > /dev/null && apt-get --version > /dev/null",
}  # fmt: skip


@pytest.mark.parametrize("what", ORDINARY)
def test_ordinary_programs_work_under_the_filter(web, what):
    """Red when: a call of _EVERYONE that they need is taken out, say futex, socketpair or personality."""
    inside(web, "web", ORDINARY[what])


# ---- when the kernel will not ----

@pytest.mark.parametrize("code", ["EINVAL", "ENOSYS"])
@pytest.mark.parametrize("words", [["join", "web", "--", "true"], ["run", "--", "true"], ["create", "own", "--init", "sleep 9"]], ids=str)
def test_H16_a_kernel_that_takes_no_filter_is_an_error_that_says_so(web, code, words):
    """And nothing runs without one. Red when: the launcher goes on after an error of seccomp(2); told() gives no hint."""
    status, out, err, log = strace(web, f"inject=seccomp:error={code}", ["-e", "trace=seccomp,execve", *NSBOX, *words])
    assert status == 125 and out == "", (status, out, err)
    said, hint = err.splitlines()
    assert said.startswith("nsbox: cannot ") and ": seccomp: " in said
    assert hint.startswith("hint: ") and "--seccomp unconfined" in hint
    assert "INJECTED" in log and re.search(r'execve\("[^"]*/(true|sleep)"', log) is None, log
    assert [row["name"] for row in json.loads(web.nsbox("ls", "--json").stdout)] == ["web"]


def test_a_machine_without_a_launcher_loads_it_too(host):
    """By the interpreter itself. Red when: execute.become() calls no seccomp.load()."""
    code = """
import sys
from nsbox.pod import launch
launch.MACHINES = ()
sys.argv = ["nsbox", "join", "web", *sys.argv[1:], "--", "sh", "-c", "grep Seccomp: /proc/self/status; exec no-such-program"]
from nsbox.cli import entry
sys.exit(entry())
"""
    with pod(host, "web", "--rootfs", "busybox"):
        for options in ((), ("--privileged", "--seccomp", "default")):
            done = host.python(code, *options)
            assert (done.stdout.split(), done.returncode) == (["Seccomp:", "2"], 127), done.stderr


def test_an_error_of_the_command_is_still_told(web):
    """After the filter is in force: what is not found, and what cannot be run.

    Red when: `write` is taken out of _EVERYONE, and built.
    """
    assert web.nsbox("join", "web", "--", "no-such-program").returncode == 127
    assert web.nsbox("join", "web", "--", "/etc/passwd").returncode == 126


def test_a_filter_of_no_known_name_is_wrong_use(host):
    """Red when: parse_seccomp() takes any word."""
    for word in ("", "defaults", "Default", "none"):
        assert "seccomp" in refused(host, "create", "x", "--seccomp", word, status=2)


def test_an_ordinary_user_s_members_have_it_too(user_host):
    """Beside a process that is no pod's as well, where nobody has a capability.

    Red when: the launcher (or seccomp.load(), on a machine without one) does not try again with no_new_privs.
    """
    with pod(user_host, "mine", "--rootfs", "busybox"):
        assert mode_of(user_host, "mine") == "2" and mode_of(user_host, "mine", *FREE) == "0"
    beside = user_host.popen(["sleep", "300"])
    for options in ((), ("--privileged", "--seccomp", "default")):
        done = user_host.nsbox("join", str(_pid_of(user_host, beside)), *options, "--", "grep", "Seccomp:", "/proc/self/status", check=True)
        assert done.stdout.split() == ["Seccomp:", "2"]
    beside.end()


def _pid_of(host, command) -> int:
    real = command.inner_pid()
    return next(pid for pid, outside in host.processes().items() if outside == real)


def test_the_library_takes_a_filter(host):
    """Red when: api.Pod or _member_spec() leaves it out."""
    code = """
import nsbox
look = ["grep", "Seccomp:", "/proc/self/status"]
with nsbox.Pod(rootfs="busybox") as one, nsbox.Pod(rootfs="busybox", seccomp="unconfined") as two:
    for pod, options in ((one, {}), (one, {"seccomp": "unconfined"}), (two, {}), (two, {"seccomp": "nested"})):
        print(pod.run(look, capture_output=True, text=True, **options).stdout.split()[1], end="")
    print("", *(pod.inspect()["members_get"]["seccomp"] for pod in (one, two)))
"""
    assert host.python(code, check=True).stdout.split() == ["2002", "default", "unconfined"]
