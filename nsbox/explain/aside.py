"""Who works beside the pod, as lines of a script: children that change a network, and helpers that stay.

    netlink   a child that sends messages, in network namespaces that it enters: lines of ip(8)
    proxy     serves published ports; by hand it is socat(1)
    pasta     the program, for a network namespace that gets a name first
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence

from ..linux.flags import CloneFlag
from .byhand import Hand, pid_of
from .teller import Told

_PORT = re.compile(r"publish (\[?)([^\[\]]+)\]?:(\d+)(/udp)? -> (\d+)/(tcp|udp)")
_LOOPBACKS = {"tcp": "TCP", "udp": "UDP"}
_NETNS = re.compile(r"/tmp/netns|/proc/\d+/ns/net")


class Aside:
    """Of one command.

    Args:
        name_of: how a PID is written.
    """

    def __init__(self, told: Sequence[Told], name_of: Callable[[int], str]) -> None:
        self._ports = [one for one in told if one.call == "bind" and _PORT.match(one.doing)]
        self._name_of = name_of
        self._pasta: list[Told] = [one for one in told if one.who == "pasta" and one.call == "execve"]
        entered = [pid_of(one.places["0"]) for one in told if one.who == "proxy" and one.call == "setns"]
        self._pod_pid = entered[0] if entered else 0

    def lines(self, calls: Sequence[Told]) -> Iterator[str]:
        """What stands for a child with these calls; for many nothing does."""
        who = calls[0].who if calls else ""
        if who == "netlink":
            yield from self._netlink(calls)
        elif who == "proxy":
            yield from self._proxy()
        elif who == "pasta":
            yield from self._way_out()

    def _netlink(self, calls: Sequence[Told]) -> Iterator[str]:
        if any(one.call == "setns" and one.values[1] & CloneFlag.CLONE_NEWNS for one in calls):
            yield "# its names are mounted in the pod's tree: no command carries a mount into another tree"
            return
        hand = Hand(self._name_of)
        for one in calls:
            if one.call != "setns":
                yield from hand.lines(one)

    def _proxy(self) -> Iterator[str]:
        ports, self._ports = self._ports, []
        for one in ports:
            found = _PORT.match(one.doing)
            if found is not None:
                yield self._socat(found)

    def _socat(self, found: "re.Match[str]") -> str:
        v6, address, host_port, _, pod_port, proto = found.groups()
        kind = _LOOPBACKS[proto]
        listens = f"{kind}{'6' if v6 else ''}-LISTEN:{host_port},bind={v6}{address}{']' if v6 else ''},fork"
        inner = f"nsenter --target {self._name_of(self._pod_pid)} --net socat - {kind}\\:127.0.0.1\\:{pod_port}"
        listens += ",reuseaddr" if proto == "tcp" else ""
        return f'setsid socat {listens} EXEC:"{inner}" < /dev/null > /dev/null 2>&1 &'

    def _way_out(self) -> Iterator[str]:
        if not self._pasta:
            return
        argv, self._pasta = self._pasta[0].values[1], []
        words = " ".join(shlex.quote(_NETNS.sub("$netns", word)) if "$" not in word else word for word in argv[1:])
        words = words.replace("'$netns'", '"$netns"')
        yield 'netns=$(mktemp -u /run/netns-XXXXXX)'
        yield ': > "$netns"; mount --bind "/proc/$pause/ns/net" "$netns"     # pasta gives up the right to /proc/PID/ns'
        yield f"setsid pasta {words} < /dev/null > /dev/null 2>&1 &"
