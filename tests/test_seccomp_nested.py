"""What the filter of system calls keeps a pod from regaining: rights in a user namespace of its own (row C08).

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import json
import platform

import pytest
from inpod import pod, python_path, with_python

pytestmark = [
    pytest.mark.needs_root, pytest.mark.needs_ns("user"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of calls and registers are those of x86_64"),
]  # fmt: skip

PYTHON = (python_path(), "-I", "-S", "-c")
# unshare, clone, clone3 with CLONE_NEWUSER; and a second chance by a larger limit. Prints the errnos.
_MAKE = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
def tried(call, *args):
    ctypes.set_errno(0)
    pid = os.fork()
    if pid == 0:
        result = libc.syscall(ctypes.c_long(call), *args)
        os._exit(ctypes.get_errno() if result < 0 else 0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
USER = 0x10000000
args = ctypes.create_string_buffer(struct.pack("<11Q", USER, *[0] * 3, 17, *[0] * 6))
try:
    with open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("1000")
    raised = True
except OSError:
    raised = False
print(tried(272, ctypes.c_ulong(USER)), tried(56, ctypes.c_ulong(USER | 17), None, None, None, None), tried(435, args, 88), raised)
"""
REFUSED, DONE = "1 1 38 False\n", "0 0 0 False\n"  # EPERM, EPERM, ENOSYS
PODS = {"of root": [], "with ids of its own": ["--userns"]}
MEMBERS = {"root": [], "somebody": ["-u", "1000"], "with its own mounts": ["--share", "net"]}


@pytest.mark.parametrize("options", PODS.values(), ids=PODS)
def test_C08_no_member_makes_a_user_namespace(host, rootfs, options):
    """Not by any of three calls, nor by a limit that it raised first. The kernel would let it: see the last line.

    Red when: `clone` and `unshare` are among the calls for everyone in profile.py; `clone3` is; the filter is not loaded.
    """
    with pod(host, "p", "--rootfs", rootfs, *with_python(rootfs), *options):
        for who in MEMBERS.values():
            done = host.nsbox("join", "p", *who, "--", *PYTHON, _MAKE, check=True)
            assert done.stdout == REFUSED, (who, done.stdout)
        assert host.nsbox("join", "p", "--seccomp", "nested", "--", *PYTHON, _MAKE, check=True).stdout == DONE


def test_C08_nor_does_one_of_an_ordinary_user_s_pod(user_host):
    """Red when: as above."""
    with pod(user_host, "p"):
        assert user_host.nsbox("join", "p", "--", *PYTHON, _MAKE, check=True).stdout == REFUSED
        assert user_host.nsbox("join", "p", "--seccomp", "nested", "--", *PYTHON, _MAKE, check=True).stdout == DONE


# Traces PID 1 and has it call userfaultfd(UFFD_USER_MODE_ONLY): prints what that returned.
_BORROW = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes, libc.ptrace.restype = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
SEIZE, INTERRUPT, GETREGS, SETREGS, STEP, DETACH = 0x4206, 0x4207, 12, 13, 9, 17
RAX, RDI, ORIG_RAX, RIP = 10, 14, 15, 16
def ptrace(request, data=None):
    if libc.ptrace(request, 1, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    if request in (INTERRUPT, STEP):
        os.waitpid(1, 0x40000000)
regs = (ctypes.c_ulonglong * 27)()
where = ctypes.addressof(regs)
for request in (SEIZE, INTERRUPT):
    ptrace(request)
ptrace(GETREGS, where)
before = bytes(regs)
regs[RAX], regs[RDI], regs[ORIG_RAX], regs[RIP] = 323, 1, 2**64 - 1, regs[RIP] - 2
ptrace(SETREGS, where)
ptrace(STEP)
ptrace(GETREGS, where)
print(ctypes.c_longlong(regs[RAX]).value)
ctypes.memmove(regs, before, len(before))
ptrace(SETREGS, where)
ptrace(DETACH)
"""
PTRACE = ("--cap-add", "SYS_PTRACE")  # from others that pause hides
PAUSES = {"the pause": ([], "-38"), "the readable one": (["--pause", "python", *PTRACE], "-1"), "of a pod with ids of its own": (["--userns"], "-38"),
          "of a profile": (["--seccomp", "FILE"], "-38"), "of no filter": (["--seccomp", "unconfined"], "3")}  # fmt: skip


@pytest.mark.parametrize("options, answer", PAUSES.values(), ids=PAUSES)
def test_C08_nobody_has_the_pause_make_a_call_that_he_may_not(host, rootfs, options, answer):
    """Root of the pod may trace PID 1, which has no more rights than he: so it has a filter too. Afterwards it goes on.

    Red when: _start() passes None on for the pause; become_pause() or stay_as_pause() does not load it.
    """
    path = host.work / "profile.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}))
    with pod(host, "p", "--rootfs", rootfs, *with_python(rootfs), *(str(path) if word == "FILE" else word for word in options)):
        # Without a filter a descriptor comes back: the attack works where it may.
        assert host.nsbox("join", "p", "--", *PYTHON, _BORROW, check=True).stdout.strip() == answer
        assert host.nsbox("join", "p", "--", "sh", "-c", "(true &)", check=True).returncode == 0
        host.nsbox("stop", "p", check=True)
