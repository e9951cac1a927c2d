"""All that `nsbox doctor` looks at, in this order: what everything needs first, then single features."""

from collections.abc import Callable, Iterator

from ..errors import NsboxError, one_line
from . import kernel, machine, network
from .finding import MISSING, NOTE, Check, Finding, Outcome

# Of a course on namespaces, which is no part of nsbox: what each lab is about.
LABS = {
    "L01": "UTS", "L02": "what keeps a namespace alive", "L03": "PID and fork", "L04": "/proc is a mount",
    "L05": "mount propagation", "L06": "chroot and pivot_root", "L07": "PID 1", "L08": "IPC",
    "L09": "an empty network and a shared one", "L10": "a bridge, and publishing", "L11": "user namespaces",
    "L12": "joining", "L13": "sharing PIDs", "L14": "cgroup namespaces", "L15": "time namespaces",
    "L16": "a whole pod by hand",
}  # fmt: skip
_ALL = tuple(LABS)
_NET = ("L09", "L10", "L16")
_MOUNTS = ("L04", "L05", "L06", "L16")

_PROC = "own-proc"

CHECKS = (
    Check(_PROC, "/proc", kernel.own_proc, "everything but rootfs: nobody can tell who is who", _ALL,
          "mount -t proc proc /proc; with unshare(1): --mount-proc"),
    Check("userns", "user namespaces", kernel.own_user_namespace,
          "every pod without root, and create --userns and --with user", _ALL,
          "the machine's policy forbids them: see the lines below"),
    Check("userns-users", "... of ordinary users", kernel.user_namespace_of_others,
          "pods without sudo", _ALL, "the machine's policy forbids them: see the lines below"),
    Check("limits", "limits on namespaces", kernel.limits, "pods: create fails with ENOSPC", _ALL,
          "raise them with sysctl"),
    Check("seccomp", "seccomp", kernel.filter_on_us, "", (), ""),
    Check("filters", "filters of system calls", kernel.filters, "members without --seccomp unconfined", ("L13",),
          "a kernel with CONFIG_SECCOMP_FILTER"),
    Check("kinds", "namespaces of a pod", kernel.all_kinds, "create and run", _ALL,
          "a kernel with CONFIG_NAMESPACES and all kinds below it"),
    Check("calls", "system calls", kernel.calls, "create, run and join with a root of its own", _ALL,
          "Linux 5.12 or newer, and a seccomp policy that knows these calls"),
    Check("proc", "a fresh /proc", kernel.fresh_proc, "create, run, and members with a PID namespace of their own",
          ("L03", "L04", "L07", "L13", "L16"), "an unmasked /proc on this machine"),
    Check("filesystems", "file systems of a root", kernel.filesystems,
          "--rootfs without --in-place (overlay), and the parts of every root", _MOUNTS,
          "a kernel with overlayfs, tmpfs, POSIX message queues and devpts, usable in user namespaces"),
    Check("idmap", "idmapped mounts", kernel.idmapped_mounts, "create --userns as root with --rootfs", (),
          "Linux 5.12 or newer, and ext4, xfs, btrfs or (since 6.3) tmpfs below the root file systems"),
    Check("time", "time namespaces", kernel.time_namespace, "--with time, --monotonic, --boottime", ("L15",),
          "Linux 5.6 or newer with CONFIG_TIME_NS"),
    Check("newuidmap", "helpers for ranges of ids", machine.range_helpers,
          "create --userns without root: more ids than one", ("L11",), "install the package uidmap"),
    Check("subids", "ranges of ids", machine.ranges, "create --userns without root: more ids than one", ("L11",),
          "a line in /etc/subuid and one in /etc/subgid"),
    Check("propagation", "propagation of /", kernel.root_propagation, "", (), ""),
    Check("hidepid", "processes of others", machine.hidden_processes, "", (), ""),
    Check("cgroups", "control groups", machine.control_groups, "", ("L14",), ""),
    Check("yama", "tracing", machine.tracing, "", (), ""),
    Check("veth", "veth", network.veth, "--net bridge and NAME, net link", _NET, "modprobe veth"),
    Check("bridge", "bridges", network.bridge, "--net bridge and NAME", _NET, "modprobe bridge"),
    Check("nft", "nftables", network.nft, "--net bridge and NAME, --publish-mode nat", _NET,
          "install the package nftables; modprobe nf_tables nft_chain_nat nft_masq"),
    Check("nft-bridge", "rules inside a bridge", network.bridge_rules,
          "nothing stops pods of one network from forging each other's addresses", (),
          "a kernel with CONFIG_NF_TABLES_BRIDGE"),
    Check("tbf", "links with a rate", network.tbf, "net link --rate", (), "modprobe sch_tbf"),
    Check("netem", "links with delay and loss", network.netem, "net link --delay and --loss", (), "modprobe sch_netem"),
    Check("pasta", "network of an ordinary user", network.user_mode, "--net user", (),
          "install the package passt; modprobe tun"),
    Check("ports", "low ports", network.low_ports, "", (), ""),
    Check("busybox", "busybox", lambda: machine.program("busybox", "busybox-static"), "rootfs build busybox", _MOUNTS,
          "install the package busybox-static"),
    Check("mmdebstrap", "mmdebstrap", lambda: machine.program("mmdebstrap", "mmdebstrap"),
          "rootfs build debian, nginx and ghost", ("L16",), "install the package mmdebstrap"),
    Check("packages", "Python libraries", machine.packages,
          "create and join (prctl), networks (pyroute2), tables (rich), pictures (jinja2), --seccomp FILE (pyseccomp)",
          _ALL,
          "run scripts/setup, or pip install nsbox again"),
)  # fmt: skip


def findings(before: Callable[[str], None] = lambda _title: None) -> Iterator[Finding]:
    """Look at everything, one after another.

    Args:
        before: gets the title of each check before it runs.
    """
    is_blind = False
    for check in CHECKS:
        before(check.title)
        try:
            outcome = check.look()
        except (NsboxError, OSError) as err:
            outcome = Outcome(NOTE, f"cannot be looked at: {_said(err)}")
        missing = outcome.status == MISSING
        if is_blind and missing:  # it may be for want of /proc alone
            outcome = outcome._replace(mend="mount /proc first, then ask again")
        is_blind |= missing and check.key == _PROC
        yield Finding(
            check.key, check.title, outcome.status, outcome.seen,
            check.costs if missing else "", check.labs if missing else (),
            (outcome.mend or check.mend) if missing else "",
        )  # fmt: skip


def _said(err: NsboxError | OSError) -> str:
    if isinstance(err, NsboxError):
        return one_line(err)
    return f"{err.filename}: {err.strerror}" if err.filename else str(err.strerror or err)
