"""The state directory is looked at with suspicion: bad records, bad directories, full disks, storms."""

import json
import re
import sys
from typing import Any

import pytest
from fakehost import UID, FakeHost
from faults import strace
from hostile import Canary
from test_lifecycle import BUSYBOX, answer, create, detach, statuses

pytestmark = pytest.mark.slow


def inside(host: FakeHost, script: str, *words: object) -> str:
    """Run a shell script inside, with words as $1 and so on."""
    said: str = host.run(["sh", "-c", script, "sh", *map(str, words)], user=0, check=True).stdout
    return said


def read_record(host: FakeHost, name: str = "t") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inside(host, 'cat "$1"', host.state / "pods" / name / "pod.json"))
    return found


def put_record(host: FakeHost, content: bytes, name: str = "t") -> None:
    """Overwrite a record in place, whatever was there."""
    file = host.work / "content"
    file.write_bytes(content)
    inside(host, 'umask 077; cat "$1" > "$2"', file, host.state / "pods" / name / "pod.json")


def fakes(host: FakeHost, content: dict[str, bytes]) -> None:
    """A directory for each of these names below pods/, with that as its record."""
    for name, raw in content.items():
        inside(host, 'umask 077; mkdir -p "$1/$2/members"', host.state / "pods", name)
        put_record(host, raw, name)


# ---- I01: what stands in a record ----

def bad_records(good: dict[str, Any]) -> dict[str, bytes]:
    """Ways for a record to be bad, by name."""
    def changed(**values: Any) -> bytes:
        return json.dumps({**good, **values}).encode()

    def without(key: str) -> bytes:
        return json.dumps({name: value for name, value in good.items() if name != key}).encode()

    raw = json.dumps(good).encode()
    return {
        "empty": b"", "brace": b"{", "nuls": b"\0" * 500, "half": raw[: len(raw) // 2], "list": b"[]",
        "null": b"null", "number": b"7", "string": b'"x"', "nan": raw[:-1] + b', "x": NaN}',
        "infinite": changed(created_s=float("inf")), "huge-number": raw[:-1] + b', "x": ' + b"9" * 5000 + b"}",
        "big": raw[:-1] + b', "x": "' + b"x" * (10 << 20) + b'"}', "twice": raw[:-1] + b', "name": "t"}',
        "deep": b"[" * 100_000, "deep-object": b'{"a":' * 50_000, "latin": raw[:-1] + b', "x": "\xff\xfe"}',
        "utf16": json.dumps(good).encode("utf-16"), "tail": raw + b"x", "surrogate": changed(hostname="\ud800"),
        "no-id": without("id"), "no-pause": without("pause"), "no-name": without("name"), "no-maker": without("maker"),
        "id-path": changed(id="../../../../canary"), "id-number": changed(id=7), "phase": changed(phase="done"),
        "pause-text": changed(pause="17"), "pause-short": changed(pause=["x", 17]), "pause-bool": changed(pause=["x", True, 1]),
        "pause-float": changed(pause=["x", 17.0, 1]), "kinds": changed(kinds={"canary": 1}),
        "kinds-text": changed(kinds={"net": "../../x"}), "labels": changed(labels={"a": 1}), "version": changed(version=99),
        "version-0": changed(version=0), "version-text": changed(version="1"), "share": changed(share=7),
        "share-kinds": changed(share=[[]]), "chroot": changed(chroot="yes"), "init": changed(init=[1]),
        "created": changed(created_s="now"), "created-huge": changed(created_s=1e308), "timeout": changed(stop_timeout_s=None),
        "created-bool": changed(created_s=True), "other": changed(name="another"), "whole": changed(),
    }  # fmt: skip


STRANGE = {"surrogate", "created-huge", "whole"}  # every value is of its type: dead pods, and prune takes them


def test_I01_a_bad_record_is_shown_and_breaks_nothing(host: FakeHost, canary: Canary) -> None:
    """All are listed, as JSON too; the good pod is unharmed; rm needs --force; prune leaves them.

    Red when: read_json() or pod_from_dict() lets an exception but CorruptFile out.
    """
    pause = create(host)
    good = read_record(host)
    bad = bad_records({**good, "pause": [good["pause"][0], 4194303, 1]})
    fakes(host, {name: raw.replace(b'"name": "t"', b'"name": "%s"' % name.encode()) for name, raw in bad.items()})
    assert statuses(host) == {name: "dead" if name in STRANGE else "corrupt" for name in bad} | {"t": "running"}
    assert host.nsbox("ls").returncode == host.nsbox("inspect", *STRANGE).returncode == 0
    assert set(answer(host, "prune")) == STRANGE
    bad = {name: raw for name, raw in bad.items() if name not in STRANGE}
    host.nsbox("join", "t", "--", "true", check=True)
    for verb in (["inspect"], ["stop"], ["join"], ["rm"], ["logs"], ["wait"], ["kill"], ["ps"], ["create"]):
        done = host.nsbox(*verb, "deep", *(["--", "true"] if verb == ["join"] else []), timeout=10)
        assert done.returncode in (0, 125) and len(done.stderr.splitlines()) <= 2, (verb, done)
    assert len(answer(host, "inspect", *bad)) == len(bad)
    assert host.nsbox("rm", "-f", *bad).returncode == 0
    assert statuses(host) == {"t": "running"} and pause in host.processes()
    host.nsbox("rm", "t", check=True)


def test_I01_a_bad_record_of_a_member_is_passed_over(host: FakeHost) -> None:
    """The other members are listed and waited for. Red when: members() lets CorruptFile out."""
    create(host)
    member = detach(host, "echo up; exit 6")
    assert answer(host, "wait", "t")[0]["exit_status"] == 6
    top = host.state / "pods/t/members"
    [name] = inside(host, 'cd "$1"; ls *.json', top).split()
    good = json.loads(inside(host, 'cat "$1"', top / name))
    for number, change in enumerate(({"process": ["x", 1]}, {"exit_status": "0"}, {"exit_status": True},
                                     {"id": "../../x"}, {"started_s": None}, {"supervisor": None}, {"argv": 7})):
        (host.work / "content").write_text(json.dumps({**good, **change}))
        inside(host, 'umask 077; cat "$1" > "$2"', host.work / "content", top / f"{number:016x}.json")
    inside(host, 'cd "$1"; mkfifo 000000000000000a.json; ln -s /dev/zero 000000000000000b.json; '
                 'mkdir 000000000000000c.json; echo "{" > 000000000000000d.json', top)
    rows = answer(host, "wait", "t")
    assert [(row["pid"], row["exit_status"]) for row in rows] == [(member, 6)]
    assert len(answer(host, "inspect", "t")[0]["members"]) == 1
    assert host.nsbox("logs", "t").stdout == "up\n"
    assert host.nsbox("rm", "t").returncode == 0


# ---- I02, I03: full disks and what a crash leaves ----

@pytest.mark.parametrize("call", ["write", "fsync", "renameat", "openat"])
def test_I02_a_record_that_cannot_be_replaced_stays_as_it_was(host: FakeHost, call: str) -> None:
    """ENOSPC at a step of write_json(): the old content, and no temporary file.

    Red when: the record is written in place, or the temporary one is not removed.
    """
    code = (
        "import os, sys\n"
        "from nsbox.pod.files import write_json, read_json\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "write_json(fd, 'pod.json', {'content': 'old'})\n"
        "os.access('/fault', 0)\n"
        "try:\n"
        "    write_json(fd, 'pod.json', {'content': 'new' * 1000})\n"
        "    said = 'written'\n"
        "except OSError as err:\n"
        "    said = os.strerror(err.errno)\n"
        "print(said, read_json(fd, 'pod.json')['content'][:3], os.listdir(fd))\n"
    )
    inside(host, 'mkdir "$1/d"', host.state)
    argv = [sys.executable, "-c", code, str(host.state / "d")]
    log = strace(host, f"trace={call},access", argv)[3]
    when = len(re.findall(rf"\b{call}\(", log.partition("/fault")[0])) + 1
    status, out, err, _ = strace(host, f"inject={call}:error=ENOSPC:when={when}", argv)
    assert (status, out) == (0, "No space left on device old ['pod.json']\n"), err
    inside(host, 'rm -r "$1/d"', host.state)


@pytest.mark.parametrize("limit, fill", [
    ("size=48k", "yes > fill"), ("nr_inodes=12", "while touch f$((i=i+1)); do :; done"),
], ids=["bytes", "inodes"])  # fmt: skip
def test_I02_a_full_state_directory(host: FakeHost, limit: str, fill: str) -> None:
    """create says so and leaves nothing; what is there already can be listed, used and removed.

    Red when: create() does not remove what it has written when the disk is full.
    """
    top = host.work / "small"
    env = {"NSBOX_STATE": str(top)}
    inside(host, 'mkdir "$1" && mount -t tmpfs -o "mode=700,$2" small "$1"', top, limit)
    host.nsbox("create", "t", *BUSYBOX, env=env, check=True)
    inside(host, f'cd "$1"; {{ {fill}; }} 2>/dev/null; true', top)
    before = inside(host, 'find "$1" | sort', top)
    done = host.nsbox("create", "u", *BUSYBOX, env=env)
    assert done.returncode == 125 and "No space left on device" in done.stderr, done
    assert inside(host, 'find "$1" | sort', top) == before
    assert [pod["status"] for pod in json.loads(host.nsbox("ls", "--json", env=env).stdout)] == ["running"]
    host.nsbox("join", "t", "--", "true", env=env, check=True)
    assert host.nsbox("join", "t", "-d", "--", "true", env=env).returncode == 125
    assert host.nsbox("rm", "t", env=env).returncode == 0
    inside(host, 'umount "$1"; rmdir "$1"', top)


def test_I03_strays_are_passed_over_and_pruned(host: FakeHost) -> None:
    """Temporary files of killed writers, directories of killed creations and removals.

    Red when: sweep() is left out of prune.
    """
    create(host)
    inside(host, 'cd "$1"; umask 077; mkdir -p .new-0123456789abcdef/members .gone-0123456789abcdef/members; '
                 'echo "{" > .gone-0123456789abcdef/pod.json; echo "{" > t/.pod.json.7.tmp; '
                 'echo "{" > t/members/.0123456789abcdef.json.7.tmp', host.state / "pods")  # fmt: skip
    assert statuses(host) == {"t": "running"}
    assert answer(host, "prune") == []
    assert inside(host, 'ls -A "$1"', host.state / "pods").split() == ["t"]
    assert answer(host, "inspect", "t")[0]["members"] == []
    host.nsbox("rm", "t", check=True)


# ---- I04: what a record is ----

NOT_FILES = {
    "link": 'ln -s /canary/marker pod.json', "link-good": 'good /run/copy; ln -s /run/copy pod.json',
    "fifo": "mkfifo pod.json", "directory": "mkdir pod.json", "null": "mknod pod.json c 1 3",
    "zero": "mknod pod.json c 1 5", "hard-link": "good kept; ln kept pod.json",
    "owner": "good pod.json; chown 65534 pod.json", "loop": "ln -s pod.json pod.json",
    "socket": "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"pod.json\")'", "none": "true",
}  # fmt: skip


def test_I04_a_record_that_is_no_plain_file_of_ours(host: FakeHost, canary: Canary) -> None:
    """Marked corrupt, without hanging; removed with --force, without touching what it leads to.

    Red when: read_json() opens without O_NOFOLLOW or O_NONBLOCK, or does not look at owner and links.
    """
    create(host)
    for name, script in NOT_FILES.items():
        good = f"""good() {{ sed 's/"name": "t"/"name": "{name}"/' ../t/pod.json > "$1"; }}"""
        inside(host, f'{good}; mkdir -m 700 "$1/{name}" && cd "$1/{name}" && {script}', host.state / "pods")
    found = statuses(host)
    assert found.pop("t") == "running"
    assert found == dict.fromkeys(NOT_FILES, "corrupt")
    assert len(answer(host, "inspect", *NOT_FILES)) == len(NOT_FILES)
    assert host.nsbox("rm", *NOT_FILES, timeout=10).returncode == 125
    assert {**found, "t": "running"} == statuses(host)
    assert host.nsbox("rm", "-f", *NOT_FILES, timeout=10).returncode == 0
    assert statuses(host) == {"t": "running"}
    host.nsbox("rm", "t", check=True)
    inside(host, "rm /run/copy")


def test_I04_a_pod_that_is_no_directory(host: FakeHost, canary: Canary) -> None:
    """A link in place of the pod's directory is removed, not what it leads to.

    Red when: the directory is opened without O_NOFOLLOW.
    """
    inside(host, 'mkdir -p -m 700 "$1" && cd "$1" && ln -s /canary link && ln -s /canary/dir dir-link && mkfifo fifo && '
                 ": > file && mknod null c 1 3", host.state / "pods")  # fmt: skip
    names = ("link", "dir-link", "fifo", "file", "null")
    assert statuses(host) == dict.fromkeys(names, "corrupt")
    assert host.nsbox("create", "link").returncode == 125
    assert host.nsbox("rm", "-f", *names, timeout=10).returncode == 0
    assert statuses(host) == {}


# ---- I05, I06: which directory ----

def refuses(host: FakeHost, env: dict[str, str | None], word: str, user: int | None = None) -> None:
    """`ls` and `create` say in one line that this state directory cannot be used."""
    for words in (("ls", "--json"), ("create", "t")):
        done = host.nsbox(*words, env=env, user=user, timeout=10)
        lines = done.stderr.splitlines()
        assert done.returncode == 125 and 1 <= len(lines) <= 2 and word in lines[0], (env, done)


@pytest.mark.parametrize("script, word", [
    ("chmod 777", "0700"), ("chmod 750", "0700"), ("chmod 1777", "0700"), ("chown 65534", "belong to you"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("which", ["state", "pods"])
def test_I05_a_directory_of_others_is_refused(host: FakeHost, which: str, script: str, word: str) -> None:
    """Wrong owner or mode, of it or of the directory in it. Red when: _open_checked_dir() does not look."""
    top = host.work / "other"
    inside(host, 'mkdir -m 700 "$1" "$1/pods"', top)
    inside(host, f'{script} "$1"', top if which == "state" else top / "pods")
    refuses(host, {"NSBOX_STATE": str(top)}, word)
    inside(host, 'rm -r "$1"', top)


def test_I05_links_files_and_words_that_are_no_path(host: FakeHost, canary: Canary) -> None:
    """A link, even to a good directory, a file, a relative path, one whose parent is missing.

    Red when: it is opened without O_NOFOLLOW, or "" and relative ones are taken.
    """
    top = host.work
    inside(host, 'cd "$1"; mkdir -m 700 good; ln -s good link; : > file; ln -s /canary canary; mkfifo fifo', top)
    for name, word in (("link", "link"), ("file", "file"), ("canary", "canary"), ("fifo", "fifo"), ("a/b", "a/b")):
        refuses(host, {"NSBOX_STATE": f"{top}/{name}"}, word)
    refuses(host, {"NSBOX_STATE": "good"}, "absolute")
    refuses(host, {"NSBOX_STATE": "/proc/self/state"}, "/proc/self/state")
    refuses(host, {"NSBOX_STATE": "/" + "x" * 300}, "name too long")
    inside(host, 'cd "$1"; rmdir good; rm link file canary fifo', top)


def test_I05_an_ordinary_users_runtime_directory(user_host: FakeHost) -> None:
    """XDG_RUNTIME_DIR unset, empty, relative, a link, of somebody else, open to all.

    Red when: there is a fallback to /tmp, or to /run/user/UID.
    """
    host = user_host
    run = host.state.parent
    refuses(host, {"XDG_RUNTIME_DIR": None}, "XDG_RUNTIME_DIR")
    refuses(host, {"XDG_RUNTIME_DIR": ""}, "XDG_RUNTIME_DIR")
    refuses(host, {"XDG_RUNTIME_DIR": "run"}, "absolute")
    refuses(host, {"XDG_RUNTIME_DIR": "/root"}, "denied")
    inside(host, 'mkdir -m 755 /run/roots /run/roots/nsbox; mkdir -m 777 /run/open')
    refuses(host, {"XDG_RUNTIME_DIR": "/run/roots"}, "belong to you")
    inside(host, 'mkdir -m 777 /run/open/nsbox; chown "$1" /run/open/nsbox', UID)
    refuses(host, {"XDG_RUNTIME_DIR": "/run/open"}, "0700")
    inside(host, 'ln -s "$1" /run/open/nsbox2; rm -r /run/open /run/roots', run)
    assert answer(host, "ls") == []


def test_I06_root_does_not_look_at_a_users_directory(host: FakeHost) -> None:
    """With XDG_RUNTIME_DIR kept by sudo, root still uses /run/nsbox. Red when: the order is changed."""
    inside(host, 'mkdir -p /run/user/1000/nsbox/pods/evil; chown -R 1000 /run/user/1000; chmod -R 700 /run/user/1000')
    env = {"XDG_RUNTIME_DIR": "/run/user/1000", "NSBOX_STATE": None}
    assert host.nsbox("ls", "--json", env=env).stdout.strip() == "[]"
    assert host.nsbox("create", "t", env=env).returncode == 0
    assert inside(host, "ls /run/nsbox/pods").split() == ["t"]
    assert host.nsbox("rm", "-f", "t", env=env).returncode == 0
    inside(host, "rm -r /run/user /run/nsbox")
