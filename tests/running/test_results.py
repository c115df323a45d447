"""The results table and tickets, against what the result files say."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small_nets
import small_runs
import torch
from made_up_tickets import ticket_of

import tombola
from tombola.data import Dataset, load, split
from tombola.errors import InputError
from tombola.networks import initialised
from tombola.pruning.mask import Mask
from tombola.running.results import LEVEL_COLUMNS
from tombola.running.store import Store
from tombola.seeds import Seeds

ASKED_FOR = (  # by the issue
    "study, arm, trial, repeat, level, density, remaining_weights, early_stop_iteration, early_stop_test_accuracy, "
    "early_stop_val_loss, final_test_accuracy, final_train_accuracy, iterations, seconds, job"
)
SIZES = {"fc1.weight": 64 * 100, "fc2.weight": 100 * 50, "output.weight": 50 * 10}
VALIDATION, TEST, TRAIN = 200, 359, 1238


@pytest.fixture(scope="session")
def results(finished: Path) -> tombola.Results:
    return tombola.Results.open(finished)


def facts_of(results: tombola.Results, job: str) -> dict:
    (path,) = (results.store.root / "jobs").glob(f"*-{job}/result.json")
    return json.loads(path.read_text())


def test_columns(results: tombola.Results) -> None:
    frame = results.frame()
    assert set(ASKED_FOR.split(", ")) <= set(frame.columns)
    assert tuple(frame.columns) == LEVEL_COLUMNS
    assert set(frame["study"]) == {"demo"}
    assert set(frame["status"]) == {"ok"}
    assert frame.drop(columns=["energy_kwh", "co2_kg"]).notna().all(axis=None)
    assert frame[["energy_kwh", "co2_kg"]].isna().all(axis=None)  # not asked for


def test_a_row_for_each_arm_trial_repeat_and_level(results: tombola.Results) -> None:
    keys = [tuple(key) for key in results.frame()[["arm", "trial", "repeat", "level"]].to_numpy()]
    expected = [("ticket", 0, 0, level) for level in range(4)]
    expected += [("reinit", 0, 0, 0), *(("reinit", 0, repeat, level) for repeat in (0, 1) for level in (1, 2, 3))]
    expected += [("random-mask", 0, 0, level) for level in range(4)]
    assert keys == expected


def test_level_0_is_one_job_shared_by_all_arms(results: tombola.Results) -> None:
    frame = results.frame()
    assert frame[frame["level"] == 0]["job"].nunique() == 1
    pruned = frame[frame["level"] > 0]
    assert pruned["job"].is_unique


def test_densities_follow_from_the_rates(results: tombola.Results) -> None:
    counts = dict(SIZES)
    for level in range(4):
        rows = results.frame().loc[lambda frame, level=level: frame["level"] == level]
        assert set(rows["remaining_weights"]) == {sum(counts.values())}
        np.testing.assert_allclose(rows["density"], sum(counts.values()) / 11900, rtol=1e-12)
        for name, rate in (("fc1.weight", 0.3), ("fc2.weight", 0.3), ("output.weight", 0.15)):
            counts[name] -= round(rate * counts[name])


def test_values_are_those_of_the_result_files(results: tombola.Results) -> None:
    for row in results.frame().itertuples():
        facts = facts_of(results, row.job)
        history = pd.DataFrame(facts["history"])
        assert list(history["iteration"]) == list(range(0, 201, 20))
        stop = history["val_loss"].to_numpy().argmin()  # numpy takes the first of equals
        assert row.early_stop_iteration == history["iteration"][stop]
        assert row.early_stop_val_loss == history["val_loss"][stop]
        assert row.early_stop_test_accuracy == history["test_accuracy"][stop]
        assert row.final_test_accuracy == history["test_accuracy"].iloc[-1]
        assert row.final_val_loss == history["val_loss"].iloc[-1]
        assert row.final_train_accuracy == facts["train"][1]
        assert row.seconds == facts["seconds"] > 0
        assert row.iterations == 200


def test_accuracies_are_fractions_of_the_true_number_of_examples(results: tombola.Results) -> None:
    """Fault 7 of other tools: an average over batches of unequal size is none."""
    frame, curves = results.frame(), results.curves()
    for accuracies, examples in (
        (frame["early_stop_test_accuracy"], TEST),
        (frame["final_test_accuracy"], TEST),
        (frame["final_train_accuracy"], TRAIN),
        (curves["test_accuracy"].dropna(), TEST),
        (curves["val_accuracy"], VALIDATION),
    ):
        right = accuracies * examples
        np.testing.assert_allclose(right, right.round(), atol=1e-6)
        assert accuracies.between(0, 1).all()
    assert frame["final_test_accuracy"].min() > 0.8


def test_early_stop_is_the_first_minimum_of_validation_loss(copied: Path) -> None:
    """Whatever the test accuracy says: selection looks at validation alone."""
    (folder,) = (copied / "jobs").glob("*dense-*")
    facts = json.loads((folder / "result.json").read_text())
    facts["history"] |= {
        "val_loss": [3.0, 2.0, 0.5, 1.0, 0.5, 0.9, 0.5, 1.0, 1.0, 1.0, 1.0],
        "test_accuracy": [0.1, 0.9, 0.3, 0.9, 0.4, 0.9, 0.5, 0.9, 0.9, 0.9, 0.6],
    }
    (folder / "result.json").write_text(json.dumps(facts))
    from tombola.running.files import write_sums

    write_sums(folder, ("weights.safetensors", "result.json"))
    row = tombola.Results.open(copied).frame().iloc[0]
    assert row["early_stop_iteration"] == 40
    assert row["early_stop_val_loss"] == 0.5
    assert row["early_stop_test_accuracy"] == 0.3
    assert row["final_test_accuracy"] == 0.6


def test_curves_have_a_row_for_each_evaluation(results: tombola.Results) -> None:
    frame, curves = results.frame(), results.curves()
    assert len(curves) == 11 * len(frame)
    where = ["arm", "trial", "repeat", "level"]
    for key, curve in curves.groupby(where):
        (job,) = frame.set_index(where).loc[[key], "job"]
        history = facts_of(results, job)["history"]
        for column, values in history.items():
            np.testing.assert_array_equal(curve[column], values)


def test_the_saved_tables_read_back_exactly(results: tombola.Results) -> None:
    pd.testing.assert_frame_equal(pd.read_csv(results.store.root / "results.csv"), results.frame(), check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(results.store.root / "curves.csv"), results.curves(), check_dtype=False)


def test_a_ticket_starts_from_the_dense_networks_own_weights(results: tombola.Results) -> None:
    dense = results.ticket(level=0)
    assert dense.mask.is_full
    for level in (1, 2, 3):
        ticket = results.ticket(trial=0, level=level)
        assert (
            ticket.mask.remaining
            == results.frame().query("arm == 'ticket' and level == @level")["remaining_weights"].item()
        )
        built = ticket.build().state_dict()
        for name, weight in dense.build().state_dict().items():
            expected = weight * ticket.mask[name] if name in ticket.mask else weight
            assert torch.equal(built[name], expected), name


def test_the_dense_network_starts_from_the_trials_initialisation(results: tombola.Results) -> None:
    ticket = results.ticket()
    expected = initialised(ticket.build, results.study.network.init, Seeds(0, 0).value("init")).state_dict()
    assert expected.keys() == ticket.weights.keys()
    for name, weight in expected.items():
        assert torch.equal(ticket.weights[name], weight)


def test_masks_are_nested_and_those_of_the_parents_magnitudes(results: tombola.Results) -> None:
    for level in (1, 2, 3):
        parent, ticket = results.ticket(level=level - 1), results.ticket(level=level)
        assert ticket.mask <= parent.mask
        for name, keep in ticket.mask.items():
            final = parent.trained[name].abs()
            gone = parent.mask[name] & ~keep
            assert final[gone].max() <= final[keep].min()


def test_trained_weights(results: tombola.Results) -> None:
    ticket = results.ticket(level=3)
    trained = ticket.build(trained=True).state_dict()
    for name, keep in ticket.mask.items():
        assert (trained[name][~keep] == 0).all()
        # Some never move: those of pixels that are always 0 to a unit that is.
        assert (trained[name][keep] != ticket.weights[name][keep]).float().mean() > 0.9


def test_controls_share_what_they_should_and_nothing_else(results: tombola.Results) -> None:
    for level in (1, 2, 3):
        ticket = results.ticket(level=level)
        draws = [results.ticket(level=level, arm="reinit", repeat=repeat) for repeat in (0, 1)]
        shuffled = results.ticket(level=level, arm="random-mask")
        name = "fc1.weight"
        for draw in draws:
            assert draw.mask == ticket.mask
        starts = [each.weights[name][ticket.mask[name]] for each in (ticket, *draws)]
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not (starts[one] == starts[other]).any()
        assert shuffled.mask.counts() == ticket.mask.counts()
        assert shuffled.mask != ticket.mask
        initial = results.ticket().weights[name]
        assert torch.equal(shuffled.weights[name], initial * shuffled.mask[name])


def test_building_draws_nothing_from_the_global_generator(results: tombola.Results) -> None:
    before = torch.get_rng_state()
    results.ticket(level=1).build()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_saved_ticket_comes_back(results: tombola.Results, tmp_path: Path) -> None:
    ticket = results.ticket(level=2, arm="reinit", repeat=1)
    ticket.save(tmp_path / "ticket.safetensors")
    found = tombola.Ticket.load(tmp_path / "ticket.safetensors")
    assert found.mask == ticket.mask
    for mine, theirs in ((found.weights, ticket.weights), (found.trained, ticket.trained)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert found.origin == ticket.origin
    expected = {"study": "demo", "arm": "reinit", "trial": 0, "repeat": 1, "level": 2, "rewind": 0}
    assert expected.items() <= found.origin.items()
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(found.build(trained=True)(images), ticket.build(trained=True)(images))


def test_a_ticket_normalises_as_training_did(results: tombola.Results, tmp_path: Path) -> None:
    """And says so after it was saved: accuracy on raw data is then what the table says."""
    ticket = results.ticket(level=1)
    ticket.save(tmp_path / "ticket.safetensors")
    dataset = load(results.study.data)
    splits = split(dataset, results.study.data.validation, Seeds(0, 0))
    for each in (ticket, tombola.Ticket.load(tmp_path / "ticket.safetensors")):
        inputs = each.normalise(dataset.test_inputs.copy())
        assert torch.equal(inputs, splits.test.inputs)
        assert torch.equal(each.normalise(torch.tensor(dataset.test_inputs[:, 0])), inputs)
        with torch.no_grad():
            right = each.build(trained=True)(inputs).argmax(1) == splits.test.targets
        row = results.frame().query("arm == 'ticket' and level == 1").iloc[0]
        assert right.double().mean().item() == row["final_test_accuracy"]
    with pytest.raises(InputError, match=r"\(5, 64\): the ticket takes \(N, 1, 8, 8\)"):
        ticket.normalise(np.zeros((5, 64)))


@pytest.mark.parametrize("shape", [(3, 4, 5), (6,), (1, 4, 5)])
def test_bytes_are_normalised_as_training_did(shape: tuple[int, ...], results: tombola.Results) -> None:
    rng = np.random.default_rng(0)
    raw, targets = rng.integers(0, 200, (50, *shape), dtype=np.uint8), np.zeros(50, np.int64)
    splits = split(Dataset("made up", raw, targets, raw[:9], targets[:9], 2), 10, Seeds(0, 0))
    ticket = dataclasses.replace(
        results.ticket(),
        normalisation={"mean": list(splits.mean), "std": list(splits.std)},
        origin={"input_shape": list(shape)},
    )
    assert torch.equal(ticket.normalise(raw[:9]), splits.test.inputs)
    assert torch.allclose(ticket.normalise(raw[:9] / 255), splits.test.inputs, atol=1e-6)


def test_what_is_printed_is_short(results: tombola.Results) -> None:
    ticket = repr(results.ticket(level=2, arm="reinit", repeat=1))
    assert ticket.startswith("Ticket(study='demo', arm='reinit', trial=0, repeat=1, level=2, Mask(")
    assert len(ticket) < 150
    assert repr(results) == f"Results('demo' in {str(results.store.root)!r}, 16 of 16 done)"


def test_a_ticket_is_built_as_its_runs_network_was() -> None:
    ticket, kept = ticket_of("small_nets:projected"), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        kept.append(ticket.build(trust=True).kept)
    engines_own = initialised(lambda: small_nets.projected((1, 6, 6), 4), "pytorch", 0).kept
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], engines_own)


def test_tickets_are_compared_by_content(results: tombola.Results) -> None:
    ticket = results.ticket(level=1)
    assert ticket == results.ticket(level=1)
    assert ticket != results.ticket(level=2)
    assert ticket != results.ticket(level=1, arm="reinit")  # the same mask
    assert ticket != dataclasses.replace(ticket, trained=ticket.weights)
    assert ticket != ticket.mask


def test_a_ticket_of_another_version_of_the_network(results: tombola.Results) -> None:
    ticket = results.ticket(level=1)
    network = ticket.origin["network"] | {"arguments": {"hidden": [7]}}
    other = dataclasses.replace(ticket, origin=ticket.origin | {"network": network})
    with pytest.raises(InputError, match=r"has changed since the ticket's run .*size mismatch"):
        other.build()


@pytest.mark.parametrize("content", [None, b"", b"not a ticket at all"])
def test_no_ticket_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ticket.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"ticket\.safetensors"):
        tombola.Ticket.load(path)
    with pytest.raises(InputError, match="no ticket's file is at"):
        tombola.Ticket.load(tmp_path)


def test_an_altered_ticket_is_noticed(results: tombola.Results, tmp_path: Path) -> None:
    path = tmp_path / "ticket.safetensors"
    results.ticket(level=1).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="checksum differs"):
        tombola.Ticket.load(path)


def test_a_file_that_is_no_ticket_is_refused(finished: Path) -> None:
    path = next((finished / "jobs").glob("*dense-*")) / "weights.safetensors"  # written by tombola, but no ticket
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        tombola.Ticket.load(path)


@pytest.mark.parametrize(
    "wanted",
    [
        {"level": 4},
        {"level": -1},
        {"trial": 1},
        {"arm": "one-shot", "level": 1},
        {"arm": "ticket", "repeat": 1, "level": 1},
    ],
)
def test_a_ticket_that_the_study_does_not_have(results: tombola.Results, wanted: dict) -> None:
    with pytest.raises(InputError, match=r"levels 0 to 3"):
        results.ticket(**wanted)


def test_an_unfinished_study(copied: Path) -> None:
    for folder in (copied / "jobs").glob("*level-0[23]-*"):
        shutil.rmtree(folder)
    results = tombola.Results.open(copied)
    assert results.missing() == 10
    assert set(results.frame()["level"]) == {0, 1}
    assert len(results.curves()) == 11 * len(results.frame())
    assert results.ticket(level=1).mask.remaining < 11900
    with pytest.raises(InputError, match="not finished yet"):
        results.ticket(level=2)


def test_a_study_of_which_nothing_is_done(copied: Path) -> None:
    shutil.rmtree(copied / "jobs")
    results = tombola.Results.open(copied)
    assert results.frame().empty
    assert tuple(results.frame().columns) == LEVEL_COLUMNS
    assert {"iteration", "val_loss", "arm"} <= set(results.curves().columns)
    assert results.missing() == 16


def test_a_damaged_result_is_left_out(copied: Path) -> None:
    (folder,) = (copied / "jobs").glob("*-0.ticket.level-02-*")
    (folder / "weights.safetensors").write_bytes(b"")
    frame = tombola.Results.open(copied).frame()
    assert len(frame) == 14
    assert frame.query("arm == 'ticket' and level == 2").empty


def test_what_is_no_results_folder(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", "demo"):
        with pytest.raises(InputError, match=r"study\.yaml|no study file"):
            tombola.Results.open(path)


def test_rewound_networks_count_their_iterations_from_there(tmp_path: Path, demo: tombola.Study) -> None:
    study = demo.model_copy(update={"rewind": 50, "pruning": demo.pruning.model_copy(update={"rounds": 1})})
    results = tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    frame = results.frame().set_index(["arm", "repeat", "level"])
    assert frame.loc[("ticket", 0, 0), "iterations"] == 200
    assert frame.loc[("ticket", 0, 1), "iterations"] == 150
    ticket = results.ticket(level=1)
    dense = Store(tmp_path / "out").load(results.ticket().origin["job"])
    assert all(torch.equal(ticket.weights[n], w) for n, w in ticket.mask.apply(dense.snapshots["iteration-50"]).items())
    curve = results.curves().query("arm == 'ticket' and level == 1")["iteration"]
    assert list(curve) == [50, 60, 80, 100, 120, 140, 160, 180, 200]


def test_buffers_are_part_of_a_ticket(small: Callable[..., tombola.Study], uninterrupted: Path) -> None:
    small()  # makes the network importable
    results = tombola.Results.open(uninterrupted)
    ticket = results.ticket(level=3)
    counter = "layers.2.num_batches_tracked"
    assert ticket.weights[counter].item() == 0  # fault 3: a rewind resets them
    assert ticket.trained[counter].item() == 120
    assert (ticket.build(trust=True).state_dict()["layers.2.running_mean"] == 0).all()
    assert isinstance(ticket.mask, Mask)
    assert set(ticket.mask) == {"layers.1.weight", "layers.5.weight"}
    assert math.isclose(ticket.mask.density, results.frame()["density"].min())


def test_two_folders_with_trials_of_one_study_join(tmp_path: Path) -> None:
    """Machines that share nothing divide the trials. Whoever copies the results together trains nothing again."""
    fields = small_runs.SMALL_DEMO | {"arms": ["ticket"], "pruning.rounds": 1, "trials": 1}
    made = {}
    for first in (0, 1):
        study = tombola.Study.load("demo", **fields, first_trial=first)
        made[first] = tombola.run(study, tmp_path / str(first), workers=0, figures=False, quiet=True)
    late = made[1].ticket(level=1)
    assert late.origin["trial"] == 1
    with pytest.raises(tombola.InputError, match="it has trial 1 and levels 0 to 1"):
        made[1].ticket(trial=0)

    shutil.copytree(tmp_path / "1" / "jobs", tmp_path / "0" / "jobs", dirs_exist_ok=True)
    study = tombola.Study.load("demo", **fields | {"trials": 2})
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "0" / "jobs").rglob("*")}
    both = tombola.run(study, tmp_path / "0", workers=0, figures=False, quiet=True)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "0" / "jobs").rglob("*")} == before
    assert not both.missing()
    columns = ["trial", "level", "job", "final_test_accuracy"]
    expected = pd.concat([made[first].frame() for first in (0, 1)], ignore_index=True)[columns]
    pd.testing.assert_frame_equal(both.frame()[columns], expected)
    assert both.ticket(1, 1).mask == late.mask
