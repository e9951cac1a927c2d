"""The default filter of system calls, as people read it. Data: it touches nothing.

What it is for: the calls that every program makes pass; what only an administrator of the machine
needs is refused, for a kernel bug behind it would be a way out; and a call that is not named here
does not exist (ENOSYS), so that a program falls back as it would on an older kernel. A refusal in
words (EPERM) is for what programs do try, and what they have a sentence for.

The kernel's own checks stay: what passes here needs its capability all the same. Names that a
machine does not have are passed over, so the lists serve all machines.
"""

import errno
from typing import Iterator, NamedTuple

# Actions, the numbers of seccomp(2). An errno stands in the lower 16 bits.
ALLOW = 0x7FFF_0000
KILL_PROCESS = 0x8000_0000
ERRNO = 0x0005_0000
EPERM, ENOSYS, EAFNOSUPPORT = (ERRNO | code for code in (errno.EPERM, errno.ENOSYS, errno.EAFNOSUPPORT))

WORD = 0xFFFF_FFFF  # the kernel takes an int argument from the lower half of a register: the rest is noise


class Test(NamedTuple):
    """What an argument must be: `value`, as far as `mask` looks; or in another relation to it, as a whole.

    Attributes:
        operator: libseccomp's: MASKED_EQ, EQ, NE, LT, LE, GE, GT.
    """

    argument: int
    value: int
    mask: int = WORD
    operator: str = "MASKED_EQ"


class Rule(NamedTuple):
    """What happens to some calls, if all tests are passed."""

    calls: tuple[str, ...]
    action: int
    tests: tuple[Test, ...] = ()


# A call that none of the rules is about; one made as a program of another machine would (i386, x32, arm):
# its numbers mean other calls there, and a program that is told ENOSYS even for exit(2) can do nothing else.
NO_RULE = ENOSYS
OTHER_MACHINE = KILL_PROCESS

_EVERYONE = """
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek
    sendfile sendfile64 splice tee vmsplice copy_file_range readahead
    open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 fcntl fcntl64 flock
    stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx statfs statfs64 fstatfs fstatfs64
    access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir umask
    getdents getdents64 name_to_handle_at
    mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat rename renameat renameat2 mknod mknodat
    chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32
    utime utimes futimesat utimensat utimensat_time64
    truncate truncate64 ftruncate ftruncate64 fallocate fadvise64 fadvise64_64 arm_fadvise64_64
    sync syncfs fsync fdatasync sync_file_range sync_file_range2 arm_sync_file_range cachestat
    getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr
    removexattr lremovexattr fremovexattr
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
    epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_settime64
    timerfd_gettime timerfd_gettime64
    io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents io_pgetevents_time64

    brk mmap mmap2 munmap mremap mprotect madvise mincore msync remap_file_pages
    mlock mlock2 mlockall munlock munlockall memfd_create memfd_secret membarrier map_shadow_stack
    pkey_alloc pkey_free pkey_mprotect

    fork vfork execve execveat exit exit_group wait4 waitid waitpid
    getpid getppid gettid getpgid getpgrp getsid setpgid setsid set_tid_address
    futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue get_robust_list set_robust_list rseq
    get_thread_area set_thread_area arch_prctl set_tls prctl seccomp
    landlock_create_ruleset landlock_add_rule landlock_restrict_self
    pidfd_open pidfd_send_signal process_mrelease
    ptrace process_vm_readv process_vm_writev
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval sched_rr_get_interval_time64 getpriority setpriority nice ioprio_get ioprio_set
    getrlimit ugetrlimit setrlimit prlimit64 getrusage times getcpu sysinfo uname
    restart_syscall swapcontext cacheflush breakpoint riscv_flush_icache riscv_hwprobe

    kill tkill tgkill pause alarm getitimer setitimer sigaltstack signal sigaction sigsuspend sigpending
    sigprocmask sigreturn rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigreturn
    rt_sigtimedwait rt_sigtimedwait_time64 rt_sigqueueinfo rt_tgsigqueueinfo

    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
    nanosleep clock_nanosleep clock_nanosleep_time64 adjtimex clock_adjtime clock_adjtime64
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    getrandom

    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32
    getresgid getresgid32 getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32
    setregid setregid32 setresuid setresuid32 setresgid setresgid32 setgroups setgroups32
    setfsuid setfsuid32 setfsgid setfsgid32 capget capset

    socketcall socketpair bind listen accept accept4 connect shutdown getsockname getpeername
    getsockopt setsockopt send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    ipc msgget msgsnd msgrcv msgctl semget semop semtimedop semtimedop_time64 semctl
    shmget shmat shmdt shmctl mq_open mq_unlink mq_notify mq_getsetattr
    mq_timedsend mq_timedsend_time64 mq_timedreceive mq_timedreceive_time64
"""

# The pause: the first line is what it does, the second is for the interpreter that becomes it. Root of the pod may
# trace it and have it make a call: what the pause may not, nobody can borrow of it.
_PAUSE = """
    rt_sigprocmask rt_sigtimedwait rt_sigtimedwait_time64 wait4 prctl exit exit_group restart_syscall rt_sigreturn
    execveat read pread64 write pwrite64 lseek fcntl close readlink readlinkat poll ppoll ioctl rt_sigaction futex
    brk mmap munmap mremap mprotect madvise
"""

# What makes namespaces, enters them and furnishes them. In a user namespace of its own anybody may do it,
# and that is the part of the kernel in which the most ways out were found.
_NAMESPACES = """
    clone3 setns unshare clone mount umount umount2 pivot_root chroot sethostname setdomainname
    open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
"""
_ADMINISTRATION = """
    bpf perf_event_open syslog fanotify_init quotactl quotactl_fd lookup_dcookie
    clone3 setns unshare clone mount umount umount2 pivot_root sethostname setdomainname
    open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr
"""
# What passes besides for a member that has a capability.
_WITH_CAPABILITY = {
    "SYS_ADMIN": _ADMINISTRATION,
    "SYS_CHROOT": "chroot",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_MODULE": "init_module finit_module delete_module",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "SYS_BOOT": "reboot",
    "SYS_PACCT": "acct",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node migrate_pages move_pages",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
    "DAC_READ_SEARCH": "open_by_handle_at",
}
CAPABILITIES = frozenset(_WITH_CAPABILITY)

# For nobody, with whatever capability: keys are not of any namespace, the others change the machine itself
# or only ever helped to break out of something.
_NOBODY = "add_key request_key keyctl userfaultfd kexec_load kexec_file_load swapon swapoff"

# clone3 has its flags in memory, where no filter can look: libraries fall back to clone(2), whose flags it sees.
_NOT_TO_BE_SEEN = ("clone3",)

# CLONE_NEW*, all but CLONE_NEWTIME, which is for unshare(2) alone: to clone(2) the bit is part of a signal.
_NEW_NAMESPACES = 0x7E02_0000
_CLONE_NEWTIME = 0x80

# Families of socket(2) that everybody uses: unix, inet, inet6, netlink, packet. The others would have the
# kernel load modules that nobody has looked at for years.
_FAMILIES = (1, 2, 10, 16, 17)
_LAST_FAMILY = 45

# Commands of ioctl(2), asm-generic/ioctls.h. TIOCSTI types and TIOCLINUX pastes into a terminal, that of somebody
# else if one has it; TIOCSETD has the kernel load a line discipline.
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423

# Of personality(2): the usual one, 32-bit uname, old version number, both, addresses not random (for
# debuggers), and the question which one it is.
_PERSONALITIES = (0, 0x8, 0x2_0000, 0x2_0008, 0x4_0000, WORD)


def default_rules(
    capabilities: frozenset[str] = frozenset(), *, nested: bool = False, machine: str = ""
) -> list[Rule]:
    """The default filter of a member with these capabilities (of CAPABILITIES, as "SYS_ADMIN").

    Args:
        nested: the calls for namespaces pass without a capability.
        machine: as uname(2) names it.
    """
    passing = set(_EVERYONE.split())
    for capability in capabilities:
        passing |= set(_WITH_CAPABILITY[capability].split())
    if nested:
        passing |= set(_NAMESPACES.split())
    known = {call for calls in _WITH_CAPABILITY.values() for call in calls.split()}
    refused = (known | set(_NOBODY.split())) - passing - {"clone", "unshare", *_NOT_TO_BE_SEEN}
    rules = [Rule(tuple(sorted(passing)), ALLOW), Rule(tuple(sorted(refused)), EPERM)]
    clone_flags_at = 1 if machine.startswith("s390") else 0
    if "clone" not in passing:
        rules += _without(_NEW_NAMESPACES, "clone", clone_flags_at)
        rules += _without(_NEW_NAMESPACES | _CLONE_NEWTIME, "unshare", 0)
    return rules + list(_with_arguments())


def pause_rules() -> list[Rule]:
    """The filter of a pod's pause, if its members have one."""
    return [Rule(tuple(sorted(_PAUSE.split())), ALLOW)]


def _without(bits: int, call: str, argument: int) -> Iterator[Rule]:
    yield Rule((call,), ALLOW, (Test(argument, 0, bits),))
    for bit in (1 << number for number in range(32)):
        if bits & bit:
            yield Rule((call,), EPERM, (Test(argument, bit, bit),))


def _with_arguments() -> Iterator[Rule]:
    for family in range(_LAST_FAMILY + 1):
        action = ALLOW if family in _FAMILIES else EAFNOSUPPORT
        yield Rule(("socket",), action, (Test(0, family),))
    for value in _PERSONALITIES:
        yield Rule(("personality",), ALLOW, (Test(0, value),))
    refused = (_TIOCSTI, _TIOCLINUX, _TIOCSETD)
    for command in refused:
        yield Rule(("ioctl",), EPERM, (Test(1, command),))
    for value, mask in _all_but(refused):
        yield Rule(("ioctl",), ALLOW, (Test(1, value, mask),))


def _all_but(words: tuple[int, ...], value: int = 0, mask: int = 0) -> Iterator[tuple[int, int]]:
    """Every 32-bit word but `words`, as values and masks: one for each branch of bits that none of them takes."""
    here = [word for word in words if word & mask == value]
    if not here:
        yield value, mask
    elif mask != WORD:
        bit = (WORD ^ mask).bit_length() - 1
        for branch in (0, 1 << bit):
            yield from _all_but(tuple(here), value | branch, mask | 1 << bit)
