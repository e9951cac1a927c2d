"""All that was told as one shell script, which does the same by hand.

    $steps/go, $steps/said    pipes by which the script and PID 1 of a pod wait for each other
    $pause                    PID 1 on the host, as nsbox create prints it

A child is born by unshare(1), in the namespaces that nsenter(1) went to before; what its process
did is a script of its own within the script. The order of the calls is kept.
"""

import re
import shlex
from collections.abc import Iterator, Sequence

from ..linux import flags as fl
from .aside import Aside
from .byhand import UNSHARE, Hand, limit, nsenter, printf
from .teller import Told

_HEAD = """\
#!/bin/sh
# The same by hand as:  {command}
# Left out is what nsbox does besides: its records and checks, pidfds, what a process gives up. In the
# place of the pause, a program in memory, waits a shell. Read it first; then run it as {user}.
set -eu
steps=$(mktemp -d)
trap 'rm -rf "$steps"' EXIT"""
_PIPES = """\
mkfifo "$steps/go" "$steps/said"
exec 3<> "$steps/go" 4<> "$steps/said\""""
_PAUSE_BEGINS = """\
set -eu
trap 'echo failed >&4' EXIT
read -r pid _ < /proc/self/stat     # the /proc here is still the host's, and so is the number
echo "$pid" >&4
read -r _ <&3"""
_PAUSE_WAITS = """\
echo ready >&4
trap - EXIT
trap 'exit 0' TERM
exec 4<&- 9<&- < /dev/null > /dev/null 2>&1
while :; do read -r _ <&3 || :; done"""
_SAID = """\
read -r said <&4
if [ "$said" = failed ]; then cat "$steps/errors" >&2; exit 1; fi"""
_HOLDER = """\
# A user namespace gives rights only when it has its maps: meanwhile somebody holds it.
unshare --user sleep 60 &
holder=$!
until [ "$(readlink "/proc/$holder/ns/user")" != "$(readlink /proc/self/ns/user)" ]; do :; done"""
_MAP = re.compile(r"/proc/(\d+)/(uid_map|gid_map|setgroups)")
_ASIDE = "< /dev/null > /dev/null"
_END = "END_OF_STEPS"


class Script:
    """Writes it. Only for what was told of one command."""

    def __init__(self, told: Sequence[Told]) -> None:
        self._told = [one for one in told if not one.error]
        self._of = {task: [one for one in self._told if one.task == task] for task in {one.task for one in told}}
        self._bearer = {one.child: one for one in self._told if one.child >= 0}
        self._names: dict[int, str] = {}  # PIDs of then: the variables that hold those of the script
        self._hands: dict[int, Hand] = {}
        self._runs = False  # a command in the foreground, whose status is the script's
        self._waiting: set[int] = set()  # tasks that were born and wait for a word
        bound = {one.places.get("0", "") for one in self._told
                 if one.call == "open_tree" and one.who != "netlink"}
        written = dict.fromkeys(one.places["0"] for one in self._told if one.call == "pwrite64")
        # Files of nsbox's own that are mounted: by hand they lie elsewhere.
        self._files = {path: f'"$steps/{number}"' for number, path in enumerate(written) if path in bound}

    def lines(self, command: str, user: str) -> Iterator[str]:
        """The script.

        Args:
            command: what was told about.
            user: whose rights it took: "root", or "yourself".
        """
        yield from _HEAD.format(command=command, user=user).split("\n")
        if self._files:
            yield 'chmod 711 "$steps"; export steps'
        aside = Aside(self._told, self._name)
        for one in self._told:
            if self._is_inner(one.task):
                if one.task in self._waiting:
                    yield from self._go(one.task)
            elif one.call == "clone3" or self._sets_itself_up(one.child):
                if not _flags_of(one) & fl.CloneFlag.CLONE_FILES:
                    yield from self._birth(one)
            elif one.call == "clone":
                yield from aside.lines(self._of.get(one.child, ()))
            elif not self._is_aside(one.task) and not self._is_map(one):
                yield from self._hand(one.task).lines(one)
        for task in sorted(self._waiting):
            yield from self._go(task)
        if self._runs:
            yield 'exit "$status"'
        elif "$pause" in self._names.values():
            yield 'echo "$pause"'

    def _is_inner(self, task: int) -> bool:
        """Whether what the process does is written down where it is born, or is of no account."""
        if task not in self._bearer:
            return False
        bearer = self._bearer[task]
        return bearer.call == "clone3" or self._sets_itself_up(task) or self._is_inner(bearer.task)

    def _sets_itself_up(self, task: int) -> bool:
        """Whether it was forked as it is and went to its namespaces by itself, as a member does."""
        forked = task in self._bearer and self._bearer[task].call == "clone"
        calls = self._of.get(task, [])  # a child that only asks tells nothing
        return forked and calls != [] and calls[0].who == "member"

    def _is_map(self, one: Told) -> bool:
        """Whether it writes the ids of a user namespace: that is done before the birth."""
        return one.call == "write" and _MAP.match(one.places.get("0", "")) is not None

    def _hand(self, task: int) -> Hand:
        return self._hands.setdefault(task, Hand(self._name, lambda path: self._files.get(path) or shlex.quote(path)))

    def _name(self, pid: int) -> str:
        return self._names.get(pid, str(pid))

    def _is_aside(self, task: int) -> bool:
        """Whether it is a child for a moment, or a helper that stays: in aside.py, or of no account."""
        return task in self._bearer and self._bearer[task].call == "clone"

    # ---- births ----

    def _birth(self, clone: Told) -> Iterator[str]:
        child = self._of.get(clone.child, [])
        who = child[0].who if child else "child"
        yield ""
        yield f"# ---- the {who}"
        if _flags_of(clone) & fl.CloneFlag.CLONE_NEWUSER:
            yield from self._user_namespace(clone.result)
        way = self._way(clone)
        steps = [one for one in child if one.call not in ("setns", "unshare", "prlimit64")]
        limits = " ".join(filter(None, map(limit, child)))
        before = f"prlimit {limits} " if limits else ""  # out here: there may be no prlimit(1) in the root
        body = [line for one in steps for line in self._hand(clone.child).lines(one)]
        if who == "pause":
            yield from self._pause(clone, before + way, body)
        else:
            yield from self._member(before, way, body, self._is_detached(clone))

    def _user_namespace(self, pid: int) -> Iterator[str]:
        yield from _HOLDER.split("\n")
        for one in self._told:
            found = _MAP.match(one.places.get("0", "")) if one.call == "write" else None
            if found and int(found[1]) == pid:
                yield f'{printf(one.values[1])} > "/proc/$holder/{found[2]}"'

    def _way(self, clone: Told) -> str:
        """nsenter and unshare, up to where the child is."""
        words, offsets, flags = [], "", _flags_of(clone)
        for one in self._of[clone.child if self._sets_itself_up(clone.child) else clone.task]:
            if one.call == "unshare" and one.task == clone.child:
                flags |= one.values[0]
            elif one.call == "setns":
                words.append(nsenter(one, self._name))
            elif one.call == "write" and one.places["0"].endswith("timens_offsets"):
                pairs = (line.split() for line in one.values[1].splitlines())
                offsets = " --time" + "".join(f" --{clock} {shift}" for clock, shift, _ in pairs)
        if flags & fl.CloneFlag.CLONE_NEWUSER:
            words.append('nsenter --user --preserve-credentials --target "$holder"')
        kinds = [word for flag, word in UNSHARE.items() if flags & flag and word != "--user"]
        if kinds or offsets:
            forks = " --fork" if offsets or {"--pid", "--time"} & set(kinds) else ""
            # Inside the pod's mounts it may be busybox's, which cannot leave the propagation alone.
            spreads = " --propagation unchanged" if "--mount" in kinds and "--mount" not in " ".join(words) else ""
            words.append(f"unshare {' '.join(kinds)}{offsets}{spreads}{forks}")
        return " ".join(words)

    def _is_detached(self, clone: Told) -> bool:
        bearer = clone if self._sets_itself_up(clone.child) else self._bearer.get(clone.task)
        return bearer is not None and bearer.who == "supervisor"

    def _pause(self, clone: Told, way: str, body: Sequence[str]) -> Iterator[str]:
        self._names[clone.result] = "$pause"
        self._waiting.add(clone.child)
        yield from _PIPES.split("\n")
        program = [line for line in body if line.startswith("exec env")][-1:]  # of --init
        waits = ["echo ready >&4", *program] if program else _PAUSE_WAITS.split("\n")
        own = [line for line in body if not line.startswith("exec env")]
        yield from _file("pause", [*_PAUSE_BEGINS.split("\n"), *own, *waits])
        yield f'(setsid {way} sh -c "$of_pause" || echo failed >&4) {_ASIDE} 2> "$steps/errors" &'
        yield from _SAID.split("\n")
        yield "pause=$said"
        if _flags_of(clone) & fl.CloneFlag.CLONE_NEWUSER:
            yield 'kill "$holder"'

    def _go(self, task: int) -> Iterator[str]:
        self._waiting.discard(task)
        yield "echo >&3"
        yield from _SAID.split("\n")

    def _member(self, before: str, way: str, body: Sequence[str], detached: bool) -> Iterator[str]:
        *steps, last = body or [":"]
        moves = [line for line in steps if line.startswith("cd ")]
        behind = f" {_ASIDE} 2>&1 &" if detached else " && status=0 || status=$?"
        self._runs = self._runs or not detached
        if len(moves) == len(steps) and last.startswith("exec env -i ") and way.startswith("nsenter "):
            place = shlex.split(moves[-1])[1] if moves else "/"
            command = last.removeprefix("exec ")
            yield f"{before}{way} --wdns={shlex.quote(place)} {command}{behind}"
            return
        yield from _file("member", ["set -eu", *steps, last])
        yield f'{before}{way} sh -c "$of_member"{behind}'


def _flags_of(clone: Told) -> int:
    """CLONE_* of a clone3; a fork asks for no namespace."""
    return int(clone.values[0]) if clone.call == "clone3" else 0


def _file(name: str, lines: Sequence[str]) -> Iterator[str]:
    """A script within the script; the root's path is said once."""
    yield f"of_{name}=$(cat <<'{_END}'"
    roots = [line.split(None, 2)[2] for line in lines if line.startswith("exec 9< ")]
    if roots and "'" not in roots[0]:
        yield f"root={roots[0]}"
        lines = [line.replace(roots[0], "$root") for line in lines]
    yield from lines
    yield _END
    yield ")"
