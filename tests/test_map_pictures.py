"""`nsbox map` as SVG and DOT, and into a file."""

import os
import re
import stat
import subprocess
from xml.etree import ElementTree

import pytest
from conftest import needs_program
from inpod import detached, pod
from procfs import TOP
from test_map import COLUMNS, picture

pytestmark = pytest.mark.needs_root

SVG = "{http://www.w3.org/2000/svg}"
EVIL = ("<img src=x onerror=alert(1)>", "]]></style><a>", "\"]; x [label=\"\\N", "\x1b[2J\x07\x01\u202e", "a\\")


def texts(root):
    return ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]


def test_the_svg_shows_the_rows_and_the_plan(host):
    """Red when: a part is not drawn; or the marks stand for other namespaces than the rows."""
    with pod(host, "web", "-p", "8080:80") as pause, detached(host, "web", argv=("sleep", "1000")):
        root = ElementTree.fromstring(host.nsbox("map", "--svg", check=True).stdout)
        said = texts(root)
        assert root.tag == f"{SVG}svg" and {"pod web", "nsbox:pause", str(pause)} <= set(said)
        assert {kind.replace("cgroup", "cgrp") for kind in COLUMNS} <= set(said)
        assert any(text.startswith("◂ 127.0.0.1:8080/tcp") for text in said)
        for heading in ("Networks", "PIDs", "Owners"):
            assert any(text.startswith(heading) for text in said)
        taken = picture(host)
        [one] = [one for one in taken["processes"] if one["pid"] == pause]
        labels = {(mark.get("data-ns"), mark.find(f"{SVG}title").text) for mark in root.iter(f"{SVG}g")
                  if "mark" in (mark.get("class") or "")}
        letters = {row["id"]: row["letter"] for row in taken["namespaces"]}
        for kind, number in one["namespaces"].items():
            assert (str(number), f"nsbox:pause: {kind} {letters[number]}") in labels
        assert len(root.findall(f".//{SVG}path[@class='publish']")) == 1


def test_nothing_in_the_svg_lies_outside_of_it(host):
    """Red when: a row is drawn below its panel, or the picture is cut at the bottom."""
    with pod(host, "web"), pod(host, "with-a-name-that-is-as-long-as-names-may-be-in-a-picture-of-po"), \
         detached(host, "web", argv=("sh", "-c", "sleep 1000; :")):
        for parts in (["--only", "matrix"], ["--only", "networks"], []):
            assert_inside(ElementTree.fromstring(host.nsbox("map", "--svg", "--all", *parts, check=True).stdout))


def assert_inside(root):
    """Each text and each box of an SVG is within its view box."""
    left, top, width, height = map(float, root.get("viewBox").split())
    for one in [*root.iter(f"{SVG}text"), *root.iter(f"{SVG}rect")]:
        if one.get("x") is None:  # in a mark, which is moved as a whole
            continue
        x, y = float(one.get("x")), float(one.get("y"))
        wide = float(one.get("width") or 7.8 * len("".join(one.itertext())) * (one.get("text-anchor") is None))
        assert left <= x and x + wide <= left + width + 1 and top <= y <= top + height, ElementTree.tostring(one)


def test_a_picture_needs_nothing_from_elsewhere(host):
    """Red when: a font or a style is loaded; or there is a script in it."""
    for form in ("--svg", "--html"):
        said = host.nsbox("map", form, check=True).stdout.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|@import|url\((?!#)|<link[^>]*stylesheet", said)
    assert "<script" not in host.nsbox("map", "--svg", check=True).stdout


@pytest.mark.parametrize("only", ["matrix", "networks", "pids", "owners"])
def test_a_picture_of_one_part_is_sound(host, only):
    """Red when: a drawing without a part divides by its height, or has no size."""
    with pod(host, "web"):
        root = ElementTree.fromstring(host.nsbox("map", "--svg", "--only", only, check=True).stdout)
        assert float(root.get("width")) > 100 and float(root.get("height")) > 60
        page = host.nsbox("map", "--html", "--only", only, check=True).stdout
        assert re.findall(r'<section id="(\w+)"', page) == [only]


def test_G14_hostile_names_stay_words(host):
    """Red when: autoescape is off; or _dot leaves quotes or backslashes as they are."""
    code = "import sys, time\nopen('/proc/self/comm', 'wb').write(sys.argv[1].encode()[:15])\nprint(flush=True)\ntime.sleep(1000)"
    keepers = [host.popen(["unshare", "--uts", "python3", "-c", code, name], user=0) for name in EVIL]
    try:
        for keeper in keepers:
            assert keeper.stdout.readline(), keeper.communicate()
        svg = host.nsbox("map", "--svg", check=True).stdout
        root = ElementTree.fromstring(svg)  # a control character would be an error
        assert not list(root.iter(f"{SVG}a")) and not list(root.iter(f"{SVG}img")) and "\u202e" not in svg
        assert any(text == "<img src=x oner" for text in texts(root))
        dot = host.nsbox("map", "--dot", check=True).stdout
        quoted = re.sub(r'"(?:[^"\\]|\\.)*"', "Q", dot)
        assert '"' not in quoted and "\\" not in quoted and "\x1b" not in dot, quoted
        assert set(re.findall(r"\[\w+=?", quoted)) <= {"[shape=", "[style=", "[dir=", "[fontname="}
    finally:
        for keeper in keepers:
            keeper.end()


def test_graphviz_draws_the_graph(host):
    """Red when: a line of the template is no DOT."""
    needs_program("dot")
    with pod(host, "web", "-p", "8080:80") as pause, detached(host, "web"), pod(host, "odd", "--with", "user"):
        host.run(["ip", "link", "add", "name", "near", "type", "veth", "peer", "name", "far", "netns", str(pause)],
                 user=0, check=True)
        dot = host.nsbox("map", "--dot", check=True).stdout
        drawn = host.run(["dot", "-Tsvg"], input=dot, check=True)
        assert drawn.stderr == ""
        root = ElementTree.fromstring(drawn.stdout)
        titles = {one.text for one in root.iter(f"{SVG}title")}
        taken = picture(host)
        [one] = [one for one in taken["processes"] if one["pid"] == pause]
        for kind in ("pid", "net"):
            assert f"p{pause}->n{one['namespaces'][kind]}" in titles
        assert f"n{taken['own']['net']}->n{one['namespaces']['net']}" in titles
        assert f"n{taken['own']['pid']}->n{one['namespaces']['pid']}" in titles
        assert {"pod web", "pod odd"} <= set(texts(root))
        [cable] = [one for one in root.iter(f"{SVG}g") if {"near = far", "far = near"} & set(texts(one))
                   and one.get("class") == "edge"]
        assert not list(cable.iter(f"{SVG}polygon")), "a cable is no arrow"


def test_a_file_is_written_as_the_shell_would_have(host):
    """Red when: the file gets the mode of nsbox's own files, and its user cannot read what root drew for him."""
    path = host.work / "map.svg"
    said = host.run(["sh", "-c", f"umask 022; {' '.join(nsbox_words())} map --svg -o {path}"], check=True)
    assert said.stdout == "" and stat.S_IMODE(path.stat().st_mode) == 0o644
    host.run(["sh", "-c", f"umask 077; {' '.join(nsbox_words())} map --svg -o {path}.2"], check=True)
    assert stat.S_IMODE(os.stat(f"{path}.2").st_mode) == 0o600
    assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"
    done = host.nsbox("map", "-o", "/no/such/place")
    assert done.returncode == 125 and "cannot write the picture: /no/such/place" in done.stderr


def nsbox_words():
    from fakehost import NSBOX

    return NSBOX


@pytest.mark.parametrize("words", [["--svg", "--html"], ["--json", "--watch"], ["--watch", "-o", "x"], ["--serve", "-o", "x"],
                                   ["--serve", "70000"], ["--interval", "0"], ["--interval", "x"], ["--serve", "--diff", "x"]])
def test_what_does_not_go_together_is_refused(host, words):
    done = host.nsbox("map", *words)
    assert done.returncode == 2 and done.stderr.startswith("nsbox: cannot ") and not (host.work / "x").exists()


def test_the_script_of_the_pictures_tells_its_use():
    asked = subprocess.run([TOP / "scripts/pictures", "--help"], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("usage: scripts/pictures ")
    wrong = subprocess.run([TOP / "scripts/pictures", "--no-such"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "") and wrong.stderr.startswith("usage: scripts/pictures ")


def test_the_pictures_of_the_readme_are_there():
    """Red when: the README shows a picture that is not in the checkout."""
    for name in re.findall(r'(?:\]\(|src(?:set)?=")(docs/[^)"]+)', (TOP / "README.md").read_text()):
        assert (TOP / name).stat().st_size > 10_000, name
