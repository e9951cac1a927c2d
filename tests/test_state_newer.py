"""Records of another nsbox: an older one's are read, a newer one's are refused and left as they are."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fakehost import UID, FakeHost
from test_lifecycle import answer, create, statuses
from test_state import inside, put_record, read_record

from nsbox.pod import netrecord, portfile, record
from nsbox.pod.files import CorruptFile, NewerFile
from nsbox.pod.netrecord import PodNet, Tie

NEWER = "written by a newer nsbox"
VERBS: tuple[tuple[str, ...], ...] = (
    ("stop", "t"), ("rm", "t"), ("kill", "t"), ("ps", "t"), ("join", "t", "--", "true"), ("join", "t", "-d", "--", "true"),
    ("publish", "t", "8080:80"), ("unpublish", "t", "8080:80"), ("net", "connect", "t", "bridge"),
    ("net", "disconnect", "t", "bridge"), ("create", "t"),
)  # fmt: skip


@pytest.mark.needs_root
@pytest.mark.slow
def test_I09_a_pod_of_a_newer_nsbox_is_shown_and_left_alone(host: FakeHost) -> None:
    """No verb but rm --force does anything to it, to its record or to its process.

    Red when: check_version() does not look, or stop() passes over what it cannot read.
    """
    pause = create(host)
    good = read_record(host)
    raw = json.dumps({**good, "version": 2, "color": "red"}).encode()
    put_record(host, raw)
    [row] = answer(host, "ls")
    assert row["status"] == "corrupt" and row["problem"] == f"version 2: {NEWER}"
    for words in VERBS:
        done = host.nsbox(*words)
        assert done.returncode == 125 and len(done.stderr.splitlines()) <= 2, (words, done)
        assert words[0] in ("create", "net") or NEWER in done.stderr, (words, done)
    assert answer(host, "prune") == []
    assert inside(host, 'cat "$1"', host.state / "pods/t/pod.json").encode() == raw
    assert pause in host.processes()
    put_record(host, json.dumps({**good, "color": "red"}).encode())  # a key more, of the same form
    assert statuses(host) == {"t": "running"}
    host.nsbox("rm", "t", check=True)


@pytest.mark.needs_root
@pytest.mark.slow
@pytest.mark.parametrize("file", ["net.json", "ports.json"])
def test_I09_a_dead_pod_with_a_file_of_a_newer_nsbox_waits_for_that_one(host: FakeHost, file: str) -> None:
    """It may have made what we do not know of. Red when: _prune_dead() or remove() does not look with newer()."""
    pause = create(host)
    inside(host, 'kill -9 "$1"; umask 077; echo "{\\"version\\": 2}" > "$2"', pause, host.state / "pods/t" / file)
    while statuses(host) != {"t": "dead"}:
        pass
    assert answer(host, "prune") == []
    for verb in ("stop", "rm"):
        done = host.nsbox(verb, "t")
        assert done.returncode == 125 and f"{file} is of version 2: {NEWER}" in done.stderr, done
    assert inside(host, 'cat "$1"', host.state / "pods/t" / file) == '{"version": 2}\n'
    assert host.nsbox("rm", "-f", "t").returncode == 0
    assert statuses(host) == {}
    inside(host, 'rm -rf "$1"', host.state / "nets")


@pytest.mark.needs_root
@pytest.mark.slow
def test_I09_what_a_newer_nsbox_told_the_owner_of_a_pod_is_not_pruned(host: FakeHost) -> None:
    """Red when: _is_needed() takes it for a file that is of no use to anybody."""
    top = "/run/nsbox-owners"
    inside(host, f'umask 022; mkdir -m 711 {top}; mkdir -m 700 {top}/{UID}; cd {top}/{UID}; echo "{{}}" > old.json; '
                 'echo "{\\"version\\": 2}" > new.json')  # fmt: skip
    host.nsbox("create", "t", check=True)
    host.nsbox("prune", check=True)
    assert inside(host, f"ls {top}/{UID}").split() == ["new.json"]
    inside(host, f"rm -r {top}")
    host.nsbox("rm", "-f", "t", check=True)


def test_I09_keys_that_are_not_known_stay_when_a_file_is_written_anew(tmp_path: Path) -> None:
    """Of links and of ports, the last of which has gone, too. Red when: unknown_keys() finds none."""
    dir_fd = os.open(tmp_path, os.O_RDONLY)
    tie = Tie("0" * 16, "other", "1" * 16, "eth0", "10.76.0.1", "10.76.0.2")

    def has(file: str, **values: Any) -> bool:
        return {**values, "color": "red"} == {key: value for key, value in json.loads((tmp_path / file).read_text()).items()
                                              if key in values or key == "color"}

    netrecord.write_pod(dir_fd, PodNet(ties=(tie,)))
    data = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps({**data, "color": "red"}))
    assert netrecord.read_pod(dir_fd) == PodNet(ties=(tie,))
    netrecord.write_pod(dir_fd, PodNet(ties=(tie._replace(ifname="eth1"),)))
    assert has("net.json") and netrecord.read_pod(dir_fd).ties[0].ifname == "eth1"
    netrecord.write_pod(dir_fd, PodNet())
    assert has("net.json", ties=[])
    row = ("tcp", "127.0.0.1", 8080, 80)
    portfile.write(dir_fd, portfile.Ports((row,)))
    (tmp_path / "ports.json").write_text(json.dumps({"ports": [row], "proxy": None, "color": "red"}))
    assert portfile.read(dir_fd) == portfile.Ports((row,))
    portfile.write(dir_fd, portfile.Ports())
    assert has("ports.json", ports=[])
    os.close(dir_fd)


# ---- E27: each form that a record had ----

BOOT = "5f3c9a52-0d6e-4b0a-8f7e-3c6f7d1a9b10"
FIRST: dict[str, Any] = {  # before there were networks, settings, ids, owners, capabilities and filters
    "version": 1, "id": "0123456789abcdef", "name": "web", "phase": "ready", "maker": [BOOT, 4700, 1000],
    "pause": [BOOT, 4711, 1001], "created_s": 1763800000.5, "hostname": "web", "kinds": {"mnt": 4026532200, "net": 4026532204},
    "share": ["net", "uts"], "rootfs": "/srv/web", "chroot": False, "init": [], "labels": {"tier": "front"},
    "stop_timeout_s": 10.0, "vantage": [4026531836, 4026531834],
}  # fmt: skip
NETWORKS = {**FIRST, "net": "bridge"}
OWNERS = {**NETWORKS, "sysctls": {"net.ipv4.ip_forward": "1"}, "userns": "auto", "uid_map": [[0, 1879048192, 65536]],
          "gid_map": [[0, 1879048192, 65536]], "owner": [1000, 1000]}  # fmt: skip
RIGHTS = {**OWNERS, "rights": {"added": ["NET_RAW"], "dropped": [], "privileged": False}}
FORMS = {"first": FIRST, "networks": NETWORKS, "owners": OWNERS, "rights": RIGHTS}


@pytest.mark.parametrize("form", FORMS)
def test_E27_a_record_of_each_form_there_was_is_read_and_keeps_what_it_said(form: str) -> None:
    """Red when: pod_from_dict() wants a key that an older nsbox did not write, or reads one in another way."""
    read = record.pod_from_dict(json.loads(json.dumps(FORMS[form])))
    assert (read.name, read.pause, read.net) == ("web", (BOOT, 4711, 1001), FORMS[form].get("net", "none"))
    written = json.loads(json.dumps(record.pod_to_dict(read)))
    assert {key: written[key] for key in FORMS[form] if key != "rights"} == {
        key: value for key, value in FORMS[form].items() if key != "rights"}
    assert record.pod_from_dict(written) == read


def test_E27_a_key_that_is_new_has_its_form_here() -> None:
    """Who adds one gives the form before it a name above. Red when: PodRecord has a field more."""
    assert {"version", *record.PodRecord._fields} - set(RIGHTS) == {"seccomp", "ulimits"}


@pytest.mark.parametrize("version, what", [(2, NewerFile), (99, NewerFile), (0, CorruptFile), ("1", CorruptFile),
                                           (True, CorruptFile), (None, CorruptFile)])  # fmt: skip
def test_E27_a_record_of_a_form_that_is_not_known_is_refused(version: object, what: type[Exception]) -> None:
    """Red when: check_version() takes it."""
    with pytest.raises(what):
        record.pod_from_dict({**FIRST, "version": version})
