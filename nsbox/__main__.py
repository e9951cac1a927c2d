"""``python -m nsbox``."""

from nsbox.cli import entry

entry()
