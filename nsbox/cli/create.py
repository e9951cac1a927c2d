"""`nsbox create`."""

import argparse
import os
from typing import Any

from .. import parse
from ..errors import SpecError
from ..spec import POD_KINDS, PodSpec, TimeOffsets
from . import clean, options, publish

_EXAMPLE = """\
example:
  PID=$(sudo nsbox create web --rootfs busybox)
  sudo nsbox join web -- hostname
  sudo nsbox create safe --userns --rootfs busybox     its root is nobody on the host
  sudo nsbox create few --ulimit nofile=64 --ulimit nproc=100:200

The same by hand (without a pause that reaps, and without a name):
  sudo unshare --pid --uts --ipc --net --mount --fork chroot rootfs sleep inf &
"""


def add_parser(verbs: Any) -> None:
    """Add `create`."""
    parser = options.verb(verbs, "create", "make a pod and print the host PID of its pause", _EXAMPLE, "create:run",
                          foretold=True)
    parser.add_argument("name", metavar="NAME", nargs="?", help="its name; one is made up if not given")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    add_pod_options(parser)
    parser.add_argument("--init", metavar="CMD",
                        help="a program of yours as PID 1 instead of the pause, split as a shell would")  # fmt: skip
    options.add_user(parser)
    options.add_root_options(parser)


def add_pod_options(parser: argparse.ArgumentParser) -> None:
    """What describes a pod, but for its root."""
    group = parser.add_argument_group("pod")
    group.add_argument("--hostname", metavar="HOST", help="the hostname inside; the pod's name if not given")
    group.add_argument("--share", metavar="LIST",
                       help="what members share by default, as pid,net or +mnt; all if not given")
    group.add_argument("--with", metavar="LIST", dest="with_kinds", action="append", default=[],
                       help="namespaces to make besides: user, cgroup, time")
    group.add_argument("--userns", metavar="auto|keep-id|MAP", nargs="?", const="auto",
                       help="add a user namespace whose root is not the host's: auto (if nothing is written) "
                       "gives it 65536 ids of its own, keep-id keeps yours, MAP is INSIDE:OUTSIDE:COUNT[,…]")
    group.add_argument("--monotonic", metavar="SECONDS", help="shift CLOCK_MONOTONIC; implies --with time")
    group.add_argument("--boottime", metavar="SECONDS", help="shift CLOCK_BOOTTIME; implies --with time")
    group.add_argument("--net", metavar="NET", default="none",
                       help="none (the default), bridge, host, user, the name of a network, pod:NAME or ns:PATH")
    group.add_argument("--ip", metavar="ADDR", help="its v4 address in that network; a free one if not given")
    group.add_argument("-p", "--publish", metavar="[IP:]HOST:POD[/udp]", action="append", default=[],
                       help="make a port reachable on the host, on 127.0.0.1 if no IP is written (may be repeated)")
    publish.add_mode(group)
    group.add_argument("--sysctl", metavar="KEY=VALUE", action="append", default=[],
                       help="a setting of the kernel for this pod alone, as net.ipv4.ip_forward=1 (may be repeated)")
    group.add_argument("--label", metavar="KEY=VALUE", action="append", default=[],
                       help="a word of yours for ls and inspect (may be repeated)")
    group.add_argument("--stop-timeout", metavar="SECONDS", help="between TERM and KILL when it is stopped; 10 "
                       "if not given")
    group.add_argument("--pause", choices=("static", "python"), default="static",
                       help="which pause: the small static one, or the readable one in Python, whose "
                       "/proc/1/exe is the host's interpreter")  # fmt: skip
    options.add_rights_options(parser)
    options.add_seccomp_option(parser)
    options.add_ulimit_option(parser)


def run(args: argparse.Namespace) -> int:
    """Make the pod; print the host PID of its PID 1."""
    if args.after_dashes is not None:
        raise SpecError("cannot use a command here: create makes a pod without members",
                        hint="nsbox join POD -- CMD runs one, --init CMD makes it PID 1")  # fmt: skip
    spec = pod_spec(args, args.name)
    if args.user is not None and args.init is None:
        raise SpecError("cannot use --user: the pause is nobody's program",
                        hint="it says who runs the CMD of --init; join -u and run -u say who a member is")  # fmt: skip
    if args.init is not None:
        spec = spec._replace(init=parse.split_init(args.init), user=options.user(args))
    from ..pod import create

    def make() -> str:
        with publish.at_birth(args.publish, args.publish_mode, spec.net) as serve:
            record, started = create.create(spec, serve.intend)
            rows = serve(record.name)
        clean.say_changes()
        if not args.json:
            publish.tell_free_ports(args.publish, rows)
            return str(started.pid)
        import json

        return json.dumps({"name": record.name, "pid": started.pid, "id": record.id, "ports": rows})

    clean.answer(make, lambda: create.abandon(spec.name))
    return 0


def pod_spec(args: argparse.Namespace, name: str | None) -> PodSpec:
    """The spec of a pod out of the options of :func:`add_pod_options`."""
    name = parse.check_name(f"pod-{os.urandom(3).hex()}" if name is None else name)
    with_kinds = frozenset[str]().union(*(parse.parse_with(word) for word in args.with_kinds))
    offsets = TimeOffsets(_offset(args.monotonic, "--monotonic"), _offset(args.boottime, "--boottime"))
    if args.monotonic or args.boottime:
        with_kinds |= {"time"}
    timeout_s = options.seconds(args.stop_timeout, "--stop-timeout")
    return PodSpec(
        name=name,
        hostname=parse.check_hostname(args.hostname) if args.hostname else parse.hostname_of(name),
        root=options.root_spec(args),
        with_kinds=with_kinds,
        share=None if args.share is None else parse.parse_share(args.share, POD_KINDS),
        labels=tuple(parse.parse_label(word) for word in args.label),
        time=offsets,
        stop_timeout_s=10.0 if timeout_s is None else timeout_s,
        pause=args.pause,
        net=_net(args),
        ip=parse.parse_ip(args.ip) if args.ip is not None else "",
        sysctls=tuple(parse.parse_sysctl(word) for word in args.sysctl),
        userns=parse.parse_userns(args.userns) if args.userns is not None else "",
        owner=parse.sudo_caller(os.environ) if args.userns is not None else None,
        rights=options.rights(args),
        seccomp=options.seccomp(args),
        ulimits=parse.parse_ulimits(args.ulimit),
    )


def _net(args: argparse.Namespace) -> str:
    """--net; what a person should know of it is said on stderr."""
    net = parse.parse_net(args.net)
    if net != "none":
        from ..pod import netmodes

        if args.publish:
            netmodes.check_publish(net)
        if said := netmodes.warning(net):
            clean.tell(f"nsbox: warning: {said}")
    return net


def _offset(text: str | None, what: str) -> int:
    if text is None:
        return 0
    negative = text.startswith("-")
    number = parse.parse_integer(text[1:] if negative else text, what, 0, 10**9)
    return -number if negative else number
