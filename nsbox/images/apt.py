"""The machine's own apt settings, lent to a build.

Mirrors, proxies, certificates and passwords of this machine are handed to mmdebstrap in
scratch files; what is left in the tree afterwards are Debian's public mirrors.
"""

import os
import re
import subprocess

from . import command, tree

CONFIG_DUMP = ["apt-config", "dump"]
LENT_CONF = "zz-nsbox-lent"
_ETC = "/etc/apt"
# "sid" is not among them: os-release(5) gives it the name of testing, and the two do not mix.
_ROLLING = ("oldstable", "stable", "testing")
_POCKETS = ("", "-updates", "-security", "-proposed-updates", "-backports", "/updates")
_SKIPPED = re.compile(r"Acquire::(IndexTargets|Changelogs|CompressionTypes|cdrom)\b")
_ONE_LINE = re.compile(
    r"deb\s+(?:\[[^]]*\]\s*)?(?!cdrom:)\S+\s+(?P<suite>\S+)\s+(?P<components>.+)"
)


_MAIN_MIRROR = r"https?://[a-z.]+/debian(?![a-z-])"
_SECURITY_MIRROR = r"https?://[a-z.]+/debian-security"


def host_release() -> str:
    """Code name of the Debian that this machine runs, or "" on anything else."""
    words: dict[str, str] = {}
    try:
        with open("/etc/os-release", encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                words[key] = value.strip("\"'")
    except OSError:
        return ""
    return words.get("VERSION_CODENAME", "") if words.get("ID") == "debian" else ""


def lend_sources(work: str, release: str) -> list[str]:
    """Copy this machine's entries of Debian itself into scratch files; their paths.

    Other vendors' entries stay out: nothing of theirs was asked for, and one broken one
    would end the build.
    """
    paths = []
    for path, text in lent_sources(work, release).items():
        paths.append(path)
        with open(path, "w", encoding="utf-8", opener=_private) as file:
            file.write(text)
    return paths


def lent_sources(work: str, release: str) -> dict[str, str]:
    """The scratch files of :func:`lend_sources`, and what is written to each."""
    texts = {"list": "", "sources": ""}
    for path in _source_files():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue  # readable for root only: apt of this user does without it as well
        if path.endswith(".list"):
            texts["list"] += "".join(f"{line}\n" for line in debian_lines(text, release))
        else:
            texts["sources"] += "".join(f"{part}\n\n" for part in debian_stanzas(text, release))
    return {os.path.join(work, f"debian.{kind}"): text for kind, text in texts.items() if text}


def debian_lines(text: str, release: str) -> list[str]:
    """The lines of a sources.list(5) that offer the main part of `release`."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#")[0].strip())
        if match and _is_debian([match["suite"]], match["components"].split(), release):
            found.append(line.strip())
    return found


def debian_stanzas(text: str, release: str) -> list[str]:
    """The paragraphs of a deb822 file that offer the main part of `release`."""
    found = []
    for part in re.split(r"\n\s*\n", text):
        lines = [line for line in part.splitlines() if not line.startswith("#")]
        words: dict[str, list[str]] = {}
        key = ""
        for line in lines:
            if not line[:1].isspace():
                key, _, line = line.partition(":")
            words.setdefault(key.strip().lower(), []).extend(line.split())
        wanted = "deb" in words.get("types", ()) and words.get("enabled", ["yes"]) != ["no"]
        if wanted and _is_debian(words.get("suites", []), words.get("components", []), release):
            found.append("\n".join(line for line in lines if line.strip()))
    return found


def lend_conf(work: str) -> str:
    """Write this machine's settings for fetching (proxy, certificates, ...) to a scratch file.

    Hooks and the like are left out: they are meant for this machine's own packages.
    """
    lines = [f"{line}\n" for line in _config_dump() if _is_lent(line)]
    for key, name in (("netrc", "auth.conf"), ("netrcparts", "auth.conf.d")):
        lines.append(f'Dir::Etc::{key} "{_ETC}/{name}";\n')  # apt reads it outside of the tree
    path = os.path.join(work, LENT_CONF)
    with open(path, "w", encoding="utf-8", opener=_private) as file:
        file.writelines(lines)
    return path


def leave_public_sources(root: str, suite: str, mirror: str = "") -> None:
    """Take back what was lent: the tree's apt gets public mirrors and no settings.

    Args:
        mirror: the recipe's own address, or "" for Debian's.
    """
    tree.clear_dir(root, "etc/apt/sources.list.d")
    main, security = _public_mirrors()
    lines = [f"deb {mirror or main} {suite} main\n"] if mirror or main else ["# write a mirror here\n"]
    if main and not mirror and suite not in ("unstable", "sid", "experimental"):
        lines.append(f"deb {main} {suite}-updates main\n")
        if security:
            lines.append(f"deb {security} {suite}-security main\n")
    tree.put_file(root, "etc/apt/sources.list", "".join(lines).encode())
    with tree.opened(root, "etc/apt/apt.conf.d") as fd:
        if LENT_CONF in os.listdir(fd):
            os.unlink(LENT_CONF, dir_fd=fd)


def _public_mirrors() -> tuple[str, str]:
    """Debian's public mirrors, main and security, as mmdebstrap has them by default; or ""."""
    try:
        with open(command.find("mmdebstrap"), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return "", ""
    found = [re.search(pattern, text) for pattern in (_MAIN_MIRROR, _SECURITY_MIRROR)]
    return (found[0][0] if found[0] else "", found[1][0] if found[1] else "")


def _source_files() -> list[str]:
    parts = os.path.join(_ETC, "sources.list.d")
    names = sorted(os.listdir(parts)) if os.path.isdir(parts) else []
    paths = [os.path.join(parts, name) for name in names if name.endswith((".list", ".sources"))]
    return [os.path.join(_ETC, "sources.list"), *paths]


def _is_debian(suites: list[str], components: list[str], release: str) -> bool:
    known = {base + pocket for base in (release, *_ROLLING) for pocket in _POCKETS}
    return bool(suites) and "main" in components and all(suite in known for suite in suites)


def _config_dump() -> list[str]:
    try:
        done = subprocess.run(
            CONFIG_DUMP, env=command.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )
    except OSError:
        return []  # no apt here: nothing to lend
    return done.stdout.splitlines()


def _is_lent(line: str) -> bool:
    return line.startswith("Acquire::") and not _SKIPPED.match(line)


def _private(path: str, flags: int) -> int:
    """Opener: passwords may be in it."""
    return os.open(path, flags | os.O_EXCL, 0o600)
