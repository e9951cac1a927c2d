"""Many command lines in one go: each in a fork of one interpreter, so it costs a millisecond."""

import json
import os
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

from fakehost import FakeHost

_DRIVER = """
import json, os, sys, tempfile
from nsbox import cli
from nsbox.cli import front
for words in json.load(sys.stdin):
    files = [tempfile.TemporaryFile() for _ in range(2)]
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, file in enumerate(files):
                os.dup2(file.fileno(), number + 1)
            status = cli.main(words)
            sys.stdout.flush()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = []
    for file in files:
        file.seek(0)
        said.append(os.fsdecode(file.read()))
        file.close()
    print(json.dumps([status, *said]), flush=True)  # or the next child would have it in its buffer
"""


def run_each(
    host: FakeHost, lines: Iterable[Sequence[str | bytes]], **kw: Any
) -> "list[subprocess.CompletedProcess[str]]":
    """Run `nsbox WORDS` for each of the lines inside; a word may hold a NUL."""
    argvs = [[os.fsdecode(word) for word in words] for words in lines]
    done = host.python(_DRIVER, input=json.dumps(argvs), **kw)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(argvs)
    return [subprocess.CompletedProcess(argv, *one) for argv, one in zip(argvs, said, strict=True)]
