"""Programs, packages, files and control groups of the machine."""

import importlib.util
import os
import pwd
import shutil

from .. import parse
from ..linux import mounts
from ..linux.policy import read
from .finding import MISSING, NOTE, OK, Outcome

_HELPERS = ("/usr/bin/newuidmap", "/usr/bin/newgidmap")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIBRARIES = ("prctl", "pyroute2", "rich", "jinja2", "pyseccomp")
_CAPABILITY_MARK = "security.capability"


def range_helpers() -> Outcome:
    """newuidmap and newgidmap: there, and with the rights that make them useful."""
    missing = [path for path in _HELPERS if not os.access(path, os.X_OK)]
    if missing:
        return Outcome(MISSING, f"there is no program {' and no '.join(missing)}", "install the package uidmap")
    weak = [path for path in _HELPERS if not _has_rights(path)]
    if weak:
        return Outcome(MISSING, f"{' and '.join(weak)} can do nothing: not setuid root, no capability",
                       f"chmod u+s {' '.join(weak)}")  # fmt: skip
    return Outcome(OK, " and ".join(_HELPERS))


def _has_rights(path: str) -> bool:
    facts = os.stat(path)
    if facts.st_uid == 0 and facts.st_mode & 0o4000:
        return True
    try:
        return bool(os.getxattr(path, _CAPABILITY_MARK))
    except OSError:
        return False


def ranges() -> Outcome:
    """Whether /etc/subuid and /etc/subgid give us ids: to root's caller, if sudo tells who that is."""
    caller = parse.sudo_caller(os.environ)
    uid = os.geteuid() or (caller.uid if caller else 0)
    if uid == 0:
        return Outcome(OK, "root needs none; how it is for others, they see themselves")
    try:
        names = {pwd.getpwuid(uid).pw_name, str(uid)}
    except KeyError:
        names = {str(uid)}
    without = [path for path in ("/etc/subuid", "/etc/subgid") if not _has_line(path, names)]
    if not without:
        return Outcome(OK, "/etc/subuid and /etc/subgid have a range for you")
    name = min(names, key=str.isdigit)
    return Outcome(MISSING, f"no line for {name} in {' and '.join(without)}",
                   f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}, "
                       "with a range that nobody has")  # fmt: skip


def _has_line(path: str, names: set[str]) -> bool:
    return any(line.split(":")[0] in names for line in (read(path) or "").splitlines())


def packages() -> Outcome:
    """The libraries that nsbox imports when a verb needs them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        return Outcome(MISSING, f"Python does not find {', '.join(missing)}")
    return Outcome(OK, ", ".join(_LIBRARIES))


def program(name: str, package: str) -> Outcome:
    """A program that some verb starts."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        return Outcome(MISSING, f"there is no program {name}", f"install the package {package}")
    return Outcome(OK, found)


def hidden_processes() -> Outcome:
    """Whether /proc hides other users' processes. See hidepid in proc(5)."""
    lines = (line.split(" ") for line in (read("/proc/self/mounts") or "").split("\n"))
    options = [fields[3] for fields in lines if fields[1:2] == ["/proc"]]  # the last one lies on top
    found = [word for word in (options[-1] if options else "").split(",") if word.startswith("hidepid=")]
    if found and found[-1] not in ("hidepid=0", "hidepid=off"):
        return Outcome(NOTE, f"/proc is mounted with {found[-1]}: as an ordinary user you see your own processes only")
    return Outcome(OK, "/proc shows every process")


def control_groups() -> Outcome:
    """Which control groups there are. Nothing of nsbox needs them yet; labs on limits do."""
    found = mounts.read_mountinfo()
    unified = next((one.target for one in found if one.fstype == "cgroup2"), None)
    legacy = any(one.fstype == "cgroup" for one in found)
    if unified is None:
        return Outcome(NOTE, "version 1 only" if legacy else "none are mounted")
    controllers = (read(f"{unified}/cgroup.controllers") or "").split()
    kind = "version 1, and 2 beside it" if legacy else "version 2"
    enough = {"cpu", "memory", "pids"} <= set(controllers)
    return Outcome(OK if enough else NOTE, f"{kind}, which controls {', '.join(controllers) or 'nothing'}")


def tracing() -> Outcome:
    """Yama: who may trace whom. Looking (map, why, inspect) is not tracing."""
    scope = read("/proc/sys/kernel/yama/ptrace_scope")
    if scope in (None, "0"):
        return Outcome(OK, "strace may attach to processes of the same user")
    return Outcome(NOTE, f"kernel.yama.ptrace_scope is {scope}: strace -p needs root; strace CMD works")
