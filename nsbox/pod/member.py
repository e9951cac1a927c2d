"""A member: a process in the namespaces of a target, with the target's root or its own.

client                     who sets it up (outside too)      member
  open target and sources
  fork ------------------> setns
                           own mounts or the target's root
                           user, rights, work directory
                           becomes the launcher ----------> born in the PID namespace
  go -----------------------------------------------------> executes the command
  is its parent: waits, forwards signals, copies the terminal

So nobody in the pod ever sees a process that is nsbox: see spawn.spawn_last. A member with a PID namespace
of its own, where nobody is to see anything, sets itself up in there, as on a machine that has no launcher:
see spawn.spawn_in.
"""

import errno
import os
from typing import TYPE_CHECKING, Callable, NamedTuple, NoReturn

from ..errors import NsboxError, PodDead, PodNotFound, SpecError
from ..linux import mounts, namespaces, process, spawn, syscalls, terminal
from ..net import loopback
from ..privilege import attributes, rights, seccomp
from ..spec import MemberSpec, RootSpec
from . import confine, devices, execute, launch, rootfs, statedir, store
from .environment import base_environment
from .places import O_PATH_DIR
from .record import PodRecord
from .target import Plan, Target, dead, identity_in, plan

if TYPE_CHECKING:
    from ..privilege.limits import Limits

# Gives the member its three standard descriptors. Runs inside, before the root is sealed off
# from the caller's descriptors; gets an fd of /dev/null in there.
Stdio = Callable[[int], tuple[int, int, int]]


class Joining(NamedTuple):
    """All that the child needs, opened and decided before the fork."""

    target: Target
    spec: MemberSpec
    plan: Plan
    root: RootSpec | None
    sources: rootfs.Sources | None
    shm_fd: int
    hostname: str
    stdio: Stdio
    client_pidfd: int
    on_terminal: bool
    become: confine.Become | None
    launcher: execute.Launcher | None
    identity: tuple[int, int] | None
    calls: seccomp.Program | None
    limits: "Limits | None"
    proc_fd: int

    @property
    def outside(self) -> bool:
        """Whether it is set up outside of the PID namespace that it is to be born in."""
        return self.launcher is not None and "pid" in self.plan.enter


def start(
    target: Target, spec: MemberSpec, stdio: Stdio, *, detached: bool = False, on_terminal: bool = False,
    before_go: Callable[[int], None] | None = None,
) -> process.Spawned:  # fmt: skip
    """Start a member as a child of the caller; return when its command has been executed.

    Only for a process with one thread.

    Args:
        detached: it outlives the caller.
        on_terminal: its stdin is one, which becomes that of its session; its environment says so.
        before_go: gets its host PID before it does anything.

    Raises:
        PodDead: the target ended. CommandError: 127 or 126. NsboxError: a step failed.
    """
    _check(target, spec)
    limits = confine.limits_of_member(target.pod, spec, f"join {target.label}")
    calls = confine.calls_of_member(target.pod, spec, _is_chrooted(target, spec))
    own_root = spec.root is not None and bool(spec.root.path)
    todo = plan(target, spec.share, own_root)
    identity = identity_in(target) if "user" in todo.enter else None
    if own_root and target.pod is not None and not store.is_lent(target.pod) and _has_names(target.pod, todo):
        spec = _with_names(target.pod, spec)
    sources = rootfs.open_sources(spec.root) if spec.root is not None else None
    if spec.root is not None and sources is not None and "user" in todo.enter:
        from . import users

        sources = users.for_member(target, spec.root, sources)
    joining = Joining(
        target, spec, todo, spec.root, sources,
        _pod_shm(target, todo) if own_root else -1,
        spec.hostname or (target.pod.hostname if target.pod else ""),
        stdio, -1 if detached else process.open_pid(os.getpid()), on_terminal,
        confine.becoming(spec.user),
        execute.launcher(spec.argv, base_environment(spec.env), calls, _what(todo, detached, on_terminal), limits),
        identity, calls, limits, os.open("/proc", O_PATH_DIR),
    )  # fmt: skip
    try:
        if target.pod is None or store.is_lent(target.pod):
            return _spawn(joining, before_go)
        with store.lock(target.pod.name, shared=True):  # no rm in the midst of it
            return _spawn(joining, before_go)
    except PodNotFound:
        raise _gone(target) from None
    finally:
        if sources is not None:
            sources.close()
        launcher_fd = joining.launcher.fd if joining.launcher else -1
        for fd in (joining.shm_fd, joining.client_pidfd, launcher_fd, joining.proc_fd):
            if fd >= 0:
                os.close(fd)


def _what(todo: Plan, detached: bool, on_terminal: bool) -> int:
    """What the launcher does besides executing the command."""
    if "pid" not in todo.enter:
        return 0
    return launch.CLONE | (0 if detached else launch.DIE_WITH_PARENT) | (launch.TERMINAL if on_terminal else 0)


def _has_names(pod: PodRecord, todo: Plan) -> bool:
    """Whether there are files that say the names in the network of a member."""
    if pod.net == "host" or "net" not in todo.enter:
        return pod.net == "host"
    return pod.net != "none" or os.path.exists(f"{statedir.state_dir()}/pods/{pod.name}/hosts")


def _with_names(pod: PodRecord, spec: MemberSpec) -> MemberSpec:
    """The same with these files."""
    if spec.root is None:
        return spec
    from . import netmodes

    added = netmodes.names_for(pod, spec.root)
    return spec._replace(root=spec.root._replace(volumes=spec.root.volumes + added))


def _check(target: Target, spec: MemberSpec) -> None:
    if process.has_ended(target.pidfd):
        raise _gone(target)
    if spec.hostname and target.pod is None:
        raise SpecError(f"cannot set a hostname beside {target.label}: only a member of a pod can have one")
    if spec.hostname and "uts" in plan(target, spec.share, False).enter:
        raise SpecError(
            f"cannot set a hostname: this member shares that of {target.label}",
            hint="leave uts out of --share, or give the name to nsbox create",
        )
    if spec.root is None:
        return
    if not spec.root.path and (spec.root.volumes or spec.root.tmpfs or spec.root.read_only):
        raise SpecError(
            "cannot mount for this member: it has no root of its own",
            hint="give it one with --rootfs, or give the volumes to nsbox create",
        )
    if spec.root.path and spec.share is not None and "mnt" in spec.share:
        raise SpecError("cannot share mnt: a member with --rootfs has mounts of its own")


def _spawn(joining: Joining, before_go: Callable[[int], None] | None) -> process.Spawned:
    target = joining.target
    try:
        start_it = spawn.spawn_last if joining.outside else spawn.spawn_in
        return start_it(
            namespaces.flags_of(joining.plan.new),
            lambda: _become_member(joining),
            doing=f"join {target.label}",
            prepare=lambda: _enter_namespaces(target, joining.plan, joining.limits),
            before_go=before_go,
            told=lambda *report: execute.told(joining.spec.argv[0], *report),
        )
    except NsboxError as err:
        cause = err.__cause__
        # A PID namespace whose PID 1 has ended lets itself be joined, and no fork works in it.
        # While PID 1 ends, the kernel kills all others first: that member has no cause to tell.
        ending = cause is None or isinstance(cause, OSError) and cause.errno in (errno.ENOMEM, errno.ESRCH)
        if process.has_ended(target.pidfd, 1.0 if ending else 0.0):
            raise _gone(target) from None
        raise


def _enter_namespaces(target: Target, todo: Plan, limits: "Limits | None") -> None:
    # Whoever sees the member-to-be, as those in a PID namespace of its own, or the owner of the user
    # namespace on the host, shall find nothing in it of the caller's memory and files, and not open the
    # interpreter that it runs until it is another program.
    attributes.hide_arguments(b"nsbox")
    attributes.hide_from_others()
    if limits is not None:
        limits.allow()
    if os.geteuid() == 0:
        attributes.drop_groups()  # in there it may not be possible any more
    namespaces.join(target.pidfd, todo.enter)
    if target.root_fd >= 0 and {"mnt"} <= todo.enter & todo.new:
        # A chrooted pod's mounts are about to be copied: our root goes along only from inside.
        _change_root(target.root_fd)


def _gone(target: Target) -> NsboxError:
    if target.pod is not None:
        return dead(target.pod.name)
    return PodDead(f"cannot join {target.label}: it has ended")


def _pod_shm(target: Target, todo: Plan) -> int:
    """A copy of the target's /dev/shm mount for a member that shares its IPC namespace.

    Taken by a child that shares our descriptor table: it enters the target's mount
    namespace, and what it opens there is open here. -1 where the target has none.
    """
    if "ipc" not in todo.enter or "mnt" not in target.kinds:
        return -1

    def copy() -> int:
        namespaces.join(target.pidfd, frozenset({"mnt"}) | ({"user"} & target.kinds))
        if target.root_fd >= 0:  # of a chrooted target: else this would be the host's /dev/shm
            _change_root(target.root_fd)
        return mounts.open_mount_of_root("/dev/shm")

    try:
        return spawn.opened_by_child(copy)
    except OSError:
        return -1


def _become_member(joining: Joining) -> NoReturn:
    """Runs in the member-to-be, in all its namespaces, until it becomes the user's program."""
    spec, todo = joining.spec, joining.plan
    os.setsid()
    rights.leave_session_keyring()  # first of all: what is opened and mounted later keeps it alive, too
    attributes.drop_groups(joining.proc_fd)
    if joining.identity is not None:
        attributes.become(*joining.identity)
    attributes.hide_from_others()  # again: a change of user may have undone it
    if joining.client_pidfd >= 0:  # after the change of user, which would clear it
        attributes.die_with_parent(joining.client_pidfd)
    if "uts" in todo.new and joining.hostname:
        syscalls.sethostname(joining.hostname)
    if "net" in todo.new:
        loopback.bring_up()
    null_fd = _enter_root(joining)
    stdio = joining.stdio(null_fd)
    if joining.on_terminal and not joining.outside:  # else the launcher does it, in the member's session
        terminal.make_controlling(stdio[0])
    keep = confine.of_member(joining.target.pod, spec, _is_chrooted(joining.target, spec))
    home = confine.confine(
        keep, f"join {joining.target.label}", joining.become, joining.limits,
        parent_pidfd=joining.client_pidfd, terminal_fd=stdio[0] if joining.on_terminal else -1,
    )  # fmt: skip
    _change_directory(spec.workdir or b"/")  # with the rights of whoever runs in there
    env = base_environment(spec.env, terminal=joining.on_terminal, home=home)
    execute.become(spec.argv, env, stdio, joining.launcher, joining.calls, joining.limits)


def _is_chrooted(target: Target, spec: MemberSpec) -> bool:
    """Whether nsbox made the member's root by chroot(2), its own or its pod's."""
    if spec.root is not None and spec.root.path:
        return spec.root.chroot
    return target.pod is not None and target.pod.chroot


def _enter_root(joining: Joining) -> int:
    """Go to the member's root; return an fd of its /dev/null (or of the caller's, if it has none)."""
    todo = joining.plan
    pod = joining.target.pod
    on_host = pod is not None and pod.net == "host"
    privileged = joining.spec.rights.privileged or pod is not None and pod.rights.privileged
    fresh = devices.World(
        "pid" in todo.new, "ipc" in todo.new, joining.shm_fd, on_host, masked=not privileged,
        pid_of_children=joining.outside,
    )  # fmt: skip
    if joining.sources is not None and joining.root is not None and joining.root.path:
        return rootfs.enter(joining.root, joining.sources, fresh)
    null_fd = _null()
    if "mnt" in todo.new:
        nothing = rootfs.Sources(-1, ())
        return rootfs.enter(RootSpec(""), nothing, fresh)
    process.seal_imports()
    # Asked for nothing in particular, one shares the root too: the target may be chrooted only.
    shares_root = "mnt" in todo.enter or joining.spec.share is None
    if shares_root and joining.target.root_fd >= 0:
        _change_root(joining.target.root_fd)
    os.chdir("/")
    return null_fd


def _null() -> int:
    """An fd of the target's /dev/null; of an empty pipe in a target that has none."""
    try:
        return os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return os.pipe2(os.O_CLOEXEC)[0]


def _change_root(root_fd: int) -> None:
    """Go to the target's own root: setns(2) left us at the root of its mount namespace.

    Where the two are the same, nothing is done: a chrooted process may make no user namespace.
    """
    wanted, here = os.fstat(root_fd), os.stat("/")
    if (wanted.st_dev, wanted.st_ino) != (here.st_dev, here.st_ino):
        mounts.chroot_into(root_fd)


def _change_directory(workdir: bytes) -> None:
    """Go to the work directory, never out of the root, not by a link of /proc either."""
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = mounts.open_in_root(root_fd, os.fsdecode(workdir), os.O_PATH | os.O_DIRECTORY)
        os.fchdir(fd)
        here = os.getcwd()  # "(unreachable)" where the kernel knows no path to it
        if not here.startswith("/") or not os.path.samestat(os.stat(here), os.stat(".")):
            raise OSError(errno.ENOENT, "not below the root", here)
    except OSError as err:
        raise NsboxError(f"cannot use work directory {os.fsdecode(workdir)!r}") from err
