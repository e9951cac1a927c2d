"""An answer that cannot be written (row G15): every verb, in every form of its answer.

On a full device each fails with one line and 125; where nobody reads it, each is quiet, and ends as
SIGPIPE would end it. What it was about to tell is short or long: a short answer fails in the last
flush, a long one in the midst of the verb.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest
from fakehost import FakeHost
from inpod import detached, pod

from nsbox.cli.front import VERBS

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

SAID = "nsbox: cannot write the answer to stdout: No space left on device\n"
# PID: of a detached member of the pod web. BEFORE: an earlier picture.
LOOKING = """\
ls; ls -q; ls --json; inspect web; inspect --json web PID; ps web; ps --json web; logs PID; logs -f EXITED
map; map --json; map --svg; map --html; map --dot; map --ascii --all; map --diff BEFORE; map --html --diff BEFORE
map --dot --diff BEFORE; map --json --diff BEFORE; map --only matrix; map --watch; map --serve
why web PID; why --json web PID; xlate pid 1 --from web; xlate --json pid 1 --from web; xlate uid 0 --from web
xlate path / --from web; xlate port 80 --from web; kill --check web; kill --check --json web
rootfs ls; rootfs ls --json; net ls; net ls --json; net inspect lan; net inspect --json lan
doctor; doctor --json; completion bash; completion zsh; completion fish; --version; --help
explain create z; explain --json create z; explain --sh create z; create z --dry-run; create z --dry-run --sh -
create z --dry-run --events -; explain join web -- true; explain run -- true; explain stop web; explain rm -f web
explain --sh stop web; explain net create other; explain error; explain --json error; explain error unshare
explain error unshare EPERM; explain --json error unshare EPERM CLONE_NEWUSER
join web --sh - -- true; join web --events - -- true; publish web; publish --json web; wait EXITED; wait --json EXITED"""
SILENT = {"stop", "unpublish", "prune"}  # they answer nothing, or nothing as long as nothing is dead
MAKING = {"create", "join", "run", "rm"}  # see test_words_caller.py for what they make and cannot tell
CALLS = [words.strip() for line in LOOKING.split("\n") for words in line.split(";")]
HELP = [f"{verb} --help" for verb in VERBS]


@pytest.fixture(scope="module")
def shared_host(base, store) -> Iterator[FakeHost]:
    """One host for all of these: none of them changes anything."""
    with FakeHost(base, store=store) as host:
        yield host


@pytest.fixture(scope="module")
def there(shared_host) -> Iterator[dict[str, str]]:
    """A pod with a network, a member that goes on and one that has ended, and words for these."""
    host, before = shared_host, shared_host.work / "before.json"
    host.nsbox("net", "create", "lan", check=True)
    with pod(host, "web", "--rootfs", "busybox", "--net", "lan", "-p", "8080:80"):
        host.nsbox("map", "--json", "-o", before, check=True)
        with detached(host, "web", argv=("sh", "-c", "echo said; exec sleep 1000")) as pid:
            ended = host.nsbox("join", "web", "-d", "--", "sh", "-c", "echo said", check=True).stdout.strip()
            host.nsbox("wait", ended, check=True)
            yield {"PID": str(pid), "EXITED": ended, "BEFORE": str(before)}
    host.nsbox("net", "rm", "lan", check=True)


def ended(host, there, words: str, stdout: int) -> tuple[int, str]:
    """The status and stderr of a call with this as its stdout, which is closed here."""
    argv = [there.get(word, word) for word in words.split()]
    try:
        command = host.nsbox_popen(*argv, stdout=stdout, stdin=subprocess.DEVNULL)
    finally:
        os.close(stdout)
    said = command.communicate(timeout=120)[1]
    return command.returncode, said


@pytest.mark.parametrize("words", [*CALLS, *HELP])
def test_G15_on_a_full_device_every_verb_fails_with_one_line(shared_host, there, words):
    """Red when: what shows what is foretold swallows the error; or print() in the midst of a verb names no stdout."""
    full = os.open(f"/proc/{shared_host.pid}/root/dev/full", os.O_WRONLY)
    assert ended(shared_host, there, words, full) == (125, SAID)


@pytest.mark.parametrize("words", [*CALLS, "map --help"])
def test_G15_where_nobody_reads_every_verb_is_quiet(shared_host, there, words):
    """Red when: what shows what is foretold swallows the error; or a broken pipe is told as any other error."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    assert ended(shared_host, there, words, write_end) == (141, "")


def test_every_verb_is_asked():
    """Red when: a verb that answers is not in the tables above."""
    asked = {words.split()[0] for words in CALLS}
    assert set(VERBS) - asked <= SILENT | MAKING | {"net", "rootfs"}
    assert not asked & SILENT
