"""Rules of the other calls: programs, files and descriptors, sockets, links, and of any call at all."""

import os
import resource
import socket
from shlex import quote

from ...errors import NsboxError
from ...linux import apart, policy
from ...net import tries
from ...privilege.trying import in_new
from . import machine
from .case import Case, Rule, Seen, known, lacks, setting, unknown

_EXEC = ("execve", "execveat")
_ANY = ("",)
_NAMES = ("sethostname", "setdomainname")
_WITHOUT_FILES = ("unshare", "clone3", "clone", "fork", "setns", "keyctl", "mount_setattr", "move_mount", "netlink")
_FIRST_PORT = "/proc/sys/net/ipv4/ip_unprivileged_port_start"


def _at(case: Case) -> tuple[str, str, int] | None:
    """Protocol, address and port of a bind."""
    if len(case.asked) < 3 or not isinstance(case.asked[2], int):
        return None
    return case.text(0), case.text(1), case.asked[2]


def _low_port(case: Case) -> Seen:
    where, first = _at(case), policy.read(_FIRST_PORT)
    if where is None or first is None:
        return unknown("which port it was, or from which on users may listen, is not known")
    right = case.has("NET_BIND_SERVICE")
    return known(0 < where[2] < int(first) and not right,
                 f"the port is {where[2]}, net.ipv4.ip_unprivileged_port_start = "
                 f"{first}, and it has {'' if right else 'no '}CAP_NET_BIND_SERVICE",
                 "sysctl net.ipv4.ip_unprivileged_port_start; nsbox publish POD 8080:80")  # fmt: skip


def _taken(case: Case) -> Seen:
    where = _at(case)
    if where is None:
        return unknown("which port it was is not known", "ss -lntup")
    proto, _, port = where
    found = []
    for name in (f"/proc/net/{proto}", f"/proc/net/{proto}6"):
        for line in (policy.read(name) or "").splitlines()[1:]:
            words = line.split()
            listens = words[3] == "0A" if proto == "tcp" else True
            if listens and int(words[1].rpartition(":")[2], 16) == port:
                found.append(name)
    return known(bool(found), f"somebody {'listens' if found else 'does not listen'} on {proto} port {port} here",
                 f"sudo ss -lnp{'u' if proto == 'udp' else 't'} 'sport = :{port}'")  # fmt: skip


def _no_address(case: Case) -> Seen:
    where = _at(case)
    if where is None:
        return unknown("which address it was is not known", "ip -brief address")
    family = socket.AF_INET6 if ":" in where[1] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((where[1], 0))
    except OSError as err:
        return known(True, f"no port of {where[1]} can be had: {err.strerror}", "ip -brief address")
    return known(False, f"{where[1]} is an address of this network namespace")


def _no_family(_case: Case) -> Seen:
    there = os.path.exists("/proc/net/if_inet6")
    return known(not there, "/proc/net/if_inet6 is " + ("there" if there else "missing"))


def _no_right_to_net(case: Case) -> Seen:
    return lacks("NET_ADMIN")(case)


def _kinds_of_links(case: Case) -> Seen:
    """Which kinds of links cannot be made: tried in a network namespace of its own."""
    missing = [kind for kind in tries.KINDS if _cannot_make(kind)]
    if missing:
        return known(True, f"tried: no {' and no '.join(missing)} can be made",
                     f"sudo modprobe {' '.join(missing)}; nsbox doctor")
    return known(False, "tried: veth and bridge can be made")


def _cannot_make(kind: str) -> bool:
    def work() -> None:
        in_new(frozenset({"net"}))
        tries.KINDS[kind]()

    try:
        apart.run("try it", work)
    except NsboxError:
        return True
    return False


def _foreign_process(case: Case) -> Seen:
    """Whether the process is another user's, and we have no CAP_KILL."""
    right = case.has("KILL")
    pid = case.asked[0] if case.call == "kill" and case.asked else None
    if right or pid is None:
        return known(False, "it has CAP_KILL") if right else unknown("which process it was is not known")
    owner = os.stat(f"/proc/{abs(int(pid))}").st_uid
    return known(owner != case.euid, f"process {pid} is of uid {owner}, the sender is {case.euid}, without CAP_KILL",
                 f"grep Uid /proc/{abs(int(pid))}/status; sudo nsbox kill …")  # fmt: skip


def _path(case: Case) -> str:
    return next((one for one in case.asked if isinstance(one, str) and "/" in one), "")


def _noexec(case: Case) -> Seen:
    if not case.mounts or not _path(case):
        return unknown("which file it was, or on which mount, is not known", "findmnt -o TARGET,OPTIONS --target FILE")
    found = [one for one in case.mounts if _path(case).startswith(one.target)]
    entry = max(found, key=lambda one: len(one.target), default=None)
    words = entry.options.split(",") if entry else []
    return known("noexec" in words, f"{entry.target if entry else _path(case)} is mounted {','.join(words)}")


def _mode(case: Case) -> Seen:
    path = _path(case)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return unknown("the file is not to be seen from here", "ls -l FILE")
    return known(not mode & 0o111, f"its mode is {mode & 0o7777:o}", f"ls -l {quote(path)}")


def _disk(_case: Case) -> Seen:
    full = []
    for place in dict.fromkeys((os.environ.get("NSBOX_STATE") or "/run", "/tmp", "/var/lib")):
        try:
            found = os.statvfs(place)
        except OSError:
            continue
        if not found.f_bavail or found.f_files and not found.f_favail:
            full.append(place)
    return known(bool(full), f"full: {', '.join(full)}" if full else "none that nsbox writes to is full",
                 "df -h; df -i")


def _machine_files(_case: Case) -> Seen:
    words = (policy.read("/proc/sys/fs/file-nr") or "").split()
    if len(words) != 3:
        return unknown("/proc/sys/fs/file-nr cannot be read")
    return known(int(words[0]) >= int(words[2]) * 9 // 10, f"{words[0]} of {words[2]} are open")


def _memory(_case: Case) -> Seen:
    lines = (policy.read("/proc/meminfo") or "").splitlines()
    left = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), -1)
    return known(0 <= left < 16_384, f"MemAvailable is {left // 1024} MiB")


RULES = (
    Rule(("bind", "listen"), ("EADDRINUSE",), "somebody listens there, in this network namespace", "bind(2)", _taken,
         "ss -lntup"),
    Rule(("bind",), ("EACCES",),
         "low ports are for who has CAP_NET_BIND_SERVICE in the user namespace that owns the network",
         "ip(7)", _low_port, "sysctl net.ipv4.ip_unprivileged_port_start"),
    Rule(("bind", "socket"), ("EACCES", "EPERM"), "a security module refuses it", "apparmor(7), selinux(8)",
         machine.security_module, "cat /sys/kernel/security/lsm"),
    Rule(("bind",), ("EADDRNOTAVAIL",), "no interface of this network namespace has the address", "ip(7)", _no_address,
         "ip -brief address"),
    Rule(("socket",), ("EAFNOSUPPORT",), "the kernel has no IPv6", "ipv6(7)", _no_family, "ls /proc/net/if_inet6"),
    Rule(("netlink",), ("EOPNOTSUPP", "ENOTSUP"), "the kernel has no such kind of link", "ip-link(8)", _kinds_of_links,
         "nsbox doctor"),
    Rule(("netlink",), ("EPERM",), "changing a network needs CAP_NET_ADMIN in the user namespace that owns it",
         "network_namespaces(7)", _no_right_to_net, "sudo nsbox …"),
    Rule(("netlink",), ("EEXIST",), "something of that name or address is there already", "rtnetlink(7)",
         lambda _case: unknown("which one, the kernel does not say"),
         "ip -brief link; ip -brief address; nsbox net ls"),
    Rule(("netlink",), ("ENODEV", "ESRCH", "ENOENT"), "the link, or the namespace that it was for, is gone by now",
         "rtnetlink(7)", lambda _case: unknown("which one, the kernel does not say"), "ip -brief link; nsbox ls"),
    Rule(("ioctl",), ("EPERM",), "changing an interface needs CAP_NET_ADMIN", "netdevice(7)", lacks("NET_ADMIN"),
         "grep CapEff /proc/self/status"),
    Rule(("ioctl", "tcgetattr", "tcsetattr"), ("ENOTTY",), "it is no terminal, or no file of that kind", "ioctl_tty(2)",
         lambda _case: known(True, "that is what the errno says"), "tty"),
    Rule(("ioctl",), ("EIO", "ENOSPC"), "no more terminals can be made", "pty(7)",
         lambda _case: unknown(f"kernel.pty.nr = {policy.read('/proc/sys/kernel/pty/nr')}, kernel.pty.max = "
                               f"{policy.read('/proc/sys/kernel/pty/max')}"), "sysctl kernel.pty"),
    Rule(_EXEC, ("EACCES",), "the file is on a mount without the right to execute (noexec)", "execve(2)", _noexec,
         "findmnt -o TARGET,OPTIONS --target FILE"),
    Rule(_EXEC, ("EACCES",), "the file, or a directory on the way, may not be executed", "execve(2)", _mode,
         "ls -l FILE"),
    Rule(_EXEC, ("ENOEXEC",), "the file is no program of this kind of machine, nor does it begin with #!", "execve(2)",
         lambda _case: unknown("the file is inside the pod"), "file FILE"),
    Rule(_EXEC, ("ENOENT",), "the file is not there, or its interpreter or loader is not", "execve(2)",
         lambda _case: unknown("the file is inside the pod"), "nsbox join POD -- ls -l FILE"),
    Rule(_EXEC, ("E2BIG",), "arguments and variables together are too large", "execve(2)",
         lambda _case: unknown("they have a quarter of RLIMIT_STACK, which is "
                               f"{resource.getrlimit(resource.RLIMIT_STACK)[0]} bytes"), "ulimit -s"),
    Rule(("pidfd_open", "pidfd_send_signal", "kill"), ("ESRCH",), "the process has ended", "pidfd_open(2)",
         lambda _case: known(True, "that is what the errno says"), "nsbox ls"),
    Rule(("pidfd_send_signal", "kill"), ("EPERM",), "signals go to processes of the same user, unless one has CAP_KILL",
         "kill(2)", _foreign_process, "grep Uid /proc/PID/status; sudo nsbox kill …"),
    Rule(("write",), ("EPERM", "EACCES", "EROFS"), "this setting of the kernel is for root, or read-only here",
         "proc_sys(5)",
         lacks("SYS_ADMIN"), "findmnt -o TARGET,OPTIONS --target /proc/sys"),
    Rule(_NAMES, ("EPERM",), "AppArmor lets ordinary users do nothing in a user namespace", "apparmor(7)",
         setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
         "sysctl kernel.apparmor_restrict_unprivileged_userns; nsbox doctor"),
    Rule(_NAMES, ("EPERM",), "the names of a UTS namespace are set by who has CAP_SYS_ADMIN in its owner",
         "uts_namespaces(7)", lacks("SYS_ADMIN"), "readlink /proc/self/ns/uts"),
    Rule((*_NAMES, "prctl", "capset", "chroot", "setsid"), ("EPERM", "EACCES"),
         "a seccomp filter refuses the call",
         "seccomp(2)", machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(_NAMES, ("EINVAL", "ENAMETOOLONG"), "a name has at most 64 bytes", "sethostname(2)",
         lambda case: known(len(case.text(0)) > 64, f"it has {len(case.text(0))}"), "nsbox create --help"),
    # Any call at all: these come last.
    Rule(_ANY, ("EMFILE",), "the process has as many descriptors as RLIMIT_NOFILE allows", "getrlimit(2)",
         machine.too_many_files, "ulimit -n 1024"),
    Rule(_ANY, ("ENFILE",), "the machine has as many open files as fs.file-max allows", "proc_sys_fs(5)",
         _machine_files,
         "sysctl fs.file-nr fs.file-max"),
    Rule(_ANY, ("ENOMEM",), "the kernel has no memory left for it", "errno(3)", _memory, "free -m; dmesg | tail"),
    Rule(_ANY, ("ENOSPC", "EDQUOT"), "a file system is full", "errno(3)", _disk, "df -h; df -i",
         when=lambda case: case.call not in _WITHOUT_FILES),
    Rule(_ANY, ("ENOSYS",), "the kernel is too old for the call", "syscalls(2)", machine.old_kernel, "uname -r"),
    Rule(_ANY, ("ENOSYS", "EPERM", "EACCES"), "a seccomp filter refuses the call", "seccomp(2)",
         machine.denied_by_filter, "grep Seccomp /proc/self/status"),
    Rule(_ANY, ("EROFS",), "the file system is read-only", "mount(8)", lambda _case: unknown("which one is not known"),
         "findmnt -o TARGET,OPTIONS"),
)  # fmt: skip
