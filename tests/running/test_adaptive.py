"""What depends on results: masks that are given up, rounds that are skipped, levels and runs that end early."""

from __future__ import annotations

import pytest
import torch
from small_studies import find, run_study, run_with_needs, small_study

import tombola
from tombola.errors import InputError
from tombola.pruning import SkipRound
from tombola.running.ends import Ends
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.studies import make_plan


def never(snapshots):
    """A criterion with nothing to go by."""
    raise SkipRound("all weights are alike")


class Dropping(torch.nn.Module):
    """Drops in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(torch.nn.functional.dropout(x, 0.5))


def always_dropping():
    return Dropping()


# Schedules


def test_one_shot_reaches_the_densities_of_a_list_of_rates(tmp_path):
    plan, store = run_study(tmp_path, pruning={"rate": [0.5, 0.2, 0.4]}, arms=["ticket", "one-shot"])
    for level in (1, 2, 3):
        masks = [store.load(find(plan, arm, level).id).mask for arm in ("ticket", "one-shot")]
        assert masks[0].counts() == masks[1].counts()
        assert sum(masks[0].counts().values()) == plan.remaining[level]
    assert masks[0] != masks[1]


def test_retraining_changes_pruned_levels_alone(tmp_path):
    plan, store = run_study(tmp_path, retraining={"iterations": 7, "lr": 0.02}, arms=["ticket", "one-shot"])
    assert store.load(find(plan, "ticket", 0).id).history["iteration"] == [0, 5, 10, 12]
    for level in (1, 2):
        assert store.load(find(plan, "one-shot", level).id).history["iteration"] == [0, 5, 7]
        assert find(plan, "ticket", level).cost.iterations == 7
    assert find(plan, "ticket", 0).cost.iterations == 12


def test_evaluation_once_an_epoch(tmp_path):
    plan, store = run_study(tmp_path, training={"evaluate_every": "epoch", "epochs": 2}, pruning__rounds=0)
    epoch = (1438 - 200) // 60
    assert store.load(find(plan, "ticket", 0).id).history["iteration"] == [0, epoch, 2 * epoch]


# Noise


def test_each_level_may_have_its_own_data_order(tmp_path):
    """The dense run is the same either way; a level is not, and is still repeatable."""
    same, same_store = run_study(tmp_path / "same")
    own, own_store = run_study(tmp_path / "own", noise="level")
    assert find(same, "ticket", 0).id == find(own, "ticket", 0).id
    histories = [
        store.load(find(plan, "ticket", 1).id).history for plan, store in ((same, same_store), (own, own_store))
    ]
    assert histories[0]["val_loss"][0] == histories[1]["val_loss"][0]
    assert histories[0]["val_loss"][1:] != histories[1]["val_loss"][1:]
    again, again_store = run_study(tmp_path / "again", noise="level")
    assert again_store.load(find(again, "ticket", 1).id).history == histories[1]


def test_noise_changes_no_initialisation_split_or_mask():
    from tombola.seeds import NOISE, PURPOSES, Seeds

    for purpose in PURPOSES:
        same = Seeds(3, 1).value(purpose, 5) == Seeds(3, 1, noise="2").value(purpose, 5)
        assert same == (purpose not in NOISE)
    assert Seeds(3, 1, noise="") == Seeds(3, 1)


# Patience


def test_training_ends_when_patience_does(tmp_path):
    """Learning rate 0: the first evaluation stays the best."""
    plan, store = run_study(
        tmp_path, training={"patience": 3, "iterations": 100, "optimizer": "sgd", "lr": 1e-30}, pruning__rounds=1
    )
    result = store.load(find(plan, "ticket", 1).id)
    assert result.history["iteration"] == [0, 25, 50, 75]
    assert result.facts["iterations"] == 75
    assert "final" in result.snapshots
    assert Results(plan, store).frame().iterations.tolist() == [75, 75]


def test_patience_that_is_never_tried_changes_nothing(tmp_path):
    plan, store = run_study(tmp_path / "a", pruning__rounds=0)
    patient, patient_store = run_study(tmp_path / "b", pruning__rounds=0, training__patience=50)
    pair = [s.load(find(p, "ticket", 0).id) for p, s in ((plan, store), (patient, patient_store))]
    assert pair[0].history == pair[1].history
    assert find(plan, "ticket", 0).id != find(patient, "ticket", 0).id


def test_jobs_in_a_stack_end_each_by_their_own_patience(tmp_path):
    settings = {"training": {"patience": 1, "lr": 0.05, "iterations": 60}, "pruning__rounds": 0, "trials": 3}
    alone, alone_store = run_study(tmp_path / "alone", **settings)
    results = tombola.run(
        small_study(**settings), tmp_path / "together", workers=0, engine="stacked", quiet=True, figures=False
    )
    for trial in range(3):
        job = find(alone, "ticket", 0, trial)
        expected, found = (store.load(job.id).history["iteration"] for store in (alone_store, results.store))
        assert found == expected


# Skipped rounds


def test_a_round_without_scores_keeps_the_mask_and_says_so(tmp_path, capsys):
    study = small_study(pruning__criterion="test_adaptive:never")
    results = tombola.run(study, tmp_path, workers=0, figures=False)
    assert results.frame().remaining_weights.nunique() == 1
    facts = results.store.facts(find(results.plan, "ticket", 1).id)
    assert facts["remarks"] == {"skipped": "all weights are alike"}
    assert "its round pruned nothing: all weights are alike" in capsys.readouterr().err


@pytest.mark.parametrize("criterion", ["stability", "gradient", "random", "movement", "magnitude-increase"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_criterion_prunes_as_much_as_it_should(tmp_path, criterion, scope):
    pruning = {"criterion": criterion, "scope": scope, "rounds": 2}
    plan, store = run_study(tmp_path, pruning=pruning, training={"iterations": 40, "lr": 0.3, "evaluate_every": 5})
    for level in (1, 2):
        result = store.load(find(plan, "ticket", level).id)
        assert result.facts["remarks"] == {}
        assert sum(result.mask.counts().values()) == plan.remaining[level]
        assert result.facts["zeros"] >= plan.remaining[0] - plan.remaining[level]
    assert store.load(find(plan, "ticket", 2).id).mask <= store.load(find(plan, "ticket", 1).id).mask


def test_sparsity_counts_zeros_rather_than_the_mask(tmp_path):
    from tombola.pruning import Mask
    from tombola.running.training import zeros

    mask = Mask({"w": torch.tensor([True, True, False, False])})
    assert zeros({"w": torch.tensor([0.0, -1.0, 0.0, 0.0]), "b": torch.zeros(9)}, mask) == 3
    frame = Results(*run_study(tmp_path)).frame()
    assert frame.sparsity.tolist() == pytest.approx((1 - frame.density).tolist())


# Backing off


def backing_off(folder, accuracies, margin=0.1, rounds=5):
    """Run such a study with made-up validation accuracies of the levels; return plan and store."""
    import json

    from tombola.running.files import write_json, write_sums

    study = small_study(pruning={"rate": 0.4, "rounds": rounds, "back_off": {"margin": margin}})
    plan, store = make_plan(study), Store(folder)
    store.create()
    for level in range(rounds + 1):
        job = find(plan, "ticket", level)
        assert run_with_needs(plan, job, folder) == "done"
        path = store.folder(job.id)
        facts = json.loads((path / "result.json").read_text())
        facts["history"]["val_accuracy"] = [accuracies[level]] * len(facts["history"]["val_loss"])
        write_json(path / "result.json", facts)
        write_sums(path, ("weights.safetensors", "result.json"))
    return plan, store


def test_a_level_that_lost_too_much_is_given_up(tmp_path):
    """0.9, 0.85 are borne; 0.7 is not, nor is 0.75; then 0.8 just is."""
    plan, store = backing_off(tmp_path, [0.9, 0.85, 0.7, 0.75, 0.8, 0.8])
    ids = [find(plan, "ticket", level).id for level in range(6)]
    found = [store.load(job) for job in ids]
    remarks = [(result.facts["remarks"]["pruned_from"], result.facts["remarks"]["factor"]) for result in found[1:]]
    assert remarks == [(ids[0], 1.0), (ids[1], 1.0), (ids[1], 0.5), (ids[1], 0.25), (ids[4], 0.25)]
    weights = [sum(result.mask.counts().values()) for result in found]
    assert weights[2] < weights[3] < weights[4] < weights[1]
    assert weights[5] < weights[4]
    assert all(found[level].mask <= found[1].mask for level in (2, 3, 4, 5))


def test_a_study_that_loses_nothing_is_pruned_as_without_the_rule(tmp_path):
    plan, store = backing_off(tmp_path / "a", [0.9] * 3, rounds=2)
    plain, plain_store = run_study(tmp_path / "b", pruning={"rate": 0.4, "rounds": 2})
    for level in (1, 2):
        masks = [s.load(find(p, "ticket", level).id).mask for p, s in ((plan, store), (plain, plain_store))]
        assert masks[0] == masks[1]


def test_controls_follow_the_masks_that_backing_off_finds(tmp_path):
    study = small_study(
        pruning={"rounds": 3, "back_off": {"margin": 0.0, "factor": 0.3}}, arms=["ticket", "reinit", "random-mask"]
    )
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    by_arm = results.frame().pivot_table(index="level", columns="arm", values="remaining_weights")
    assert (by_arm["ticket"] == by_arm["reinit"]).all()
    assert (by_arm["ticket"] == by_arm["random-mask"]).all()
    assert results.missing() == 0


# Levels that end


def test_levels_end_where_a_network_only_guesses(tmp_path, capsys):
    """Nothing is learned at this learning rate, so level 0 ends all arms."""
    study = small_study(pruning={"rounds": 3, "stop_margin": 0.5}, training__lr=1e-12, arms=["ticket", "reinit"])
    results = tombola.run(study, tmp_path, workers=0, figures=False)
    assert results.frame().level.unique().tolist() == [0]
    assert results.missing() == 0
    assert "hardly better than guessing" in capsys.readouterr().err


GUESS = {"history": {"val_loss": [2.0, 1.0], "val_accuracy": [0.9, 0.12]}}
GOOD = {"history": {"val_loss": [1.0, 2.0], "val_accuracy": [0.9, 0.12]}}


def ending(**settings):
    plan = make_plan(small_study(pruning={"rounds": 4, "stop_margin": 0.05}, **settings))
    return plan, Ends(plan)


def left_out(plan, ends):
    return {plan.work[job].label.partition("trial-")[2] for job in ends.left_out}


def test_one_arm_ends_and_the_others_go_on():
    plan, ends = ending(arms=["ticket", "reinit"], trials=2)
    assert not ends.note(find(plan, "reinit", 1).id, GOOD)
    assert ends.note(find(plan, "reinit", 2).id, GUESS)
    assert left_out(plan, ends) == {"0.reinit.level-03", "0.reinit.level-04"}


def test_a_mask_that_moves_is_judged_where_it_stops_early():
    """The lowest loss of all lies before the last move, where the network had more weights than its level."""
    moving = {"history": {"val_loss": [1.0, 2.0], "val_accuracy": [0.9, 0.12]}, "early_stop": 1}
    plan, ends = ending(arms=[{"gradual": {"moves": {"end": 8}}}])
    item = find(plan, "gradual", 1).id
    assert not ends.note(item, GOOD)
    assert ends.note(item, moving)


def test_a_chain_that_ends_goes_on_for_the_masks_of_others():
    plan, ends = ending(arms=["ticket", "reinit"])
    ends.note(find(plan, "ticket", 2).id, GUESS)
    assert left_out(plan, ends) == {"0.ticket.level-04"}  # reinit at level 4 needs the ticket of level 3
    rows = [row for row in plan.rows if ends.behind(row)]
    assert {(row.arm, row.level) for row in rows} == {("ticket", 3), ("ticket", 4)}


def test_a_chain_that_nobody_needs_any_more_ends():
    plan, ends = ending(arms=["reinit", "random-mask"])
    for arm in ("reinit", "random-mask"):
        ends.note(find(plan, arm, 2).id, GUESS)
    assert {"0.ticket.level-02", "0.ticket.level-03"} <= left_out(plan, ends)
    assert not ends.left_out & {find(plan, arm, 2).id for arm in ("reinit", "random-mask")}


def test_a_margin_is_met_exactly():
    """1 / 10 + 0.2 is more than 0.3 in binary, and 0.97 - 0.96 more than 0.01."""
    plan = make_plan(small_study(pruning={"rounds": 1, "stop_margin": 0.2}))
    exactly = {"history": {"val_loss": [1.0], "val_accuracy": [0.3]}}
    assert not Ends(plan).note(find(plan, "ticket", 0).id, exactly)


def test_backing_off_bears_a_loss_of_exactly_the_margin(tmp_path):
    plan, store = backing_off(tmp_path, [0.97, 0.96, 0.96], margin=0.01, rounds=2)
    facts = store.facts(find(plan, "ticket", 2).id)
    assert facts["remarks"] == {"pruned_from": find(plan, "ticket", 1).id, "factor": 1.0}


def test_the_table_is_the_same_however_many_workers_ran_ahead(tmp_path):
    """Rows behind an end are not shown, trained or not."""
    study = small_study(pruning={"rounds": 3, "stop_margin": 0.85}, arms=["one-shot"])
    one = tombola.run(study, tmp_path / "one", workers=0, figures=False, quiet=True)
    plan, store = run_study(tmp_path / "all", pruning={"rounds": 3, "stop_margin": 0.85}, arms=["one-shot"])
    assert one.frame().level.tolist() == [0]
    assert Results(plan, store).frame().level.tolist() == [0]
    assert one.missing() == Results(plan, store).missing() == 0


def test_gradients_do_not_depend_on_the_global_generator(tmp_path):
    """A module may draw in evaluation mode too."""
    masks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        plan, store = run_study(
            tmp_path / str(seed),
            network="test_adaptive:always_dropping",
            pruning={"criterion": "gradient", "rounds": 1},
        )
        assert torch.equal(torch.get_rng_state(), before)
        masks.append(store.load(find(plan, "ticket", 1).id).mask)
    assert masks[0] == masks[1]


def test_patience_must_not_end_a_run_before_it_is_rewound_to():
    with pytest.raises(InputError, match=r"patience=2 could end .* before iteration 6.*retraining\.patience"):
        make_plan(small_study(rewind=6, training__patience=2))
    make_plan(small_study(rewind=6, retraining={"patience": 2}))


def test_without_the_setting_nothing_ends():
    plan = make_plan(small_study())
    ends = Ends(plan)
    assert not ends.note(find(plan, "ticket", 0).id, {"history": {"val_loss": [1.0], "val_accuracy": [0.0]}})
    assert not ends.asked_for


# What trained weights have behind them


def test_the_training_behind_a_start_counts_in_verdicts(tmp_path):
    from tombola.analysis import verdicts

    study = small_study(trials=3, arms=["ticket", "fine-tune"], pruning__rounds=2, training__iterations=12)
    results = tombola.run(study, tmp_path, workers=0, figures=False, quiet=True)
    frame = results.frame()
    before = frame.groupby(["arm", "level"])["iterations_before"].first()
    assert [before["ticket", level] for level in (0, 1, 2)] == [0, 0, 0]
    assert [before["fine-tune", level] for level in (0, 1, 2)] == [0, 12, 24]
    judged = verdicts(frame, margin=0.99)
    tuned = judged[judged["arm"] == "fine-tune"]
    assert "winning ticket" not in set(tuned["verdict"])
    stop = frame.groupby(["arm", "level"])["early_stop_iteration"].mean()
    assert tuned["iteration_difference"].iloc[1] == pytest.approx(stop["fine-tune", 2] + 24 - stop["fine-tune", 0])
