"""The machine's own npm settings, lent to the script of a stage.

Registry, proxies, certificates and passwords of this machine go into the stage as one
npmrc and one file of certificates. The stage is deleted, so nothing has to be taken back.
"""

import os
import re

_GLOBAL = ("/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc")  # by where npm was installed
# What says how the registry is reached. All else (folders, scripts, habits) is of this machine.
_LENT = re.compile(
    r"registry|@[^:/]+:registry|//\S+:\S+|proxy|https?-proxy|noproxy|strict-ssl|ca"
    r"|fetch-\w[\w-]*|maxsockets|replace-registry-host"
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_VARIABLE = "npm_config_"


def lend(work: str, inside: str) -> dict[str, str]:
    """Write npmrc and ca.pem into the directory `work`; the variables that make them count.

    Args:
        inside: where the script will find that directory.

    Raises:
        OSError: the directory cannot be written to.
    """
    texts, variables = lent(inside)
    for name, text in texts.items():
        _write(work, name, text)
    return variables


def lent(inside: str) -> tuple[dict[str, str], dict[str, str]]:
    """What :func:`lend` writes, by file, and the variables."""
    settings = _settings()
    own_ca = os.path.expanduser(settings.pop("cafile", "").strip("\"'"))
    lines = [f"{key}={value}\n" for key, value in settings.items() if _LENT.fullmatch(key)]
    texts, variables = dict[str, str](), {"NPM_CONFIG_USERCONFIG": f"{inside}/npmrc"}
    certificates = _read(own_ca) or _read(_trusted())
    if certificates:
        texts["ca.pem"] = certificates
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")  # of OpenSSL, and of node's own list
        variables |= dict.fromkeys(names, f"{inside}/ca.pem")
        if own_ca:  # it takes the place of node's list: npm's config(7)
            lines.append(f"cafile={inside}/ca.pem\n")
    texts["npmrc"] = "".join(lines)
    return texts, variables


def _settings() -> dict[str, str]:
    """npm's settings by key: the machine's, those of the user above them, the environment on top."""
    found: dict[str, str] = {}
    environment = _of_environment()
    user = environment.get("userconfig") or os.path.expanduser("~/.npmrc")
    for path in (*_GLOBAL, user):
        found |= parse(_read(path))
    return found | environment


def parse(text: str) -> dict[str, str]:
    """The settings of an npmrc. ${NAME} is put in here: in the stage it would have no value."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals and not key.lstrip().startswith(("#", ";")):
            known = re.sub(r"\$\{(\w+)\}", lambda at: os.environ.get(at[1], at[0]), value.strip())
            found[key.strip()] = known
    return found


def _of_environment() -> dict[str, str]:
    """What npm_config_KEY says. See npm's config(7)."""
    found = {}
    for name, value in os.environ.items():
        if name.lower().startswith(_VARIABLE) and value.isprintable():
            key = name[len(_VARIABLE):]
            found[key if key.startswith("//") else key.lower().replace("_", "-")] = value
    return found


def _trusted() -> str:
    """The file of certificates that programs of this machine are to trust."""
    for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"):
        if value := os.environ.get(name):
            return value
    return _CERTIFICATES


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return ""  # not there, or another user's: npm of this user does without it as well


def _write(work: str, name: str, content: str) -> None:
    """Passwords may be in it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(os.path.join(work, name), flags, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(content)
