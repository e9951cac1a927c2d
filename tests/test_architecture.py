"""The rooms and their floors, read from the source: what may import what, and what is said where."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PACKAGE = TOP / "nsbox"

# A room imports only from floors below its own. Floor 0 is data: its few modules are one room.
FLOORS = (
    {"errors", "capabilities", "spec", "decode", "words", "volumes", "parse", "ports", "idranges", "runas", "sysctls",
     "ulimits", "filters"},
    {"linux"},
    {"privilege", "net", "images"},
    {"pod"},
    {"kube", "labs", "explain", "show", "doctor", "why"},
    {"cli"},
    {"__init__", "__main__"},  # the doors: imported by nobody inside
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What only one room may use.
ONLY_IN = {"ctypes": ("linux/syscalls.py", "linux/structs.py"), "prctl": "privilege/", "pyseccomp": "privilege/",
           "pyroute2": "net/", "rich": ("show/", "cli/"), "jinja2": "show/", "markupsafe": "show/"}

# Signals go to pidfds after an identity check. Where a PID is used all the same, and why.
SIGNALS_BY_PID: dict[str, str] = {
    "linux/process.py": "to its own children, which it has not yet waited for",
    "pod/attach.py": "to the process group of its own child, which it has not yet waited for",
    "images/command.py": "to a child of its own child, which it has not yet waited for",
}
# Not on the way of create and join: imported inside the function that needs them. Of the images only
# the lookup is on that way; what builds them may start programs. The library's front is not on it.
HEAVY = {"pyroute2", "rich", "jinja2", "yaml", "dataclasses", "subprocess", "asyncio"}
HOT_IMAGES = {"images/__init__.py", "images/store.py"}
COLD = {"pod/api.py", "pod/keywords.py", "pod/client.py", "pod/popen.py"}

LINES_MAX, LINES_WISH = 400, 300

MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
IDS = [str(path.relative_to(PACKAGE)) for path in MODULES]
each_module = pytest.mark.parametrize("path", MODULES, ids=IDS)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name in parts) of each import; what is of nsbox begins with "nsbox"."""
    package = ("nsbox", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            module = tuple((node.module or "").split(".")) if node.module else ()
            start = package[: len(package) - node.level + 1] if node.level else ()
            if start + module:
                for alias in node.names:
                    yield node.lineno, (*start, *module, alias.name)


def calls(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, dotted name, first argument) of each call, as they are written."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), ast.unparse(node.args[0]) if node.args else ""


def may_use(path: Path, places: str | tuple[str, ...]) -> bool:
    return name_of(path).startswith(places)


@each_module
def test_every_module_has_a_floor(path):
    assert room_of(path) in FLOOR, f"{name_of(path)}: give the room {room_of(path)!r} a floor"


@each_module
def test_a_room_imports_only_from_floors_below(path):
    room = room_of(path)
    for line, parts in imports(path):
        if parts[0] != "nsbox":
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"
        same_room = target == room or FLOOR[target] == FLOOR[room] == 0
        assert same_room or FLOOR[target] < FLOOR[room], f"{name_of(path)}:{line} may not import {target}"


@each_module
def test_imports_inside_the_package_are_relative(path):
    if name_of(path) == "__main__.py":  # it may be started by its path, and then has no package
        return
    for node in ast.walk(tree(path)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not any(name.split(".")[0] == "nsbox" for name in names), f"{name_of(path)}:{node.lineno}"


def test_the_modules_of_floor_0_import_each_other_in_no_circle():
    waiting = {path.stem: {parts[1] for _, parts in imports(path) if parts[0] == "nsbox" and len(parts) > 1}
               for path in MODULES if room_of(path) in FLOORS[0]}
    while free := [name for name, needs in waiting.items() if not needs & set(waiting)]:
        for name in free:
            del waiting[name]
    assert not waiting


@each_module
def test_each_heavy_library_has_one_room(path):
    for line, parts in imports(path):
        if parts[0] in ONLY_IN and not may_use(path, ONLY_IN[parts[0]]):
            pytest.fail(f"{name_of(path)}:{line}: {parts[0]} belongs to {ONLY_IN[parts[0]]}")


@each_module
def test_no_heavy_import_on_the_floors_of_create_and_join(path):
    cold = room_of(path) == "images" and name_of(path) not in HOT_IMAGES
    if cold or name_of(path) in COLD or FLOOR[room_of(path)] > FLOOR["pod"]:
        return
    for node in tree(path).body:  # the top of the module: what is imported inside a function is on demand
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        heavy = {name.split(".")[0] for name in names} & HEAVY
        assert not heavy, f"{name_of(path)}:{node.lineno} imports {heavy} at its top"


@each_module
def test_signals_go_to_pidfds(path):
    if name_of(path) in SIGNALS_BY_PID:
        return
    for line, name, first in calls(path):
        by_pid = name in ("os.kill", "os.killpg", "signal.kill") and first != "os.getpid()"
        assert not by_pid, f"{name_of(path)}:{line}: {name}({first}, ...)"


@each_module
def test_only_the_command_line_prints(path):
    if room_of(path) in ("cli", "__main__"):
        return
    for line, name, _ in calls(path):
        assert name not in ("print", "sys.exit", "input"), f"{name_of(path)}:{line}: {name}"


@each_module
def test_the_shell_is_never_asked(path):
    for line, name, _ in calls(path):
        assert name not in ("os.system", "os.popen"), f"{name_of(path)}:{line}: {name}"


@each_module
def test_a_file_is_short(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX, f"{name_of(path)} has {lines} lines: split it"
    if lines > LINES_WISH:
        warnings.warn(f"{name_of(path)} has {lines} lines, more than {LINES_WISH}", stacklevel=1)


@each_module
def test_a_line_is_short(path):
    long = [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 120]
    assert not long, f"{name_of(path)}: lines {long}"


def test_the_package_of_the_build_system_is_all_that_pyproject_holds():
    import tomllib

    assert set(tomllib.loads((TOP / "pyproject.toml").read_text())) == {"build-system"}


def test_every_file_of_a_recipe_is_installed():
    import configparser

    settings = configparser.ConfigParser()
    settings.read(TOP / "setup.cfg")
    installed = {path for globs in settings["options.data_files"].values()
                 for glob in globs.split() for path in TOP.glob(glob)}
    files = {path for path in (TOP / "rootfs").rglob("*") if path.is_file()}
    assert files == installed
    for place, globs in settings["options.data_files"].items():
        assert all(place == f"share/nsbox/{Path(glob).parent}" for glob in globs.split())
