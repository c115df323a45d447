"""The cost of a network in dense runs, counted by hand."""

import math
from dataclasses import replace

import pytest
from small_studies import find, run_study, small_study

from tombola.running.relative_cost import relative_costs
from tombola.running.results import Results
from tombola.studies import make_plan
from tombola.work import Cost

ARMS = ["ticket", "reinit", "one-shot", "snip", "rigl", "fine-tune"]


def test_each_piece_of_work_counts_once_for_each_network():
    plan = make_plan(small_study(arms=ARMS))
    found, density = relative_costs(plan), [plan.density(level) for level in range(3)]

    def of(arm, level):
        return found[find(plan, arm, level).id]

    assert of("ticket", 0) == 1.0
    assert of("ticket", 1) == pytest.approx(1 + density[1])
    assert of("ticket", 2) == pytest.approx(1 + density[1] + density[2])
    assert of("reinit", 2) == pytest.approx(1 + density[1] + density[2])  # its mask had to be found
    assert of("one-shot", 2) == pytest.approx(1 + density[2])
    dense_gradients = 8 / 12 / 3  # 8 moves in 12 iterations, a third of whose work is dense
    assert of("rigl", 2) == pytest.approx(density[2] + (1 - density[2]) * dense_gradients, rel=1e-3)
    examples = 3 * 10 * 10  # passes, examples of each class, classes
    assert of("snip", 2) == pytest.approx(density[2] + examples / (3 * 12 * 60))
    assert of("fine-tune", 2) == pytest.approx(1 + density[1] + density[2])


def test_a_transferred_ticket_costs_what_its_source_did():
    source = {"transfer": {"from": {"seed": 1, "training": {"iterations": 24}}}}
    plan = make_plan(small_study(arms=[{"ticket": {**source, "name": "far"}}]))
    density = [plan.density(level) for level in range(3)]
    found = relative_costs(plan)[find(plan, "far", 2).id]
    assert found == pytest.approx(2 * (1 + density[1]) + density[2])


@pytest.mark.parametrize("rewind", [0, 6])
def test_of_the_dense_run_a_transferred_mask_needs_the_start_alone(rewind):
    arm = {"ticket": {"name": "far", "transfer": {"from": {"seed": 1}, "take": "mask"}}}
    plan = make_plan(small_study(arms=[arm], rewind=rewind))
    found, density = relative_costs(plan), [plan.density(level) for level in range(2)]
    left = (12 - rewind) / 12  # iterations of each pruned run
    assert found[find(plan, "far", 1).id] == pytest.approx(rewind / 12 + 1 + left * density[1])


def test_rewound_tickets_cost_less_and_a_plan_without_costs_says_nothing():
    plan = make_plan(small_study(rewind=6))
    assert relative_costs(plan)[find(plan, "ticket", 1).id] == pytest.approx(1 + plan.density(1) / 2)
    blank = replace(plan, work={key: replace(item, cost=Cost()) for key, item in plan.work.items()})
    assert all(math.isnan(cost) for cost in relative_costs(blank).values())


def test_every_row_of_a_table_has_its_cost(tmp_path):
    plan, store = run_study(tmp_path, pruning__rounds=1)
    frame = Results(plan, store).frame().set_index("level")
    assert frame.cost.to_dict() == {0: 1.0, 1: pytest.approx(1 + plan.density(1))}
