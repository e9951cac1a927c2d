"""strace(1) as the judge of explain: what it saw, call by call, in the form in which explain tells it."""

import difflib
import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import faults
from fakehost import NSBOX, FakeHost

from nsbox.explain import catalogue, netlink

# strace's lines that are not for explain although it tells calls of that name.
TELLING_IOCTLS = ("SIOCSIFFLAGS", "TIOCSPTLCK", "TIOCGPTPEER", "TIOCSCTTY")
OURS = '"nsbox:told"'  # explain's own log
READING = re.compile(r"prctl\((PR_GET_|PR_CAPBSET_READ|PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET)|prlimit64\(\w+, \w+, NULL|socket\((?!AF_INET)")
OF_A_TREE = ("mkdirat", "mknodat", "symlinkat", "fchmodat", "fchownat", "fchmod", "chdir")
TELLING_FILE = re.compile(r'openat\(AT_FDCWD, "(/proc/[^"]*/(?:uid_map|gid_map|setgroups|timens_offsets)|'
                          r'/proc/sys/[^"]*|/sys/fs/cgroup/[^"]*)", O_(?:WRONLY|RDWR).*\) += (\d+)$')
NAMES_FILE = re.compile(r'openat\(\d+, "(hosts|resolv\.conf)", O_WRONLY\|O_CREAT.*\) += (\d+)$')
CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+|\?)(?: ([A-Z]+) \(.*\))?(?: \(.*\))?$")
# Pointers, and fields of structs that say nothing.
NOISE = re.compile(r", child_tidptr=0x[0-9a-f]+|, stack=NULL, stack_size=0|, attr_clr=0, propagation=0 /\* MS_\?\?\? \*/, "
                   r"userns_fd=0|, filter=0x[0-9a-f]+|0x[0-9a-f]+ (?=/\* \d+ var)")
# What is said to the kernel's network. strace knows a message's words in its own network namespace only: what both
# have is its length, its type and its flags.
NETLINK = re.compile(r"nlmsg_len=(\d+), nlmsg_type=([^,} ]+)[^,]*, nlmsg_flags=([^,} ]+)")
NETLINK_NUMBERS = {name: number for table in (netlink.TYPES, netlink.FLAGS) for number, name in table.items()}
ANSWER = re.compile(r"recv\w+\(.*nlmsg_type=NLMSG_ERROR.*?\{error=-?(\w+)")
PROXY = re.compile(r'"\{\\"do\\": \\"(add|remove)\\".*iov_len=(\d+)')
CONTENT = re.compile(r'(?<=, )"# written by nsbox.*"(?:\.\.\.)?(?=, \d+, \d+)')  # strace shows its beginning
FLAGS = re.compile(r"[A-Za-z0-9_<]+(?:\|[A-Za-z0-9_<]+)+")


class Seen(NamedTuple):
    """One call: as told, or as strace saw it."""

    call: str
    result: str


def normal(text: str) -> str:
    """Without pointers, and with flags in the order of the alphabet: strace has an order of its own."""
    return FLAGS.sub(lambda found: "|".join(sorted(found[0].split("|"))), NOISE.sub("", CONTENT.sub("...", text)))


def message(text: str) -> str:
    """A message of netlink in the form that both have; "" if there is none, or one that only asks."""
    found = NETLINK.search(text)
    if found is None or "_GET" in found[2]:
        return ""
    kind = number_of(found[2])
    asks = (kind - 16) % 4 == 2 if kind < 0x100 else kind & 0xFF == 0x01
    flags = 0 if asks else sum(map(number_of, found[3].split("|")))
    return "" if asks else f"sendto(netlink, len {found[1]}, type {kind:#x}, flags {flags:#x})"


def number_of(word: str) -> int:
    return NETLINK_NUMBERS[word] if word in NETLINK_NUMBERS else int(word, 0)


def to_proxy(text: str) -> str:
    """What is asked of the proxy, likewise; "" if it is nothing that changes something."""
    found = PROXY.search(text)
    return f"sendmsg({found[1]}, len {found[2]})" if found else ""


def calls_of(log: str) -> dict[str, list[str]]:
    """The calls of each task in their order; those that strace wrote in two parts in one."""
    tasks: dict[str, list[str]] = {}
    for line in log.splitlines():
        task, _, call = line.partition(" ")
        call = call.strip()
        if call.startswith(("---", "+++")):
            continue
        lines = tasks.setdefault(task, [])
        if call.startswith("<..."):
            lines[-1] += call.partition("resumed>")[2]
        else:
            lines.append(call.removesuffix("<detached ...>").removesuffix("<unfinished ...>").rstrip())
    return tasks


def of_nsbox(log: str) -> list[list[str]]:
    """The calls of each task until it is another program; the first one begins as nsbox."""
    found = []
    for number, calls in enumerate(calls_of(log).values()):
        execs = [at for at, call in enumerate(calls) if call.startswith(("execve(", "execveat(")) and " = -1" not in call]
        end = (execs[1:] if number == 0 else execs)[:1] or [len(calls)]
        found.append(calls[: end[0] + 1])
    return found


def seen(log: str) -> dict[int, list[Seen]]:
    """What strace saw of that which explain tells: by task, in the order of their births from the first one."""
    tasks = calls_of(log)
    first = next(iter(tasks))
    found: dict[int, list[Seen]] = {}
    _walk(tasks, first, "", found, skip_exec=True)
    return found


def _walk(tasks: dict[str, list[str]], task: str, how: str, found: dict[int, list[Seen]], skip_exec: bool = False) -> None:
    """`how` it was born: "tree" if to make a root, "program" if to become one at once."""
    mine: list[Seen] = []
    found[len(found)] = mine
    written: set[str] = set()
    children = []
    asked = -1  # which of `mine` waits for the kernel's answer
    lines = tasks.get(task, [])
    for at, line in enumerate(lines):
        if asked >= 0 and (answer := ANSWER.match(line)):
            mine[asked] = mine[asked]._replace(result=result_of(answer[1]))
            asked = -1
        if opened := TELLING_FILE.match(line) or NAMES_FILE.match(line):
            written.add(opened[2])
        call = CALL.match(line) or CALL.match(line + ") = 0")  # an execve after which strace was told to go
        if call is None:
            continue
        name, args, result, code = call.groups()
        args = args.rstrip()
        if name == "close":
            written.discard(args)
        if name == "execve" and skip_exec:
            skip_exec = False
            continue
        if how == "program" and name != "execve":
            continue
        if name in ("sendto", "sendmsg"):
            if text := message(args) if name == "sendto" else to_proxy(args):
                asked = len(mine) if name == "sendto" else asked
                mine.append(Seen(text, code or result))
            continue
        if name not in catalogue.CALLS or not _is_for_explain(line, name, args, how == "tree", written):
            continue
        if name == "execveat" and not code:
            mine += _limits_of_launcher(tasks, lines[at + 1 :])
        mine.append(Seen(f"{name}({normal(args)})", code or result))
        if name in ("clone", "clone3", "vfork"):
            becomes_a_program = any(call.startswith("execveat(") for call in tasks.get(result, ()))  # a member
            makes = how == "tree" or name == "clone3" and "CLONE_PARENT" in args or becomes_a_program
            children.append((result, "program" if name == "vfork" else "tree" if makes else ""))
        if name in ("execve", "execveat") and not code:
            break  # from here on it is another program
    for child, born in children:
        _walk(tasks, child, born, found)


def _limits_of_launcher(tasks: dict[str, list[str]], lines: list[str]) -> list[Seen]:
    """Those that a launcher sets, itself or in the process that it makes: explain tells them before its execveat."""
    calls = [call for line in lines if (call := CALL.match(line))]
    made = next((call[3] for call in calls if call[1] == "clone" and "CLONE_PARENT" in call[2]), "")
    found = []
    for line in tasks.get(made, lines):
        if line.startswith("execve("):
            break
        if (call := CALL.match(line)) and call[1] == "prlimit64":
            found.append(Seen(f"prlimit64({normal(call[2])})", call[4] or call[3]))
    return found


def result_of(word: str) -> str:
    """The kernel's answer to a message, as explain tells it."""
    return errno.errorcode[int(word)] if word.isdigit() and word != "0" else word


def _is_for_explain(line: str, name: str, args: str, tree: bool, written: set[str]) -> bool:
    if name == "openat":
        return tree and "O_CREAT" in args
    if name in OF_A_TREE:
        return tree
    if OURS in args:
        return False
    if name == "ioctl":
        return any(request in args for request in TELLING_IOCTLS)
    if name == "rename":  # told of root file systems alone; else it is nsbox's records, and Python's modules
        return False
    if name == "fcntl":
        return "F_ADD_SEALS" in args
    if name == "bind":
        return "sa_family=AF_NETLINK" not in args
    if name in ("write", "pwrite64"):
        return args.split(",")[0] in written
    return not READING.match(line)


def told(events: Path) -> dict[int, list[Seen]]:
    """What explain told, in the same form."""
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    by_task: dict[int, list[dict[str, object]]] = {}
    for line in lines:
        by_task.setdefault(line["task"], []).append(line)
    found: dict[int, list[Seen]] = {}
    _renumber(by_task, 0, found)
    return found


def _renumber(by_task, task, found):  # type: ignore[no-untyped-def]
    mine = found.setdefault(len(found), [])
    children = []
    for event in by_task.get(task, ()):
        name, _, args = event["text"].partition("(")
        text = message(args) or to_proxy(args) or f"{name}({normal(args.removesuffix(')'))})"
        mine.append(Seen(text, event["error"] or str(event["result"])))
        if event["child"] >= 0:
            children.append(event["child"])
    for child in children:
        _renumber(by_task, child, found)


def difference(seen: dict[int, list[Seen]], told: dict[int, list[Seen]]) -> str:
    """What was seen and not told (-), and told and not seen (+); "" if nothing."""
    texts = [[f"{task}: {one.call} = {one.result}" for task, calls in what.items() for one in calls] for what in (seen, told)]
    return "\n".join(line for line in difflib.unified_diff(*texts, "strace", "explain", n=1, lineterm=""))


def both(host: FakeHost, words: Sequence[str], trace: str = "") -> tuple[dict[int, list[Seen]], dict[int, list[Seen]], str]:
    """Run a command under strace with --events: what strace saw, what explain told, and strace's log."""
    events = host.scratch / "events"
    events.write_text("")
    wanted = trace or "trace=" + ",".join(sorted({*catalogue.CALLS, "openat", "close", "recvfrom"}))
    verb = 2 if words[0] in ("net", "rootfs") else 1
    status, _, err, log = faults.strace(host, wanted, [*NSBOX, *words[:verb], "--events", str(events), *words[verb:]])
    assert status == 0, err
    return seen(log), told(events), log
