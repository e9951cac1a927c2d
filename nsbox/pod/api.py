"""The Python library: pods, members, and what exists. The command line does the same by words.

Nothing in here changes the namespaces of the calling program or forks it: see client.py.
"""

import os
import subprocess
from types import TracebackType
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from .. import parse
from ..errors import SpecError
from ..ports import parse_publish
from ..spec import PodSpec, TimeOffsets, pod_spec_from_dict, pod_spec_to_dict
from . import client, keywords, lifecycle, netmodes, report
from .keywords import Args
from .popen import Member, Pipes, Redirect


class PodInfo(NamedTuple):
    """One pod as :func:`pods` lists it.

    Attributes:
        pid: host PID of its PID 1, or None if it does not run.
        status: "running", "dead", "creating", "broken" or "corrupt".
        members: how many processes it has besides its PID 1.
    """

    name: str
    pid: int | None
    status: str
    members: int


def pods() -> list[PodInfo]:
    """The pods of this user (of root: the machine's). The same as ``nsbox ls``."""
    rows = report.summaries()
    return [PodInfo(row["name"], row["pid"], row["status"], row["members"]) for row in rows]


class Pod:
    """A pod for the length of a ``with`` block, or for longer.

    The pod is made when the block is entered, or by :meth:`create`. It ends with the block,
    and with this program at the latest, unless ``keep`` is true: then it stays until
    :meth:`remove`, or ``nsbox rm``.

    Args:
        name: 1 to 63 of a-z 0-9 _ . -; one is made up if not given.
        rootfs: a directory, or a name of ``nsbox rootfs ls``; None is the host's tree.
        volumes: "SRC:DST" or "SRC:DST:ro" each.
        tmpfs: "DST" or "DST:size=64m,mode=1777" each.
        with_kinds: namespaces to make besides the usual five: "user", "cgroup", "time".
        share: what members share by default; None is all.
        init: a program of yours as PID 1 instead of the pause.
        monotonic_s, boottime_s: seconds to shift these clocks by; needs "time" in with_kinds.
        stop_timeout_s: seconds between SIGTERM and SIGKILL when it is stopped.
        net: where its network comes from, as for ``nsbox create --net``.
        ip: its v4 address in that network; a free one if not given.
        sysctls: settings of the kernel for this pod alone, as {"net.ipv4.ip_forward": "1"}.
        userns: "auto", "keep-id" or a map, as for ``nsbox create --userns``.
        publish: "[IP:]HOST:POD[/udp]" each, as for ``nsbox create -p``.
        user: who runs `init`, as for ``nsbox create -u``.
        cap_add, cap_drop, privileged: what its members may do, as for ``nsbox create --cap-add``.
        seccomp: which system calls members may make, as for ``nsbox create --seccomp``.
        ulimits: what members, and `init`, may use, as {"nofile": 64, "nproc": "100:200", "core": "unlimited"}:
            as for ``nsbox create --ulimit``.
    """

    def __init__(
        self,
        name: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        *,
        hostname: str | None = None,
        volumes: Iterable[str] = (),
        tmpfs: Iterable[str] = (),
        in_place: bool = False,
        chroot: bool = False,
        read_only: bool = False,
        with_kinds: Iterable[str] = (),
        share: Iterable[str] | None = None,
        init: Args = (),
        labels: Mapping[str, str] | None = None,
        monotonic_s: int = 0,
        boottime_s: int = 0,
        stop_timeout_s: float = 10.0,
        keep: bool = False,
        net: str = "none",
        ip: str = "",
        sysctls: Mapping[str, str] | None = None,
        userns: str = "",
        publish: Iterable[str] = (),
        user: str | int | None = None,
        cap_add: Iterable[str] = (),
        cap_drop: Iterable[str] = (),
        privileged: bool = False,
        seccomp: str | os.PathLike[str] | None = None,
        ulimits: Mapping[str, str | int] | None = None,
    ) -> None:
        name = parse.check_name(f"pod-{os.urandom(3).hex()}" if name is None else name)
        spec = PodSpec(
            name=name,
            hostname=hostname or parse.hostname_of(name),
            root=keywords.root_of(rootfs, volumes, tmpfs, in_place=in_place, chroot=chroot, read_only=read_only),
            with_kinds=frozenset(with_kinds),
            share=keywords.kinds_of(share),
            init=tuple(os.fsencode(word) for word in (keywords.words_of(init) if init else ())),
            labels=tuple((labels or {}).items()),
            time=TimeOffsets(monotonic_s, boottime_s),
            stop_timeout_s=stop_timeout_s,
            die_with_parent=not keep,
            net=parse.parse_net(net),
            ip=parse.parse_ip(ip) if ip else "",
            sysctls=tuple(parse.parse_sysctl(f"{key}={value}") for key, value in (sysctls or {}).items()),
            userns=parse.parse_userns(userns) if userns else "",
            user=keywords.user_of(user),
            owner=parse.sudo_caller(os.environ) if userns else None,
            rights=parse.parse_rights(cap_add, cap_drop, privileged),
            seccomp=keywords.filter_of(seccomp),
            ulimits=keywords.ulimits_of(ulimits),
        )
        if spec.user and not spec.init:
            raise SpecError("cannot use user: the pause is nobody's program")
        self._ports = [port for word in publish for port in parse_publish(word)]
        if self._ports:
            netmodes.check_publish(spec.net)
        self._spec = pod_spec_from_dict(pod_spec_to_dict(spec))  # checks every value
        self._pid: int | None = None

    def __repr__(self) -> str:
        return f"<Pod {self.name!r} pid={self._pid}>"

    @property
    def name(self) -> str:
        """The pod's name."""
        return self._spec.name

    @property
    def pid(self) -> int:
        """The host PID of the pod's PID 1. Raises RuntimeError before the pod is made."""
        if self._pid is None:
            raise RuntimeError(f"pod {self.name!r} has not been created yet")
        return self._pid

    def create(self) -> "Pod":
        """Make the pod now. Raises PodExists, NsboxError; then nothing of it is left."""
        answer = client.request("create", spec=pod_spec_to_dict(self._spec), ports=self._ports)
        message, _ = answer.first()
        answer.close()
        self._pid = message["pid"]
        return self

    def __enter__(self) -> "Pod":
        return self if self._pid is not None else self.create()

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spec.die_with_parent:
            self.remove(force=True)

    def popen(self, args: Args, **options: Any) -> Member:
        """Start a member and return at once. Keywords as for :func:`popen`."""
        return popen(self.name, args, **options)

    def run(self, args: Args, **options: Any) -> "subprocess.CompletedProcess[Any]":
        """Run a member to its end; keywords and result are those of subprocess.run, see :func:`join`."""
        return join(self.name, args, **options)

    def detach(self, args: Args, **options: Any) -> int:
        """Start a member that outlives this program, with a log; return its host PID.

        Keywords: env, cwd, rootfs, volumes, tmpfs, share, user, cap_add, cap_drop, privileged, seccomp,
        ulimits. See ``nsbox join -d``.
        """
        answer = client.request("detach", target=self.name, spec=keywords.member_spec(args, **options))
        message, _ = answer.first()
        answer.close()
        return int(message["pid"])

    def processes(self) -> list[dict[str, Any]]:
        """The processes in the pod, PID 1 first. The same as ``nsbox ps --json``."""
        return list(report.everything(self.name).get("processes", []))

    def inspect(self) -> dict[str, Any]:
        """All that is known of the pod. The same as ``nsbox inspect --json``."""
        return report.everything(self.name)

    def kill(self, signum: int) -> int:
        """Send a signal to every member; return how many got it."""
        return lifecycle.kill(self.name, signum)

    def stop(self, timeout_s: float | None = None) -> None:
        """End its processes: SIGTERM, `timeout_s` seconds, SIGKILL. The record stays."""
        lifecycle.stop(self.name, timeout_s)

    def remove(self, *, force: bool = False) -> None:
        """Stop it and forget it; with `force` at once."""
        lifecycle.remove(self.name, force=force)


def popen(
    target: str | int,
    args: Args,
    *,
    stdin: Redirect = None,
    stdout: Redirect = None,
    stderr: Redirect = None,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    universal_newlines: bool | None = None,
    **member: Any,
) -> Member:
    """Start a member of a pod (by name), or beside any process (by host PID).

    Args:
        args: the command and its arguments, or the command alone; searched for in the PATH of
            the member.
        stdin, stdout, stderr, text, encoding, errors, universal_newlines: as for subprocess.Popen.
        member: env (added to a clean one), cwd (inside), rootfs, volumes, tmpfs, share, hostname,
            user ("USER[:GROUP]", names and numbers of the member's root, or a number),
            cap_add, cap_drop, privileged, seccomp, ulimits (those of :class:`Pod`).

    Raises:
        PodNotFound, PodDead: the target is not there. CommandError: it cannot be executed.
    """
    wants_text = bool(text or encoding or errors or universal_newlines)
    pipes = Pipes((stdin, stdout, stderr), {"encoding": encoding, "errors": errors} if wants_text else None)
    try:
        spec = keywords.member_spec(args, **member)
        answer = client.request("join", pipes.theirs, target=str(target), spec=spec)
        pipes.close_theirs()
        return Member(args, answer, pipes)
    except BaseException:
        pipes.close()
        raise


def join(
    target: str | int,
    args: Args,
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **options: Any,
) -> "subprocess.CompletedProcess[Any]":
    """Run a member to its end. Keywords and result are those of subprocess.run and :func:`popen`.

    Args:
        target: a pod's name, or the host PID of any process.

    Raises:
        subprocess.TimeoutExpired: the member was killed after `timeout` seconds.
        subprocess.CalledProcessError: with `check`, it ended with another status than 0.
    """
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input cannot be used together")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("capture_output cannot be used together with stdout or stderr")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    with popen(target, args, **options) as member:
        try:
            out, err = member.communicate(input, timeout)
        except BaseException:
            member.kill()
            raise
    done: "subprocess.CompletedProcess[Any]" = subprocess.CompletedProcess(args, member.wait(), out, err)
    if check:
        done.check_returncode()
    return done
