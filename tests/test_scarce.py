"""Too little memory, too few processes: one line, an honest status, and nothing left of what was begun."""

import errno
import os
import re

import pytest
from fakehost import NSBOX, FakeHost
from faultpoints import EVERY

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

# As the installed command has it: what runpy needs besides, for -m, is not ours to answer for.
COMMAND = (NSBOX[0], "-P", "-c", "from nsbox.cli import entry; entry()")
STEPS = 60 if EVERY else 8
_KB_MAX = 1 << 20
_CLOSE_KB = 100
VERBS = {
    "create": ("create", "t", "--rootfs", "busybox"),
    "join": ("join", "web", "--", "echo", "done"),
    "join -d": ("join", "web", "-d", "--", "true"),
    "run": ("run", "--rootfs", "busybox", "--", "echo", "done"),
}
# For each limit: what the verb said, and what there is then.
_EACH = """
limits=$1; shift
for kb in $limits; do
    said=$(prlimit --as=${kb}000 "$@" 2>&1); status=$?
    echo "limit $kb"; echo "status $status"; echo "$said"
    echo "pods" $(ls -A "$NSBOX_STATE/pods")
    [ ! -d "$NSBOX_STATE/pods/t" ] || "$PYTHON" -P -m nsbox rm -f t
done
"""


def least(host: FakeHost, *words: str) -> int:
    """The smallest limit, in kB, with which a command ends well. It differs between machines, builds and libcs."""
    def ends_well(kb: int) -> bool:
        done = host.run(["prlimit", f"--as={kb}000", *words])
        host.nsbox("rm", "-f", "t", check=True)
        return done.returncode == 0

    high = 8000
    while not ends_well(high):
        assert high < _KB_MAX, words
        high *= 2
    low = high // 2
    while high - low > _CLOSE_KB:
        middle = (low + high) // 2
        low, high = (low, middle) if ends_well(middle) else (middle, high)
    return high


@pytest.mark.parametrize("verb", VERBS)
def test_H14_too_little_memory_is_one_line_and_nothing_is_left(host: FakeHost, verb: str) -> None:
    """At every limit the verb does all or nothing, from the first module that does not fit to where all is well.

    Red when: front.run() takes a MemoryError for a bug, entry() lets one out, or run and create hold no spare_memory():
    then a pod is made, and there is none left to remove it.
    """
    host.nsbox("create", "web", "--rootfs", "busybox", check=True)
    first = least(host, NSBOX[0], "-P", "-c", "import nsbox.cli") + _CLOSE_KB
    works = least(host, *COMMAND, *VERBS[verb])
    limits = [first + (works - first) * step // STEPS for step in range(STEPS)] + [works + _CLOSE_KB, 4 * works]
    done = host.run(["sh", "-c", _EACH, "sh", " ".join(map(str, limits)), *COMMAND, *VERBS[verb]],
                    env={"PYTHON": NSBOX[0]}, timeout=600)
    assert done.stderr == ""
    answers = re.findall(r"^limit (\d+)\nstatus (\d+)\n(.*?)\npods (.*?)$", done.stdout, re.MULTILINE | re.DOTALL)
    assert len(answers) == len(limits), done
    for limit, status, said, pods in answers:
        lines = said.splitlines()
        if status == "0":
            assert pods.split() == (["t", "web"] if verb == "create" else ["web"]), (limit, pods)
        else:
            assert status == "125" and 1 <= len(lines) <= 2 and lines[0].startswith("nsbox: cannot "), (limit, status, said)
            assert re.search(f"{os.strerror(errno.ENOMEM)}|failed to map segment", lines[0]), (limit, said)
            assert pods == "web", (limit, said, pods)
    assert {status for _, status, _, _ in answers} == {"0", "125"}, "the limits are not round where it begins to work"
    host.nsbox("rm", "-f", "web", check=True)


_RESIDENT = """
from nsbox.pod import store
def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
before = pages()
spare = store.spare_memory()
print(pages() - before)
"""


def test_H14_memory_that_is_held_back_costs_no_time_and_no_page(host: FakeHost) -> None:
    """A pause that stays the interpreter would keep it for good. Red when: spare_memory() is a bytearray()."""
    assert int(host.python(_RESIDENT, check=True).stdout) < 100


def test_H14_too_few_processes_are_one_line_that_names_the_call(user_host: FakeHost) -> None:
    """The first fork of each verb, and those after it. Root is not bound by the limit: see getrlimit(2).

    Red when: _fork() in spawn.py, or detach(), lets the OSError of os.fork() out, which names no call.
    """
    host = user_host
    host.nsbox("create", "web", check=True)
    pods = host.run(["ls", "-A", str(host.state / "pods")]).stdout
    for words in (("create", "t"), ("run", "--", "/bin/true"), ("join", "web", "--", "/bin/true"),
                  ("join", "web", "-d", "--", "/bin/true")):
        for limit in range(1, 7) if EVERY else (1, 3, 4):
            done = host.run(["prlimit", f"--nproc={limit}", *NSBOX, *words])
            lines = done.stderr.splitlines()
            if done.returncode == 0:
                host.nsbox("rm", "-f", "t", check=True)
                continue
            assert done.returncode == 125 and 1 <= len(lines) <= 2, (limit, words, done)
            assert re.match("nsbox: cannot .*: (fork|clone3?): Resource temporarily unavailable$", lines[0]), (limit, done)
            assert host.run(["ls", "-A", str(host.state / "pods")]).stdout == pods
            if limit == 1:
                assert "RLIMIT_NPROC" in lines[1], done
    host.nsbox("rm", "-f", "web", check=True)
