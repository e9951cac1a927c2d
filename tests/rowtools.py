"""The tools that scripts/compare puts side by side, and how each starts a command in a root file system.

Each is told the same, by a Box, and gets what it takes for granted otherwise: the OCI runtimes the
specification that they write themselves, with the root and the command put in; bwrap the line that
its manual page leads to. `by_hand` is unshare(1) and chroot(1), as in many an article.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from fakehost import NSBOX, UID, FakeHost

_NUMBER = count(1)


@dataclass
class Box:
    """What is to be run, and in what.

    Attributes:
        user: a number, or a name where the tool takes one.
        volumes: (directory of the host, place inside, read-only).
    """

    root: Path
    argv: list[str]
    user: str = ""
    cwd: str = ""
    volumes: list[tuple[Path, str, bool]] = field(default_factory=list)
    tty: bool = False
    name: str = field(default_factory=lambda: f"row{next(_NUMBER)}")


class Tool:
    """One column of the table.

    Attributes:
        key: its name in the table.
        program: what must be installed for it.
        uid: who runs it.
        options: more words for it.
    """

    program = ""
    named_users = False  # whether it looks users up

    def __init__(self, key: str, uid: int = 0, options: tuple[str, ...] = ()) -> None:
        self.key, self.uid, self.options = key, uid, options

    def __repr__(self) -> str:
        return self.key

    def missing(self) -> str:
        return "" if shutil.which(self.program) else f"{self.program} is not installed"

    def run(self, host: FakeHost, box: Box) -> list[str]:
        """The command that runs it in the foreground."""
        raise NotImplementedError

    def join(self, host: FakeHost, box: Box, argv: list[str], user: str = "") -> list[str] | None:
        """The command that runs another beside what `run` runs; None if there is no way."""
        return None

    def listed(self, host: FakeHost, box: Box) -> bool:
        """Whether the tool says that it is running."""
        return False

    def end(self, host: FakeHost, box: Box) -> None:
        """Nothing of it is left."""


class Nsbox(Tool):
    program = "busybox"
    named_users = True

    def run(self, host: FakeHost, box: Box) -> list[str]:
        words = [*NSBOX, "run", "--name", box.name, *self.options, "--rootfs", str(box.root)]
        words += ["-u", box.user] if box.user else []
        words += ["-w", box.cwd] if box.cwd else []
        words += ["-t" if box.tty else "-T"]
        for source, place, read_only in box.volumes:
            words += ["-v", f"{source}:{place}" + ":ro" * read_only]
        return [*words, "--", *box.argv]

    def join(self, host: FakeHost, box: Box, argv: list[str], user: str = "") -> list[str] | None:
        return [*NSBOX, "join", *(["-u", user] if user else []), box.name, "--", *argv]

    def listed(self, host: FakeHost, box: Box) -> bool:
        return box.name in host.nsbox("ls", "-q").stdout.split()

    def end(self, host: FakeHost, box: Box) -> None:
        host.nsbox("rm", "--force", box.name)


class Oci(Tool):
    """crun and runc. There are no control groups for them: see `prepare`."""

    def __init__(self, key: str, program: str, uid: int = 0) -> None:
        super().__init__(key, uid)
        self.program = program

    def _words(self, host: FakeHost) -> list[str]:
        # runc goes on without control groups only where it may think that it lacks the right.
        without = "--cgroup-manager=disabled" if self.program == "crun" else "--rootless=true"
        return [self.program, "--root", str(host.work / self.program), without]

    def _spec(self, host: FakeHost) -> "dict[str, Any]":
        """What the tool writes itself; see crun-spec(1)."""
        written = host.work / f"{self.program}-spec"
        if not written.exists():
            written.mkdir()
            os.chown(written, self.uid, self.uid)
            host.run([self.program, "spec", *(["--rootless"] if self.uid else [])], cwd=written, check=True)
        config: dict[str, Any] = json.loads((written / "config.json").read_text())
        return config

    def run(self, host: FakeHost, box: Box) -> list[str]:
        bundle = host.work / box.name
        bundle.mkdir()
        os.chown(bundle, self.uid, self.uid)
        config = self._spec(host)
        config["root"]["path"] = str(box.root)
        config["process"].update(args=box.argv, terminal=box.tty)
        if box.cwd:
            config["process"]["cwd"] = box.cwd
        if box.user:
            config["process"]["user"] = {"uid": int(box.user), "gid": int(box.user)}
        for source, place, read_only in box.volumes:
            config["mounts"].append({"type": "bind", "source": str(source), "destination": place,
                                     "options": ["rbind", "ro" if read_only else "rw"]})
        text = json.dumps(config, ensure_ascii=False)
        (bundle / "config.json").write_bytes(text.encode(errors="surrogateescape"))
        return [*self._words(host), "run", "--bundle", str(bundle), box.name]

    def join(self, host: FakeHost, box: Box, argv: list[str], user: str = "") -> list[str] | None:
        return [*self._words(host), "exec", *(["--user", user] if user else []), box.name, *argv]

    def listed(self, host: FakeHost, box: Box) -> bool:
        said = host.run([*self._words(host), "list"]).stdout
        return any(line.split()[:1] == [box.name] and "running" in line for line in said.splitlines())

    def end(self, host: FakeHost, box: Box) -> None:
        host.run([*self._words(host), "delete", "--force", box.name])


class Bwrap(Tool):
    program = "bwrap"

    def run(self, host: FakeHost, box: Box) -> list[str]:
        words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", *self.options]
        words += ["--uid", box.user] if box.user else []
        words += ["--chdir", box.cwd] if box.cwd else []
        words += ["--bind", str(box.root), "/", "--proc", "/proc", "--dev", "/dev"]
        for source, place, read_only in box.volumes:
            words += ["--ro-bind" if read_only else "--bind", str(source), place]
        return [*words, "--", *box.argv]


# A careless wrapper: it takes it that all is UTF-8, and that nobody ignores SIGCHLD.
WRAPPER = ("import subprocess, sys; "
           "sys.exit(subprocess.call([word.encode('utf-8', 'replace') for word in sys.argv[1:]]))")


class ByHand(Tool):
    """unshare(1) and chroot(1), and the mounts that people make first.

    With a `way`, done worse in one respect, so that every row can be seen open:
    "bare" chroots without a chdir, "net" makes a network namespace too and leaves it so, "shared" lets mounts
    travel (as unshare(1) did before util-linux 2.27), "loose" makes no PID namespace, "nodes" makes device nodes
    in the root, "cgroup" mounts control groups, "ambient" gives capabilities that last, "wrapper" puts Python before it.
    """

    program = "unshare"
    named_users = True

    def __init__(self, key: str, way: str = "") -> None:
        super().__init__(key)
        self.way = way

    def run(self, host: FakeHost, box: Box) -> list[str]:
        root, way = shlex.quote(str(box.root)), self.way
        steps = [f"mkdir -p {root}/proc {root}/sys {root}/dev", f"mount -t proc proc {root}/proc"]
        if way == "nodes":
            steps.append(f"mknod -m 666 {root}/dev/made c 1 3")
        elif way != "shared":  # these would pile up on the host
            steps += [f"mount -t sysfs sysfs {root}/sys", f"mount --rbind /dev {root}/dev"]
        if way == "cgroup":
            steps.append(f"mount -t cgroup2 cgroup {root}/sys/fs/cgroup")
        for source, place, read_only in box.volumes:
            steps.append(f"mkdir -p {root}{place}; mount --rbind {'-o ro ' * read_only}{source} {root}{place}")
        if way == "bare":
            steps += [f"cd {box.cwd}"] if box.cwd else []
        become = {"bare": f"{host.scratch}/rowprobe bare", "ambient": "setpriv --inh-caps +net_raw --ambient-caps +net_raw chroot"}
        steps.append(f'exec {become.get(way, "chroot")} {f"--userspec={box.user} " if box.user else ""}{root} "$@"')
        kinds = ["--uts", "--ipc", "--mount"] + ["--pid"] * (way != "loose") + ["--net"] * (way == "net")
        kinds += ["--propagation", "unchanged"] if way == "shared" else []
        wrapper = [sys.executable, "-c", WRAPPER] if way == "wrapper" else []
        return [*wrapper, "unshare", *kinds, "--fork", "sh", "-c", "; ".join(steps), "sh", *box.argv]

    def join(self, host: FakeHost, box: Box, argv: list[str], user: str = "") -> list[str] | None:
        if user:
            return ["chroot", f"--userspec={user}", str(box.root), *argv]
        return ["sh", "-c", 'exec nsenter --target "$(pgrep -f -n "^$0")" --pid --mount --root --wd -- "$@"', "/bin/rowprobe watch", *argv]


TOOLS: tuple[Tool, ...] = (
    Nsbox("nsbox"), Nsbox("nsbox --userns", options=("--userns",)), Oci("crun", "crun"), Oci("runc", "runc"), Bwrap("bwrap"),
    ByHand("by hand"), Nsbox("nsbox-user", UID), Oci("crun-user", "crun", UID), Oci("runc-user", "runc", UID), Bwrap("bwrap-user", UID),
)

# In the fake host's own mount namespace: no control groups but a tree of version 2 that cannot be written
# to. crun refuses both versions side by side; runc refuses a machine without any.
PREPARE = """
set -e
mkdir /run/cgroups
mount --bind "$1" /run/cgroups
mount -o remount,bind,ro /run/cgroups
umount -l /sys
umount -l /sys
mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount --make-private /run
mount --bind /run/cgroups /sys/fs/cgroup
umount /run/cgroups
rmdir /run/cgroups
"""


def prepare(host: FakeHost) -> None:
    """Make a fake host a place in which all of them run. Raises AssertionError where that cannot be."""
    version2 = [line.split()[1] for line in host.run(["cat", "/proc/mounts"], check=True).stdout.splitlines()
                if line.split()[2] == "cgroup2"]
    assert version2, "there is no tree of control groups of version 2 that runc could be shown"
    host.run(["sh", "-c", PREPARE, "sh", version2[-1]], user=0, check=True)


def versions() -> dict[str, str]:
    """What is compared, and where."""
    lines = {"kernel": f"{os.uname().sysname} {os.uname().release} {os.uname().machine}"}
    for program in ("crun", "runc", "bwrap", "unshare"):
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
            lines[program] = said.splitlines()[0].split()[-1]
    return lines
