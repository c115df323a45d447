"""Connectivity: which runs and lines a study comes to, and what it can't ask for."""

import json
from itertools import combinations

import pytest
from small_studies import find, small_study

from tombola.errors import InputError
from tombola.studies import load_study, make_plan
from tombola.training.order import Order
from tombola.work import Interpolation, item_from_json


def planned(connectivity, **overrides):
    return make_plan(small_study(connectivity=connectivity, **overrides))


def lines(plan):
    return {item.id: item for item in plan.work.values() if item.kind == "interpolation"}


def line_of(plan, pair):
    return plan.work[pair.line].spec


def of_kind(plan, kind):
    return [pair for pair in plan.pairs if pair.kind == kind]


@pytest.mark.parametrize(
    ("connectivity", "match"),
    [
        ({"copies": 1}, "connectivity.copies=1: an interpolation joins two runs: set copies to 2 or more"),
        ({"points": 2}, "connectivity.points=2: .* 3 or more"),
        ({"levels": [0, 3]}, "connectivity.levels names level 3, but with pruning.rounds=2 the levels are 0 to 2"),
        ({"levels": []}, "connectivity.levels=.*needs 1 or more"),
        ({"levels": [1, 1]}, "connectivity.levels.*names 1 twice"),
        ({"levels": [-1]}, "connectivity.levels.0=-1"),
        ({"rewind": 12}, "connectivity.rewind=12 must be below the budget of 12 iterations"),
        ({"rewind": "1 epoch"}, "connectivity.rewind=1 epoch is iteration 20, and must be below the budget of 12"),
        ({"rewind": "soon"}, "connectivity.rewind='soon': must be an iteration .*epochs"),
        ({"rewind": [0, "inf"]}, "connectivity.rewind=.*must be an iteration"),
        ({"rewind": []}, r"connectivity.rewind=\[\]: name at least one"),
        ({"between": ["twins"]}, "between.0='twins': must be 'copies', 'dense-ticket' or 'levels'"),
        ({"between": ["dense-ticket"]}, "between has dense-ticket, but levels has no level above 0"),
        ({"levels": [1], "between": ["levels"]}, "between has levels, but levels has a single level"),
        ({"threshold": 1}, "connectivity.threshold=1"),
        ({"copys": 3}, "unknown field 'connectivity.copys'; did you mean 'copies'"),
    ],
)
def test_what_can_not_be(connectivity, match):
    with pytest.raises(InputError, match=match) as caught:
        planned(connectivity)
    assert len(str(caught.value).splitlines()) == 1


def test_patience_could_end_the_dense_run_too_early():
    with pytest.raises(InputError, match=r"before iteration 5, which connectivity\.rewind needs"):
        planned({"rewind": [0, 5]}, training={"iterations": 12, "patience": 1})
    with pytest.raises(InputError, match=r"before iteration 3, which rewind needs"):
        planned({"rewind": [0, 5]}, rewind=3, training={"iterations": 12, "patience": 1})


def test_a_study_without_it_has_no_lines_and_the_same_jobs():
    plan = make_plan(small_study())
    assert (lines(plan), plan.pairs) == ({}, ())
    assert set(plan.work) < set(planned({}).work)


def test_copies_share_the_runs_that_the_study_has_anyway():
    plan = planned({"levels": [0, 2], "copies": 3}, trials=2)
    copies = of_kind(plan, "copies")
    assert len(copies) == 2 * 2 * 3  # trials, levels, pairs
    runs = [item for item in plan.work.values() if item.kind == "run"]
    assert len(runs) == 2 * (1 + 2 + 2 * 2)  # of a trial: dense, two tickets, two more copies at two levels
    for level in (0, 2):
        ticket = find(plan, "ticket", level, trial=1)
        ends = {}
        for pair in copies:
            if (pair.trial, pair.level) == (1, level):
                line = line_of(plan, pair)
                ends |= {pair.copy: line.one, pair.other_copy: line.other}
        assert ends[0] == ticket.id
        others = [plan.work[ends[number]] for number in (1, 2)]
        assert len({job.id for job in others}) == 2
        for other in others:
            same = ticket.spec.model_copy(update={"noise": other.spec.noise})
            assert other.id == type(same).model_validate(same.model_dump()).id  # nothing but the noise differs
            assert Order(40, 8, other.spec.seeds).batches(0, 5).ne(Order(40, 8, ticket.spec.seeds).batches(0, 5)).any()
        assert others[0].spec.seeds.value("init") == ticket.spec.seeds.value("init")
        assert others[0].spec.seeds.value("augment") != others[1].spec.seeds.value("augment")
        assert others[0].spec.seeds.value("dropout") != ticket.spec.seeds.value("dropout")


def test_a_copy_is_not_taken_for_another_level_of_a_study_with_noise_of_its_own():
    plan = planned({"levels": [0, 1, 2], "copies": 4}, noise="level")
    noises = {}
    for pair in of_kind(plan, "copies"):
        for run in (line_of(plan, pair).one, line_of(plan, pair).other):
            noises.setdefault(plan.work[run].spec.noise.text(), set()).add(pair.level)
    assert len(noises) == 12
    assert all(len(levels) == 1 for levels in noises.values())
    assert find(plan, "ticket", 2).spec.noise.level == 2


def test_the_dense_network_from_a_later_iteration():
    plan = planned({"levels": [0, 1], "rewind": [0, 6]}, arms=["ticket"])
    dense = find(plan, "ticket", 0)
    assert dense.observe.snapshots == (6,)
    (pair,) = [pair for pair in of_kind(plan, "copies") if (pair.rewind, pair.level) == (6, 0)]
    runs = [plan.work[line_of(plan, pair).one], plan.work[line_of(plan, pair).other]]
    assert all((run.spec.initial.run, run.spec.initial.iteration, run.spec.mask) == (dense.id, 6, None) for run in runs)
    assert [run.cost.iterations for run in runs] == [6, 6]
    assert runs[0].spec.noise == dense.spec.noise
    (pair,) = [pair for pair in of_kind(plan, "copies") if (pair.rewind, pair.level) == (6, 1)]
    alone = make_plan(small_study(rewind=6))
    assert line_of(plan, pair).one == find(alone, "ticket", 1).id  # the chain that rewinds to 6
    (pair,) = [pair for pair in of_kind(plan, "dense-ticket") if pair.rewind == 6]
    assert line_of(plan, pair).other == dense.id


def test_the_study_s_own_rewind_is_the_default():
    plan = planned({"levels": [1]}, rewind=[0, 4])
    assert {pair.rewind for pair in plan.pairs} == {0, 4}
    assert plan.work.keys() == planned({"levels": [1], "rewind": [0, 4]}, rewind=[0, 4]).work.keys()


def test_lines_between_levels():
    plan = planned({"levels": [2, 0, 1]})
    runs = [find(plan, "ticket", level).id for level in (0, 1, 2)]
    found = {
        kind: {(line_of(plan, p).one, line_of(plan, p).other) for p in of_kind(plan, kind)}
        for kind in ("dense-ticket", "levels")
    }
    assert found == {
        "dense-ticket": {(runs[1], runs[0]), (runs[2], runs[0])},
        "levels": {(runs[1], runs[0]), (runs[2], runs[1])},
    }
    assert len(lines(plan)) == 3 + 3  # between copies; of the others one is shared
    assert all(pair.level >= pair.other_level for pair in plan.pairs)
    assert {pair.kind for pair in planned({"levels": [0]}).pairs} == {"copies"}
    assert {pair.kind for pair in planned({"levels": [0, 1], "between": ["levels"]}).pairs} == {"levels"}


def test_what_a_line_needs_and_is_called():
    plan = planned({"levels": [0, 1], "copies": 3})
    order = list(plan.work)
    for line in lines(plan).values():
        assert all(order.index(run) < order.index(line.id) for run in line.needs)
        again = item_from_json(json.loads(json.dumps(line.as_json())))
        assert (again.id, again.folder, again.needs) == (line.id, line.folder, line.needs)
        assert line.folder.endswith(line.id)
        assert line.cost.evaluated == 30 * (plan.data.train - plan.study.data.validation + plan.data.test)
        assert plan.operations(line) > 0
    assert len({line.folder for line in lines(plan).values()}) == len(lines(plan))
    one = next(iter(lines(plan).values())).spec.model_dump()
    changes = ({}, {"points": 5}, {"precision": "bfloat16"}, {"other": one["one"]})
    assert len({Interpolation.model_validate(one | change).id for change in changes}) == 4


def test_every_two_copies_differ_in_every_engines_batches():
    """Order, augmentation and dropout are all an engine draws from, and each follows the job's noise."""
    plan = planned({"copies": 3, "between": ["copies"]})
    runs = sorted({run for line in lines(plan).values() for run in line.needs})
    for one, other in combinations([plan.work[run].spec.seeds for run in runs], 2):
        for purpose in ("order", "augment", "dropout"):
            assert one.value(purpose, 3) != other.value(purpose, 3)
        for purpose in ("init", "split", "mask", "criterion"):
            assert one.value(purpose, 3) == other.value(purpose, 3)


def test_it_is_read_back_from_its_own_dump(tmp_path):
    from tombola.studies import dump_study

    study = small_study(connectivity={"levels": [0, 2], "rewind": [0, "0.1 epochs", 0.5], "copies": 3})
    (tmp_path / "study.yaml").write_text(dump_study(study))
    assert load_study(str(tmp_path / "study.yaml")) == study
