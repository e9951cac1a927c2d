"""Numbers, kinds, variables, labels, signals: what people may write and what it means.

Row ids (H04, H07, ...) name the cases that a test covers. No root and no kernel needed.
"""

import argparse

import pytest

from nsbox import parse, spec
from nsbox.cli import front, net
from nsbox.errors import NsboxError, SpecError, one_line
from refusals import refusal

BAD_INTEGERS = [
    "", " ", "-1", "+80", "8_0", "\uff18\uff10", "\u0661", " 7 ", "7\n", "080", "00", "0x10", "1e3",
    "1.0", "65536", "99999999999999", "9" * 5000, "a", "8\0",
]


@pytest.mark.parametrize("text", BAD_INTEGERS)
def test_H04_an_integer_is_plain_ascii_digits(text):
    refusal(parse.parse_integer, text, "port", 1, 65535)


@pytest.mark.parametrize("text, number", [("1", 1), ("80", 80), ("65535", 65535)])
def test_H04_an_integer_in_range_is_taken(text, number):
    assert parse.parse_integer(text, "port", 1, 65535) == number


def test_H04_zero_is_an_integer_where_the_range_has_it():
    assert parse.parse_integer("0", "uid", 0, 9) == 0
    refusal(parse.parse_integer, "0", "port", 1, 9)


@pytest.mark.parametrize("text, size", [
    ("1", 1), ("512b", 512), ("64k", 65536), ("64K", 65536), ("64m", 2**26), ("2G", 2**31),
    (str(2**60), 2**60), ("1073741824g", 2**60),
])
def test_a_size_is_in_powers_of_1024(text, size):
    assert parse.parse_size(text, "memory") == size


@pytest.mark.parametrize("text", [
    "", "0", "0g", "-1", "+1", "1.5g", "1t", "1kb", "1 k", "k", "1_0", "\uff18", "1\u212a", "1k\n",
    "064m", str(2**60 + 1), str(2**63), str(2**64), "1073741825g", "9" * 5000, "nan",
])
def test_a_size_that_would_wrap_or_is_none_is_refused(text):
    refusal(parse.parse_size, text, "memory")


@pytest.mark.parametrize("text, number", [("0", 0), ("10", 10), ("0.5", 0.5), ("1000000", 1e6)])
def test_a_time_is_in_seconds(text, number):
    assert parse.parse_seconds(text, "timeout") == number


@pytest.mark.parametrize("text", [
    "", "-1", "+1", "nan", "inf", "Infinity", "1e3", "1_0", ".", ".5", "5.", " 1", "1\n", "\u0661",
    "1000001", "9" * 400, "10s",
])
def test_a_time_that_is_no_time_is_refused(text):
    refusal(parse.parse_seconds, text, "timeout")


# Kinds

@pytest.mark.parametrize("text, kinds", [
    ("pid", {"pid"}), ("net,ipc,uts", {"net", "ipc", "uts"}), ("pid,pid", {"pid"}),
    ("none", set()), ("mount,network", {"mnt", "net"}), ("user,cgroup,time", spec.EXTRA_KINDS),
    ("+pid", {"net", "pid"}), ("+pid,+mount", {"net", "pid", "mnt"}), ("+net", {"net"}),
])
def test_share_replaces_the_default_or_adds_to_it(text, kinds):
    assert parse.parse_share(text, {"net"}) == kinds


@pytest.mark.parametrize("text", [
    "", ",", "+", "x", "pid,", "+pid,net", "pid,+net", "none,pid", "+none", "none,none", "PID",
    "pid net", "-pid", "++pid", "+pid,none",
])
def test_a_share_that_is_unclear_is_refused(text):
    refusal(parse.parse_share, text, {"net"})


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(SpecError) as caught:
        parse.parse_share("pids", ())
    assert all(kind in caught.value.hint for kind in spec.KIND_NAMES)


def test_with_takes_only_the_extra_kinds():
    assert parse.parse_with("time,user") == {"time", "user"}
    for text in ("", "pid", "time,net", "none", "+time"):
        refusal(parse.parse_with, text)


def test_the_kinds_are_the_pods_own_and_the_extra_ones():
    assert set(spec.KIND_NAMES) == spec.POD_KINDS | spec.EXTRA_KINDS
    assert len(spec.POD_KINDS) == 5 and not spec.POD_KINDS & spec.EXTRA_KINDS


# Environment

def test_H07_a_variable_is_any_bytes_and_the_last_one_wins():
    items = ["A=1", "B=x=y", "C=", "D=a\nb", "E=\udcff", "A=2", "F G=1"]
    assert parse.parse_env(items, [], {}) == (
        (b"A", b"2"), (b"B", b"x=y"), (b"C", b""), (b"D", b"a\nb"), (b"E", b"\xff"), (b"F G", b"1"),
    )


def test_H07_a_bare_name_is_taken_from_the_environment_if_it_is_there():
    environ = {"A": "1", "\udcff": "\udcfe"}
    assert parse.parse_env(["A", "NOT_THERE", "\udcff"], [], environ) == (
        (b"A", b"1"), (b"\xff", b"\xfe"),
    )


@pytest.mark.parametrize("item", ["", "=", "=x", "A=\0", "A\0=b", "A\0", "A=\ud800"])
def test_H07_a_variable_without_a_name_or_with_a_nul_is_refused(item):
    refusal(parse.parse_env, [item], [], {})


def test_H07_an_env_file_has_comments_and_blank_lines(tmp_path):
    file, other = tmp_path / "env", tmp_path / "other"
    file.write_bytes(
        b"\xef\xbb\xbfA=1\r\n\n # no\n#no\n  B=x y #z\nC=\xff\nHOST\nGONE\nD='q'\nA=2"
    )
    other.write_bytes(b"B=2\n")
    assert dict(parse.parse_env(["C=3"], [str(file), str(other)], {"HOST": "h"})) == {
        b"A": b"2", b"B": b"2", b"C": b"3", b"HOST": b"h", b"D": b"'q'",
    }


@pytest.mark.parametrize("text", [
    b"A=1\n=x\n", b"A=1\nB=\0\n", b"A=1\nexport B=1", b"A=1\nB =1", b"A=1\nB\t=1\n", b"A=1\nB \n",
])
def test_H07_a_wrong_line_of_an_env_file_is_named(tmp_path, text):
    file = tmp_path / "env"
    file.write_bytes(text)
    assert "line 2 of env file" in refusal(parse.parse_env, [], [str(file)], {})


def test_H07_an_unreadable_env_file_is_a_failure_with_its_cause(tmp_path):
    with pytest.raises(NsboxError) as caught:
        parse.parse_env([], [str(tmp_path / "no\nfile")], {})
    assert not isinstance(caught.value, SpecError)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert str(caught.value).isprintable()
    assert one_line(caught.value).endswith("No such file or directory")
    refusal(parse.parse_env, [], ["a\0b"], {})


def test_H07_an_env_file_without_end_is_refused():
    with pytest.raises(NsboxError, match="too big"):
        parse.parse_env([], ["/dev/zero"], {})


# Labels, signals, init

def test_a_label_is_a_key_and_a_value():
    assert parse.parse_label("app=web") == ("app", "web")
    assert parse.parse_label("a.b/c=d=e") == ("a.b/c", "d=e")
    assert parse.parse_label("a=") == ("a", "")
    for text in ("", "a", "=", "=b", "a=\0", "a=\ud800"):
        refusal(parse.parse_label, text)


@pytest.mark.parametrize("text, number", [
    ("TERM", 15), ("SIGTERM", 15), ("sigterm", 15), ("term", 15), ("15", 15), ("1", 1), ("64", 64),
    ("KILL", 9), ("CHLD", 17), ("RTMIN", 34), ("rtmin+1", 35), ("SIGRTMAX-1", 63), ("RTMAX", 64),
])
def test_a_signal_is_a_name_or_a_number(text, number):
    assert parse.parse_signal(text) == number
    assert type(parse.parse_signal(text)) is int


@pytest.mark.parametrize("text", [
    "", "SIG", "SIG15", "0", "65", "-9", "+9", "015", "NOPE", "_IGN", "SIG_DFL", "SIGSIGTERM",
    "RTMIN-1", "RTMAX+1", "RTMIN+31", "RTMAX-31", "RTMIN+", " TERM", "TERM\n", "\u0131nt", "\uff19",
])
def test_a_signal_that_is_none_is_refused(text):
    refusal(parse.parse_signal, text)


def test_init_is_split_as_a_shell_splits_it():
    assert parse.split_init("/sbin/init --a 'b c' \"d\" \udcff") == (
        b"/sbin/init", b"--a", b"b c", b"d", b"\xff",
    )
    assert parse.split_init("a #b") == (b"a", b"#b")
    for text in ("", "  ", "''", "'a", "a\\", "a\0b"):
        refusal(parse.split_init, text)


def test_H01_what_is_quoted_back_is_short_and_printable():
    assert parse.quote("a\x1b[31m\n\u202e\udcff") == r"'a\x1b[31m\n\u202e\udcff'"
    assert parse.quote(b"\xff") == r"'\udcff'"
    assert len(parse.quote("a" * 10**6)) < 130


WORDS_AND_OPTIONS = {
    "publish p --publish-mode nat 192.0.2.1:80:80": {"pod": "p", "specs": ["192.0.2.1:80:80"], "publish_mode": "nat"},
    "publish u --json 8080:80 --publish-mode nat 81": {"specs": ["8080:80", "81"], "json": True, "publish_mode": "nat"},
    "publish --json u": {"pod": "u", "specs": [], "json": True},
    "unpublish u 80 -- 81": {"pod": "u", "specs": ["80", "81"]},
    "rm a -f b": {"pods": ["a", "b"], "force": True},
    "rm -f a -- -b": {"pods": ["a", "-b"], "force": True},
    "stop a -t 3 b": {"pods": ["a", "b"], "time": "3"},
    "kill a -s TERM b": {"targets": ["a", "b"], "signal": "TERM"},
    "wait a --json b": {"targets": ["a", "b"], "json": True},
    "inspect a --json b": {"targets": ["a", "b"], "json": True},
    "net rm a -f b": {"names": ["a", "b"], "force": True},
    "net link a --delay 4 b": {"pods": ["a", "b"], "delay": "4"},
    "create web --json": {"name": "web", "json": True},
    "join web -e A=1 hostname -f": {"target": "web", "command": ["-e", "A=1", "hostname", "-f"]},
}


@pytest.mark.parametrize("line", WORDS_AND_OPTIONS)
def test_options_stand_anywhere_among_the_words(line):
    """But not in a command. Red when: the parser of the verbs is argparse's own."""
    args, unknown = front.build_parser([line.split()[0]]).parse_known_args(line.split())
    wanted = WORDS_AND_OPTIONS[line]
    assert {name: getattr(args, name) for name in wanted} == wanted and not unknown


def test_an_option_that_is_none_is_left_for_an_error():
    """Red when: it is taken for a word."""
    assert front.build_parser(["rm"]).parse_known_args(["rm", "a", "--frob", "b"])[1][0] == "--frob"


@pytest.mark.parametrize("option, text, unit", [
    ("delay", "nan", "milliseconds, 0 to 60000"), ("delay", "-1", "milliseconds, 0 to 60000"),
    ("delay", "60001", "milliseconds, 0 to 60000"), ("loss", "nan", "percent, 0 to 100"),
    ("loss", "inf", "percent, 0 to 100"), ("loss", "100.1", "percent, 0 to 100"), ("loss", "1e1", "percent, 0 to 100"),
])
def test_a_bad_number_for_a_link_is_answered_with_its_unit(option, text, unit):
    """Red when: it is read as a number of seconds."""
    args = argparse.Namespace(**{"delay": None, "loss": None, "rate": None, option: text})
    assert refusal(net._shape, args) == f"cannot use --{option} {text!r}: not a number of {unit}"


@pytest.mark.parametrize("uid, gid, owner", [
    ("1000", "1000", (1000, 1000)), ("1", "4294967294", (1, 4294967294)), ("0", "0", None), ("1000", "0", None),
    ("4294967295", "1", None), ("-1", "1", None), ("+1", "1", None), ("1_0", "1", None), (" 1", "1", None), ("", "1", None),
    ("\uff11", "1", None), ("00000000001", "1", None), ("1e3", "1", None), (None, "1", None), ("1", None, None),
])  # fmt: skip
def test_who_called_sudo_is_an_ordinary_user_in_plain_numbers(uid, gid, owner):
    """Red when: sudo_caller leaves out isascii, len or the limits."""
    environ = {name: value for name, value in (("SUDO_UID", uid), ("SUDO_GID", gid)) if value is not None}
    assert parse.sudo_caller(environ) == owner
