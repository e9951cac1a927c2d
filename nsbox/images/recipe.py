"""Recipes: folders that say how a root file system is made.

Owns the grammar of recipe.ini and of package names. Reads, builds nothing.
"""

import configparser
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import NsboxError, SpecError
from ..spec import name_fault
from ..words import printable
from . import store

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")  # Debian policy 5.6.1
_SUITE = re.compile(r"[a-z][a-z0-9-]*")
_VARIANTS = ("minbase", "apt", "essential", "required", "important", "standard", "buildd")
_SCRIPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEYS = {
    "busybox": {"kind", "description"},
    "mmdebstrap": {
        *("kind", "description", "suite", "variant", "include", "sources", "mirror", "slim"),
    },
}
_STAGE_KEYS = {"include", "script", "lend"}
LENDS = ("npm",)


class Stage(NamedTuple):
    """A second tree that is made first, for tools that the finished one shall not have.

    Attributes:
        script: file name in the recipe's folder; runs inside, see stage.py.
        include: Debian packages of the stage.
        lend: whose settings of this machine the script gets: "npm", or "".
    """

    script: str
    include: tuple[str, ...] = ()
    lend: str = ""


class Recipe(NamedTuple):
    """How one root file system is made.

    Attributes:
        name: of the recipe, and of what it builds.
        folder: where recipe.ini is; files/ beside it is copied over the tree.
        kind: "busybox" or "mmdebstrap".
        suite: the Debian release, if the machine's own is not used.
        sources: "host" for the machine's own release and mirrors, or "".
        mirror: an http(s) address, or "" for Debian's own.
        slim: "yes" leaves out manuals, translations and the like.
        stage: where parts of the tree are built, if they are.
    """

    name: str
    folder: str
    kind: str
    description: str = ""
    suite: str = ""
    variant: str = "minbase"
    include: tuple[str, ...] = ()
    sources: str = ""
    mirror: str = ""
    slim: str = ""
    stage: Stage | None = None


def find(name_or_dir: str) -> Recipe:
    """The recipe of that name that came with nsbox, or the one in that folder.

    Raises:
        SpecError: its words are wrong, or the folder's name cannot name an entry.
        NsboxError: there is none.
    """
    if "/" in name_or_dir or name_or_dir in (".", ".."):
        return read(os.path.realpath(name_or_dir))
    check_name(name_or_dir)
    if folder := store.shipped_recipe(name_or_dir):
        return read(folder)
    if os.path.isfile(os.path.join(name_or_dir, store.RECIPE_FILE)):
        return read(os.path.realpath(name_or_dir))
    known = ", ".join(shipped()) or "none"
    raise NsboxError(f"cannot find a recipe '{name_or_dir}'", hint=f"there are: {known}; or ./DIR")


def shipped() -> list[str]:
    """Names of the recipes that came with nsbox."""
    names: set[str] = set()
    for place in store.recipe_places():
        if os.path.isdir(place):
            names.update(name for name in os.listdir(place) if store.shipped_recipe(name))
    return sorted(names)


def read(folder: str) -> Recipe:
    """Read and check FOLDER/recipe.ini."""
    path = os.path.join(folder, store.RECIPE_FILE)
    name = os.path.basename(folder)
    check_name(name)
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        sections = {title: dict(parser[title]) for title in parser.sections()}
        words = sections.pop("rootfs")
    except OSError as err:
        raise NsboxError(f"cannot read recipe '{name}'") from err
    except (configparser.Error, KeyError, UnicodeDecodeError) as err:
        why = str(err).splitlines()[0] if isinstance(err, configparser.Error) else "no [rootfs]"
        raise SpecError(f"cannot read recipe '{name}': {path}: {why}") from err
    stage = sections.pop("stage", None)
    if sections:
        raise _refusal(name, f"there is no section [{next(iter(sections))}]")
    recipe = _checked(name, folder, words)
    return recipe._replace(stage=_checked_stage(recipe, stage)) if stage is not None else recipe


def check_name(name: str) -> None:
    """Refuse what cannot name an entry of the store."""
    if fault := name_fault(name):
        raise SpecError(f"cannot use '{printable(name)}' as the name of a rootfs: {fault}")


def check_packages(names: Iterable[str]) -> tuple[str, ...]:
    """The package names in their order, each once; refuse what is none: apt would take it for more.

    "vim-" removes, "a/b" chooses a release, a leading dash is an option: apt-get(8).
    """
    unique = tuple(dict.fromkeys(names))
    for name in unique:
        if not _PACKAGE.fullmatch(name) or name.endswith("-"):
            raise SpecError(f"cannot include '{printable(name)}': not the name of a Debian package")
    return unique


def _refusal(name: str, why: str) -> SpecError:
    return SpecError(f"cannot use recipe '{name}': {printable(why)}")


def _checked(name: str, folder: str, words: dict[str, str]) -> Recipe:
    kind = words.get("kind", "")
    if kind not in _KEYS:
        raise _refusal(name, f"kind '{kind}' is none of {', '.join(_KEYS)}")
    if unknown := sorted(words.keys() - _KEYS[kind]):
        raise _refusal(name, f"kind {kind} knows no '{unknown[0]}'")
    packages = check_packages(words.pop("include", "").replace(",", " ").split())
    recipe = Recipe(name, folder, include=packages, stage=None, **words)
    if recipe.sources not in ("", "host"):
        raise _refusal(name, f"sources '{recipe.sources}' is not 'host'")
    if recipe.slim not in ("", "yes", "no"):
        raise _refusal(name, f"slim '{recipe.slim}' is neither yes nor no")
    if recipe.variant not in _VARIANTS:
        raise _refusal(name, f"variant '{recipe.variant}' is none of {', '.join(_VARIANTS)}")
    if kind == "mmdebstrap" and not _SUITE.fullmatch(recipe.suite):
        raise _refusal(name, "suite must name a Debian release, such as bookworm")
    if recipe.mirror and not re.fullmatch(r"https?://[!-~]+", recipe.mirror):
        raise _refusal(name, "mirror must be an http or https address")
    return recipe


def _checked_stage(recipe: Recipe, words: dict[str, str]) -> Stage:
    if recipe.kind != "mmdebstrap":
        raise _refusal(recipe.name, f"kind {recipe.kind} has no [stage]")
    if unknown := sorted(words.keys() - _STAGE_KEYS):
        raise _refusal(recipe.name, f"[stage] knows no '{unknown[0]}'")
    packages = check_packages(words.get("include", "").replace(",", " ").split())
    stage = Stage(words.get("script", ""), packages, words.get("lend", ""))
    if stage.lend and stage.lend not in LENDS:
        raise _refusal(recipe.name, f"lend '{stage.lend}' is none of {', '.join(LENDS)}")
    if not _SCRIPT.fullmatch(stage.script):
        raise _refusal(recipe.name, f"script '{stage.script}' is not the name of a file beside it")
    path = os.path.join(recipe.folder, stage.script)
    if os.path.islink(path) or not os.path.isfile(path):
        raise _refusal(recipe.name, f"there is no file '{stage.script}' beside recipe.ini")
    return stage
