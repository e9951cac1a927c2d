"""The HTML page of `nsbox map`, as a browser shows it: seen, pointed at, typed at, and read aloud."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser
from conftest import skip_or_fail
from fakehost import FakeHost
from inpod import detached, pod
from test_map import COLUMNS
from test_map_changes import changed

pytestmark = [pytest.mark.needs_root, pytest.mark.slow]

LETTERS = """
[...document.querySelectorAll('#matrix tr.proc')].map((row) => [
  row.querySelector('td.pid')?.textContent ?? '', row.querySelector('th').textContent,
  [...row.querySelectorAll('td.c .ns')].map((mark) => [mark.dataset.ns, mark.textContent, mark.className])])
"""
LIGHT, DARK = (255, 255, 255), (13, 17, 23)


def page(host: FakeHost, *words: str) -> str:
    """The page in a file of the fake host; its address."""
    path = host.work / "map.html"
    host.nsbox("map", "--html", "-o", path, *words, check=True)
    return f"file://{path}"


@contextmanager
def opened(host: FakeHost, *words: str, **kw: Any) -> Iterator[Browser]:
    with browser(host) as found:
        found.open(page(host, *words), **kw)
        yield found
        assert found.wrong == []
        assert len(set(found.loaded)) == 1, "the page asks for something: " + str(found.loaded)


def test_the_page_shows_each_process_with_its_letters(host):
    """Red when: a column is left out; the template takes another cell; or a mark has the id of another namespace."""
    with pod(host, "web", "--rootfs", "busybox") as pause, detached(host, "web", "--rootfs", "busybox") as own:
        with opened(host) as seen:
            shown = {int(pid): cells for pid, _, cells in seen.js(LETTERS) if pid}
        taken = json.loads(host.nsbox("map", "--json", check=True).stdout)
        named = {row["id"]: row["letter"] for row in taken["namespaces"]}
        for pid in (pause, own):
            [one] = [one for one in taken["processes"] if one["pid"] == pid]
            ids = [one["namespaces"][kind] for kind in COLUMNS]
            assert [int(number) for number, _, _ in shown[pid]] == ids
            for kind, number, (_, text, style) in zip(COLUMNS, ids, shown[pid], strict=True):
                assert text.startswith(f"{kind} {named[number]}, "), text
                own_too = number == taken["own"][kind]
                assert ("own" in style.split()) == own_too and ("yours too" in text) == own_too


@pytest.mark.parametrize("scheme, ground", [("light", LIGHT), ("dark", DARK)])
def test_the_page_is_light_or_dark_as_its_reader_likes(host, scheme, ground):
    """Red when: the colours of one of the two are left out; or the marks have no colour of their own."""
    with pod(host, "web"), detached(host, "web"), opened(host, width=1120, height=420, scheme=scheme) as seen:
        picture = seen.screenshot()
        assert (picture.width, picture.height) == (1120, 420)
        assert picture.at(1117, 3) == ground and len(picture.colours()) > 40
        mark = seen.js("(() => { const box = document.querySelector('.ns.shared:not(.kept)').getBoundingClientRect();"
                       "return [Math.round(box.x + 3), Math.round(box.y + 3)]; })()")
        filled = picture.at(*mark)
        assert max(abs(one - other) for one, other in zip(filled, ground, strict=True)) > 80
        seen.js("document.getElementById('theme').click()")
        assert seen.screenshot().at(1117, 3) == (DARK if ground == LIGHT else LIGHT)


def test_nothing_sticks_out_of_the_page(host):
    """Red when: a long name widens its column without end; or a box of the plan is wider than the picture."""
    with pod(host, "web", "-p", "8080:80"), detached(host, "web", argv=("sh", "-c", "exec -a " + "x" * 200 + " sleep 1000")):
        for width in (400, 1300):
            with opened(host, width=width) as seen:
                assert seen.js("document.documentElement.scrollWidth") <= width
                cut = seen.js("""[...document.querySelectorAll('svg.picture')].flatMap((svg) => {
                    const all = svg.getBoundingClientRect();
                    return [...svg.querySelectorAll('text, rect')].map((one) => one.getBoundingClientRect())
                        .filter((box) => box.right > all.right + 1 || box.bottom > all.bottom + 1 || box.left < all.left - 1).length; })""")
                assert sum(cut) == 0


def test_pointing_at_a_letter_tells_of_the_namespace_and_lights_the_same(host):
    """Red when: choose() takes the letter for the namespace, though each kind has a B."""
    with pod(host, "web", "--rootfs", "busybox") as pause, detached(host, "web", "--rootfs", "busybox") as own, \
         opened(host) as seen:
        seen.point(f"tr[data-key^='{pause}.'] td.c:nth-of-type(5) .ns")  # pid, user, pid, mnt, net
        assert "net:[" in seen.js("document.getElementById('detail').textContent")
        told = seen.js("document.getElementById('detail').innerText")
        assert "pod web" in told and f"{pause} nsbox:pause" in told and f"{own} sleep" in told and "user A" in told
        chosen = seen.js("[...document.querySelectorAll('.matrix .chosen')].map((one) => one.closest('tr').dataset.key)")
        assert [int(key.split(".")[0]) for key in chosen] == [pause, own]
        assert seen.js("document.querySelectorAll('#networks svg .chosen, #owners .chosen').length") >= 2


def test_the_page_is_used_by_keyboard(host):
    """Red when: the arrows go nowhere; Escape does not let go; or all letters are stops of the tabulator."""
    with pod(host, "web") as pause, opened(host) as seen:
        assert seen.js("document.querySelectorAll('td.c[tabindex=\"0\"]').length") == 1
        seen.js("document.querySelector('td.c[tabindex=\"0\"]').focus()")
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
            seen.key(key)
        at = "document.activeElement.closest('tr').dataset.key + ' ' + document.activeElement.textContent"
        assert seen.js(at).startswith(f"{pause}.") and " pid B" in seen.js(at)
        assert "pid:[" in seen.js("document.getElementById('detail').textContent")
        seen.key("Enter")
        seen.key("ArrowRight")
        assert "pid:[" in seen.js("document.getElementById('detail').textContent"), "it was to be held"
        seen.key("Escape")
        assert seen.js("document.querySelectorAll('.chosen').length") == 0
        seen.key("/")
        assert seen.js("document.activeElement.id") == "find"
        for key in "web":
            seen.key(key)
        rows = "[...document.querySelectorAll('tr.proc')].filter((row) => row.offsetParent).map((row) => row.dataset.key)"
        assert [int(key.split(".")[0]) for key in seen.js(rows)] == [pause]
        seen.key("Escape")
        assert len(seen.js(rows)) > 1


def test_a_screen_reader_is_told_everything(host):
    """Red when: a letter is read without its kind; the plan has no name and no text; or a part no heading."""
    with pod(host, "web", "-p", "8080:80"), opened(host) as seen:
        spoken = seen.spoken()
        names = [name for _, name in spoken]
        for role, name in (("main", ""), ("heading", "Who is where"), ("heading", "Networks"), ("heading", "PIDs"),
                           ("heading", "Owners"), ("region", "Who is where"), ("searchbox", "Find")):
            assert (role, name) in spoken, (role, name)
        seen.js("document.querySelector('details').open = true")
        text = seen.js("document.body.innerText")
        assert "127.0.0.1:8080/tcp nsbox:proxy" in " ".join(text.split()) and names
        cells = seen.js("[...document.querySelectorAll('td.c')].map((one) => one.textContent)")
        assert all(any(text.startswith(f"{kind} ") for kind in COLUMNS) for text in cells)
        assert seen.js("document.querySelectorAll('table.matrix th[scope=row]').length") == \
            seen.js("document.querySelectorAll('tr.proc').length")


def axe() -> str:
    """The rules of axe-core, as script."""
    try:
        import axe_core_python
    except ImportError:
        skip_or_fail("needs the Python package axe-core-python")
    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_rules_of_accessibility_are_kept(host, scheme):
    """Red when: a colour of text is changed to one of too little contrast; or the language of the page is left out."""
    with pod(host, "web", "-p", "8080:80"), detached(host, "web"), opened(host, scheme=scheme) as seen:
        seen.js("document.querySelector('details').open = true")
        seen.js(axe() + ";0")
        found = seen.js("axe.run().then((said) => said.violations.map((one) => [one.id, one.nodes.map((node) => node.html)]))")
        assert found == []


def test_without_scripts_the_picture_is_there(host):
    """Red when: the rows are made by the script."""
    with pod(host, "web"), browser(host) as seen:
        url = page(host)
        seen.open(url, scripts=False)
        seen.until(lambda: ("rowheader", "nsbox:pause") in seen.spoken())
        assert ("heading", "Networks") in seen.spoken()


EVIL = ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "\"'><b>&amp;{{ 7*7 }}", "\x1b[2J\x07\u202e`\\")


def test_G14_hostile_names_are_words_and_nothing_else(host):
    """Red when: autoescape is off; the data for the script is written without tojson; or finalize is left out."""
    code = "import sys, time\nopen('/proc/self/comm', 'wb').write(sys.argv[1].encode()[:15])\nprint(flush=True)\ntime.sleep(1000)"
    keepers = [host.popen(["unshare", "--uts", "python3", "-c", code, name], user=0) for name in EVIL]
    try:
        for keeper in keepers:
            assert keeper.stdout.readline(), keeper.communicate()
        with opened(host) as seen:
            assert seen.js("document.querySelectorAll('img, b, #picture script:not(#about)').length") == 0
            assert seen.js("document.scripts.length") == 2
            titles = seen.js("[...document.querySelectorAll('th.name')].map((one) => one.title)")
            for name in EVIL[:3]:
                assert any(name in title for title in titles), (name, titles)
            said = seen.js("document.documentElement.outerHTML")
            assert "49" not in "".join(title for title in titles if "7*7" in title)
            assert "\x1b" not in said and "\u202e" not in said and "\x07" not in said
            shown = seen.js("[...document.querySelectorAll('th.name')].map((one) => one.textContent)")
            assert any(name.startswith("<img src=x") for name in shown) and any(name.startswith("\\x1b[2J") for name in shown)
    finally:
        for keeper in keepers:
            keeper.end()


def test_the_policy_of_the_page_lets_nothing_else_run(host):
    """Red when: the Content-Security-Policy allows inline scripts of anybody; or hashes are of other texts."""
    with pod(host, "web"), browser(host) as seen:
        seen.open(page(host))
        assert seen.wrong == []
        seen.js("(() => { const bad = document.createElement('script'); bad.textContent = 'window.bad = 1';"
                "document.body.append(bad); document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.bad = 1\">x</p>');"
                "document.body.lastChild.click(); })()")
        assert seen.js("window.bad === undefined")
        assert seen.js("fetch('file:///etc/hostname').then(() => 'read', () => 'refused')") == "refused"


def test_a_hundred_processes_in_many_groups_are_found_quickly(host):
    """Red when: the filter looks at the text of whole groups only."""
    argv = ("sh", "-c", "for i in $(seq 30); do sleep 1000 & done; wait")
    with pod(host, "web"), pod(host, "zoo"), detached(host, "web", argv=argv), detached(host, "zoo", argv=argv), \
         opened(host, "--all") as seen:
        seen.until(lambda: len(seen.js(LETTERS)) > 60)
        seen.js("(() => { const find = document.getElementById('find'); find.value = 'zoo SLEEP';"
                "find.dispatchEvent(new Event('input')); })()")
        groups = seen.js("[...document.querySelectorAll('tbody')].filter((one) => !one.hidden).map((one) => one.innerText)")
        pods = [group.partition("\n")[0].split("\t")[0] for group in groups if group.startswith("pod ")]
        shown = seen.js("[...document.querySelectorAll('tr.proc')].filter((one) => one.offsetParent)"
                        ".map((one) => one.querySelector('th').textContent)")
        assert shown.count("sleep") == 30 and "nsbox:pause" not in shown
        assert pods == ["pod zoo"]  # beside it the host's process that looks after its member


# ---- compared with an earlier picture ----

LIT = """
[...document.querySelectorAll('#%s .tree li.change')].map((line) => {
  const words = line.querySelector(':scope > .words');
  return [words.querySelector('.sign').textContent, words.textContent.replace(/\\s+/g, ' '),
          getComputedStyle(words).backgroundColor, getComputedStyle(words).textDecorationLine];
})
"""


def test_the_page_lights_what_changed_in_every_part(host):
    """Red when: nodes() of parts.html.j2 writes no sign; the plan draws the same box as before; or grey is no grey."""
    before = host.work / "before.json"
    with changed(host, before) as who, opened(host, "--diff", before) as seen:
        pids = seen.js(LIT % "pids")
        told = {(sign, int(text.split()[1 if text[1] == " " else 0].lstrip("+−~"))) for sign, text, *_ in pids if " = " in text}
        assert told == {("+", who["new"]), ("+", who["fresh"]), ("−", who["old"]), ("−", who["gone"])}
        assert {ground for _, _, ground, _ in pids} == {"rgb(255, 243, 196)"}
        quiet = seen.js("[...document.querySelectorAll('#pids li:not(.change) > .words')].map((one) => getComputedStyle(one).color)")
        assert quiet and set(quiet) == {"rgb(89, 99, 110)"}
        assert [sign for sign, *_ in seen.js(LIT % "owners")] == ["~", "+", "−"]
        plan = seen.js("[...document.querySelectorAll('#networks svg > text')].map((one) => [one.textContent, one.classList.contains('faded')])")
        assert [text for text, _ in plan if text.startswith("+ ◂ 127.0.0.1:8080/tcp")]
        assert all(faded != (text[:2] in ("+ ", "− ", "~ ")) for text, faded in plan)
        assert {text.partition(" nothing")[0] for text, _ in plan if "nobody listens" in text} >= {"+", "−"}
        marks = "(() => { const fill = (one) => getComputedStyle(one.querySelector('.ns.shared, .ns.alone')).backgroundColor;" \
                "return [...document.querySelectorAll('#matrix tr.proc')].filter((one) => one.querySelector('.ns.shared, .ns.alone'))" \
                ".map((one) => [one.className, fill(one)]); })()"
        for style, fill in seen.js(marks):
            assert (fill == "rgb(89, 99, 110)") == ("change" not in style), (style, fill)
        assert any(role in ("image", "img") and name in ("new", "gone") for role, name in seen.spoken())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_compared_page_keeps_the_rules_of_accessibility(host, scheme):
    """Red when: what did not change is faded until it cannot be read."""
    before = host.work / "before.json"
    with changed(host, before), opened(host, "--diff", before, scheme=scheme) as seen:
        seen.js("document.querySelector('details').open = true")
        seen.js(axe() + ";0")
        found = seen.js("axe.run().then((said) => said.violations.map((one) => [one.id, one.nodes.map((node) => node.html)]))")
        assert found == []
