"""``python -m nsbox``."""

import sys

if not sys.flags.safe_path:  # -m puts the current directory first, and what lies there is none of ours
    del sys.path[0]

from nsbox.cli import entry  # noqa: E402

entry()
