"""What `create` and `join` load and execute: every millisecond of them is paid at each command."""

import re
import sys

import faults
import pytest
from fakehost import NSBOX

pytestmark = pytest.mark.needs_root

HEAVY = {
    "pyroute2",
    "rich",
    "yaml",
    "dataclasses",
    "subprocess",
    "asyncio",
    "socket",
    "inspect",
    "tempfile",
    "shutil",
    "threading",
    "logging",
    "concurrent",
    "importlib.metadata",
    "unittest",
    "multiprocessing",
    "random",
    "difflib",
}
# Room for what is needed, none for what creeps in: raise it only with a reason.
MOST_MODULES_OF_NSBOX = 52
MOST_MODULES_OF_OTHERS = 54

PATHS = {
    "create": ["create", "hot", "--rootfs", "busybox"],
    "create without a rootfs": ["create", "hot"],
    "create --json": ["create", "hot", "--json"],
    "create --init": ["create", "hot", "--init", "sleep 1000"],
    "join": ["join", "web", "--", "true"],
    "join with everything": [
        "join",
        "web",
        "--rootfs",
        "busybox",
        "-v",
        "/tmp:/mnt",
        "--tmpfs",
        "/x",
        "-e",
        "A=1",
        "-w",
        "/",
        "--",
        "true",
    ],
    "join -d": ["join", "web", "-d", "--", "sleep", "1000"],
}


@pytest.fixture
def web(host):
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    yield host
    host.nsbox("rm", "--force", "web", "hot", check=True)


def loaded(host, *argv: str) -> list[str]:
    """The modules that a Python program and its forked children import, in their order."""
    done = host.run([sys.executable, "-P", "-X", "importtime", *argv], check=True)
    return re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("path", PATHS)
def test_a_hot_path_loads_nothing_heavy(web, path):
    """Red when: a module on the way gets `import subprocess`, or `import dataclasses`."""
    bare = set(loaded(web, "-c", "import sys"))
    modules = [name for name in loaded(web, "-m", "nsbox", *PATHS[path]) if name not in bare]
    assert "nsbox.cli.front" in modules, "the list is not that of nsbox"
    found = [name for name in modules if name in HEAVY or name.partition(".")[0] in HEAVY]
    assert not found, f"{found} of {modules}"
    ours = {name for name in modules if name.startswith("nsbox")}
    assert len(ours) <= MOST_MODULES_OF_NSBOX, sorted(ours)
    assert len(set(modules) - ours) <= MOST_MODULES_OF_OTHERS, sorted(set(modules) - ours)


def test_the_spy_sees_heavy_modules(web):
    """`ls` prints a table, so it loads rich: the test above would see it on the hot path too."""
    assert {"rich", "rich.table"} <= set(loaded(web, "-m", "nsbox", "ls"))


@pytest.mark.parametrize(
    "verb", ["ls -q", "ls --json", "stop web", "inspect --json web", "ps --json web", "map", "map --json"]
)
def test_other_verbs_without_a_table_load_no_heavy_library(web, verb):
    """Red when: printed() of show/pieces.py imports rich for a pipe too, which is half of a map's time."""
    names = {name.partition(".")[0] for name in loaded(web, "-m", "nsbox", *verb.split())}
    assert not names & {"pyroute2", "rich", "yaml", "asyncio"}, names


def test_importing_the_library_loads_nothing_of_it(web):
    """Red when: nsbox/__init__.py imports its names at once."""
    assert [name for name in loaded(web, "-c", "import nsbox") if name.startswith("nsbox")] == [
        "nsbox"
    ]


def programs(host, *words: str) -> list[str]:
    """The programs that a command executes, itself first."""
    status, _, err, log = faults.strace(host, "trace=execve,execveat", [*NSBOX, *words])
    assert status == 0, err
    # A call of one process may be cut in two by another's line: "unfinished" has the name.
    calls = re.findall(r'execve\("([^"]*)"|execveat\(\d+, "", \["([^"]*)"', log)
    return [one or f"sealed, as {other}" for one, other in calls]


# The launcher, from memory, with the command's own arguments; then the command, in its place.
LAUNCHED = ["sealed, as /bin/true", "/bin/true"]


@pytest.mark.parametrize(
    "words, executed",
    [
        (["create", "hot", "--rootfs", "busybox"], ["sealed, as pause"]),
        (["join", "web", "--", "/bin/true"], LAUNCHED),
        (["join", "web", "-d", "--", "/bin/true"], LAUNCHED),
        (["run", "--", "/bin/true"], ["sealed, as pause", *LAUNCHED]),
        (["create", "hot", "--rootfs", "busybox", "--init", "/bin/sleep 9"], ["sealed, as /bin/sleep", "/bin/sleep"]),
        (["ls"], []),
        (["ps", "web"], []),
        (["inspect", "web"], []),
        (["prune"], []),
        (["stop", "web"], []),
        (["rm", "web"], []),
        (["completion", "bash"], []),
    ],
    ids=lambda value: " ".join(value),
)
def test_C19_no_helper_program_is_executed(web, words, executed):
    """Also A06: nothing is looked up in a PATH, and ctypes starts neither gcc nor ldconfig. And A05: it
    is the sealed launcher that executes the command.

    Red when: syscalls.py asks ctypes.util.find_library for libc.
    """
    ran = programs(web, *words)
    assert ran == [sys.executable, *executed]
