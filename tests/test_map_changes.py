"""`nsbox map --diff` lights what changed, `--watch` keeps looking, `--serve` shows it in a browser."""

import contextlib
import json
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browser import browser
from conftest import needs_program
from fakehost import NSBOX, FakeHost, HostPopen
from inpod import detached, pod
from procfs import until
from test_map import matrix, picture
from test_words import refused

pytestmark = pytest.mark.needs_root


@pytest.fixture
def before(host):
    """Where to keep an earlier picture."""
    return host.work / "before.json"


def keep(host: FakeHost, path: Any) -> None:
    host.nsbox("map", "--json", "-o", path, check=True)


# ---- --diff ----

def test_what_came_and_went_is_lit_and_nothing_else(host, before):
    """Red when: a process that stays is marked; or one that is gone is forgotten."""
    with pod(host, "web") as pause, detached(host, "web", argv=("sleep", "1000")) as old:
        with pod(host, "gone") as gone:
            keep(host, before)
        host.nsbox("kill", "-s", "KILL", str(old), check=True)
        for _ in until(20):
            if old not in host.processes():
                break
        with detached(host, "web", "--share", "net", argv=("sleep", "1001")) as new:
            said = host.nsbox("map", "--diff", before, check=True).stdout
            signs = {int(found[2]): found[1] for found in re.finditer(r"^([+~-]?) *(\d+) [\w:]+ +[○■◆]", said, re.MULTILINE)}
            assert signs == {pause: "", old: "-", new: "+", gone: "-"}
            assert re.search(rf"^\+ process {new} sleep: .*\bpid [B-Z]+", said, re.MULTILINE)
            assert re.search(rf"^- process {old} sleep: ", said, re.MULTILINE)
            assert re.search(r"^\+ namespace pid [B-Z]+ pod web$", said, re.MULTILINE)
            assert re.search(r"^- namespace net [B-Z]+ pod gone$", said, re.MULTILINE)
            assert "pod gone" in said.splitlines()
            answer = json.loads(host.nsbox("map", "--json", "--diff", before, check=True).stdout)
            texts = [f"{one['sign']} {one['text']}" for one in answer["changes"] if one["what"] == "process"]
            assert any(text.startswith(f"+ {new} sleep") for text in texts)
            assert not any(f" {pause} " in text for text in texts)


MOVER = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
print(os.getpid(), flush=True)
sys.stdin.readline()
syscalls.unshare(CloneFlag.CLONE_NEWUTS)
print("moved", flush=True)
sys.stdin.readline()
"""


def test_a_process_that_went_elsewhere_is_shown_with_both_letters(host, before):
    """Red when: _moved compares letters; or the PIDs alone tell processes apart."""
    mover = host.popen(["unshare", "--net", sys.executable, "-c", MOVER], user=0, stdin=subprocess.PIPE)
    try:
        pid = int(mover.stdout.readline())
        keep(host, before)
        mover.stdin.write("go\n")
        mover.stdin.flush()
        assert mover.stdout.readline() == "moved\n"
        lines, _ = matrix(host, "--diff", before)
        [line] = [line for line in lines if re.match(rf"~ *{pid} ", line)]
        assert "◆B" in line.split()[5:] and line.endswith("uts was A")
        assert f"~ process {pid} python: uts A became B" in lines
    finally:
        mover.end()


def test_links_listeners_and_ports_are_compared_too(host, before):
    """Red when: between() leaves one of the three out."""
    with pod(host, "web", "--rootfs", "busybox"):
        keep(host, before)
        host.nsbox("publish", "web", "8080:80", check=True)
        host.run(["ip", "link", "add", "new0", "type", "bridge"], user=0, check=True)
        said = host.nsbox("map", "--diff", before, check=True).stdout
        host.run(["ip", "link", "del", "new0"], user=0, check=True)
        assert "+ link new0 down in net A yours" in said
        assert "+ listener 127.0.0.1:8080/tcp in net A yours" in said
        assert "+ port 127.0.0.1:8080/tcp to port 80 of pod web, open" in said


def test_of_targets_only_their_changes_are_told(host, before):
    """Red when: the earlier picture is not cut to the same groups."""
    with pod(host, "web"):
        with pod(host, "zoo"):
            keep(host, before)
            with detached(host, "zoo"), detached(host, "web") as new:
                said = host.nsbox("map", "web", "--diff", before, check=True).stdout
                assert f"+ process {new} sleep" in said and "zoo" not in said


def test_without_changes_there_are_none(host, before):
    """Red when: nsbox takes its own process for news."""
    with pod(host, "web"):
        keep(host, before)
        said = host.nsbox("map", "--diff", before, check=True).stdout.splitlines()
        assert said[0].startswith("Changes since ") and said[1] == "none"
        assert not [line for line in said[2:] if line[:1] in ("+", "-", "~")]


def test_letters_stay_what_they_were(host, before):
    """Red when: take() does not lend the letters of the earlier picture."""
    with pod(host, "m") as pause:
        keep(host, before)
        old = json.loads(before.read_text())
        with pod(host, "a"):
            said = host.nsbox("map", "--diff", before, check=True).stdout
            [line] = [line for line in said.splitlines() if re.match(rf" *{pause} ", line)]
            assert line.split()[3:8] == ["◆B"] * 5
            _, rows = matrix(host)
            assert rows[pause][1] == "◆C", "without the earlier picture letters go by the order of the rows"
        assert {row["letter"] for row in old["namespaces"] if row["pids"] == [pause]} == {"B"}


@pytest.mark.parametrize("text, status", [("", 2), ("[]", 2), ("{}", 2), ('{"format": "nsbox map 1"}', 2), ("\0", 2),
                                          ('{"format": "nsbox map 1", "boot_id": 5, "processes": {}}', 2)])
def test_a_file_that_is_no_picture_is_refused(host, before, text, status):
    """Red when: load() trusts what it reads."""
    before.write_text(text)
    refused(host.nsbox("map", "--diff", before), status)


def test_a_picture_of_another_boot_is_refused(host, before):
    """Red when: numbers of another boot are compared with those of this one."""
    keep(host, before)
    newer = json.loads(before.read_text()) | {"format": "nsbox map 2"}
    (host.work / "newer.json").write_text(json.dumps(newer))
    refused(host.nsbox("map", "--diff", host.work / "newer.json"), 2)
    other = json.loads(before.read_text()) | {"boot_id": "0" * 8}
    before.write_text(json.dumps(other))
    assert "another boot" in refused(host.nsbox("map", "--diff", before), 125)
    assert "No such file" in refused(host.nsbox("map", "--diff", host.work / "missing"), 125)

# ---- --diff in the trees, the plan and the page ----

def lit(host: FakeHost, before: Any, *parts: str) -> list[str]:
    """The lines of these parts that carry a sign, without what draws the tree."""
    done = host.nsbox("map", "--diff", before, "--only", ",".join(parts), env={"COLUMNS": "200"}, check=True)
    said = done.stdout.partition("\n\n")[2]
    found = re.findall(r"^([+~-]) [├└│─ ]*(.*)$", said, re.MULTILINE)
    return [f"{sign} {re.sub('[○■◆]', '', text)}" for sign, text in found]


@contextlib.contextmanager
def changed(host: FakeHost, before: Any) -> Iterator[dict[str, int]]:
    """A pod that stays, with a member that ends and one that comes with a root of its own; a pod goes, and one comes."""
    with pod(host, "web", "--rootfs", "busybox") as pause, detached(host, "web", argv=("sleep", "1000")) as old:
        with pod(host, "gone") as gone:
            keep(host, before)
            assert lit(host, before, "networks", "pids", "owners") == []
        host.nsbox("kill", "-s", "KILL", str(old), check=True)
        for _ in until(20):
            if old not in host.processes():
                break
        with detached(host, "web", "--rootfs", "busybox", argv=("sleep", "1001")) as new, pod(host, "fresh") as fresh:
            host.nsbox("publish", "web", "8080:80", check=True)
            yield {"pause": pause, "old": old, "gone": gone, "new": new, "fresh": fresh}


def test_the_trees_light_what_changed_and_nothing_else(host, before):
    """Red when: merged() forgets what is gone, lights what stays, or takes a new shape for a change."""
    with changed(host, before) as who:
        pids = lit(host, before, "pids")
        assert {(line[0], int(line.split()[1])) for line in pids if " = " in line} == {
            ("+", who["new"]), ("+", who["fresh"]), ("-", who["old"]), ("-", who["gone"])}
        assert [line[:2] + line[8:] for line in pids if " pod " in line] == ["+ pod fresh", "- pod gone"]
        owners = lit(host, before, "owners")
        assert [line[:10].rstrip() for line in owners] == ["~ pod web", "+ pod fres", "- pod gone"]
        assert re.search(r"^~ pod web pid (.) mnt \1 \+ . net \1 uts \1 ipc \1$", owners[0]), owners
        nets = lit(host, before, "networks")
        assert [line for line in nets if not line.startswith("~ lo 127.0.0.1/8 + ")] == [  # the proxy has an address in there
            "+ listens 127.0.0.1:8080/tcp nsbox:proxy → 80 of C pod web", "+ nothing but lo, and nobody listens: D",
            "- nothing but lo, and nobody listens: B"]


def test_a_link_that_is_different_says_how(host, before):
    """Red when: a link with another address counts as one that went and one that came; or the plus is left out."""
    with pod(host, "web", "--rootfs", "busybox") as pause:
        keep(host, before)
        host.run(["nsenter", "-n", "-t", str(pause), "ip", "addr", "add", "10.9.8.7/32", "dev", "lo"],
                 user=0, check=True)
        assert "~ lo 127.0.0.1/8 + 10.9.8.7/32 ::1/128" in lit(host, before, "networks")
        answer = json.loads(host.nsbox("map", "--json", "--diff", before, check=True).stdout)
        assert {"sign": "~", "what": "link", "text": "lo in net B pod web: + 10.9.8.7/32"} in answer["changes"]
        host.run(["nsenter", "-n", "-t", str(pause), "ip", "addr", "del", "127.0.0.1/8", "dev", "lo"],
                 user=0, check=True)
        assert any(line.endswith("(was 127.0.0.1/8)") for line in lit(host, before, "networks"))


MAPPED = """
import os, sys
from nsbox.linux import syscalls
from nsbox.linux.flags import CloneFlag
syscalls.unshare(CloneFlag.CLONE_NEWUSER)
print(os.getpid(), flush=True)
sys.stdin.readline()
"""


def test_a_uid_map_that_was_written_is_a_change(host, before):
    """Red when: between() looks at namespaces that came and went alone."""
    keeper = host.popen([sys.executable, "-c", MAPPED], user=0, stdin=subprocess.PIPE)
    try:
        pid = int(keeper.stdout.readline())
        keep(host, before)
        host.run(["sh", "-c", f"echo 0 5000 1 > /proc/{pid}/uid_map"], user=0, check=True)
        answer = json.loads(host.nsbox("map", "--json", "--diff", before, check=True).stdout)
        said = "user B beside: python: uid 0 is 5000 outside; was: no uid is mapped"
        assert {"sign": "~", "what": "namespace", "text": said} in answer["changes"]
        [line] = [line for line in lit(host, before, "owners") if line.startswith("~ user")]
        assert line.endswith("uid 0 is 5000 outside (was no uid is mapped)")
    finally:
        keeper.end()


def test_a_member_that_executed_another_program_is_a_change(host, before):
    """Red when: renamed() is not asked; or the host's own, whose names change all the time, are asked too."""
    code = "import sys, os; print(os.getpid(), flush=True); sys.stdin.readline(); os.execvp('sleep', ['sleep', '1000'])"
    keeper = host.popen(["unshare", "--uts", sys.executable, "-c", code], user=0, stdin=subprocess.PIPE)
    at_home = host.popen([sys.executable, "-c", code], user=0, stdin=subprocess.PIPE)
    try:
        pids = [int(one.stdout.readline()) for one in (keeper, at_home)]
        keep(host, before)
        for one, pid in zip((keeper, at_home), pids, strict=True):
            one.stdin.write("go\n")
            one.stdin.flush()
            for _ in until(20):
                if host.run(["cat", f"/proc/{pid}/comm"]).stdout.strip() == "sleep":
                    break
        answer = json.loads(host.nsbox("map", "--json", "--diff", before, check=True).stdout)
        texts = [one["text"] for one in answer["changes"] if one["sign"] == "~"]
        assert texts == [f"{pids[0]} sleep: was python"]
        said = host.nsbox("map", "--diff", before, "--only", "matrix", check=True).stdout
        assert re.search(rf"^~ *{pids[0]} sleep .*was python$", said, re.MULTILINE)
    finally:
        keeper.end()
        at_home.end()


def graph_of(host: FakeHost, *words: Any) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """The nodes and the edges of the graph, each with its attributes as they are written."""
    said = host.nsbox("map", "--dot", *words, check=True).stdout
    drawn = host.run(["dot", "-Tsvg"], input=said, check=True)
    assert drawn.stderr == "", drawn.stderr
    nodes = dict(re.findall(r'^ *"([^"]+)" \[(.*)\];$', said, re.MULTILINE))
    edges = {(near, far): look for near, far, look in re.findall(r'^ *"([^"]+)" -> "([^"]+)"(.*);$', said, re.MULTILINE)}
    nodes |= {"": " ".join(re.findall(r'^ +label="(.*)"; style=rounded;$', said, re.MULTILINE))}
    return nodes, edges


def test_the_graph_marks_what_changed_and_nothing_else(host, before):
    """Red when: the graph is drawn without the earlier picture; what is gone is left out; or a sign is."""
    needs_program("dot")
    with changed(host, before) as who:
        old = json.loads(before.read_text())
        of_gone = next(one["namespaces"]["net"] for one in old["processes"] if one["pid"] == who["gone"])
        now = picture(host)
        spaces = {one["pid"]: one["namespaces"] for one in now["processes"]}
        plain, _ = graph_of(host)
        assert not any(re.search(r'label="[+−~] |crimson|forestgreen|gray', look) for look in plain.values())
        nodes, edges = graph_of(host, "--diff", before)
        assert set(re.findall(r"(?:[+−] )?pod \w+", nodes[""])) == {"pod web", "+ pod fresh", "− pod gone"}
        for name, sign, style in ((f"p{who['new']}", "+ ", "style=bold"), (f"gone-p{who['old']}", "− ", "style=dashed"),
                                  (f"gone-p{who['gone']}", "− ", "style=dashed"), (f"gone-n{of_gone}", "− net", "style=dashed"),
                                  (f"n{spaces[who['fresh']]['net']}", "+ net", "style=bold"),
                                  (f"n{spaces[who['new']]['mnt']}", "+ mnt", "style=bold")):
            assert f'label="{sign}' in nodes[name] and style in nodes[name], (name, nodes)
        for name in (f"p{who['pause']}", f"n{spaces[who['pause']]['net']}"):
            assert "gray" in nodes[name] and not re.search(r'label="[+−~]|style=', nodes[name]), nodes[name]
        signs = {ends: re.search(r'label="([+−])', look)[1] for ends, look in edges.items() if 'label="+' in look or 'label="−' in look}
        assert signs[f"p{who['new']}", f"n{spaces[who['new']]['net']}"] == "+"
        assert signs[f"gone-p{who['gone']}", f"gone-n{of_gone}"] == "−"
        assert signs[f"gone-p{who['old']}", f"n{spaces[who['pause']]['pid']}"] == "−"
        own = now["own"]["net"]
        assert 'label="+ 127.0.0.1:8080/tcp to 80"' in edges[f"n{own}", f"n{spaces[who['pause']]['net']}"]
        assert (f"p{who['pause']}", f"n{spaces[who['pause']]['net']}") not in signs
        keep(host, before)
        nodes, edges = graph_of(host, "--diff", before)
        assert not any(re.search(r'label="[+−~]', look) for look in (*nodes.values(), *edges.values()))


def test_the_graph_says_what_is_different_about_a_process(host, before):
    """Red when: of a process that went elsewhere only the edges are compared; or its old edge is forgotten."""
    needs_program("dot")
    mover = host.popen(["unshare", "--net", "--uts", sys.executable, "-c", MOVER], user=0, stdin=subprocess.PIPE)
    try:
        pid = int(mover.stdout.readline())
        keep(host, before)
        was = next(one["namespaces"]["uts"] for one in picture(host)["processes"] if one["pid"] == pid)
        mover.stdin.write("go\n")
        mover.stdin.flush()
        assert mover.stdout.readline() == "moved\n"
        nodes, edges = graph_of(host, "--diff", before)
        assert f'label="~ {pid} python\\nuts B became C"' in nodes[f"p{pid}"] and "style=dotted" in nodes[f"p{pid}"]
        assert 'label="−' in edges[f"p{pid}", f"gone-n{was}"] and 'label="− uts' in nodes[f"gone-n{was}"]
        assert sum('label="+' in look for (near, _), look in edges.items() if near == f"p{pid}") == 1
    finally:
        mover.end()


# ---- --watch ----

def read_until(command: HostPopen, wanted: str, said: str = "", timeout: float = 60.0) -> str:
    """What a command says, until it has said something."""
    for _ in until(timeout):
        if wanted in said:
            return said
        if select.select([command.stdout], [], [], 0.2)[0]:
            part = os.read(command.stdout.fileno(), 1 << 16).decode(errors="replace")
            assert part, said + command.communicate()[1]
            said += part
    raise AssertionError(f"{wanted!r} was not said: {said[-3000:]}")


def test_the_watch_shows_what_changes_and_ends_by_a_signal(host):
    """Red when: watch() draws the first picture for ever."""
    with pod(host, "web"):
        watch = host.nsbox_popen("map", "web", "--watch", "--interval", "0.2", "--only", "matrix")
        said = read_until(watch, "pod web")
        with detached(host, "web", argv=("sleep", "1000")) as new:
            said = read_until(watch, f"+{new:>6} sleep", said)
        watch.terminate()
        watch.communicate(timeout=30)
        assert watch.returncode == 143


def test_on_a_terminal_the_watch_has_a_screen_of_its_own(host):
    """Red when: the screen is not left when a signal comes; or more lines are written than it has."""
    with pod(host, "web"):
        words = " ".join([*NSBOX, "map", "--watch", "--interval", "0.2"])
        script = f"stty rows 10 cols 80; timeout -s INT 6 {words}; echo status $?"
        done = host.run(["script", "-qec", script, "/dev/null"], env={"TERM": "xterm"}, timeout=60)
        said = done.stdout
        assert said.count("\x1b[?1049h") == said.count("\x1b[?1049l") == said.count("\x1b[?25h") == 1
        screen = said.partition("\x1b[?1049h")[2].partition("\x1b[?1049l")[0]
        for frame in screen.split("\x1b[H")[1:]:
            assert frame.count("\n") <= 9 and "Ctrl-C ends" in frame and "more lines" in frame
        assert said.partition("\x1b[?1049l")[2].strip().startswith("status")


# ---- --serve ----

@contextlib.contextmanager
def served(host: FakeHost, *words: str) -> Iterator[tuple[HostPopen, str]]:
    server = host.nsbox_popen("map", "--serve", *words, "--interval", "0.2")
    try:
        url = server.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{20,}/", url), (url, server.communicate())
        yield server, url
        server.terminate()
        out, err = server.communicate(timeout=30)
        assert (server.returncode, out, err) == (143, "", "")
    finally:
        server.end()


CURL = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"]


def status(host: FakeHost, url: str, *words: str) -> int:
    return int(host.run([*CURL, *words, url]).stdout)


def test_the_served_page_renews_itself(host):
    """Red when: the stream of events says nothing; or the script does not fetch the new picture."""
    with pod(host, "web"), served(host) as (_, url), browser(host) as seen:
        seen.open(url)
        groups = "[...document.querySelectorAll('tr.group th')].map((one) => one.textContent)"
        assert seen.js(groups) == ["pod web"]
        seen.until(lambda: seen.js("document.getElementById('live').textContent") == "live")
        with pod(host, "zoo"):
            seen.until(lambda: seen.js(groups) == ["pod web", "pod zoo"])
        seen.until(lambda: seen.js(groups) == ["pod web"])
        assert seen.wrong == [] and all(one.startswith(url) for one in seen.loaded)


def test_only_who_has_the_address_is_answered(host):
    """Red when: the secret is not looked at; or the Host of a request may be any (DNS rebinding)."""
    with served(host) as (_, url):
        port = url.split(":")[2].split("/")[0]
        assert status(host, url) == status(host, url + "picture") == 200
        assert status(host, url, "-H", f"Host: localhost:{port}") == 200
        for host_header in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "", "[::2]"):
            assert status(host, url, "-H", f"Host: {host_header}" if host_header else "Host;") in (403, 400), host_header
        for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}"):
            assert status(host, url, "-H", f"Origin: {origin}") == 403
        assert status(host, url, "-H", f"Origin: http://127.0.0.1:{port}") == 200
        root = f"http://127.0.0.1:{port}"
        for path in ("/", "/picture", "/x/", url.removeprefix(root)[:-2] + "/", url.removeprefix(root) + "x", "/../" + url[-5:]):
            assert status(host, root + path, "--path-as-is") == 404, path
        assert status(host, url, "-X", "POST") == status(host, url, "-X", "OPTIONS") == 501


def test_the_answers_allow_no_other_site_to_read_them(host):
    """Red when: a header allows another origin, a frame or a cache; or the server says what it is."""
    with served(host) as (_, url):
        said = host.run(["curl", "-s", "-D", "-", "-o", "/dev/null", url], check=True).stdout.lower()
        assert "access-control-allow" not in said
        for line in ("cache-control: no-store", "referrer-policy: no-referrer", "x-content-type-options: nosniff",
                     "cross-origin-resource-policy: same-origin", "content-security-policy: frame-ancestors 'none'"):
            assert line in said
        assert "python" not in said


def test_it_listens_on_loopback_alone(host):
    """Red when: the server is bound to all addresses."""
    with served(host) as (server, url):
        listening = [one for net in picture(host)["nets"] for one in net["listens"]]
        [mine] = [one for one in listening if one["port"] == int(url.split(":")[2].split("/")[0])]
        assert (mine["proto"], mine["address"]) == ("tcp", "127.0.0.1")
        assert host.host_pid(mine["pid"]) == server.inner_pid()


def test_a_port_that_is_taken_is_named(host):
    with served(host, "8123"):
        assert "127.0.0.1:8123" in refused(host.nsbox("map", "--serve", "8123"), 125)


def test_many_streams_and_broken_requests_do_not_stop_it(host):
    """Red when: a client that goes away, or speaks no HTTP, ends the server or fills stderr."""
    script = """
import socket, sys
port, path = int(sys.argv[1]), sys.argv[2]
kept = []
for number in range(60):
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(f"GET {path}events HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
    kept.append(one)
answers = [one.recv(12) for one in kept]
print(sum(b"200" in one for one in answers), sum(b"503" in one for one in answers))
for one in kept:
    one.close()
for junk in (b"\\0" * 5000, b"GET\\r\\n\\r\\n", b"GET " + b"/" * 70000 + b" HTTP/1.1\\r\\n\\r\\n", b"GET / HTTP/9.9\\r\\n\\r\\n"):
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(junk)
    one.close()
"""
    with served(host) as (_, url):
        port, path = url.removeprefix("http://127.0.0.1:").split("/", 1)
        done = host.run([sys.executable, "-c", script, port, "/" + path], check=True)
        served_, refused_ = map(int, done.stdout.split())
        assert (served_, refused_) == (32, 28)
        for _ in until(20):
            if status(host, url) == 200:
                break
        assert status(host, url) == 200
