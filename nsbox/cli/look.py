"""`nsbox ls`, `inspect` and `ps`."""

import argparse
import json
from collections.abc import Iterable
from typing import Any

from ..show import text
from . import options


def add_parser(verbs: Any) -> None:
    """Add the verbs that only look."""
    ls = options.verb(verbs, "ls", "list the pods", "example:\n  sudo nsbox ls\n  sudo nsbox ls --json\n", "look:ls")
    ls.add_argument("-q", "--quiet", action="store_true", help="names only")
    ls.add_argument("--json", action="store_true", help="answer in JSON")
    inspect = options.verb(
        verbs, "inspect", "show everything about a pod or a process",
        "example:\n  sudo nsbox inspect web\n  sudo nsbox inspect --json 4711\n", "look:inspect",
    )  # fmt: skip
    inspect.add_argument("targets", metavar="TARGET", nargs="+", help="a pod's name or a host PID")
    inspect.add_argument("--json", action="store_true", help="answer in JSON, a list")
    ps = options.verb(
        verbs, "ps", "list the processes of a pod",
        "example:\n  sudo nsbox ps web\n\nPID is the host's number, POD-PID the one inside.\n", "look:ps",
    )  # fmt: skip
    ps.add_argument("pods", metavar="POD", nargs="+", help="a pod's name, or the host PID of its pause")
    ps.add_argument("--json", action="store_true", help="answer in JSON")


def ls(args: argparse.Namespace) -> int:
    """Print one line a pod."""
    from ..pod import report

    rows = report.summaries()
    if args.json:
        print(json.dumps(rows, indent=2))
    elif args.quiet:
        for row in rows:
            print(text.printable(row["name"]))
    else:
        with_ports = any(row["ports"] for row in rows)
        titles = ("NAME", "PID", "STATUS", "MEMBERS", "AGE", *["PORTS"] * with_ports, "ROOTFS")
        right = frozenset({"PID", "MEMBERS", "AGE"})
        print(*text.table(titles, [_ls_row(row, with_ports) for row in rows], right), sep="\n")
    return 0


def _ls_row(row: dict[str, Any], with_ports: bool) -> tuple[str, ...]:
    return (
        row["name"],
        str(row["pid"] or "-"),
        row["status"],
        str(row["members"]),
        text.age(row["created"]) if row["created"] else "-",
        *[_ports(row["ports"])] * with_ports,
        row["rootfs"] or "-",
    )


def _ports(rows: list[dict[str, Any]]) -> str:
    """127.0.0.1:8080->80/tcp, and (down) where nobody answers there."""
    from . import publish

    return ", ".join(publish.line(row).replace(" -> ", "->") for row in rows) or "-"


def inspect(args: argparse.Namespace) -> int:
    """Print all that is known, as indented words or JSON."""
    from ..pod import report

    found = [report.everything(target) for target in args.targets]
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for number, about in enumerate(found):
        if number:
            print()
        _print_inspected(about)
    return 0


def _print_inspected(about: dict[str, Any]) -> None:
    """Of a pod or a process; the mounts last, for they are many."""
    from ..show import posture

    rows, mounts, security = about.pop("processes", None), about.pop("mounts", None), about.pop("security", None)
    for member in about.get("members", []):  # said with the processes
        del member["security"], member["differs"]
    print_tree(about, "")
    if rows is not None:
        _print_lines("processes:", posture.of_processes(rows))
    elif security is not None:
        _print_lines("security:", posture.of_security(security))
    if mounts is not None:
        print_tree({"mounts": mounts}, "")


def _print_lines(title: str, lines: Iterable[str]) -> None:
    print(title)
    for line in lines:
        _print_line(f"  {line}")


def print_tree(about: dict[str, Any], indent: str) -> None:
    """Values as indented words."""
    for key, value in about.items():
        if isinstance(value, dict):
            print(f"{indent}{text.printable(key)}:")
            print_tree(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{indent}{text.printable(key)}:")
            for row in value:
                _print_line(f"{indent}  - " + "  ".join(f"{name}={_word(item)}" for name, item in row.items()))
        else:
            _print_line(f"{indent}{text.printable(key)}: {_word(value)}")


def _print_line(line: str) -> None:
    print(*text.fitted(line), sep="\n")


def _word(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return ", ".join(_word(item) for item in value)
        return text.command_line([str(item) for item in value]) or "-"
    return text.printable(str(value)) or "-"


def ps(args: argparse.Namespace) -> int:
    """Print one line a process, with both PIDs."""
    from ..errors import PodNotFound
    from ..pod import report, target

    rows = []
    for name in args.pods:
        found = target.find(name)
        found.close()
        if found.pod is None:
            raise PodNotFound(f"cannot list the processes of {found.label}: it is not a pod's PID 1")
        rows += [{"pod": found.pod.name, **row} for row in report.process_rows(found.pod)]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    many = len(args.pods) > 1
    titles = ("POD",) * many + ("PID", "POD-PID", "PPID", "UID", "STATE", "SHARES", "COMMAND")
    cells = [
        (row["pod"],) * many
        + (
            str(row["pid"]), str(row["pod_pid"]), str(row["ppid"]), str(row["uid"]), row["state"],
            ",".join(row["shares"]), text.command_line(row["command"]),
        )
        for row in rows
    ]  # fmt: skip
    print(*text.table(titles, cells, frozenset({"PID", "POD-PID", "PPID", "UID"})), sep="\n")
    return 0
