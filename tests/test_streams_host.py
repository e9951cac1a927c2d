"""What a member may do to its caller's terminal and devices, and how names from inside are shown.

"Red when" in a docstring says how to break nsbox so that the test fails; each was tried.
"""

import fcntl
import json
import os
import stat
import sys
import termios

import pytest
from fakehost import NSBOX
from inpod import python_path
from procfs import until
from ptyclient import Terminal

pytestmark = pytest.mark.needs_root

# Types a line with TIOCSTI, and pastes with TIOCLINUX, on all that it has. Root may do so by every
# descriptor of a terminal, whatever /proc/sys/dev/tty/legacy_tiocsti says.
_TYPE = """
import fcntl, os, termios
done = 0
try:
    extra = [os.open("/dev/tty", os.O_RDWR)]
except OSError:
    extra = []
for fd in [0, 1, 2, *extra]:
    for letter in b"typed\\n":
        try:
            fcntl.ioctl(fd, termios.TIOCSTI, bytes([letter]))
            done += 1
        except OSError:
            pass
    try:
        fcntl.ioctl(fd, 0x541C, b"\\3" + bytes(15))
        print("pasted")
    except OSError:
        pass
print("typed", done, flush=True)
"""


@pytest.fixture
def web(host):
    """A host with a pod "web" that has the host's tree, and so its interpreter."""
    host.nsbox("create", "web", check=True)
    yield host
    host.nsbox("rm", "-f", "web", check=True)


@pytest.mark.parametrize("free", [[], ["--seccomp", "unconfined"]], ids=["filtered", "free"])
@pytest.mark.parametrize("options", [["-t"], ["-T"], ["-t", "--share", "net"], ["-T", "--share", "none"]], ids=str)
def test_G01_G02_no_member_types_or_pastes_into_the_callers_terminal(web, options, free):
    """With the filter of system calls, which forbids it, and without.

    Red when: attach._stream passes a terminal on (-T), and attach.run does not make a pty (-t).
    """
    with Terminal(web) as terminal:
        terminal.make_raw()
        terminal.nsbox("join", "web", *options, *free, "--", python_path(), "-I", "-S", "-c", _TYPE)
        assert terminal.ends_with() == 0, terminal.said
        assert b"typed " in terminal.said and b"pasted" not in terminal.said
        # Its own terminal it may type into, if no filter forbids that: the attack works where it may.
        assert (b"typed 24" in terminal.said) == bool("-t" in options and free), terminal.said
        waiting = bytearray(4)
        fcntl.ioctl(terminal.slave, termios.FIONREAD, waiting)
        assert int.from_bytes(waiting, sys.byteorder) == 0, "somebody typed"


def look(host, fds: tuple[int, ...]) -> list[tuple[int, int, int]]:
    paths = [*(f"/proc/{host.pid}/root/dev/{name}" for name in ("null", "zero", "tty")), *(f"/proc/self/fd/{fd}" for fd in fds)]
    found = [os.stat(path) for path in paths]
    return [(stat.S_IMODE(one.st_mode), one.st_uid, one.st_gid) for one in found]


@pytest.mark.parametrize("words", [["create", "made"], ["join", "web", "--", "true"], ["join", "web", "-d", "--", "true"], ["join", "web", "-u", "7", "--", "true"],
                                   ["run", "--rootfs", "busybox", "--", "true"]], ids=" ".join)  # fmt: skip
def test_G13_mode_and_owner_of_the_callers_streams_stay(web, words):
    """Those of /dev/null, and of a terminal. The null device is the fake host's: the machine's must not suffer.

    Red when: accounts.become() chowns the descriptors 0, 1 and 2 to the user (-u).
    """
    with open(f"/proc/{web.pid}/root/dev/null", "r+b") as null, Terminal(web) as terminal:
        before = look(web, (terminal.slave,))
        assert before[0] == (0o666, 0, 0)
        assert web.popen([*NSBOX, *words], stdin=null, stdout=null, stderr=null).wait(timeout=60) == 0
        web.nsbox("rm", "-f", "made", check=True)
        terminal.nsbox(*words)
        assert terminal.ends_with() == 0, terminal.said
        assert look(web, (terminal.slave,)) == before
    web.nsbox("rm", "-f", "made", check=True)


# ---- G14: names ----

EVIL = "\x1b]0;x\n)\x1b[31m"
# A process with such a name and such arguments; and a zombie, of which nothing but the name is left.
_NAMED = """
(sh -c 'printf "\\033]0;x\\n)\\033[31m" > /proc/$$/comm; kill -9 $$' &)
printf '\\033]0;x\\n)\\033[31m' > /proc/$$/comm
echo up
while :; do read x < /tmp/never; done
"""


@pytest.mark.rootless_too
def test_G14_a_name_from_inside_steers_no_terminal_and_takes_no_second_line(host):
    """In the name of a process, of a zombie, in arguments, in a label.

    Red when: table() shows a cell as it is; stat_fields() cuts at the first bracket.
    """
    host.nsbox("create", "web", "--rootfs", "busybox", "--init", "sleep 1000", "--label", f"a={EVIL}", check=True)
    host.nsbox("join", "web", "--", "mkfifo", "/tmp/never", check=True)
    host.nsbox("join", "web", "-d", "--", "sh", "-c", _NAMED, EVIL, EVIL, check=True)
    rows = []
    for _ in until(10):
        rows = json.loads(host.nsbox("ps", "--json", "web", check=True).stdout)
        if len(rows) == 3 and any(row["state"] == "Z" for row in rows):
            break
    assert sorted(row["state"] for row in rows) == ["S", "S", "Z"], rows
    assert EVIL in str([row["command"] for row in rows]) or "\\x1b" in str(rows), rows
    for words in (["ps", "web"], ["ps", "--json", "web"], ["ls"], ["ls", "--json"], ["inspect", "web"], ["inspect", "--json", "web"]):
        said = host.nsbox(*words, text=False, check=True).stdout
        assert b"\x1b" not in said and b"\r" not in said, (words, said)
        with Terminal(host, columns=200) as terminal:
            terminal.nsbox(*words)
            assert terminal.ends_with() == 0
            assert b"\x1b]" not in terminal.said and b"\x1b[31m" not in terminal.said, (words, terminal.said)
        if words == ["ps", "web"]:
            assert len(said.splitlines()) == len(terminal.said.splitlines()) == 4, (said, terminal.said)
    host.nsbox("rm", "-f", "web", check=True)
