"""`nsbox publish` and `nsbox unpublish`."""

import argparse
from contextlib import contextmanager
from typing import Any, Iterator

from ..ports import Port, parse_publish
from . import clean, options

_EXAMPLE = """\
example:
  sudo nsbox publish web 8080:80
  sudo nsbox publish web :80 0.0.0.0:5353:53/udp
  sudo nsbox publish web                    what it publishes
  sudo nsbox publish web 192.0.2.1:8081:81 --publish-mode nat
  sudo nsbox publish web 8082:82 --explain  each step, with its reason; --dry-run tells it before

SPEC is [IP:]HOST:POD[/udp]. Without IP it is 127.0.0.1; with HOST empty a free port is taken
and printed. The ports are closed when the pod ends.
"""


def add_parser(verbs: Any) -> None:
    """Add `publish` and `unpublish`."""
    publish = options.verb(verbs, "publish", "make ports of a running pod reachable on the host", _EXAMPLE,
                           "publish:run", foretold=True)
    publish.add_argument("pod", metavar="POD")
    publish.add_argument("specs", metavar="SPEC", nargs="*", help="none: list what is published")
    publish.add_argument("--json", action="store_true", help="answer in JSON")
    add_mode(publish)
    unpublish = options.verb(verbs, "unpublish", "close published ports of a pod",
                             "example:\n  sudo nsbox unpublish web 8080:80\n", "publish:undo", foretold=True)
    unpublish.add_argument("pod", metavar="POD")
    unpublish.add_argument("specs", metavar="SPEC", nargs="+", help="as it was published")  # fmt: skip


def add_mode(parser: Any) -> None:
    """Add --publish-mode."""
    parser.add_argument("--publish-mode", choices=("proxy", "nat"), default="proxy",
                        help="nat: forwarded by the kernel, for pods on a network and addresses that are not loopback")


def ports_of(specs: list[str]) -> list[Port]:
    """All the ports of several words."""
    return [port for spec in specs for port in parse_publish(spec)]


def run(args: argparse.Namespace) -> int:
    """Publish; print what is published, one line a port."""
    from ..pod import publish, rivals

    ports = ports_of(args.specs)
    if ports:
        check_mode(ports, args.publish_mode)
        bound = publish.bind(ports)
        try:
            rivals.refuse_copy(args.pod, "publish ports of")
            _publish(args.pod, bound, args.publish_mode)
        finally:
            publish.close(bound)
        wanted = {one.forward for one in bound}
    rows = _rows(args.pod)
    if ports:
        rows = [row for row in rows if _key(row) in wanted]
    if args.json:
        import json

        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            print(line(row))
    return 0


def check_mode(ports: list[Port], mode: str, net: str | None = None) -> None:
    """Refuse what cannot be forwarded. Raises SpecError, NsboxError."""
    if mode == "nat":
        from ..pod import netnat

        netnat.check(ports, net)


def _publish(pod: str, bound: Any, mode: str) -> None:
    """Have the proxy serve them, and by nat the kernel before it."""
    from ..pod import publish

    publish.publish(pod, bound)
    if mode == "nat":
        from ..pod import netnat

        ports = [Port(*one.forward) for one in bound]
        try:
            netnat.add(pod, ports)
        except BaseException:
            publish.unpublish(pod, ports)
            raise


def _rows(pod: str) -> list[dict[str, Any]]:
    """What a pod publishes, and by which mode."""
    from ..pod import publish, statedir

    rows = publish.published(pod)
    by_nat: frozenset[tuple[str, str, int, int]] = frozenset()
    if rows and statedir.has_nets():
        from ..pod import netnat

        by_nat = netnat.of_pod(pod)
    return [{**row, "mode": "nat" if _key(row) in by_nat else "proxy"} for row in rows]


class Birth:
    """The ports of a pod that is being made, bound already. Called with the pod's name it serves them."""

    def __init__(self, bound: Any, mode: str) -> None:
        self._bound, self._mode = bound, mode

    def intend(self, dir_fd: int) -> None:
        """Write them down in the pod's directory, before the pod is ready. Its lock is held."""
        if self._bound:
            from ..pod import publish

            publish.intend(dir_fd, [one.forward for one in self._bound])

    def __call__(self, name: str) -> list[dict[str, Any]]:
        """Serve them; return the rows."""
        if not self._bound:
            return []
        _publish(name, self._bound, self._mode)
        return _rows(name)


@contextmanager
def at_birth(specs: list[str], mode: str = "proxy", net: str = "none") -> Iterator[Birth]:
    """Take the host's ports now, before there is a pod.

    A port that is in use is an error before anything has been made.
    """
    ports = ports_of(specs)
    if not ports:
        yield Birth((), mode)
        return
    from ..pod import publish

    check_mode(ports, mode, net)
    bound = publish.bind(ports)
    try:
        yield Birth(bound, mode)
    finally:
        publish.close(bound)


def tell_free_ports(specs: list[str], rows: list[dict[str, Any]]) -> None:
    """Say on stderr which ports were taken, where the words left that open."""
    if any(port.host_port == 0 for port in ports_of(specs)):
        clean.tell(*(f"nsbox: {line(row)}" for row in rows))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["proto"], row["host_address"], row["host_port"], row["pod_port"]


def line(row: dict[str, Any]) -> str:
    """'127.0.0.1:8080 -> 80/tcp', and how it is if it is not open."""
    address = row["host_address"]
    place = f"[{address}]" if ":" in address else address
    words = [word for word in (row["state"], row.get("mode", "proxy")) if word not in ("open", "proxy")]
    state = f" ({', '.join(words)})" if words else ""
    return f"{place}:{row['host_port']} -> {row['pod_port']}/{row['proto']}{state}"


def undo(args: argparse.Namespace) -> int:
    """Unpublish."""
    from ..pod import publish, statedir

    ports = publish.find(args.pod, ports_of(args.specs))  # all of them, or nothing is touched
    if statedir.has_nets():  # the rule before the port: in between it is served by the proxy
        from ..pod import netnat

        netnat.drop(args.pod, ports)
    publish.unpublish(args.pod, ports)
    return 0
