"""Where root file systems are kept, and which directory a `--rootfs` means.

Owns the place, the layout and the rule of lookup. Read on the way to every create and
join, so it may import os and the words of floor 0, nothing heavier. It changes nothing:
entries.py does.

Layout, below the store directory:
    NAME/rootfs     the tree
    NAME/meta.json  what it was made of
    .lock, .build-NAME-ID, .trash-NAME-ID  see entries.py
"""

import os

from ..errors import NsboxError
from ..spec import name_fault

ENV = "NSBOX_STORE"
RECIPE_FILE = "recipe.ini"


def store_dir() -> str:
    """Where the store is, absolute; it need not exist."""
    if chosen := os.environ.get(ENV):
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/nsbox/rootfs"
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # a relative one is to be ignored: XDG base directories
        data = os.path.expanduser("~/.local/share")
    return os.path.join(data, "nsbox", "rootfs")


def check_owner(path: str) -> bool:
    """Tell whether the store exists, and refuse one that others could have filled.

    Raises:
        NsboxError: not a directory, not ours, or writable by group or others.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return False
    except OSError as err:
        raise NsboxError("cannot use the rootfs store") from err
    if not os.path.isdir(path):
        why, hint = "it is not a directory", ""
    elif found.st_uid != os.geteuid():
        why = f"it belongs to user {found.st_uid}, not to you ({os.geteuid()})"
        hint = f"{ENV} names another directory"
    elif found.st_mode & 0o022:
        why, hint = "others may write to it", f"chmod go-w {path}"
    else:
        return True
    raise NsboxError(f"cannot use the rootfs store {path}: {why}", hint=hint)


def tree_of(name: str) -> str:
    """The directory of the entry `name`, whether it exists or not."""
    return os.path.join(store_dir(), name, "rootfs")


def resolve(name_or_dir: str) -> str:
    """The directory that `--rootfs NAME_OR_DIR` means, absolute.

    What contains a slash, and "." and "..", is a directory; its existence is for the
    caller to find out. All else is a name in the store, or, if the store has none, a
    directory of that name right here.

    Raises:
        NsboxError: neither is there, or the store is not safe to use.
    """
    if "/" in name_or_dir or name_or_dir in (".", ".."):
        return os.path.realpath(name_or_dir)
    if not name_fault(name_or_dir):
        tree = tree_of(name_or_dir)
        if check_owner(store_dir()) and os.path.isdir(tree):
            return tree
    if name_or_dir and os.path.isdir(name_or_dir):
        return os.path.realpath(name_or_dir)
    raise NsboxError(f"cannot find rootfs '{name_or_dir}'", hint=_where_to_look(name_or_dir))


def _where_to_look(name: str) -> str:
    if not name_fault(name) and shipped_recipe(name):
        return f"nsbox rootfs build {name}"
    return "nsbox rootfs ls shows what there is; a directory is written with a slash, as ./DIR"


def shipped_recipe(name: str) -> str:
    """The folder of the recipe `name` that came with nsbox, or ""."""
    for place in recipe_places():
        folder = os.path.join(place, name)
        if os.path.isfile(os.path.join(folder, RECIPE_FILE)):
            return folder
    return ""


def recipe_places() -> list[str]:
    """Where recipes come from: the checkout, or the data directory of an installation."""
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = []
    if os.path.isfile(os.path.join(checkout, "setup.cfg")):  # not so in site-packages
        places.append(os.path.join(checkout, "rootfs"))
    import sysconfig  # only when a name is unknown, or a build is asked for

    places.append(os.path.join(sysconfig.get_path("data"), "share", "nsbox", "rootfs"))
    return places
