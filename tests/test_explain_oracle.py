"""explain tells the truth: its events are the lines of strace(1), no more and no fewer.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import oracle
import pytest

from nsbox.explain import catalogue

pytestmark = pytest.mark.needs_root

CREATES = {
    "with a rootfs": ["--rootfs", "busybox"],
    "of the host's tree": [],
    "with everything": ["--rootfs", "busybox", "-v", "/tmp:/mnt:ro", "--tmpfs", "/x:size=1m", "--with", "user,cgroup,time",
                        "--boottime", "100", "--read-only"],
    "in place": ["--rootfs", "busybox", "--in-place"],
    "by chroot, with a program of one's own": ["--rootfs", "busybox", "--chroot", "--init", "sleep 1000"],
    "with limits for a program of one's own": ["--init", "sleep 1000", "--ulimit", "cpu=100", "--ulimit", "fsize=0"],
    "with the readable pause": ["--rootfs", "busybox", "--pause", "python"],
}  # fmt: skip
JOINS = {
    "of all": [],
    "with a root of its own": ["--rootfs", "busybox", "-v", "/tmp:/mnt", "-w", "/mnt"],
    "without pid": ["--share", "net,ipc,uts"],
    "with a hostname": ["--share", "net", "--hostname", "other"],
    "detached": ["-d", "--rootfs", "busybox"],
    "with limits": ["--ulimit", "nofile=64:2048", "--ulimit", "core=0:unlimited", "--ulimit", "as=4000000000"],
    "with limits and without pid": ["--share", "net", "--ulimit", "nproc=1000"],
}


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "other", check=True)


def agree(host, *words):
    seen, told, log = oracle.both(host, words)
    assert told == seen, oracle.difference(seen, told)
    assert sum(map(len, seen.values())) > 3
    return told


@pytest.mark.parametrize("how", CREATES)
def test_a_pod_is_made_by_exactly_the_calls_that_are_told(web, how):
    """Red when: a row is taken out of doors._ROWS, or symbols.CLONE lacks a flag, or `_call` tells result 0 always."""
    agree(web, "create", "other", *CREATES[how])


RUNS = {
    "plainly": ["--", "true"],
    "with a rootfs": ["--rootfs", "busybox", "--", "sh", "-c", "exit 0"],
    "with a user namespace": ["--rootfs", "busybox", "--with", "user", "--", "true"],
}
ENDS = {
    "rm": ["rm", "other"],
    "rm by force": ["rm", "--force", "other"],
    "stop": ["stop", "other"],
    "kill": ["kill", "-s", "TERM", "other"],
    "rm of two": ["rm", "web", "other"],
}


@pytest.mark.parametrize("how", RUNS)
def test_a_run_is_exactly_the_calls_that_are_told(web, how):
    """Red when: syscalls.listen() is called with None between the verb's halves."""
    told = agree(web, "run", *RUNS[how])
    assert any("CLONE_NEWPID" in one.call for task in told.values() for one in task)
    assert any("pidfd_send_signal" in one.call for one in told[0])


@pytest.mark.parametrize("how", ENDS)
def test_an_end_is_exactly_the_signals_that_are_told(web, how):
    """Red when: signal.pidfd_send_signal has no row in doors._ROWS."""
    web.nsbox("create", "other", check=True)
    for _ in range(3):
        web.nsbox("join", "other", "-d", "--", "sleep", "1000", check=True)
    told = agree(web, *ENDS[how])
    assert sum("pidfd_send_signal" in one.call for one in told[0]) >= 3


# What explain keeps quiet about, for it changes nothing for a pod: nsbox's own memory, files and waiting.
QUIET = {
    "memory and start-up": "access arch_prctl brk futex getrandom mmap mprotect mremap munmap rseq set_robust_list "
                           "set_tid_address sysinfo uname",
    "reading": "capget getcwd getdents64 getegid geteuid getgid getgroups getpid getppid gettid getuid lseek newfstatat "
               "pread64 prlimit64 read readlink readlinkat",
    "its own records": "flock fsync mkdir rename renameat unlink unlinkat openat pwrite64",
    "descriptors and masks": "close dup dup2 dup3 fcntl pipe2 umask epoll_create1 rt_sigaction rt_sigprocmask rt_sigreturn socketpair",
    "waiting": "poll rt_sigtimedwait wait4 clock_nanosleep exit_group sendmsg recvmsg sendto recvfrom",
}


@pytest.mark.parametrize("words", [
    ["create", "other", "--rootfs", "busybox", "-v", "/tmp:/mnt:ro"], ["create", "other", "--with", "user,time", "--boottime", "9"],
    ["join", "web", "-d", "--", "sleep", "100"], ["join", "web", "--rootfs", "busybox", "--", "true"],
    ["run", "--rootfs", "busybox", "--", "true"], ["rm", "web"],
], ids=" ".join)  # fmt: skip
def test_a_call_that_is_not_told_is_known_to_change_nothing(web, words):
    """A new system call is either told, by a row in catalogue.CALLS, or stands in QUIET above, for a reason.

    Red when: the row of setsid is taken out of catalogue.CALLS.
    """
    _, _, log = oracle.both(web, words, "trace=all")
    made = {call.partition("(")[0] for task in oracle.of_nsbox(log) for call in task}
    assert made - set(catalogue.CALLS) - set(" ".join(QUIET.values()).split()) == set()
    if words[0] == "rm":
        web.nsbox("create", "web", check=True)


@pytest.mark.parametrize("how", JOINS)
def test_a_member_joins_by_exactly_the_calls_that_are_told(web, how):
    """Red when: a row is taken out of doors._ROWS, or the listener is not told in processes that were forked."""
    told = agree(web, "join", "web", *JOINS[how], "--", "sh", "-c", "exit 0")
    assert any("setns" in one.call for task in told.values() for one in task)


def test_the_limits_of_a_member_are_told_though_the_launcher_sets_them(web):
    """Red when: execute.become() does not foretell, or oracle._limits_of_launcher() finds nothing."""
    told = agree(web, "join", "web", *JOINS["with limits"], "--", "sh", "-c", "exit 0")
    found = [one.call for task in told.values() for one in task if one.call.startswith("prlimit64(")]
    assert found == ["prlimit64(0, RLIMIT_AS, {rlim_cur=3906250*1024, rlim_max=3906250*1024}, NULL)",
                     "prlimit64(0, RLIMIT_CORE, {rlim_cur=0, rlim_max=RLIM64_INFINITY}, NULL)",
                     "prlimit64(0, RLIMIT_NOFILE, {rlim_cur=64, rlim_max=2*1024}, NULL)"]
