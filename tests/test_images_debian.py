"""Debian trees: what of the machine's apt is lent and taken back, failures, a real build."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from nsbox.errors import NsboxError
from nsbox.images import apt, entries
from nsbox.images.build import build

pytestmark = pytest.mark.usefixtures("own_store")

needs_root = pytest.mark.needs_root


def names_in(where):
    return sorted(name for name in os.listdir(where) if name != ".lock")


# The machine's apt settings.

DEB822 = """\
# a comment
Types: deb
URIs: http://user:secret@mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
  contrib

Types: deb
URIs: https://vendor.example
Suites: bookworm
Components: stable

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


def test_only_the_machines_debian_mirrors_are_lent():
    (part,) = apt.debian_stanzas(DEB822, "bookworm")
    assert "mirror.example" in part and "contrib" in part and "#" not in part
    lines = apt.debian_lines(
        "deb http://a/debian bookworm main # why\n#deb http://b/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://c/debian bookworm-security main non-free\n"
        "deb cdrom:[x]/ bookworm main\ndeb http://d/ ./\n"
        "deb-src http://e/debian bookworm main\ndeb http://f/ bookworm stable\n",
        "bookworm")
    assert [line.split("http://")[1][0] for line in lines] == ["a", "c"]


@needs_root
def test_a_failed_mmdebstrap_is_told_in_one_line(monkeypatch, own_store, tmp_path):
    fake_mmdebstrap(monkeypatch, tmp_path, 'echo "E: Unable to locate package x"; exit 1')
    with pytest.raises(NsboxError, match="^cannot build rootfs 'debian': .*locate package x$"):
        build("debian")
    words = "Err:1\\n  Could not connect to \\033]0;m:80\\n"
    fake_mmdebstrap(monkeypatch, tmp_path, f"printf '{words}'; exit 1")
    with pytest.raises(NsboxError, match="cannot reach the package mirror") as caught:
        build("debian")
    assert str(caught.value).isprintable() and names_in(own_store) == []


def test_a_missing_mmdebstrap_is_named(monkeypatch, own_store):
    monkeypatch.setattr("nsbox.images.debian.shutil.which", lambda *_a, **_k: None)
    with pytest.raises(NsboxError, match="mmdebstrap is not installed") as caught:
        build("debian")
    assert caught.value.hint == "apt-get install mmdebstrap" and names_in(own_store) == []


@needs_root
def test_lent_settings_do_not_stay_in_the_tree(monkeypatch, tmp_path):
    fake_mmdebstrap(monkeypatch, tmp_path, """
        # by default http://mirror.example/debian and http://safe.example/debian-security
        root=$(echo "$@" | tr ' ' '\\n' | grep '/entry/rootfs$')
        mkdir -p "$root/etc/apt/apt.conf.d" "$root/etc/apt/sources.list.d"
        echo secret > "$root/etc/apt/sources.list.d/0000debian.sources"
        for arg in "$@"; do case $arg in --setup-hook=*) sh -c "${arg#*=}" x "$root";; esac; done
        test -s "$root/etc/apt/apt.conf.d/zz-nsbox-lent"
    """)
    root = Path(build("debian").path)
    left = [path.name for path in (root / "etc/apt").rglob("*") if path.is_file()]
    assert left == ["sources.list"]
    said = (root / "etc/apt/sources.list").read_text().splitlines()
    assert [line.split()[1] for line in said] == [
        "http://mirror.example/debian", "http://mirror.example/debian", "http://safe.example/debian-security"]


@needs_root
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_debian_has_the_packages_asked_for_and_no_trace_of_this_machine(own_store):
    steps = []
    entry = build("debian", include=["netcat-openbsd"], step=steps.append)
    root = Path(entry.path)
    assert any("extracting" in step for step in steps)
    assert os.path.exists(root / "usr/bin/nc.openbsd")
    ask = ["chroot", root, "dpkg", "-s", "netcat-openbsd"]
    done = subprocess.run(ask, capture_output=True, text=True)
    assert "install ok installed" in done.stdout
    assert entry.meta["packages"] == ["netcat-openbsd"] and entry.meta["size_bytes"] > 50e6
    assert not (root / "etc/apt/apt.conf.d" / apt.LENT_CONF).exists()
    assert (root / "etc/resolv.conf").read_bytes() == b""
    assert "localhost" in (root / "etc/hosts").read_text()
    assert json.loads((root.parent / "meta.json").read_text()) == entry.meta
    entries.remove(["debian"])
    assert names_in(own_store) == []


def fake_mmdebstrap(monkeypatch, tmp_path, script):
    """Put a program of that name first on the PATH: what a real one rarely does on request."""
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir(exist_ok=True)
    program.write_text("#!/bin/sh -e\n" + script)
    program.chmod(0o755)
    if str(program.parent) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
