"""Connectivity: which runs and lines a study comes to, and what it can't ask for."""

from itertools import combinations

import pytest
from small_studies import find, small_study

from tombola.errors import InputError
from tombola.studies import Item, Line, load_study, make_plan
from tombola.training.order import Order


def planned(connectivity, **overrides):
    return make_plan(small_study(connectivity=connectivity, **overrides))


def of_kind(plan, kind):
    return [pair for pair in plan.pairs if pair.kind == kind]


@pytest.mark.parametrize(
    ("connectivity", "match"),
    [
        ({"copies": 1}, "connectivity.copies=1: a line joins two runs, so give 2 copies or more"),
        ({"points": 2}, "connectivity.points=2: .* 3 or more"),
        ({"levels": [0, 3]}, "connectivity.levels names level 3, but with pruning.rounds=2 there are levels 0 to 2"),
        ({"levels": []}, "connectivity.levels=.*at least 1"),
        ({"levels": [1, 1]}, "connectivity.levels.*names 1 twice"),
        ({"levels": [-1]}, "connectivity.levels.0=-1"),
        ({"rewind": 12}, "connectivity.rewind=12 must be below the budget of 12 iterations"),
        ({"rewind": "1 epoch"}, "connectivity.rewind=1 epoch is iteration 20, and must be below the budget of 12"),
        ({"rewind": "soon"}, "connectivity.rewind='soon': must be an iteration .*epochs"),
        ({"rewind": [0, "inf"]}, "connectivity.rewind=.*must be an iteration"),
        ({"rewind": []}, r"connectivity.rewind=\[\]: name at least one"),
        ({"between": ["twins"]}, "between.0='twins': must be 'copies', 'dense-ticket' or 'levels'"),
        ({"between": ["dense-ticket"]}, "between names dense-ticket, but levels names no level above 0"),
        ({"levels": [1], "between": ["levels"]}, "between names levels, but levels names a single one"),
        ({"threshold": 1}, "connectivity.threshold=1"),
        ({"copys": 3}, "unknown field 'connectivity.copys'; did you mean 'copies'"),
    ],
)
def test_what_can_not_be(connectivity, match):
    with pytest.raises(InputError, match=match) as caught:
        planned(connectivity)
    assert len(str(caught.value).splitlines()) == 1


def test_patience_could_end_the_dense_run_too_early():
    with pytest.raises(InputError, match=r"before iteration 5, which connectivity\.rewind asks for"):
        planned({"rewind": [0, 5]}, training={"iterations": 12, "patience": 1})
    with pytest.raises(InputError, match=r"before iteration 3, which rewind asks for"):
        planned({"rewind": [0, 5]}, rewind=3, training={"iterations": 12, "patience": 1})


def test_a_study_without_it_has_no_lines_and_the_same_jobs():
    plan = make_plan(small_study())
    assert (plan.lines, plan.pairs, plan.work) == ({}, (), plan.work)
    assert set(plan.work) < set(planned({}).jobs)


def test_copies_share_the_runs_that_the_study_has_anyway():
    plan = planned({"levels": [0, 2], "copies": 3}, trials=2)
    copies = of_kind(plan, "copies")
    assert len(copies) == 2 * 2 * 3  # trials, levels, pairs
    assert len(plan.work) == 2 * (1 + 2 + 2 * 2)  # of a trial: dense, two tickets, two more copies at two levels
    for level in (0, 2):
        ticket = find(plan, "ticket", level, trial=1)
        ends = {}
        for pair in copies:
            if (pair.trial, pair.level) == (1, level):
                line = plan.lines[pair.line]
                ends |= {pair.copy: line.one, pair.other_copy: line.other}
        assert ends[0] == ticket.id
        others = [plan.work[ends[number]] for number in (1, 2)]
        assert len({job.id for job in others}) == 2
        for other in others:
            same = Item.model_validate(ticket.model_dump() | {"noise": other.noise})
            assert other.id == same.id  # nothing but the noise differs
            assert Order(40, 8, other.seeds).batches(0, 5).ne(Order(40, 8, ticket.seeds).batches(0, 5)).any()
        assert others[0].seeds.value("init") == ticket.seeds.value("init")
        assert others[0].seeds.value("augment") != others[1].seeds.value("augment")
        assert others[0].seeds.value("dropout") != ticket.seeds.value("dropout")


def test_a_copy_is_not_taken_for_another_level_of_a_study_with_noise_of_its_own():
    plan = planned({"levels": [0, 1, 2], "copies": 4}, noise="level")
    noises = {}
    for pair in of_kind(plan, "copies"):
        for run in (plan.lines[pair.line].one, plan.lines[pair.line].other):
            noises.setdefault(plan.work[run].noise, set()).add(pair.level)
    assert len(noises) == 12
    assert all(len(levels) == 1 for levels in noises.values())
    assert find(plan, "ticket", 2).noise == 2


def test_the_dense_network_from_a_later_iteration():
    plan = planned({"levels": [0, 1], "rewind": [0, 6]}, arms=["ticket"])
    dense = find(plan, "ticket", 0)
    assert dense.keep == (6,)
    (pair,) = [pair for pair in of_kind(plan, "copies") if (pair.rewind, pair.level) == (6, 0)]
    runs = [plan.work[plan.lines[pair.line].one], plan.work[plan.lines[pair.line].other]]
    assert all((run.origin.job, run.origin.iteration, run.mask) == (dense.id, 6, None) for run in runs)
    assert [plan.iterations(run) for run in runs] == [6, 6]
    assert runs[0].noise == dense.noise
    (pair,) = [pair for pair in of_kind(plan, "copies") if (pair.rewind, pair.level) == (6, 1)]
    alone = make_plan(small_study(rewind=6))
    assert plan.lines[pair.line].one == find(alone, "ticket", 1).id  # the chain that rewinds to 6
    (pair,) = [pair for pair in of_kind(plan, "dense-ticket") if pair.rewind == 6]
    assert plan.lines[pair.line].other == dense.id


def test_the_study_s_own_rewind_is_the_default():
    plan = planned({"levels": [1]}, rewind=[0, 4])
    assert {pair.rewind for pair in plan.pairs} == {0, 4}
    assert plan.work.keys() == planned({"levels": [1], "rewind": [0, 4]}, rewind=[0, 4]).jobs.keys()


def test_lines_between_levels():
    plan = planned({"levels": [2, 0, 1]})
    runs = [find(plan, "ticket", level).id for level in (0, 1, 2)]
    found = {
        kind: {(plan.lines[p.line].one, plan.lines[p.line].other) for p in of_kind(plan, kind)}
        for kind in ("dense-ticket", "levels")
    }
    assert found == {
        "dense-ticket": {(runs[1], runs[0]), (runs[2], runs[0])},
        "levels": {(runs[1], runs[0]), (runs[2], runs[1])},
    }
    assert len(plan.lines) == 3 + 3  # between copies; of the others one is shared
    assert all(pair.level >= pair.other_level for pair in plan.pairs)
    assert {pair.kind for pair in planned({"levels": [0]}).pairs} == {"copies"}
    assert {pair.kind for pair in planned({"levels": [0, 1], "between": ["levels"]}).pairs} == {"levels"}


def test_what_a_line_needs_and_is_called():
    plan = planned({"levels": [0, 1], "copies": 3})
    order = list(plan.work)
    for line in plan.lines.values():
        assert all(order.index(run) < order.index(line.id) for run in line.needs)
        again = Line.model_validate_json(line.model_dump_json())
        assert (again.id, again.folder, again.needs) == (line.id, line.folder, line.needs)
        assert line.folder.endswith(line.id)
        assert plan.examined(line) == 30 * (plan.data.train - plan.study.data.validation + plan.data.test)
        assert plan.operations(line) > 0
    assert len({line.folder for line in plan.lines.values()}) == len(plan.lines)
    one = next(iter(plan.lines.values())).model_dump()
    changes = ({}, {"points": 5}, {"precision": "bfloat16"}, {"label": "another"})
    identities = [Line.model_validate(one | change).id for change in changes]
    assert len(set(identities)) == 3
    assert identities[0] == identities[3]


def test_every_two_copies_differ_in_every_engines_batches():
    """Order, augmentation and dropout are all an engine draws from, and each follows the job's noise."""
    plan = planned({"copies": 3, "between": ["copies"]})
    runs = sorted({run for line in plan.lines.values() for run in line.needs})
    for one, other in combinations([plan.work[run].seeds for run in runs], 2):
        for purpose in ("order", "augment", "dropout"):
            assert one.value(purpose, 3) != other.value(purpose, 3)
        for purpose in ("init", "split", "mask", "criterion"):
            assert one.value(purpose, 3) == other.value(purpose, 3)


def test_it_is_read_back_from_its_own_dump(tmp_path):
    from tombola.studies import dump_study

    study = small_study(connectivity={"levels": [0, 2], "rewind": [0, "0.1 epochs", 0.5], "copies": 3})
    (tmp_path / "study.yaml").write_text(dump_study(study))
    assert load_study(str(tmp_path / "study.yaml")) == study
