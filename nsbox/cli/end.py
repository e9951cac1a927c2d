"""`nsbox wait`, `stop`, `kill`, `rm` and `prune`."""

import argparse
import json
import signal
from typing import Any

from .. import parse
from . import clean, options

_POD_OR_PID = "a pod's name, or a host PID"


def add_parser(verbs: Any) -> None:
    """Add the verbs that end something."""
    wait = options.verb(
        verbs, "wait", "wait for detached members and print their exit statuses",
        "example:\n  PID=$(sudo nsbox join web -d -- sh -c 'sleep 1; exit 3')\n  sudo nsbox wait $PID\n",
        "end:wait",
    )  # fmt: skip
    wait.add_argument("targets", metavar="TARGET", nargs="+", help="a pod, or the host PID of a detached member")
    wait.add_argument("--json", action="store_true", help="answer in JSON")
    stop = options.verb(
        verbs, "stop", "end the processes of pods, and keep their records",
        "example:\n  sudo nsbox stop web\n\nTERM to the members, grace, KILL, then the pause.\n", "end:stop",
        foretold=True,
    )  # fmt: skip
    _add_pods(stop)
    kill = options.verb(
        verbs, "kill", "send a signal to the members of pods, or to a process",
        "example:\n  sudo nsbox kill -s HUP web\n  sudo nsbox kill --check -s TERM web\n\n"
        "A pod's own PID 1 gets nothing: see stop and rm.\n", "end:kill",
        foretold=True,
    )  # fmt: skip
    kill.add_argument("--check", action="store_true", help="send nothing: say what the signal would do, and why")
    kill.add_argument("--json", action="store_true", help="with --check: answer in JSON")
    kill.add_argument("-s", "--signal", metavar="SIGNAL", default="KILL", help="name or number; KILL if not given")
    kill.add_argument("targets", metavar="TARGET", nargs="+", help=_POD_OR_PID)
    rm = options.verb(
        verbs, "rm", "stop pods and remove them",
        "example:\n  sudo nsbox rm web\n  sudo nsbox rm --force web db\n", "end:rm", foretold=True,
    )  # fmt: skip
    _add_pods(rm)
    rm.add_argument("-f", "--force", action="store_true", help="KILL at once; a missing pod is no error")
    prune = options.verb(
        verbs, "prune", "remove what is dead or was cut off", "example:\n  sudo nsbox prune\n", "end:prune", acts=True
    )
    prune.add_argument("--json", action="store_true", help="answer in JSON")


def _add_pods(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pods", metavar="POD", nargs="+", help="a pod's name")
    parser.add_argument("-t", "--time", metavar="SECONDS", help="between TERM and KILL; the pod's own if not given")


def wait(args: argparse.Namespace) -> int:
    """Print the exit status of each member, in the order they were started."""
    from ..pod import wait as waiting

    rows = []
    for text in args.targets:
        for pod, member in waiting.members_of(text):
            status = waiting.wait(pod, member)
            pid = member.process.pid if member.process else None
            rows.append({"pod": pod, "pid": pid, "exit_status": status})
            if not args.json:
                print(status, flush=True)
    if args.json:
        print(json.dumps(rows, indent=2))
    return 0


def _say(text: str) -> None:
    clean.tell(f"nsbox: {text}")  # a full stderr must not stop the ending half way


def each(names: list[str], action: Any) -> int:
    """Do it for every name, also after a failure; the first failure is the one reported."""
    from ..errors import NsboxError, one_line

    first: NsboxError | None = None
    for name in names:
        try:
            action(name)
        except NsboxError as err:
            if first is not None:
                _say(one_line(err))
            first = first or err
        clean.say_changes()
    if first is not None:
        raise first
    return 0


def _pod_name(text: str) -> str:
    """The name, checked. These verbs end whole pods, so a PID is not taken for one."""
    from ..errors import SpecError

    if text.isascii() and text.isdigit():
        raise SpecError(f"cannot use {parse.quote(text)} as a pod's name: it is a PID",
                        hint="nsbox ls shows which pod has it; nsbox kill sends a signal to a PID")  # fmt: skip
    return parse.check_name(text)


def stop(args: argparse.Namespace) -> int:
    """Stop pods."""
    from ..pod import lifecycle

    timeout_s = options.seconds(args.time, "--time")
    names = [_pod_name(name) for name in args.pods]
    return each(names, lambda name: lifecycle.stop(name, timeout_s, say=_say))


def kill(args: argparse.Namespace) -> int:
    """Send a signal."""
    from ..errors import PodNotFound, SpecError
    from ..pod import lifecycle

    signum = parse.parse_signal(args.signal)
    if args.check:
        return _check(args.targets, signum, args.json)
    if args.json:
        raise SpecError("cannot use --json without --check: kill prints nothing")

    def send(target: str) -> None:
        if lifecycle.kill(target, signum) == 0:
            name = signal.Signals(signum).name if signum in list(signal.Signals) else str(signum)
            raise PodNotFound(f"cannot send {name} to {target!r}: no process is there to get it")

    return each(args.targets, send)


def _check(targets: list[str], signum: int, as_json: bool) -> int:
    """Print what the signal would do to each process."""
    from ..pod import forecast
    from ..show import text

    found = [one for target in targets for one in forecast.of_target(target, signum)]
    if as_json:
        print(json.dumps([{**one._asdict(), "command": list(one.command)} for one in found], indent=2))
        return 0
    cells = [(str(one.pid), str(one.pod_pid), one.outcome, one.reason, text.command_line(one.command)) for one in found]
    print(*text.table(("PID", "POD-PID", "OUTCOME", "BECAUSE", "COMMAND"), cells, frozenset({"PID", "POD-PID"})),
          sep="\n")  # fmt: skip
    return 0


def rm(args: argparse.Namespace) -> int:
    """Remove pods."""
    from ..pod import lifecycle

    timeout_s = options.seconds(args.time, "--time")
    names = [_pod_name(name) for name in args.pods]
    return each(names, lambda name: lifecycle.remove(name, force=args.force, timeout_s=timeout_s, say=_say))


def prune(args: argparse.Namespace) -> int:
    """Remove the dead; print their names."""
    from ..pod import lifecycle

    removed = lifecycle.prune()
    clean.say_changes()
    if args.json:
        print(json.dumps(removed))
    else:
        for name in removed:
            print(name)
    return 0
