"""`nsbox net …`: networks for pods, and cables between them."""

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from .. import parse
from ..errors import SpecError
from . import clean, options

if TYPE_CHECKING:
    from ..net.shape import Shape

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,16})?")
_EXAMPLE = """\
example:
  sudo nsbox net create lan --subnet 10.9.0.0/24
  sudo nsbox create a --rootfs busybox --net lan
  sudo nsbox create b --rootfs busybox --net lan --ip 10.9.0.20
  sudo nsbox join a -- ping -c 1 b
  sudo nsbox net ls
  sudo nsbox rm a b
  sudo nsbox net rm lan
  sudo nsbox net create lan --explain           each step, with the line of ip or nft for it
  sudo nsbox net connect web lan --dry-run      the same beforehand
"""
_LINK_EXAMPLE = """\
example:
  sudo nsbox net link a b                       a cable between two pods
  sudo nsbox net link a b --delay 40 --loss 1   a bad one

By hand: ip link add eth0 netns PID_A type veth peer name eth0 netns PID_B
"""


def add_parser(verbs: Any) -> None:
    """Add `net` and its verbs."""
    group = options.verb(verbs, "net", "make networks, and connect pods to them", _EXAMPLE, "net:run")
    below = group.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = options.verb(below, "create", "make a network and its bridge", _EXAMPLE, "net:create", foretold=True)
    create.add_argument("name", metavar="NAME")
    create.add_argument("--subnet", metavar="CIDR", help="v4, as 10.9.0.0/24; a free one if not given")
    create.add_argument("--internal", action="store_true", help="it leads to nowhere but its pods and the host")
    create.add_argument("--json", action="store_true", help="answer in JSON")
    ls = options.verb(below, "ls", "list the networks", "example:\n  sudo nsbox net ls --json\n", "net:ls")
    ls.add_argument("--json", action="store_true", help="answer in JSON")
    inspect = options.verb(below, "inspect", "show a network and its pods",
                           "example:\n  sudo nsbox net inspect lan\n", "net:inspect")
    inspect.add_argument("names", metavar="NAME", nargs="+")
    inspect.add_argument("--json", action="store_true", help="answer in JSON, a list")
    rm = options.verb(below, "rm", "remove networks", "example:\n  sudo nsbox net rm lan\n", "net:rm", foretold=True)
    rm.add_argument("names", metavar="NAME", nargs="+")
    rm.add_argument("-f", "--force", action="store_true", help="disconnect its pods; a missing one is no error")
    connect = options.verb(below, "connect", "plug a running pod into a network",
                           "example:\n  sudo nsbox net connect web lan --ip 10.9.0.30\n", "net:connect", foretold=True)
    connect.add_argument("pod", metavar="POD")
    connect.add_argument("network", metavar="NAME")
    connect.add_argument("--ip", metavar="ADDR", help="its v4 address; a free one if not given")
    connect.add_argument("--json", action="store_true", help="answer in JSON")
    _add_shape(connect)
    disconnect = options.verb(below, "disconnect", "unplug a pod from a network, or from a pod it is linked to",
                              "example:\n  sudo nsbox net disconnect web lan\n", "net:disconnect", foretold=True)
    disconnect.add_argument("pod", metavar="POD")
    disconnect.add_argument("network", metavar="NAME|POD")
    link = options.verb(below, "link", "lay a cable between two pods", _LINK_EXAMPLE, "net:link", foretold=True)
    link.add_argument("pods", metavar="POD", nargs=2)
    link.add_argument("--json", action="store_true", help="answer in JSON")
    _add_shape(link)
    options.verb(below, "reload", "put bridges, rules and names back in place",
                 "example:\n  sudo nsbox net reload      after a flush of the firewall\n", "net:reload",
                  foretold=True)  # fmt: skip


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delay", metavar="MS", help="milliseconds more, each way (netem)")
    parser.add_argument("--loss", metavar="PERCENT", help="of the packets, each way (netem)")
    parser.add_argument("--rate", metavar="BITS", help="bits a second, each way, as 10m (tbf)")


def _shape(args: argparse.Namespace) -> "Shape | None":
    if args.delay is None and args.loss is None and args.rate is None:
        return None
    from ..net.shape import Shape

    return Shape(
        _number(args.delay, "--delay", 60_000, "not a number of milliseconds, 0 to 60000"),
        _number(args.loss, "--loss", 100, "not a number of percent, 0 to 100"),
        _rate(args.rate),
    )


def _number(text: str | None, what: str, most: float, law: str) -> float:
    """A number such as "40" or "0.5", and no other of the forms that float() takes."""
    if text is None:
        return 0.0
    value = float(text) if _NUMBER.fullmatch(text) else -1.0
    if not 0 <= value <= most:
        raise SpecError(f"cannot use {what} {parse.quote(text)}: {law}")
    return value


def _rate(text: str | None) -> int:
    if text is None:
        return 0
    unit = {"k": 10**3, "m": 10**6, "g": 10**9}.get(text[-1:].lower(), 1)
    return parse.parse_integer(text[:-1] if unit > 1 else text, "--rate", 1, 10**9) * unit


def run(args: argparse.Namespace) -> int:
    """Never called: a verb is required."""
    raise SpecError("cannot do nothing: nsbox net needs a verb", hint="see: nsbox net --help")


def create(args: argparse.Namespace) -> int:
    """Make a network; print its name."""
    from ..pod import networks

    made = []

    def make() -> str:
        network = networks.create(args.name, args.subnet, args.internal)
        made.append(network.name)
        return json.dumps(network._asdict(), indent=2) if args.json else network.name

    def undo() -> None:
        from ..pod import netreport

        for name in made:
            netreport.remove(name, force=True)

    clean.answer(make, undo)
    return 0


def ls(args: argparse.Namespace) -> int:
    """Print one line a network."""
    from ..pod import netreport
    from ..show import text

    rows = netreport.summaries()
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    titles = ("NAME", "SUBNET", "SUBNET6", "BRIDGE", "INTERNAL", "PODS")
    cells = [(row["name"], row["subnet4"] or "-", row["subnet6"] or "-", row["bridge"] or row["problem"],
              "yes" if row["internal"] else "no", str(len(row["pods"]))) for row in rows]  # fmt: skip
    print(*text.table(titles, cells, frozenset({"PODS"})), sep="\n")
    return 0


def inspect(args: argparse.Namespace) -> int:
    """Print all about networks."""
    from ..pod import netreport
    from .look import print_tree

    found = [netreport.everything(name) for name in args.names]
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for number, about in enumerate(found):
        if number:
            print()
        print_tree(about, "")
    return 0


def rm(args: argparse.Namespace) -> int:
    """Remove networks."""
    from ..pod import netreport
    from .end import each

    return each(args.names, lambda name: netreport.remove(name, force=args.force))


def connect(args: argparse.Namespace) -> int:
    """Plug a pod in; print its address."""
    from ..pod import netattach

    ip = parse.parse_ip(args.ip) if args.ip is not None else ""
    plug = netattach.connect(parse.check_name(args.pod), args.network, ip, _shape(args))
    clean.say_changes()
    if args.json:
        print(json.dumps(plug._asdict(), indent=2))
    else:
        print(f"{plug.ifname} {plug.v4} {plug.v6}")
    return 0


def disconnect(args: argparse.Namespace) -> int:
    """Unplug a pod."""
    from ..pod import netattach

    netattach.disconnect(parse.check_name(args.pod), args.network)
    return 0


def link(args: argparse.Namespace) -> int:
    """Tie two pods; print the two ends."""
    from ..pod import nettie

    name_a, name_b = map(parse.check_name, args.pods)
    ends = nettie.link(name_a, name_b, _shape(args))
    if args.json:
        print(json.dumps([{"pod": name, **end._asdict()} for name, end in zip((name_a, name_b), ends)], indent=2))
    else:
        for name, end in zip((name_a, name_b), ends):
            print(f"{name} {end.ifname} {end.address}")
    return 0


def reload(_args: argparse.Namespace) -> int:
    """Put everything back in place."""
    from ..pod import netreport

    netreport.reload()
    clean.say_changes()
    return 0
