"""What the specs hold, their laws, and their way through JSON and back.

Row ids (H01, H19, ...) name the cases that a test covers. No root and no kernel needed.
"""

import json
import os
import random
import subprocess
import sys

import pytest

from nsbox import parse, spec
from nsbox.errors import SpecError
from refusals import refusal

BAD_NAMES = [
    "../x", "/x", ".", "..", "a/b", "a%2fb", "", "-rf", ".hidden", "a b", "a\nb", "a\n", "a\0b",
    "\u00e9", "\uff45", "a\u0661", "CON", "_a", "a" * 64, "a" * 255, "a" * 256, "7", "1234",
    "\udcff", "\x1b[31m", "a\u202e",
]
ODD = "/a b\nc,d;e\\f\"g'h\udcff\x1b"
POD = spec.PodSpec("web", "web", spec.RootSpec(""))


# Names

@pytest.mark.parametrize("name", BAD_NAMES)
def test_H01_a_name_that_is_no_file_name_is_refused(name):
    assert refusal(parse.check_name, name).startswith("cannot use pod name ")


@pytest.mark.parametrize("name", ["a", "web", "0a", "a.b_c-d", "a..b", "a" * 63, "1.2", "con"])
def test_H01_a_plain_name_is_taken_as_it_is(name):
    assert parse.check_name(name) == name


def test_H01_a_number_is_refused_because_it_is_a_pid():
    assert "PID" in refusal(parse.check_name, "1234")


def test_H01_a_name_read_back_from_a_file_is_checked_again():
    for name in BAD_NAMES:
        data = spec.pod_spec_to_dict(POD) | {"name": name}
        refusal(spec.pod_spec_from_dict, data)


@pytest.mark.parametrize("name", ["a" * 63, "a_b", "a..b", "a.-", "a_", "x.-.y", "0_.", "a-.b"])
def test_H03_every_pod_name_gives_a_valid_hostname(name):
    hostname = parse.hostname_of(parse.check_name(name))
    assert parse.check_hostname(hostname) == hostname


def test_H03_whatever_the_name_the_hostname_is_valid():
    dice = random.Random(1)
    for _ in range(2000):
        name = dice.choice("a0") + "".join(dice.choices("a0_.-", k=dice.randrange(63)))
        if spec.name_fault(name) == "":
            assert spec.hostname_fault(parse.hostname_of(name)) == "", name


@pytest.mark.parametrize("hostname", ["a", "Web-1", "a.b.example", "1", "a" * 63, "a." + "b" * 62])
def test_a_hostname_is_labels_joined_by_dots(hostname):
    assert parse.check_hostname(hostname) == hostname


@pytest.mark.parametrize("hostname", [
    "", "-a", "a-", "a_b", "a..b", ".a", "a.", "a b", "a\n", "\u00e9", "a/b", "a\0", "a" * 64,
    "a." + "b" * 63,
])
def test_a_wrong_hostname_is_refused(hostname):
    refusal(parse.check_hostname, hostname)


# Specs as plain values

@pytest.mark.parametrize("pod", [POD, spec.PodSpec(
    "db", "db.example", spec.RootSpec(
        "/r\udcff", True, True, True, (spec.Volume("/a", ODD, True),),
        (spec.Tmpfs("/t", 5, 0o700, True, False, False, False),)),
    spec.EXTRA_KINDS, frozenset({"net"}), (b"/init", b"\xff"), (("k", "v"), ("k2", "")),
    spec.TimeOffsets(-5, 7), 0.25, True,
)])
def test_a_pod_spec_goes_through_json_and_comes_back(pod):
    back = spec.pod_spec_from_dict(json.loads(json.dumps(spec.pod_spec_to_dict(pod))))
    assert back == pod
    assert type(back.root) is spec.RootSpec and type(back.time) is spec.TimeOffsets


def random_member(dice):
    def raw(least=0):
        return bytes(dice.choices(range(1, 256), k=dice.randrange(least, 9)))

    root = spec.RootSpec(
        dice.choice(["", "/r"]), dice.random() < 0.5,
        volumes=tuple(spec.Volume("/s", f"/t{at}") for at in range(dice.randrange(3))),
        tmpfs=tuple(spec.Tmpfs(f"/u{at}", at or None) for at in range(dice.randrange(3))),
    )
    return spec.MemberSpec(
        tuple(raw() for _ in range(dice.randrange(1, 4))),
        dice.choice([None, frozenset(dice.sample(spec.KIND_NAMES, dice.randrange(9)))]),
        dice.choice([None, root]),
        tuple((raw(1).replace(b"=", b"x"), raw()) for _ in range(dice.randrange(3))),
        dice.choice([None, raw()]), dice.choice([None, "h"]),
    )


def test_H08_every_byte_of_a_member_spec_comes_back():
    dice = random.Random(1)
    for _ in range(500):
        member = random_member(dice)
        data = json.loads(json.dumps(spec.member_spec_to_dict(member)))
        assert spec.member_spec_from_dict(data) == member


def test_H08_each_single_byte_comes_back():
    every = bytes(range(1, 256))
    member = spec.MemberSpec((every, *(bytes([byte]) for byte in every)), env=((b"K", every),))
    assert spec.member_spec_from_dict(spec.member_spec_to_dict(member)) == member


def test_a_spec_may_leave_out_what_has_a_default():
    data = {"name": "web", "hostname": "web", "root": {"path": ""}, "stop_timeout_s": 3}
    assert spec.pod_spec_from_dict(data) == POD._replace(stop_timeout_s=3.0)
    assert spec.member_spec_from_dict({"argv": ["sh"]}) == spec.MemberSpec((b"sh",))


@pytest.mark.parametrize("change", [
    {"x": 1}, {"name": 7}, {"name": None}, {"name": "a/b"}, {"hostname": "a_b"}, {"hostname": None},
    {"root": None}, {"root": []}, {"root": {}}, {"root": {"path": "rel"}},
    {"root": {"path": "/a\0"}}, {"root": {"path": "/\ud800"}},
    {"root": {"path": "", "y": 1}}, {"root": {"path": "", "chroot": 1}},
    {"root": {"path": "", "volumes": [["/a", "/b"]]}},
    {"root": {"path": "", "volumes": [{"source": "a", "target": "/b"}]}},
    {"root": {"path": "", "tmpfs": [{"target": "/b", "size_bytes": True}]}},
    {"root": {"path": "", "tmpfs": [{"target": "/b", "size_bytes": 2**63}]}},
    {"root": {"path": "", "tmpfs": [{"target": "/b", "mode": -1}]}},
    {"with_kinds": ["pid"]}, {"with_kinds": [[]]}, {"with_kinds": "time"}, {"share": ["x"]},
    {"share": {}}, {"init": "sh"}, {"init": ["a\0"]}, {"init": ["\ud800"]}, {"labels": {"a": "b"}},
    {"labels": [["a"]]}, {"labels": [["a", 1]]}, {"time": {"monotonic_s": 1.5}}, {"time": None},
    {"time": {"monotonic_s": 2**70}}, {"stop_timeout_s": float("nan")}, {"stop_timeout_s": -1},
    {"stop_timeout_s": float("inf")}, {"stop_timeout_s": "1"}, {"stop_timeout_s": True},
    {"die_with_parent": 0}, {7: 1}, {"\x1b": 1},
])
def test_H19_a_spec_with_a_wrong_value_is_refused(change):
    refusal(spec.pod_spec_from_dict, spec.pod_spec_to_dict(POD) | change)


@pytest.mark.parametrize("data", [
    None, 7, "x", [], {}, {"argv": []}, {"argv": "sh"}, {"argv": [7]},
    {"argv": ["sh"], "env": [["", ""]]},
    {"argv": ["sh"], "env": [["A=B", ""]]}, {"argv": ["sh"], "workdir": 1}, {"argv": ["a\0b"]},
])
def test_H10_H19_a_member_spec_with_a_wrong_value_is_refused(data):
    refusal(spec.member_spec_from_dict, data)


def random_json(dice, depth=4):
    fields = [*spec.PodSpec._fields, *spec.MemberSpec._fields, *spec.RootSpec._fields, "x"]
    leaves = [None, True, 0, -1, 2**70, 0.5, float("nan"), "", "a", "/a", "pid", "\x1b", "\ud800"]
    shape = dice.randrange(4) if depth else 0
    if shape == 2:
        return [random_json(dice, depth - 1) for _ in range(dice.randrange(3))]
    if shape == 3:
        return {dice.choice(fields): random_json(dice, depth - 1) for _ in range(dice.randrange(4))}
    return dice.choice(leaves)


def test_H19_whatever_a_file_holds_is_a_spec_or_a_clean_refusal():
    dice = random.Random(1)
    whole = {spec.pod_spec_from_dict: spec.pod_spec_to_dict(POD),
             spec.member_spec_from_dict: {"argv": ["sh"]}}
    for _ in range(3000):
        for function, data in whole.items():
            wrong = data | {dice.choice([*data, "root", "env", "labels"]): random_json(dice)}
            try:
                function(wrong)
            except SpecError as err:
                assert str(err).isprintable()


def test_the_specs_and_their_words_import_nothing_heavy():
    code = (
        "import sys, typing, re, os; before = set(sys.modules)\n"
        "import nsbox.spec, nsbox.parse\n"
        "print(*sorted(name for name in set(sys.modules) - before if name[:5] != 'nsbox'))\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.abspath(spec.__file__)))
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    command = [sys.executable, "-ISc", code]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.split() in ([], ["errno"])
