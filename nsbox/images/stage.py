"""The stage of a recipe: a tree with the tools for a build, of which only the result is kept.

The script of the recipe runs as root inside the stage, with the network and in an empty
directory. What it leaves in $RESULT is copied over the finished tree. Its words become the
build's: a line "I: doing this" is a step, "E: that is wrong" is why it failed.
"""

import os
import shlex

from . import entries, npm
from .recipe import Stage

_INSIDE = "/nsbox"  # in the stage; the caller's paths are not seen in there
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def root_of(place: entries.Workplace) -> str:
    """Where the tree of the stage is made."""
    return os.path.join(place.work, "stage")


def hook_that_builds(stage: Stage, folder: str, place: entries.Workplace) -> str:
    """What the shell shall do when the stage, its $1, is complete: run the script inside it.

    Args:
        folder: the recipe's.
    """
    lent = os.path.join(place.work, "lent")
    os.mkdir(lent, 0o700)
    return hook_with(stage, folder, place, npm.lend(lent, f"{_INSIDE}/lent") if stage.lend == "npm" else {})


def foretold_hook(stage: Stage, folder: str, place: entries.Workplace) -> str:
    """The same, and nothing is written for it."""
    return hook_with(stage, folder, place, npm.lent(f"{_INSIDE}/lent")[1] if stage.lend == "npm" else {})


def hook_with(stage: Stage, folder: str, place: entries.Workplace, more: dict[str, str]) -> str:
    """The words of :func:`hook_that_builds`. `more`: variables of what is lent."""
    lent = os.path.join(place.work, "lent")
    variables = {"PATH": _PATH, "HOME": "/root", "RESULT": f"{_INSIDE}/result"} | more
    script = shlex.quote(os.path.join(folder, stage.script))
    settings = shlex.join(f"{name}={value}" for name, value in variables.items())
    return f"""set -e
        mkdir -m 755 "$1"{_INSIDE} "$1"{_INSIDE}/result "$1"{_INSIDE}/build
        cp -R -- {shlex.quote(lent)} "$1"{_INSIDE}/lent
        cp -- {script} "$1"{_INSIDE}/script
        chmod 755 "$1"{_INSIDE}/script
        env --unset=SSL_CERT_FILE --unset=SSL_CERT_DIR {settings} \\
            chroot "$1" sh -c 'cd {_INSIDE}/build && exec ../script' || {{
            echo {shlex.quote(f"E: the script '{stage.script}' failed")}
            exit 1
        }}"""


def hook_that_copies(place: entries.Workplace) -> str:
    """What the shell shall do when the tree, its $1, is complete: copy the result over it."""
    return f'cp -a -- {shlex.quote(root_of(place) + _INSIDE + "/result/.")} "$1"/'
