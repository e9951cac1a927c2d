"""What scripts/bench compares nsbox with, and the cheapest way to run it.

Commands are started by posix_spawn, so that what is timed is them.
"""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from procfs import children

# How each of them is started with a sleeping process, that says so, in new namespaces.
SLEEPER = ["sh", "-c", "echo; exec sleep 1000"]
UNSHARE = ["unshare", "--pid", "--uts", "--ipc", "--net", "--mount", "--fork"]

# A stand-in for the pause of Kubernetes, which is also C, linked statically: it names its end,
# reaps, and waits. What it weighs is the C library.
C_PAUSE = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int number) { psignal(number, "ending"); exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, NULL, WNOHANG) > 0); }

int main(void) {
    struct sigaction to_end = {.sa_handler = end};
    struct sigaction to_reap = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (sigaction(SIGINT, &to_end, NULL) || sigaction(SIGTERM, &to_end, NULL)) return 1;
    if (sigaction(SIGCHLD, &to_reap, NULL)) return 1;
    for (;;) pause();
}
"""


def start(argv: list[str], stdout_fd: int | None = None) -> int:
    """The PID of a command with nothing to read and nobody to read it."""
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
    actions.append((os.POSIX_SPAWN_DUP2, 0 if stdout_fd is None else stdout_fd, 1))
    return os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)


def run(*argv: str) -> None:
    """Run a command to its good end."""
    code = os.waitstatus_to_exitcode(os.waitpid(start(list(argv)), 0)[1])
    if code:
        raise RuntimeError(f"{' '.join(argv)}: ended with {code}")


def start_and_kill(*argv: str) -> None:
    """Start a SLEEPER in namespaces, until it says that it is up; end it and them."""
    read_fd, write_fd = os.pipe()
    pid = start(list(argv), write_fd)
    os.close(write_fd)
    said = os.read(read_fd, 1)
    os.close(read_fd)
    for child in children(pid):  # the first process inside: the others end with it
        os.kill(child, signal.SIGKILL)
    os.waitpid(pid, 0)
    if not said:
        raise RuntimeError(f"{' '.join(argv)}: did not start")


class Bundles:
    """Folders for crun, one for each command. See crun-spec(1)."""

    def __init__(self, scratch: Path, rootfs: str) -> None:
        self._scratch, self._rootfs = scratch, rootfs
        self.crun = ["crun", "--root", str(scratch / "state"), "--cgroup-manager=disabled"]
        self.running = False
        if shutil.which("crun"):
            self.sleep = self._make("sleep", "sleep", "1000")
            self.true = self._make("true", "true")
            # It refuses a machine with both versions of control groups; it gets the first alone.
            subprocess.run(["umount", "-q", "/sys/fs/cgroup/unified"], check=False)

    def _make(self, name: str, *argv: str) -> str:
        bundle = self._scratch / name
        bundle.mkdir()
        subprocess.run(["crun", "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["root"] = {"path": self._rootfs, "readonly": True}
        config["process"].update(terminal=False, args=list(argv))
        # Neither is what is compared here; and not every machine has control groups for it.
        config["mounts"] = [one for one in config["mounts"] if one["type"] != "cgroup"]
        config["linux"].pop("resources", None)
        (bundle / "config.json").write_text(json.dumps(config))
        return str(bundle)

    def create_and_delete(self) -> None:
        run(*self.crun, "create", "--bundle", self.sleep, "one")
        run(*self.crun, "delete", "--force", "one")

    def exec_true(self) -> None:
        """Join `true` to a container, which is started the first time."""
        if not self.running:
            run(*self.crun, "run", "--detach", "--bundle", self.sleep, "web")
            self.running = True
        run(*self.crun, "exec", "web", "true")

    def run_true(self) -> None:
        run(*self.crun, "run", "--bundle", self.true, "two")

    def end(self) -> None:
        if self.running:  # it would hold on to the pipe on which we answer
            run(*self.crun, "delete", "--force", "web")


def compiled(scratch: Path) -> str:
    """Path of the pause in C; "" where it cannot be built."""
    source, program = scratch / "pause.c", scratch / "pause"
    source.write_text(C_PAUSE)
    if not shutil.which("gcc"):
        return ""
    built = subprocess.run(["gcc", "-static", "-Os", "-s", "-o", program, source], check=False)
    return "" if built.returncode else str(program)
