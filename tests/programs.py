"""Helpers for tests of the library: programs that run in a fake host."""

import sys


def run(host, code: str, *options: str, **kw) -> str:
    """Run a program inside, which must end well and say nothing on stderr."""
    done = host.run([sys.executable, *options, "-c", code], **kw)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def python(code: str) -> list[str]:
    """The command that runs a program."""
    return [sys.executable, "-c", code]


def pods(host) -> list[str]:
    """The names of the pods."""
    return host.nsbox("ls", "-q").stdout.split()


def spawners(host) -> list[int]:
    """The PIDs, inside, of the spawners that run."""
    found = []
    for pid, real in host.processes().items():
        try:
            with open(f"/proc/{real}/comm") as file:
                if file.read() == "nsbox:spawner\n":
                    found.append(pid)
        except FileNotFoundError:
            continue
    return found
