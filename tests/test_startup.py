"""How nsbox starts: with whose rights, and with whose modules and helpers (rows C16, C17, C18).

The installed command is the one that scripts/setup made in the virtual environment of this run.
"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import os
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import needs_program
from fakehost import PATH, UID
from inpod import python_path
from procfs import TOP
from uplink import uplink

pytestmark = pytest.mark.needs_root

COMMAND = Path(sys.prefix, "bin", "nsbox")
PROGRAMS = ("nft", "pasta", "ip", "mount", "umount", "newuidmap", "newgidmap", "nsenter", "unshare", "setpriv", "sh", "sync",
            "busybox", "mmdebstrap", "apt-get", "dpkg-deb", "python3", "gcc", "ldconfig", "tar")  # fmt: skip
MODULES = sorted(sys.stdlib_module_names | {"sitecustomize", "usercustomize", "prctl", "pyroute2", "rich", "_prctl"})

@pytest.fixture
def trap(host):
    """(directory of another user with traps in it, the mark that one of them went off)."""
    evil, mark = host.work / "evil", host.work / "PWNED"
    evil.mkdir()
    for name in PROGRAMS:
        (evil / name).write_text(f"#!/bin/sh\necho $0 > {mark}\n")
        (evil / name).chmod(0o755)
    for name in MODULES:
        (evil / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    site = evil / f"lib/python3.{sys.version_info[1]}/site-packages"  # of a user whose home it is
    shutil.copytree(evil, evil / ".local" / site.relative_to(evil))
    host.run(["chown", "-R", f"{UID}:{UID}", evil], check=True)
    yield evil, mark
    assert not mark.exists(), mark.read_text()


def everything(host, command, **kw):
    """Run verbs of all kinds, also such as fail."""
    for words, status in (
        (["ls"], 0), (["create", "web", "--rootfs", "busybox"], 0), (["join", "web", "--", "true"], 0),
        (["run", "--with", "user", "--rootfs", "busybox", "--", "true"], 0), (["ps", "web"], 0),
        (["inspect", "--json", "web"], 0), (["join", "none", "--", "true"], 125), (["lss"], 2), (["--help"], 0),
        (["completion", "bash"], 0), (["--version"], 0), (["rm", "-f", "web"], 0),
    ):  # fmt: skip
        done = host.run([*command, *words], **kw)
        assert done.returncode == status, (words, done)


# ---- Ctrl-C ----

_INTERRUPTED = """
import os, signal, sys
class Hit:
    def find_spec(self, name, path=None, target=None):
        if name == module: os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "ignored" else signal.default_int_handler)
module = sys.argv[2]
sys.meta_path.insert(0, Hit())
sys.argv[1:] = ["ls", "-q"]
from nsbox.cli import entry
entry()
"""


@pytest.mark.parametrize("module", ["typing", "nsbox.cli.front", "argparse"])
def test_ctrl_c_while_it_starts_ends_it_without_a_word(host, module):
    """As it would end any program: by the signal. Who has it ignored, as nohup does, is left in peace.

    Red when: entry() does not call _end_at_interrupt(), or the module imports typing before.
    """
    done = host.python(_INTERRUPTED, "taken", module)
    assert (done.returncode, done.stdout, done.stderr) == (-2, "", "")
    done = host.python(_INTERRUPTED, "ignored", module)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# ---- C18: modules ----

def test_C18_the_installed_command_starts_isolated():
    """Red when: scripts/setup leaves out isolate_command."""
    first = COMMAND.read_text().splitlines()[:2]
    assert first[0].endswith(" -I") or ' -I "$0" ' in first[1], f"{COMMAND}: run scripts/setup again"


def test_C18_no_module_comes_from_the_caller_s_environment(host, trap):
    """Red when: the command's first line has no -I."""
    evil, _ = trap
    env = {"PYTHONPATH": str(evil), "PYTHONSTARTUP": str(evil / "os.py"), "PYTHONUSERBASE": str(evil / ".local"),
           "HOME": str(evil), "PYTHONHOME": str(evil), "PYTHONINSPECT": "1"}  # fmt: skip
    everything(host, [COMMAND], cwd=evil, env=env)


def test_C18_nor_by_python_m_from_the_current_directory(host, trap):
    """Python itself looks there for what it needs to find nsbox; nsbox looks for nothing there.

    Red when: __main__.py leaves sys.path as it is, or nsbox/__init__.py imports typing.
    """
    (host.work / "names.py").write_text("import sys; print(*{name.partition('.')[0] for name in sys.modules})")
    for name in host.run([sys.executable, "-m", "names"], cwd=host.work, check=True).stdout.split():
        (trap[0] / f"{name}.py").unlink(missing_ok=True)
    everything(host, [sys.executable, "-m", "nsbox"], cwd=trap[0])


@pytest.mark.parametrize("directory", ["removed", "closed"])
def test_python_m_works_in_a_directory_that_is_not_there(host, directory):
    """Red when: __main__.py takes away more than the current directory."""
    change = "mkdir d; cd d; rmdir ../d" if directory == "removed" else "mkdir -m 0 d; cd d"
    done = host.run(["sh", "-c", f"cd {host.work}; {change}; exec {sys.executable} -m nsbox ls -q"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


_LIBRARY = """
import nsbox, os, sys
sys.path.remove(sys.argv[1])
with nsbox.Pod(rootfs="busybox") as pod:
    assert pod.run(["true"]).returncode == 0
"""


def test_C18_the_library_s_process_loads_nothing_from_beside_nsbox(host, trap):
    """Red when: client._PROGRAM keeps the directory in which nsbox lies, or leaves out -I."""
    evil, _ = trap
    (evil / "nsbox").symlink_to(TOP / "nsbox")
    env = {"PYTHONPATH": str(evil), "PYTHONUSERBASE": str(evil / ".local"), "HOME": str(evil)}
    code = f"import sys; sys.path.insert(0, {str(evil)!r})\n{_LIBRARY}"
    done = host.run([sys.executable, "-I", "-c", code, evil], cwd=evil, env=env)
    assert (done.returncode, done.stderr) == (0, "")


# ---- C16: helpers ----

def test_C16_no_helper_comes_from_the_caller_s_path(host, trap):
    """Red when: net/rules.py, net/pasta.py or privilege/userns.py runs its program by name with the
    caller's PATH, or images/command.py takes that PATH as it is."""
    needs_program("pasta")
    evil, _ = trap
    with uplink(host):
        _everything_with_helpers(host, evil)


def _everything_with_helpers(host, evil):
    for path in (f"{evil}:{PATH}", f".:{PATH}", f":{PATH}"):
        for words in (
            ["net", "create", "lan", "--subnet", "10.9.0.0/24"], ["create", "left", "--net", "lan", "-p", "8080:80"],
            ["create", "right", "--net", "user"], ["create", "safe", "--userns"], ["net", "reload"], ["join", "left", "--", "/bin/true"],
            ["rootfs", "build", "busybox"], ["run", "--rootfs", "busybox", "--", "true"], ["rootfs", "rm", "busybox"],
            ["rm", "-f", "left", "right", "safe"], ["net", "rm", "lan"],
        ):  # fmt: skip
            command = ["env", f"PATH={path}", f"NSBOX_STORE={host.work}/store", COMMAND, *words]
            done = host.run(command, cwd=evil, timeout=90)
            assert done.returncode == 0, (words, done)


def test_C16_what_is_safe_in_a_path(host, tmp_path, monkeypatch, in_child):
    """Red when: images.command._is_safe looks at the directory alone, or does not look."""
    from nsbox.images import command

    ours, theirs, open_to_all = tmp_path / "ours", tmp_path / "theirs", tmp_path / "open"
    for path in (ours, theirs, open_to_all):
        (path / "bin").mkdir(parents=True)
    os.chown(theirs, UID, UID)
    open_to_all.chmod(0o777)
    (tmp_path / "link").symlink_to(theirs / "bin")
    wanted = [str(ours), str(ours / "bin")]
    unwanted = [str(theirs), str(theirs / "bin"), str(open_to_all / "bin"), str(tmp_path / "link"), str(tmp_path / "none"), ".",
                "", "bin"]  # fmt: skip
    monkeypatch.setenv("PATH", ":".join([*wanted, *unwanted]))
    assert command.environment()["PATH"] == ":".join([*wanted, command._SYSTEM_PATH])


# ---- C17: rights ----

_WRAPPER = r"""
#define _GNU_SOURCE
#include <unistd.h>
int main(int argc, char **argv) { argv[0] = PYTHON; execv(PYTHON, argv); return 99; }
"""


@pytest.fixture
def borrowed(user_host):
    """Makes a program of another user's reach that is root without him: by kind."""
    needs_program("gcc")
    host = user_host
    (host.work / "wrapper.c").write_text(_WRAPPER)

    def make(kind):
        path = host.work / kind.replace(" ", "-")
        if kind == "a setuid wrapper":
            subprocess.run(["gcc", f'-DPYTHON="{sys.executable}"', "-o", path, host.work / "wrapper.c"], check=True)
        else:
            shutil.copy(python_path(), path)
        os.chown(path, 0, 0)
        if kind == "file capabilities":  # CAP_SYS_ADMIN in struct vfs_cap_data, version 2, effective: linux/capability.h
            path.chmod(0o755)
            os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 21, 0, 0, 0))
        else:
            path.chmod(0o755 | (stat.S_ISGID if "setgid" in kind else stat.S_ISUID))
        return path

    return make


@pytest.mark.parametrize("kind", ["a setuid wrapper", "a setuid copy", "a setgid copy", "file capabilities"])
def test_C17_with_rights_that_the_caller_does_not_have_it_refuses(user_host, borrowed, kind):
    """Red when: clean.begin leaves out borrowed.refuse; for the last kind also, when it looks at the ids alone."""
    env = {"PYTHONHOME": sys.base_prefix, "PYTHONPATH": ":".join([str(TOP), *filter(None, sys.path)])}
    program = borrowed(kind)
    for words in (["ls"], ["create", "web"], ["run", "--", "id"], ["join", "1", "--", "id"], ["rm", "-f", "web"], ["prune"]):
        done = user_host.run([program, "-P", "-m", "nsbox", *words], env=env)
        assert (done.returncode, done.stdout) == (125, ""), (words, done)
        assert done.stderr.splitlines()[0] == "nsbox: cannot work with rights that the caller does not have", done.stderr
    code = "import nsbox\ntry: nsbox.Pod().create()\nexcept nsbox.NsboxError as err: print(err)"
    done = user_host.run([program, "-P", "-c", code], env=env)
    assert done.stdout == "cannot work with rights that the caller does not have\n", done.stderr


def test_C17_rights_that_the_caller_has_are_none_of_that(host):
    """Red when: borrowed.refuse takes every capability of an ordinary user for a borrowed one."""
    for become in (["setpriv", "--reuid=0", "--regid=0", "--clear-groups"], ["setpriv", f"--reuid={UID}", f"--regid={UID}",
                   "--clear-groups", "--inh-caps=+net_raw", "--ambient-caps=+net_raw"], ["setpriv", "--no-new-privs"]):  # fmt: skip
        env = {"XDG_RUNTIME_DIR": None, "NSBOX_STATE": str(host.work / "state" / str(len(become)))}
        done = host.run([*become, COMMAND, "--version"], env=env)
        assert (done.returncode, done.stderr) == (0, ""), done
