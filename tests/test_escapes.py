"""What names and words of others are made of never reaches a terminal as it is (row G14).

A pod in which everything that can be named is named with what steers a terminal: processes, their
arguments, the host, links, labels, paths, what it prints. Every verb that shows something is run,
to a pipe and to a terminal. "Red when" in a docstring says how to break nsbox so that the test
fails; each was tried.
"""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from procfs import until
from ptyclient import Terminal

pytestmark = pytest.mark.needs_root

# A title, a colour, a new line, a bracket for who parses /proc/PID/stat, an erased line, DEL, CSI in
# one byte and as a character, a text that runs backwards.
EVIL = b"\x1b]0;x\x07\x1b[31m\r\n) R 1 \x1b[2K\x7f\x9b5n\xc2\x9b6n\xe2\x80\xae"
# What nsbox itself sets on a terminal: styles but for the evil colour, links, a line of progress anew.
STYLE = re.compile(rb"\r\x1b\[K|\x1b\[(?:[012345679]|3[2-9]|[49]\d|38;5;\d+)?(?:;\d+)*m|\x1b\]8;[^\x1b]*\x1b\\")
STEERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffd]")
NAME = EVIL[:15].replace(b"/", b"")
_NAMED = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)  # PR_SET_NAME
os.write(1, bytes.fromhex(sys.argv[2]) + b" said\\n")
time.sleep(1000)
"""
_HOSTNAME = "import ctypes, sys; name = bytes.fromhex(sys.argv[1]); ctypes.CDLL(None).sethostname(name, len(name))"


@pytest.fixture
def web(host, rootfs):
    """A host with the pod "web", of which everything is evil, and a detached member of it."""
    root = Path(os.fsdecode(bytes(rootfs) + b"/" + EVIL.replace(b"/", b"")))
    root.mkdir()
    for name in ("bin", "etc", "tmp"):
        os.rename(rootfs / name, root / name)
    volume = host.work / os.fsdecode(EVIL)
    volume.mkdir()
    evil = os.fsdecode(EVIL)
    host.nsbox("net", "create", "lan", check=True)
    pid = host.nsbox("create", "web", "--rootfs", root, "--in-place", "--label", f"{evil}={evil}", "--mount",
                     f"type=bind,src={volume},dst=/mnt/{evil}", "--net", "lan", check=True).stdout.strip()  # fmt: skip
    host.run(["nsenter", "-t", pid, "-u", sys.executable, "-I", "-S", "-c", _HOSTNAME, EVIL[:64].hex()], check=True)
    host.run(["nsenter", "-t", pid, "-n", "ip", "link", "add", "\x1b[31mx", "type", "veth", "peer", "name", "y\x9b"], check=True)
    # By the host's interpreter, in the pod's namespaces but for its mounts.
    named = host.popen(["nsenter", "-t", pid, "-p", "-n", "-u", "-i", sys.executable, "-I", "-S", "-c", _NAMED, NAME.hex(), "00",
                        evil], text=False)  # fmt: skip
    assert named.stdout.readline() == b"\0 said\n"
    member = host.nsbox("join", "web", "-d", "--", "sh", "-c", f"printf '{octal(EVIL)} said\\n'; exec sleep 1000", evil, check=True)
    yield host, pid, member.stdout.strip()
    named.end()
    host.nsbox("rm", "-f", "web", check=True)
    host.nsbox("net", "rm", "lan", check=True)


def octal(text):
    return "".join(f"\\{byte:03o}" for byte in text)


def verbs(pid, member):
    """Every command that shows something of others."""
    return [
        ["ls"], ["ls", "-q"], ["inspect", "web"], ["inspect", pid], ["inspect", member], ["ps", "web"], ["ps", "web", "web"], ["map"],
        ["map", "web"], ["map", "--only", "matrix,owners,pids,networks"], ["logs", "web"], ["net", "ls"], ["net", "inspect", "lan"],
        ["rootfs", "ls"], ["publish", "web"], ["kill", "--check", "-s", "USR1", "web"], ["doctor"],
        ["join", "web", "--explain", "-e", "X=" + os.fsdecode(EVIL), "--", "/bin/true", os.fsdecode(EVIL)],
        ["explain", "join", "web", "-w", "/mnt/" + os.fsdecode(EVIL), "--", "/bin/true", os.fsdecode(EVIL)],
        ["why", "web", pid], ["why", "web", "1"], ["xlate", "path", "/mnt/" + os.fsdecode(EVIL), "--from", "web"],
        ["xlate", "path", "/", "--from", "web"], ["map", "--dot"], ["map", "--svg"], ["map", "--html"],
        ["join", "web", "-w", os.fsdecode(EVIL), "--", "true"], ["join", "web", "--", os.fsdecode(EVIL)],
        ["join", "web", "--rootfs", "/" + os.fsdecode(EVIL), "--", "true"], ["join", os.fsdecode(EVIL), "--", "true"],
        ["create", os.fsdecode(EVIL)], ["create", "x", "--label", os.fsdecode(EVIL)], ["rm", os.fsdecode(EVIL), "none", "nope"],
        ["kill", "-s", os.fsdecode(EVIL), "web"], ["logs", os.fsdecode(EVIL)], [os.fsdecode(EVIL)],
    ]  # fmt: skip


def steering(said: bytes) -> list[str]:
    """What in it could steer a terminal, with its surroundings."""
    text = said.decode("utf-8", "replace")
    return [text[max(0, found.start() - 40) : found.end() + 20] for found in STEERS.finditer(text)]


def test_G14_nothing_that_is_shown_steers_a_terminal(web):
    """To a pipe, but for what a member printed, and to a terminal.

    Red when: print_tree shows a key as it is; clean.tell does not spell; table() or the map's terminal.py
    leaves printable() out; logs passes to a terminal what it reads; Screen shows a command by hand as it is.
    """
    host, pid, member = web
    for words in verbs(pid, member):
        done = host.nsbox(*words, text=False)
        assert done.returncode in (0, 1, 2, 125, 126, 127), (words, done)
        raw = words[0] == "logs" and not done.returncode
        assert steering(done.stderr) == [] and (raw or steering(done.stdout) == []), (words, steering(done.stdout + done.stderr))
        with Terminal(host, columns=250) as terminal:
            terminal.nsbox(*words)
            assert terminal.ends_with() == done.returncode, terminal.said
            said = STYLE.sub(b"", terminal.said.replace(b"\r\n", b"\n"))
            assert steering(said) == [] and b"\x1b[31m" not in terminal.said, (words, steering(said))


def test_G14_json_holds_everything_and_steers_nothing(web):
    """Red when: json.dumps is told to leave what is not ASCII as it is."""
    host, pid, member = web
    for words in (["ls"], ["inspect", "web", pid, member], ["ps", "web"], ["map"], ["net", "ls"], ["net", "inspect", "lan"],
                  ["rootfs", "ls"], ["kill", "--check", "-s", "USR1", "web"], ["doctor"], ["publish", "web"]):  # fmt: skip
        done = host.nsbox(words[0], "--json", *words[1:], text=False) if words[0] not in ("net", "rootfs") else host.nsbox(
            *words[:2], "--json", *words[2:], text=False)
        assert done.returncode == 0 or words == ["doctor"], (words, done)
        assert done.stdout.isascii() and steering(done.stdout) == [], (words, steering(done.stdout))
        json.loads(done.stdout)
    rows = json.loads(host.nsbox("ps", "--json", "web", check=True).stdout)
    assert os.fsencode(rows[-1]["command"][-1]) == EVIL or os.fsencode(rows[1]["command"][-1]) == EVIL
    assert json.loads(host.nsbox("ls", "--json", check=True).stdout)[0]["labels"] == {os.fsdecode(EVIL): os.fsdecode(EVIL)}


def test_G14_one_line_a_process_whatever_its_name_holds(web):
    """Red when: printable() lets a line end pass; stat_fields() cuts at the first bracket."""
    host, _, _ = web
    rows = json.loads(host.nsbox("ps", "--json", "web", check=True).stdout)
    assert len(host.nsbox("ps", "web", text=False, check=True).stdout.splitlines()) == len(rows) + 1 == 5
    assert {row["state"] for row in rows} == {"S"}


def test_G14_what_a_member_printed_comes_as_it_is_through_a_pipe(web):
    """And spelled on a terminal, a character that comes in two pieces too.

    Red when: logs spells for a pipe; _Speller decodes each piece for itself.
    """
    host, _, member = web
    for _ in until(20):
        if host.nsbox("logs", member, text=False, check=True).stdout == EVIL + b" said\n":
            break
    assert host.nsbox("logs", member, text=False, check=True).stdout == EVIL + b" said\n"
    many = host.nsbox("join", "web", "-d", "--", "sh", "-c", "printf a; i=0; while [ $i -lt 700 ]; do printf "
                      f"'{octal('é'.encode() * 100)}'; i=$((i+1)); done; echo '\terr'", check=True).stdout.strip()  # fmt: skip
    host.nsbox("wait", many, check=True)
    with Terminal(host) as terminal:
        terminal.nsbox("logs", many)
        assert terminal.ends_with() == 0
        assert terminal.said.decode().replace("\r\n", "\n") == "a" + "é" * 70000 + "\terr\n"
