"""Study files that would hang, eat memory or end in a traceback: each gives one message at once."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest

from tombola.errors import InputError
from tombola.studies.loading import load_study
from tombola.studies.plan import make_plan
from tombola.studies.size import check_size, runs_of
from tombola.untrusted_yaml import MAX_BYTES, MAX_NODES, read_yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join(['*' + before] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
HEAD = "extends: demo\n"
FILES = {
    "alias bomb": (BOMB, rf"line \d+: more than {MAX_NODES:,} values"),
    "map bomb": (BOMB.replace("[", "{x: [").replace("]", "]}"), "more than"),
    "merged bomb": ("a: &a {x: 1}\n" + "b: {<<: *a}\n" * 2, "duplicate"),
    "nesting": (HEAD + "name: " + "[" * 300 + "]" * 300, "more than 40 nested lists or maps"),
    "nested lines": (HEAD + "\n".join(" " * n + "a:" for n in range(300)), "more than 40 nested lists or maps"),
    "self-reference": (HEAD + "name: &a [*a]", r"line 2: \*a contains itself"),
    "tag": (HEAD + "trials: !!int x", r"line 2: the tag .*int.* is not supported"),
    "own tag": (HEAD + "trials: !mine 3", "the tag .*mine"),
    "long integer": (HEAD + "trials: " + "9" * 5000, r"line 2: 9+\.\.\. is a number of 5,000 digits"),
    "long hexadecimal": (HEAD + "trials: 0x" + "f" * 5000, "is a number of"),
    "long float": (HEAD + "training: {lr: 0." + "3" * 5000 + "}", "is a number of"),
    "duplicate keys": (HEAD + "trials: 1\ntrials: 2\n", "line 3: not valid YAML: .*duplicate"),
    "no date": (HEAD + "name: 2001-99-99", "not valid YAML"),
    "large file": (HEAD + "# " + "x" * MAX_BYTES, r"bytes; the limit is 262,144"),
    "many keys": (HEAD + "".join(f"key{n}: 1\n" for n in range(20_000)), "more than|bytes; the limit"),
    "many unknown keys": (HEAD + "".join(f"k{n}: 1\n" for n in range(4_000)), "field 'k0'(.|\n)*and 3,980 more"),
    "long unknown key": (HEAD + "k" * 1000 + ": 1\n", r"unknown field 'kkk.*\.\.\.$"),
    "trials": (HEAD + "trials: 10000000", "trials=10000000: must be less than or equal to 10000"),
    "huge trials": (HEAD + "trials: " + "9" * 300, r"trials=9+\.\.\.: must be"),
    "per_trial": (HEAD + "arms: [{reinit: {per_trial: 100000000}}]", "per_trial=100000000: must be less than"),
    "rounds": (HEAD + "pruning: {rounds: 1000000}", "pruning.rounds=1000000: must be less than or equal to 999"),
    "densities": (HEAD + f"pruning: {{densities: [{','.join(['0.5'] * 4000)}]}}", "densities.*at most 999|rounds=4000"),
    "rates": (HEAD + f"pruning: {{rate: [{','.join(['0.5'] * 4000)}]}}", "rounds=4000: must be less than"),
    "rewinds": (HEAD + f"rewind: [{','.join(map(str, range(4000)))}]", "lists 4,000 iterations; at most 100"),
    "a rewind": (HEAD + "rewind: " + "9" * 350, "must be an iteration"),
    "epochs of a rewind": (HEAD + f"rewind: '{'9' * 350} epochs'", "must be an iteration"),
    "arms": (HEAD + "arms: [" + ",".join(f"{{rule: ticket, name: a{n}}}" for n in range(1500)) + "]", "at most 200"),
    "copies": (HEAD + "connectivity: {copies: 100000000}", "connectivity.copies=100000000: must be less"),
    "points": (HEAD + "connectivity: {points: 100000000}", "connectivity.points=100000000: must be less"),
    "iterations": (HEAD + "training: {iterations: 1" + "0" * 350 + "}", "training.iterations=1.*must be less"),
    "gamma": (HEAD + "training: {gamma: 1.0e+308, schedule: step, milestones: [1]}", "training.gamma=1e.308: must be"),
    "path with NUL": (HEAD + 'data: {source: npz, validation: 1, path: "a\\0b"}', "data.path=.*NUL"),
    "long path": (HEAD + f"data: {{source: npz, validation: 1, path: {'d/' * 2500}x}}", "data.path=.*has 5,001 bytes"),
    "long name": (HEAD + f"data: {{source: npz, validation: 1, path: {'d' * 300}}}", "a name in it has 300 bytes"),
    "unknown user": (HEAD + "data: {source: npz, validation: 1, path: ~nobody-here/x}", "'nobody-here' does not exist"),
    "extends an unknown user": ("extends: ~nobody-here/x.yaml\nname: a\n", "the user 'nobody-here' does not exist"),
    "extends a long path": (f"extends: {'d' * 300}.yaml\nname: a\n", "a name in it has 305 bytes"),
    "extends itself": ("extends: hostile.yaml\nname: a\n", "refers to itself"),
    "no map": ("- 1\n", "a study file needs `field: value` lines"),
    "nothing": ("", "a study file needs `field: value` lines"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "match"), FILES.values(), ids=FILES)
def test_one_message_at_once(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InputError, match=match) as caught:
        load_study(str(path))
    assert time.process_time() - began < 3  # on a quiet machine, below 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # kB
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("trials=10000000", "trials=10000000: must be"),
        ("trials=" + "9" * 5000, "is a number of 5,000 digits"),
        ("trials=!!int x", "is not supported"),
        ("name=" + "[" * 300, "more than 40"),
        ("name=&a [*a]", "contains itself"),
        (".".join("a" * 5000) + "=1", "more than 40 nested fields"),
        ("x" * 5000 + "=1", "unknown field"),
        ("data.path=a\0b", "NUL|not valid YAML"),
    ],
)
def test_so_does_an_override(change: str, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_study("demo", {}, [change])
    assert len(str(caught.value)) < 6000


@pytest.mark.parametrize("name", ["x" * 300, "d/" * 3000, "~nobody-here/a.yaml", "a\0b"])
def test_so_does_a_name(name: str) -> None:
    with pytest.raises(InputError, match="study="):
        load_study(name)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(InputError, match="no study file"):  # `is_file` says so before anything is opened
        load_study(str(tmp_path / "pipe.yaml"))
    npz = {"source": "npz", "validation": 1}
    for path, kind in (
        ("/dev/zero", "is a device"),
        (tmp_path / "pipe.yaml", "is a pipe"),
        ("/proc/kmsg", "belongs to the kernel"),
    ):
        with pytest.raises(InputError, match=f"{kind}; give a regular file"):
            make_plan(load_study("demo", {"data": npz | {"path": str(path)}}))
    with pytest.raises(InputError, match="can't be read"):
        make_plan(load_study("demo", {"data": npz | {"path": str(tmp_path)}}))


def test_a_plan_of_too_many_runs_is_refused_before_it_is_made() -> None:
    study = load_study("demo", {"trials": 10_000, "arms": [{"reinit": {"per_trial": 10_000}}]})
    began = time.process_time()
    with pytest.raises(InputError, match=r"needs about [\d,]+ runs, but at most 100,000 .*--max-runs \d+"):
        make_plan(study)
    assert time.process_time() - began < 1
    with pytest.raises(InputError, match="at most 5 are allowed"):
        make_plan(load_study("demo"), max_runs=5)
    check_size(100_000)


def test_the_count_is_no_less_than_what_is_planned() -> None:
    lines = {"connectivity": {"copies": 3, "levels": [0, 1]}, "rewind": [0, 5]}
    for study in (load_study("demo"), load_study("demo", lines)):
        plan = make_plan(study)
        assert len(plan.work) <= runs_of(study) * 2
        assert runs_of(study) <= 2 * len(plan.work)


def test_aliases_and_merges_are_still_read() -> None:
    assert read_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: [*x, *x]", "here")["c"]["b"] == 1


@pytest.mark.parametrize("text", ["[" * 41 + "]" * 41, "a: " * 3 + "1", "\t", "!!set {a}", "*a", "{", "2001-99-99"])
def test_whatever_is_wrong_is_said(text: str) -> None:
    with pytest.raises(InputError, match=r"^here"):
        read_yaml(text, "here")
