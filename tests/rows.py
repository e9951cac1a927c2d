"""The generic rows: what any tool that runs a command in a root file system can be asked.

A row of ASKED is one question of rowprobe.c; those are put all at once, to a command that a careless
caller starts. A row of OWN has a box of its own: see rowsown.py.
"""

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import rowsown
from fakehost import FakeHost
from hostile import Canary
from rowlab import PROBE, Lab, Verdict, compiled, said, short
from rowtools import TOOLS, Box, ByHand, Nsbox, Tool, prepare

# key: (row of COVERAGE.md, what must hold). In the order of the table.
ASKED = {
    "descriptors": ("A01", "files that the caller has open are closed"),
    "cwd": ("A02", "the work directory is in the root, not the caller's"),
    "exe": ("A04", "no program of the host is to be overwritten by /proc/PID/exe"),
    "roots": ("A09", "/proc/PID/root and cwd lead nowhere outside"),
    "proc-environ": ("A10", "the caller's variables are not to be read in /proc"),
    "environ": ("A11", "the caller's variables are not the command's"),
    "groups": ("A12", "the caller's supplementary groups stay outside"),
    "keyring": ("A22", "the caller's session keyring stays outside"),
    "chroot": ("B12", "a second chroot(2) does not lead out"),
    "node": ("B22", "a device node that the root brings along does not work"),
    "dev": ("B22", "/dev has none but harmless devices"),
    "tunables": ("B24", "settings of the machine in /proc are read-only"),
    "secrets": ("B24", "what tells of the machine in /proc and /sys is covered"),
    "undo": ("B25", "neither can be undone, nor in a user namespace of one's own"),
    "ambient": ("C01", "no inheritable and no ambient capabilities"),
    "bounding": ("C02", "none of the capabilities that lead to the host, ever"),
    "mknod": ("C02", "no device node can be made"),
    "raw": ("C02", "no raw packets"),
    "no-new-privs": ("C03", "no_new_privs"),
    "userns": ("C08", "no user namespace of one's own"),
    "cgroup-mount": ("C09", "no control groups of version 1 can be mounted"),
    "cgroup-write": ("C10", "the control groups of the host are not writable"),
    "sysfs": ("C11", "/sys is read-only"),
    "processes": ("C12", "processes of the host are not to be seen"),
    "mount-api": ("C14", "no fsopen(2), no open_tree(2)"),
    "io_uring": ("C14", "no io_uring"),
    "bpf": ("C14", "no bpf(2)"),
    "userfaultfd": ("C14", "no userfaultfd(2)"),
    "keys": ("C14", "no keys"),
    "perf": ("C14", "no perf_event_open(2)"),
    "handles": ("C14", "no open_by_handle_at(2)"),
    "families": ("C14", "no sockets of rare families: AF_ALG, AF_VSOCK …"),
    "core": ("C15", "no core file, whatever the caller's limit"),
    "loopback": ("D08", "what listens on 127.0.0.1 of the host is not reached"),
    "abstract": ("D10", "abstract sockets of the host are not reached"),
    "lo": ("D25", "lo is up"),
    "signals": ("F09", "no signal is ignored or blocked because the caller did"),
    "umask": ("H11", "the umask is not the caller's"),
}
OWN: dict[str, tuple[str, Callable[[Lab], Verdict]]] = {
    "joiner": ("A04", rowsown.joiner),
    "workdir": ("A02", rowsown.workdir),
    "digits": ("A21", rowsown.digits),
    "proc-link": ("B02", rowsown.proc_is_a_link),
    "sys-link": ("B03", rowsown.sys_is_a_link),
    "dev-link": ("B04", rowsown.dev_is_a_link),
    "volume-link": ("B08", rowsown.volume_by_a_link),
    "passwd-pipe": ("B10", rowsown.passwd_is_a_pipe),
    "propagation": ("B15", rowsown.propagation),
    "volume-ro": ("B20", rowsown.volume_read_only),
    "setuid": ("B23", rowsown.setuid),
    "untouched": ("B29", rowsown.untouched),
    "host-root": ("C05", rowsown.host_root),
    "killed": ("E19", rowsown.killed),
    "statuses": ("E21", rowsown.statuses),
    "term": ("F01", rowsown.terminated),
    "zombies": ("F04", rowsown.zombies),
    "sigchld": ("F08", rowsown.sigchld),
    "terminal": ("G01", rowsown.terminal),
    "bytes": ("H08", rowsown.not_utf8),
}


class Row(NamedTuple):
    """One line: its key, the row of COVERAGE.md that it belongs to, and what must hold."""

    key: str
    case: str
    what: str


ROWS = sorted([*(Row(key, *rest) for key, rest in ASKED.items()),
               *(Row(key, case, (ask.__doc__ or "").strip()) for key, (case, ask) in OWN.items())],
              key=lambda row: row.case)


def ask(lab: Lab, keys: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    """Each of these rows with the tool's verdict."""
    asked = [key for key in keys if key in ASKED]
    if lab.tool.uid and "groups" in asked:
        asked.remove("groups")
        yield "groups", Verdict("n/a", "a user without privileges cannot have other groups")
    if asked:
        yield from _ask_probe(lab, asked)
    for key in keys:
        if key in OWN:
            try:
                yield key, OWN[key][1](lab)
            except (AssertionError, ValueError, IndexError, OSError, subprocess.SubprocessError) as err:
                yield key, Verdict("error", short(f"{type(err).__name__}: {err}"))


def _ask_probe(lab: Lab, keys: Sequence[str]) -> Iterator[tuple[str, Verdict]]:
    with lab.root() as root:
        box = Box(root, [PROBE, "ask", str(lab.port), *keys])
        done = lab.run(box, (str(lab.probe), "caller", "0" if lab.tool.uid else "1"), timeout=60.0)
    found = {}
    for line in done.stdout.splitlines():
        key, state, evidence = (*line.split("\t", 2), "", "")[:3]
        found[key] = Verdict(state, short(evidence))
    for key in keys:
        yield key, found.get(key, Verdict("error", said(done)))


def compare(keys: Sequence[str], tools: Iterable[Tool] = TOOLS) -> dict[str, dict[str, Verdict]]:
    """Ask the tools in fake hosts: row, tool, verdict. A tool that is not there is left out."""
    answer: dict[str, dict[str, Verdict]] = {key: {} for key in keys}
    with tempfile.TemporaryDirectory(prefix="nsbox-compare-") as name:
        base = Path(name)
        base.chmod(0o755)
        for uid in sorted({tool.uid for tool in tools}):
            with FakeHost(base, uid=uid) as host:
                prepare(host)
                for tool in tools:
                    if tool.uid == uid and not tool.missing():
                        for key, verdict in _in_host(host, tool, keys):
                            answer[key][tool.key] = verdict
    return answer


def _in_host(host: FakeHost, tool: Tool, keys: Sequence[str]) -> list[tuple[str, Verdict]]:
    probe = host.scratch / "rowprobe"
    if not probe.exists():
        compiled(host.scratch)
    server = host.popen([probe, "serve"], user=0)
    canary = Canary(host)
    try:
        assert server.stdout is not None
        host.run(["chown", "-R", str(tool.uid), "/canary/dir"], user=0, check=True)
        return list(ask(Lab(host, tool, canary, probe, int(server.stdout.readline())), keys))
    finally:
        canary.close()
        server.end()


# Where what is done by hand holds a row as well: what does not. So every row can be seen open.
_LOOSE, _BARE, _WRAPPER = ByHand("by hand, no --pid", "loose"), ByHand("by hand, no chdir(2)", "bare"), ByHand("by hand, Python before it", "wrapper")
WEAK: dict[str, Tool] = {
    "cwd": _BARE, "workdir": _BARE, "roots": _LOOSE, "exe": _LOOSE, "proc-environ": _LOOSE, "processes": _LOOSE,
    "lo": ByHand("by hand, with --net", "net"), "propagation": ByHand("by hand, mounts shared", "shared"),
    "cgroup-write": ByHand("by hand, cgroup2 mounted", "cgroup"), "ambient": ByHand("by hand, ambient capabilities", "ambient"),
    "dev-link": ByHand("by hand, with mknod", "nodes"), "userns": Nsbox("nsbox --seccomp nested", options=("--seccomp", "nested")),
    "undo": Nsbox("nsbox, mighty", options=("--cap-add", "SYS_ADMIN", "--seccomp", "unconfined")), "sigchld": _WRAPPER, "bytes": _WRAPPER,
}
BY_HAND = TOOLS[5]


def weak(key: str) -> Tool:
    """The tool that leaves this row open."""
    return WEAK.get(key, BY_HAND)
