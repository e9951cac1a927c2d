"""Making a pod: intent, namespaces, mounts, pause, record. And undoing what was cut off.

caller                        pause-to-be (see spawn.spawn_in)
  write the intent, lock held
  clone3 --------------------> waits
  write its identity and maps
  go ------------------------> hostname, lo up, mounts, pivot, empty root
                               execve the pause
  record "ready", unlock

Killed before the identity is written: the waiting process reads end of file and exits.
Killed later: the intent names the process, and the next command undoes both.
"""

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Callable, NoReturn

from .. import capabilities
from ..capabilities import SYS_PTRACE
from ..errors import NsboxError, PodExists
from ..filters import PodFilter
from ..linux import mounts, namespaces, process, spawn, syscalls
from ..net import loopback
from ..privilege import attributes, rights, seccomp
from ..spec import POD_KINDS, PodSpec, RootSpec
from . import confine, devices, execute, pause, rootfs, store
from .environment import base_environment
from .files import CorruptFile
from .pause import hold
from .record import PodRecord

if TYPE_CHECKING:  # a pod without a network pays nothing for one
    from ..privilege.limits import Limits
    from .netmodes import Source

_KILL_TIMEOUT_S = 10.0


def create(spec: PodSpec, intend: Callable[[int], None] | None = None) -> tuple[PodRecord, process.Spawned]:
    """Make a pod and return its record and its pause, which is a child of the caller.

    Only for a process with one thread.

    Raises:
        PodExists: the name is taken.
        NsboxError: a step failed; nothing of the pod is left.
    """
    if any(spec.time) and os.geteuid() != 0:
        raise NsboxError("cannot shift the clocks of a pod", hint="that needs root; --with time alone does not")
    if spec.sysctls:
        from . import settings  # only pods that have them pay for it

        settings.check(spec)
    confine.limits((spec.ulimits,), f"create pod {spec.name!r}")
    net = _open_net(spec)
    try:
        return _create(spec, net, intend)
    finally:
        if net is not None:
            net.close()


def _open_net(spec: PodSpec) -> "Source | None":
    """Where the pod's network comes from, checked; None: from nowhere."""
    if spec.net == "none" and not spec.ip:
        return None
    from . import netmodes

    return netmodes.open_source(spec)


def _create(
    spec: PodSpec, net: "Source | None", intend: Callable[[int], None] | None
) -> tuple[PodRecord, process.Spawned]:
    calls = confine.filter_of_pod(spec)
    sources = rootfs.open_sources(spec.root)
    spare = store.spare_memory()
    # Taking the name is a matter of microseconds, and cut off half way it would stay taken.
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)
    try:
        record, held = _reserve(_intent(spec, calls), spec)
        with held:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
                if net is not None:
                    spec, sources = _with_names(spec, sources, held, record)
                record, started = _start(spec, sources, held, record, net, intend)
                if record.owner is not None:
                    from . import owners

                    owners.announce(record)
                held.write(record)
                signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)
            except BaseException:
                spare.clear()
                _undo_quietly(held)
                raise
        return record, started
    finally:
        sources.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def _intent(spec: PodSpec, calls: PodFilter) -> PodRecord:
    return PodRecord(
        id=store.new_id(),
        name=spec.name,
        phase="intent",
        maker=process.identify(os.getpid()),
        pause=None,
        created_s=time.time(),
        hostname=spec.hostname,
        share=spec.share,
        rootfs=spec.root.path,
        chroot=spec.root.chroot,
        init=tuple(os.fsdecode(word) for word in spec.init),
        labels=spec.labels,
        stop_timeout_s=spec.stop_timeout_s,
        vantage=store.vantage(),
        net=spec.net,
        sysctls=spec.sysctls,
        rights=spec.rights,
        seccomp=calls,
        ulimits=spec.ulimits,
    )


def _with_names(
    spec: PodSpec, sources: rootfs.Sources, held: store.Locked, record: PodRecord
) -> tuple[PodSpec, rootfs.Sources]:
    """The same with the files that say the names in the pod's network."""
    from . import netmodes, netnames

    if netmodes.names_of(record) == record.name:
        netnames.write(record.name, held.fd, spec.hostname, ())
    added = netmodes.names_for(record, spec.root)
    more = rootfs.open_sources(RootSpec("", volumes=added))
    root = spec.root._replace(volumes=spec.root.volumes + added)
    return spec._replace(root=root), sources._replace(volume_fds=sources.volume_fds + more.volume_fds)


def _reserve(record: PodRecord, spec: PodSpec) -> tuple[PodRecord, store.Locked]:
    """Take the name, and ids where the pod has its own."""
    if not spec.userns:
        return record, _take_name(record)
    from .users import reserve

    return reserve(record, spec.userns, None if _is_interpreter(spec) else spec.owner, _take_name)


def _is_interpreter(spec: PodSpec) -> bool:
    """Whether PID 1 stays a copy of us, memory and all, which is nothing to give to a user."""
    return not spec.init and (spec.pause == "python" or not pause.program())


def _take_name(record: PodRecord) -> store.Locked:
    try:
        return store.reserve(record)
    except PodExists:
        if store.look(record.name).status != "broken":
            raise
        mend(record.name)  # its maker was killed half way
        return store.reserve(record)


def _sight(spec: PodSpec) -> Callable[[], None] | None:
    """Who may look into a pause that stays the interpreter: what it is to call for that.

    Nobody inside without CAP_SYS_PTRACE on the host where root made it, unless we could not look at it either.
    The user where a user did: he is that user on the host anyway, and could else not join his own pod.
    """
    if not _is_interpreter(spec):
        return None
    if os.geteuid() != 0:
        return attributes.show_to_own_user
    return attributes.hide_from_others if rights.own() >> SYS_PTRACE & 1 else None


def _kinds(spec: PodSpec) -> frozenset[str]:
    kinds = POD_KINDS | spec.with_kinds
    return kinds | {"user"} if spec.userns or os.geteuid() != 0 else kinds


def _start(
    spec: PodSpec, sources: rootfs.Sources, held: store.Locked, record: PodRecord, net: "Source | None",
    intend: Callable[[int], None] | None,
) -> tuple[PodRecord, process.Spawned]:
    kinds, doing = _kinds(spec), f"create pod {spec.name!r}"
    if net is not None:
        kinds = net.kinds(kinds)
    users = None
    if spec.userns:
        from .users import make

        users = make(record, spec, sources)
        sources = users.sources

    early: dict[str, int] = {}

    def write_identity(pid: int) -> None:
        nonlocal record, early
        if spec.init:  # it may have ended before it can be looked at as what it is
            with suppress(OSError):
                early = namespaces.ids_of(pid)
        record = record._replace(pause=process.identify(pid))
        held.write(record)
        if "user" in kinds and users is None:
            from ..privilege import idmaps

            idmaps.write_maps(pid)
        if net is not None:
            net.attach(record, pid, held.fd)
        if intend is not None:
            intend(held.fd)

    def prepare() -> None:
        if limits is not None:
            limits.allow()
        if users is not None:
            users.enter()
        if any(spec.time):
            namespaces.unshare_time(*spec.time)
        if net is not None:
            net.enter()

    entered = frozenset({"time"} if any(spec.time) else ()) | ({"user"} if spec.userns else frozenset())
    become = confine.becoming(spec.user)
    limits = confine.limits((spec.ulimits,), doing) if spec.init else None
    if spec.init:
        calls = confine.calls_of_init(record)
    else:
        calls = confine.calls_of_pause(record, interpreter=_is_interpreter(spec))
    maker_pidfd = process.open_pid(os.getpid()) if spec.die_with_parent else -1
    sight = _sight(spec)
    try:
        started = spawn.spawn_in(
            namespaces.flags_of(kinds - entered),
            lambda: _pid_one(spec, sources, maker_pidfd, "net" in kinds, become, calls, limits, sight),
            doing=doing,
            prepare=prepare,
            before_go=write_identity,
            told=lambda *report: execute.told(spec.init[0], *report),
        )
    finally:
        if maker_pidfd >= 0:
            os.close(maker_pidfd)
        if users is not None:
            users.close()
    try:
        ids = namespaces.ids_of(started.pid)
    except ProcessLookupError:
        if not early:
            raise
        ids = early
    return record._replace(
        phase="ready", kinds=tuple((name, ids[name]) for name in sorted(kinds) if name in ids)
    ), started


def _pid_one(
    spec: PodSpec, sources: rootfs.Sources, maker_pidfd: int, own_net: bool, become: confine.Become | None,
    calls: seccomp.Program | None, limits: "Limits | None", sight: Callable[[], None] | None,
) -> NoReturn:
    """Runs as PID 1 of the new pod until it becomes the pause, or the user's own program.

    Args:
        sight: called where it stays the interpreter, see _sight().
    """
    os.setsid()
    rights.leave_session_keyring()  # first of all: what is opened and mounted later keeps it alive, too
    attributes.drop_groups()
    program = None if spec.init or spec.pause == "python" else pause.program()
    if not program and not spec.init:
        attributes.hide_arguments(b"pause")  # while there is a /proc, and it lets us
    if spec.userns and spec.userns != "keep-id":
        attributes.become(0, 0)
        attributes.hide_from_others()  # again: a change of user may have undone it
    if maker_pidfd >= 0:
        attributes.die_with_parent(maker_pidfd)
    program_fd = execute.sealed_program("pause", program) if program else -1
    launcher = execute.launcher(spec.init, base_environment(), calls, 0, limits) if spec.init else None
    syscalls.sethostname(spec.hostname)
    if own_net:
        loopback.bring_up()
    world = devices.World(
        host_net=spec.net == "host", sysctls=spec.sysctls, masked=not spec.rights.privileged,
    )  # fmt: skip
    null_fd = rootfs.enter(spec.root, sources, world)
    keep = capabilities.settle(spec.rights, chrooted=spec.root.chroot)
    doing = f"create pod {spec.name!r}"
    if spec.init:
        home = confine.confine(keep, doing, become, limits, parent_pidfd=maker_pidfd)
        execute.become(spec.init, base_environment(home=home), (null_fd, null_fd, null_fd), launcher, calls, limits)
    if not spec.root.chroot:  # a member of a chrooted pod finds its root at the pause's
        mounts.empty_root()
    rights.require(keep, doing)  # said now, and not to the first member
    confine.confine(capabilities.NOTHING, doing)
    if program_fd < 0:
        if sight:
            sight()
        execute.stay_as_pause(hold.main, null_fd, calls)
    execute.become_pause(program_fd, null_fd, calls)


def _undo_quietly(held: store.Locked) -> None:
    """Undo in the face of another error: that one is to be reported, not what follows from it."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)
    try:
        undo(held)
    except (NsboxError, OSError):
        pass  # the next command finds the intent and tries again
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def abandon(name: str) -> None:
    """Undo what :func:`create` made here, if it made it: its answer cannot be given any more."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, process.ENDING_SIGNALS)
    try:
        if store.written(name).maker == process.identify(os.getpid()):
            with store.lock(name) as held:
                _undo_quietly(held)
    except (NsboxError, OSError, CorruptFile):
        pass  # it was not made, or the next prune has to do it
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)


def undo(held: store.Locked) -> None:
    """End a pod's PID 1, if it runs, and remove its record. The lock is held."""
    try:
        who = held.read().pause
    except Exception:  # no record that can be read: then there is nobody to be found by it
        who = None
    if who is not None:
        end_process(who, held.name)
    unplug(held)
    held.forget()


def unplug(held: store.Locked) -> None:
    """Take away what led to the pod: its links to networks, and what its owner found it by.

    The lock is held; its PID 1 has ended.
    """
    _withdraw(held)
    try:
        os.stat("net.json", dir_fd=held.fd, follow_symlinks=False)
    except OSError:
        return  # it never had a link
    from . import netend

    netend.leave_all(held.name, held.fd)


def _withdraw(held: store.Locked) -> None:
    try:
        record = held.read()
    except (CorruptFile, OSError):
        return  # the next prune finds what was there
    if record.owner is not None:
        from . import owners

        owners.withdraw(record)


def end_process(who: process.Identity, name: str) -> None:
    """SIGKILL the PID 1 of a pod, which takes all of its PID namespace along, and wait for it.

    Raises:
        NsboxError: it did not end in ten seconds, as when a tracer holds one of its processes.
    """
    try:
        pidfd = process.open_process(who)
    except ProcessLookupError:
        return
    except OSError:  # there is no pidfd to be had: what was made right here can be ended without one
        if process.end_own_child(who):
            return
        raise
    try:
        process.send_signal(pidfd, signal.SIGKILL)
        if not process.has_ended(pidfd, _KILL_TIMEOUT_S):
            raise NsboxError(f"cannot end pod {name!r}: process {who.pid} does not go away")
    finally:
        os.close(pidfd)


def mend(name: str) -> bool:
    """Undo a creation that was cut off; False if there is none of that name any more."""
    with store.lock(name) as held:
        if store.look(name).status != "broken":
            return False
        undo(held)
        return True
