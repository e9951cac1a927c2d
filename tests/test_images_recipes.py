"""Recipes with a stage, what of the machine's npm is lent to it, and the recipes nginx and ghost."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fakehost import FakeHost
from procfs import until

from nsbox.errors import NsboxError, SpecError
from nsbox.images import entries, npm, recipe
from nsbox.images.build import build

pytestmark = pytest.mark.usefixtures("own_store")

REPOSITORY = Path(__file__).parent.parent
CONF = REPOSITORY / "rootfs/nginx/nginx.conf"
DEBIAN = "kind = mmdebstrap\nsuite = sid\n"
needs_root = pytest.mark.needs_root


def write_recipe(folder, text, script=None):
    folder.mkdir(parents=True)
    (folder / "recipe.ini").write_text("[rootfs]\n" + text)
    if script is not None:
        (folder / "build").write_text(script)
    return folder


# The words of a stage.

@pytest.mark.parametrize("text, why", [
    ("kind = busybox\n[stage]\nscript = build", "kind busybox has no"),
    (DEBIAN + "[stage]", "script '' is not the name"),
    (DEBIAN + "[stage]\nscript = ../build", "not the name of a file beside it"),
    (DEBIAN + "[stage]\nscript = /bin/sh", "not the name of a file beside it"),
    (DEBIAN + "[stage]\nscript = -rf", "not the name of a file beside it"),
    (DEBIAN + "[stage]\nscript = a;reboot", "not the name of a file beside it"),
    (DEBIAN + "[stage]\nscript = build\n\tx", "not the name of a file beside it"),
    (DEBIAN + "[stage]\nscript = missing", "no file 'missing' beside"),
    (DEBIAN + "[stage]\nscript = folder", "no file 'folder' beside"),
    (DEBIAN + "[stage]\nscript = pipe", "no file 'pipe' beside"),
    (DEBIAN + "[stage]\nscript = link", "no file 'link' beside"),
    (DEBIAN + "[stage]\nscript = build\nlend = ssh", "lend 'ssh' is none of npm"),
    (DEBIAN + "[stage]\nscript = build\ninclude = gcc, -o", "cannot include"),
    (DEBIAN + "[stage]\nscript = build\nhook = x", "knows no 'hook'"),
    (DEBIAN + "[stage]\nscript = build\n[stag\x1b[0me]\n", r"no section \[stag\\x1b\[0me\]"),
    (DEBIAN + "stage = x", "knows no 'stage'"),
    (DEBIAN + "slim = perhaps", "slim 'perhaps'"),
    (DEBIAN + "[stage]\nscript = build\n[stage]\nscript = build", "already exists"),
])
def test_a_wrong_stage_is_refused_before_anything_is_touched(tmp_path, own_store, text, why):
    """Red when: _checked_stage is not called, or one of its refusals is taken out."""
    folder = write_recipe(tmp_path / "mine", text, "#!/bin/sh\n")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/bin/sh")
    os.mkfifo(folder / "pipe")
    with pytest.raises(SpecError, match=why) as caught:
        build(str(folder))
    assert str(caught.value).isprintable() and not own_store.exists()


def test_a_stage_is_read(tmp_path):
    text = DEBIAN + "slim = yes\n[stage]\nscript = build\ninclude = gcc, make gcc\nlend = npm\n"
    found = recipe.find(str(write_recipe(tmp_path / "mine", text, "")))
    assert found.stage == recipe.Stage("build", ("gcc", "make"), "npm") and found.slim == "yes"
    assert recipe.find("nginx").stage is None
    ghost = recipe.find("ghost")
    assert ghost.stage and "g++" in ghost.stage.include and "g++" not in ghost.include


# What is lent to the script.

@pytest.fixture
def npm_user(tmp_path, monkeypatch):
    """A user with an .npmrc and no npm variables; the machine has no settings of its own."""
    for name in os.environ:
        if name.lower().startswith("npm_config_") or name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(npm, "_GLOBAL", (str(tmp_path / "global"),))
    return tmp_path


def test_only_what_reaches_the_registry_is_lent(npm_user, monkeypatch):
    """Red when: _LENT is `.*`, or `${...}` stays."""
    (npm_user / "global").write_text("registry = https://global.example/\nprefix = /opt\n")
    (npm_user / ".npmrc").write_text(
        "; registry=https://no.example/\nregistry=https://mine.example/\nscript-shell=/bin/evil\n"
        "@us:registry=https://us.example/\n//us.example/:_authToken=${TOKEN}\nnodedir=/usr\n"
        "ignore-scripts=false\nbroken line\n")
    monkeypatch.setenv("TOKEN", "s3cret")
    monkeypatch.setenv("NPM_CONFIG_FETCH_RETRIES", "7")
    monkeypatch.setenv("npm_config_proxy", "http://a\nscript-shell=/bin/evil")
    work = npm_user / "lent"
    work.mkdir()
    variables = npm.lend(str(work), "/inside")
    assert variables["NPM_CONFIG_USERCONFIG"] == "/inside/npmrc"
    assert sorted((work / "npmrc").read_text().splitlines()) == [
        "//us.example/:_authToken=s3cret", "@us:registry=https://us.example/",
        "fetch-retries=7", "registry=https://mine.example/",
    ]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in work.iterdir())


@pytest.mark.parametrize("where", ["cafile", "NODE_EXTRA_CA_CERTS", "machine", "nothing"])
def test_certificates_are_lent_by_content(npm_user, monkeypatch, where):
    """Red when: the path of this machine is handed over instead of the file."""
    mine = npm_user / "my-ca.pem"
    mine.write_text("certificate\n")
    if where == "cafile":
        (npm_user / ".npmrc").write_text(f'cafile = "{mine}"\n')
    elif where == "NODE_EXTRA_CA_CERTS":
        monkeypatch.setenv(where, str(mine))
    monkeypatch.setattr(npm, "_CERTIFICATES", str(mine) if where == "machine" else "/missing")
    work = npm_user / "lent"
    work.mkdir()
    variables = npm.lend(str(work), "/inside")
    assert str(npm_user) not in f"{variables}{(work / 'npmrc').read_text()}"
    if where == "nothing":
        assert os.listdir(work) == ["npmrc"] and "SSL_CERT_FILE" not in variables
        return
    assert (work / "ca.pem").read_text() == "certificate\n"
    assert variables["NODE_EXTRA_CA_CERTS"] == variables["SSL_CERT_FILE"] == "/inside/ca.pem"
    assert ("cafile=/inside/ca.pem\n" in (work / "npmrc").read_text()) == (where == "cafile")


# The stage at work, with a busybox in place of the Debian that mmdebstrap makes.

SCRIPT = """#!/bin/sh -e
echo "I: building in $(pwd)"
grep -q s3cret "$NPM_CONFIG_USERCONFIG"
mkdir -p "$RESULT/opt"
id -u > "$RESULT/opt/uid"
ln -s /etc/passwd "$RESULT/opt/link"
test ! -e /etc/of-the-tree
"""


@pytest.fixture
def busybox_as_debian(monkeypatch, tmp_path):
    """A mmdebstrap that unpacks a busybox, says its arguments to a file, and runs the hooks."""
    tree = build("busybox").path
    program = tmp_path / "bin" / "mmdebstrap"
    program.parent.mkdir()
    program.write_text(f"""#!/bin/sh -e
        echo "$@" >> {tmp_path}/arguments
        root=$(echo "$@" | tr ' ' '\\n' | grep -E '/(entry/rootfs|work/stage)$')
        mkdir "$root"; cp -a {tree}/. "$root"; mkdir -p "$root/etc/apt/apt.conf.d"
        case $root in */entry/*) echo > "$root/etc/of-the-tree";; esac
        for arg in "$@"; do
            case $arg in --*-hook=*) sh -c "${{arg#*=}}" exec "$root" ||
                {{ echo "E: command failed: ${{arg#*=}}"; exit 1; }};; esac
        done
    """)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("npm_config_//x.example/:_authToken", "s3cret")
    return tmp_path


def staged(tmp_path, script):
    text = DEBIAN + "slim = yes\n[stage]\nscript = build\ninclude = gcc\nlend = npm\n"
    return str(write_recipe(tmp_path / "mine", text, script))


@needs_root
def test_the_result_of_a_stage_and_nothing_else_is_in_the_tree(busybox_as_debian, own_store):
    """Red when: hook_that_copies copies the whole stage, or runs the script in the final tree."""
    steps = []
    root = Path(build(staged(busybox_as_debian, SCRIPT), step=steps.append).path)
    assert (root / "opt/uid").read_text() == "0\n" and (root / "etc/of-the-tree").exists()
    assert os.readlink(root / "opt/link") == "/etc/passwd"
    assert "building in /nsbox/build" in steps and not (root / "nsbox").exists()
    assert not [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()
                and b"s3cret" in path.read_bytes()]
    first, second = (busybox_as_debian / "arguments").read_text().split("work/stage", 1)
    assert "--include=gcc" in first and "path-exclude" in first and "--include" not in second
    assert sorted(os.listdir(own_store)) == [".lock", "busybox", "mine"]


@needs_root
@pytest.mark.parametrize("script, why", [
    ("#!/bin/sh\necho 'E: no such package'; exit 1", "no such package"),
    ("#!/bin/sh\nexit 3", "the script 'build' failed"),
    ("#!/no/such/shell\n", "the script 'build' failed"),
    ("#!/bin/sh\nkill -9 $$\n", "the script 'build' failed"),
])
def test_a_failed_script_is_told_in_one_line(busybox_as_debian, own_store, script, why):
    """Red when: the hook's status is not looked at."""
    with pytest.raises(NsboxError, match=f"^cannot build rootfs 'mine': mmdebstrap: {why}$"):
        build(staged(busybox_as_debian, script))
    assert sorted(os.listdir(own_store)) == [".lock", "busybox"]


@needs_root
def test_a_killed_builder_takes_the_script_with_it(busybox_as_debian, own_store):
    """Red when: the stage is made without a world of its own (own_world=False)."""
    folder = staged(busybox_as_debian, "#!/bin/sh\necho 'I: waiting'\nsleep 5000\n")
    code = "import sys; from nsbox.images.build import build; build(sys.argv[1], step=print)"
    with subprocess.Popen([sys.executable, "-u", "-c", code, folder], cwd=REPOSITORY,
                          stdout=subprocess.PIPE, text=True) as builder:
        assert any(line == "waiting\n" for line in builder.stdout)
        inside = [pid for pid in os.listdir("/proc") if pid.isdigit() and in_store(pid, own_store)]
        builder.kill()
    assert inside, "the script does not run in the stage"
    assert any(not any(in_store(pid, own_store) for pid in inside) for _ in until(10)), "it is alive"
    for _ in until(10):  # the builder's lock goes with the last of its children
        assert [entry.name for entry in entries.listed()] == ["busybox"]
        if sorted(os.listdir(own_store)) == [".lock", "busybox"]:
            break
    assert sorted(os.listdir(own_store)) == [".lock", "busybox"]


def in_store(pid, where):
    """Tell whether the process has its root below the store."""
    try:
        return os.readlink(f"/proc/{pid}/root").startswith(str(where))
    except OSError:  # it has ended
        return False


# The real ones.

def in_pod(host, pod, *command):
    return host.nsbox("join", pod, "--", *command)


def page(host, pod, within):
    """What the pod's port 80 answers, once it is no error any more."""
    for _ in until(within, pause=0.5):
        done = in_pod(host, pod, "busybox", "wget", "-qO-", "http://127.0.0.1:80/")
        if done.returncode == 0:
            return done.stdout
    raise AssertionError(done.stderr + host.nsbox("logs", pod).stdout)


def start_nginx(host, pod):
    volume = f"{CONF}:/etc/nginx/nginx.conf:ro"
    host.nsbox("join", pod, "-d", "--rootfs", "nginx", "-v", volume, "--", "nginx", check=True)


@needs_root
@pytest.mark.slow
@pytest.mark.ghost  # a minute or two of building: with the other big recipe
@pytest.mark.timeout(600)
def test_nginx_answers_for_its_neighbour_in_the_pod(base, own_store):
    """Red when: the example nginx.conf names another port, or the recipe includes no nginx."""
    root = Path(build("nginx").path)
    assert (root / "usr/sbin/nginx").exists() and not (root / "usr/share/man/man1").exists()
    with FakeHost(base, store=own_store) as host:
        host.nsbox("create", "web", check=True)
        (host.work / "index.html").write_text("<title>neighbour</title>\n")
        httpd = ("busybox", "httpd", "-f", "-p", "127.0.0.1:2368", "-h", host.work)
        host.nsbox("join", "web", "-d", "--", *httpd, check=True)
        start_nginx(host, "web")
        assert page(host, "web", 30) == "<title>neighbour</title>\n"


@needs_root
@pytest.mark.ghost
@pytest.mark.timeout(3600)
def test_ghost_answers_through_nginx(base, own_store, monkeypatch):
    """Red when: the SQLite client is not compiled, or the themes are not among the content."""
    monkeypatch.setenv("npm_config_//of-this-machine.example/:_authToken", "of-this-machine")
    steps = []
    root = Path(build("ghost", step=steps.append).path)
    assert any("answers from the registry" in step for step in steps)
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b"of-this-machine" not in path.read_bytes(), path
    assert not any((root / "usr/bin" / tool).exists() for tool in ("g++", "make", "npm", "python3"))
    build("nginx")
    with FakeHost(base, store=own_store) as host:
        host.nsbox("create", "blog", check=True)
        host.nsbox("join", "blog", "-d", "--rootfs", "ghost", "-e", "NODE_ENV=production",
                   "-w", "/var/lib/ghost", "--", "node", "current/index.js", check=True)
        start_nginx(host, "blog")
        assert re.search("<title>.*Ghost.*</title>", page(host, "blog", 300))
        processes = host.nsbox("ps", "blog").stdout
        assert re.search(r"^\d+ +1 .* pause$", processes, re.MULTILINE), processes
        assert "nginx: worker" in processes and "node current/index.js" in processes
