"""A fake host: a private world in which a test may do to the kernel what it likes.

It has its own PID, network, UTS, IPC and mount namespaces. Its mount table looks like that of a
systemd machine (everything shared), /run and the state directory are file systems of its own,
and its PID 1 reaps orphans. All that a test starts dies with it, and what a test leaves behind
is found by comparing snapshots. The files of the machine are the same inside and outside.

A PID that a command prints inside is a PID of the fake host; `host_pid` translates.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from procfs import TOP, children, closed_dirs, identity, make_dir, nspid, until

UID = 12345            # of the ordinary user in a fake host; it needs no line in /etc/passwd
SETTLE_S = 5.0         # the kernel tears network namespaces and mounts down in its own time
START_S = 20.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# -P: the directory in which a test happens to stand must not supply modules.
NSBOX = (sys.executable, "-P", "-m", "nsbox")


class HostPopen(subprocess.Popen):  # type: ignore[type-arg]
    """A command in a fake host. Signals go to the command itself, not to the nsenter before it."""

    def inner_pid(self, timeout: float = START_S) -> int:
        """PID, on the real host, of the command inside; waits until there is one."""
        for _ in until(timeout):
            for child in children(self.pid):
                return child
            if self.poll() is not None:
                break
        raise ProcessLookupError(f"{self.args!r} has no process inside")

    def send_signal(self, sig: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.inner_pid(), sig)

    def end(self) -> None:
        """Kill the command and the process group it started in, and collect what it said."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.communicate(timeout=SETTLE_S)


class Prober:
    """The process that looks into fake hosts (probe.py), started at the first look and kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> "subprocess.Popen[str]":
        """It, alive. It ends when our end of its stdin is closed, so with us at the latest."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(TOP / "tests/probe.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, cwd="/", env={"PATH": PATH, "LANG": "C.UTF-8"})
        return self._process

    def __call__(self, pid: int, state: Path) -> dict[str, list[str]]:
        """What there is in the namespaces of `pid`, on the real host; see probe.py."""
        with self._lock:
            process = self.start()
            assert process.stdin is not None and process.stdout is not None
            print(pid, state, file=process.stdin, flush=True)
            said = json.loads(process.stdout.readline() or '"the prober has ended"')
        if isinstance(said, str):
            raise AssertionError(f"cannot look into the fake host of {pid}: {said}")
        return dict(said)


probed = Prober()


class Snapshot(dict[str, list[str]]):
    """What there is in a fake host: a sorted list of lines for each kind of thing."""

    def difference(self, later: "Snapshot") -> str:
        """One line a thing that came (+) or went (-) between this and `later`, or ""."""
        lines = []
        for kind in sorted({*self, *later}):
            old, new = self.get(kind, []), later.get(kind, [])
            lines += [f"  {kind}: + {line}" for line in new if line not in old]
            lines += [f"  {kind}: - {line}" for line in old if line not in new]
        return "\n".join(lines)


class FakeHost:
    """A private world for one test; see the top of this file. Close it, or use `with`.

    Attributes:
        scratch: a directory of the real file system, for whatever a test needs; open to all.
        work: a directory in it that belongs to the user of this host.
        state: where nsbox keeps its state inside.
        uid: whose commands run by default: 0, or UID.
        pid: of its PID 1, on the real host.
        pods_get: options that nsbox() and nsbox_popen() give to whatever makes a pod.
    """

    def __init__(self, base: Path, *, uid: int = 0, store: Path | None = None) -> None:
        self.uid = uid
        self.pods_get: tuple[str, ...] = ()
        self.scratch = Path(make_dir(base))
        self.work = self._own_dir("work")
        self._runtime = self._own_dir("run", mode=0o700)
        self.state = self._runtime if uid == 0 else self._runtime / "nsbox"
        self.store = store or self._own_dir("store")
        self._commands: list[HostPopen] = []
        self._start()

    def _own_dir(self, name: str, mode: int = 0o755) -> Path:
        path = self.scratch / name
        path.mkdir()
        path.chmod(mode)
        os.chown(path, self.uid, self.uid)
        return path

    def _start(self) -> None:
        unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                   "--propagation", "private", "--mount-proc"]
        to_open = [str(path) for pair in (closed_dirs() if self.uid else []) for path in pair]
        self._unshare = subprocess.Popen(
            # The signal on the parent's death: if the test run is killed, so is this.
            ["setpriv", "--pdeathsig", "KILL", *unshare, sys.executable, "-I", "-S", str(TOP / "tests/hostinit.py"),
             str(self.uid), str(self._runtime), *to_open],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, cwd="/", env={"PATH": PATH, "LANG": "C.UTF-8"},
        )
        assert self._unshare.stdout is not None
        if self._unshare.stdout.readline() != "ready\n":
            raise RuntimeError(f"cannot make a fake host: {self._unshare.communicate()[1]}")
        [self.pid] = children(self._unshare.pid)
        self._pidfd = os.pidfd_open(self.pid)

    def close(self) -> None:
        """End everything inside, and the host. May be called twice."""
        if self._pidfd < 0:
            return
        # With PID 1 all others end, and it ends after them; then unshare reaps it and ends too. An nsenter
        # that stopped with its child would not collect it, and PID 1 would wait for that.
        signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        for command in self._commands:
            command.end()
        self._unshare.communicate(timeout=START_S)
        os.close(self._pidfd)
        self._pidfd = -1
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self) -> "FakeHost":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- commands inside ----

    def environment(self, changes: Mapping[str, str | None] = {}, uid: int | None = None) -> dict[str, str]:
        """What a command gets: little, and where nsbox keeps its things. None takes a name away."""
        env: dict[str, str | None] = {
            "PATH": PATH, "LANG": "C.UTF-8", "HOME": str(self.work), "NSBOX_STORE": str(self.store),
        }
        if uid is None or uid == self.uid:
            key = "XDG_RUNTIME_DIR" if self.uid else "NSBOX_STATE"
            env[key] = str(self._runtime)
        return {name: value for name, value in {**env, **changes}.items() if value is not None}

    def popen(
        self, argv: Sequence[str | bytes | os.PathLike[str]], *, env: Mapping[str, str | None] = {},
        user: int | None = None, cwd: str | os.PathLike[str] = "/", text: bool = True, **kw: Any,
    ) -> HostPopen:
        """Start a command inside, with pipes; `user` is a uid. Other keywords: subprocess.Popen."""
        uid = self.uid if user is None else user
        become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        for stream in ("stdin", "stdout", "stderr"):
            kw.setdefault(stream, subprocess.DEVNULL if stream == "stdin" else subprocess.PIPE)
        if text:
            kw.update(encoding="utf-8", errors="surrogateescape")
        # The fake host's own node: some give what they get as a stream to another owner.
        null = os.open(f"/proc/{self.pid}/root/dev/null", os.O_RDWR | os.O_CLOEXEC)
        kw.update({stream: null for stream in ("stdin", "stdout", "stderr") if kw[stream] == subprocess.DEVNULL})
        try:
            command = HostPopen(
                ["nsenter", "-t", str(self.pid), "-m", "-n", "-p", "-u", "-i", f"--wdns={cwd}", "--",
                 *become, *argv],
                env=self.environment(env, user), start_new_session=True, **kw,
            )
        finally:
            os.close(null)
        self._commands.append(command)
        return command

    def run(
        self, argv: Sequence[str | bytes | os.PathLike[str]], *, input: Any = None,
        timeout: float = 60.0, check: bool = False, **kw: Any,
    ) -> "subprocess.CompletedProcess[Any]":
        """Run a command inside; capture what it says. A command that does not end is a failure."""
        if input is not None:
            kw["stdin"] = subprocess.PIPE
        command = self.popen(argv, **kw)
        try:
            out, err = command.communicate(input, timeout=timeout)
        except BaseException as cause:
            command.end()
            if isinstance(cause, subprocess.TimeoutExpired):
                raise AssertionError(f"still running after {timeout} s: {argv}") from None
            raise
        finally:
            self._commands.remove(command)
        done = subprocess.CompletedProcess(argv, command.returncode, out, err)
        if check and done.returncode:
            raise AssertionError(f"{argv} ended with {done.returncode}\nstdout: {out}\nstderr: {err}")
        return done

    def nsbox(self, *args: str | bytes | os.PathLike[str], **kw: Any) -> "subprocess.CompletedProcess[Any]":
        """Run the nsbox command inside. It may fail, but never with a traceback."""
        done = self.run([*NSBOX, *self._of_pods(args)], **kw)
        said = done.stderr if isinstance(done.stderr, str) else (done.stderr or b"").decode(errors="replace")
        assert "Traceback" not in said or "--debug" in args, said
        return done

    def nsbox_popen(self, *args: str | bytes | os.PathLike[str], **kw: Any) -> HostPopen:
        """Start the nsbox command inside."""
        return self.popen([*NSBOX, *self._of_pods(args)], **kw)

    def _of_pods(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0], *self.pods_get, *args[1:]) if args[:1] in (("create",), ("run",)) else args

    def python(self, code: str, *args: str, **kw: Any) -> "subprocess.CompletedProcess[Any]":
        """Run Python code inside, with nsbox importable."""
        return self.run([sys.executable, "-c", code, *args], **kw)

    # ---- looking at it ----

    def processes(self) -> dict[int, int]:
        """The PIDs inside, each with its PID on the real host."""
        inside, depth = f"/proc/{self.pid}/root/proc", len(nspid(self.pid))
        found = {}
        for entry in os.listdir("/proc"):
            chain = nspid(entry) if entry.isdigit() else []
            if len(chain) < depth:
                continue
            # Another namespace as deep may have the same numbers, so look at it from inside too.
            here = identity(f"/proc/{entry}")
            if here and here == identity(f"{inside}/{chain[depth - 1]}"):
                found[chain[depth - 1]] = int(entry)
        return found

    def host_pid(self, pid: int) -> int:
        """The PID, on the real host, of what is `pid` inside."""
        return self.processes()[pid]

    def snapshot(self) -> Snapshot:
        """Everything that a command could have left behind."""
        return Snapshot(probed(self.pid, self._runtime))

    def assert_same_as(self, before: Snapshot, *, within: float = SETTLE_S) -> None:
        """Fail unless everything is, soon, as it was in the snapshot `before`."""
        for _ in until(within, pause=0.1):
            difference = before.difference(self.snapshot())
            if not difference:
                return
        raise AssertionError(f"left behind (+), or lost (-):\n{difference}")
