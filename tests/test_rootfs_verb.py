"""`nsbox rootfs` as a person uses it: output, exit statuses, interruption, kills, races."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# The verbs without the rest of the command line: its front does the same.
FRONT = """
import argparse, importlib, signal, sys
from nsbox import errors
from nsbox.cli import rootfs
def stop(signum, frame): raise errors.Interrupted(signum)
for signum in (signal.SIGINT, signal.SIGTERM): signal.signal(signum, stop)
parser = argparse.ArgumentParser(prog="nsbox")
rootfs.add_parser(parser.add_subparsers())
args = parser.parse_args(["rootfs", *sys.argv[1:]])
module, name = args.handler.split(":")
try:
    sys.exit(getattr(importlib.import_module(module), name)(args))
except errors.NsboxError as err:
    print(f"nsbox: {errors.one_line(err)}", file=sys.stderr)
    sys.exit(err.exit_status)
except errors.Interrupted as err:
    sys.exit(128 + err.signum)
"""


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def env(store, tmp_path):
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "NSBOX_STORE": str(store), "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def rootfs(env):
    def run(*args):
        return subprocess.run(
            command(*args), cwd=REPOSITORY, env=env, capture_output=True, text=True)
    return run


def command(*args):
    return [sys.executable, "-c", FRONT, *args]


def start(env, *args):
    return subprocess.Popen(
        command(*args), cwd=REPOSITORY, env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )


def names_in(store):
    return sorted(name for name in os.listdir(store) if name != ".lock")


def wait_until(condition, what, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)


def running(word):
    """PIDs of processes with `word` as one of their arguments."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture
def endless(tmp_path):
    """A mmdebstrap that never ends, with a child that left its session; the child's mark."""
    mark = str(900_000_000 + os.getpid())
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        "root=$(echo \"$@\" | tr ' ' '\\n' | grep '/entry/rootfs$'); mkdir -p $root/a/b\n"
        "mount -t tmpfs none $root/a/b; echo x > $root/a/b/c\n"
        f"setsid sleep {mark} >/dev/null 2>&1 &\n"
        f"sleep 0.1; echo 'I: at work...'; trap '' INT TERM; sleep {mark}; sleep {mark}\n"
    )
    program.chmod(0o755)
    return mark


def test_build_answers_with_the_path_alone_and_progress_on_stderr(rootfs, store):
    done = rootfs("build", "busybox")
    assert (done.returncode, done.stdout) == (0, f"{store}/busybox/rootfs\n")
    lines = done.stderr.splitlines()
    assert len(lines) >= 3 and all(line.startswith("nsbox: ") for line in lines)


def test_json_of_every_verb_that_answers_is_json(rootfs, store):
    built = json.loads(rootfs("build", "busybox", "--json").stdout)
    assert built["name"] == "busybox" and built["path"] == f"{store}/busybox/rootfs"
    assert json.loads(rootfs("ls", "--json").stdout) == [built]
    assert rootfs("rm", "busybox").stdout == ""
    assert json.loads(rootfs("ls", "--json").stdout) == []


def test_ls_gives_a_pipe_one_whole_line_an_entry(rootfs, store):
    pytest.importorskip("rich")
    rootfs("build", "busybox")
    head, line = rootfs("ls").stdout.splitlines()
    assert head.split() == ["NAME", "RECIPE", "SIZE", "CREATED", "PATH"]
    assert line.split()[:2] == ["busybox", "busybox"]
    assert line.split()[-1] == f"{store}/busybox/rootfs"


@pytest.mark.parametrize("args, status, words", [
    (["build", "nosuch"], 125, "cannot find a recipe 'nosuch'"),
    (["build", "/no/such"], 125, "cannot read recipe 'such'"),
    (["build", "Bad"], 2, "cannot use 'Bad' as the name"),
    (["build", "debian", "--include", "vim,--x"], 2, "cannot include '--x'"),
    (["build", "debian", "--inc", "vim"], 2, "--inc"),
    (["rm", "nosuch"], 125, "no rootfs 'nosuch'"),
    (["rm"], 2, "NAME"),
    ([], 2, "VERB"),
])
def test_wrong_use_gets_the_right_status_and_one_reason(rootfs, args, status, words):
    done = rootfs(*args)
    assert done.returncode == status and done.stdout == ""
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["build", "ls", "rm"])
def test_help_shows_an_example(rootfs, verb):
    assert f"nsbox rootfs {verb}" in rootfs(verb, "--help").stdout.split("example:")[1]


def test_of_many_builds_at_once_one_wins(env, store):
    builders = [start(env, "build", "busybox") for _ in range(6)]
    answers = [(builder.communicate(timeout=60), builder.returncode) for builder in builders]
    assert sorted(status for _, status in answers) == [0, 125, 125, 125, 125, 125]
    for (out, err), status in answers:
        if status:
            assert out == "" and ("right now" in err or "already" in err)
    assert names_in(store) == ["busybox"]


def test_forced_builds_at_once_leave_one_whole_entry(env, store):
    builders = [start(env, "build", "busybox", "--force") for _ in range(4)]
    statuses = [builder.wait(timeout=60) for builder in builders]
    for builder in builders:
        builder.communicate()
    assert 0 in statuses and set(statuses) <= {0, 125}
    assert names_in(store) == ["busybox"]
    assert (store / "busybox/rootfs/bin/busybox").exists()


@pytest.mark.needs_root
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_at_once(env, store, endless, signum):
    builder = start(env, "build", "debian")
    wait_until(lambda: len(running(endless)) >= 2, "mmdebstrap at work")
    builder.send_signal(signum)
    builder.communicate(timeout=8)  # less than the patience of command.py
    assert builder.returncode == 128 + signum
    assert running(endless) == [] and names_in(store) == []


# To see it red: take _DIE_WITH_ME out of command.py, or let sweep() return at once.
@pytest.mark.needs_root
def test_after_kill_9_the_tools_die_and_the_next_command_clears_up(env, store, rootfs, endless):
    builder = start(env, "build", "debian")
    wait_until(lambda: len(running(endless)) >= 2, "mmdebstrap at work")
    assert len(names_in(store)) == 1 and json.loads(rootfs("ls", "--json").stdout) == []
    assert len(names_in(store)) == 1, "ls cleared a build away that is running"
    builder.kill()
    builder.communicate()
    wait_until(lambda: not running(endless), "the death of all children")
    assert rootfs("build", "busybox").returncode == 0
    assert names_in(store) == ["busybox"]


@pytest.mark.needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_debian_build_cut_off_by_kill_9_is_cleared_away(env, store, rootfs):
    builder = start(env, "build", "debian")
    for line in builder.stderr:
        if "installing essential" in line:
            break
    left = names_in(store)
    assert len(left) == 1 and left[0].startswith(".build-debian-")
    builder.kill()
    builder.communicate()

    def cleared():
        assert json.loads(rootfs("ls", "--json").stdout) == []
        return names_in(store) == []
    wait_until(cleared, "a store without leftovers")
    assert left[0] not in Path("/proc/mounts").read_text()
    assert rootfs("build", "debian").returncode == 0
    assert names_in(store) == ["debian"]


@pytest.mark.needs_root
@pytest.mark.slow
def test_without_network_a_debian_build_says_so_in_one_line(env, store):
    done = subprocess.run(
        ["unshare", "--net", *command("build", "debian")],
        cwd=REPOSITORY, env=env, capture_output=True, text=True,
    )
    assert done.returncode == 125 and names_in(store) == []
    assert "cannot reach the package mirror" in done.stderr.splitlines()[-1]
