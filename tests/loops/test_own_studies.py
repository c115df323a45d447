"""Studies with a `trainer`: planning, execution, failures, and the same numbers as a loop over `tombola.rounds`."""

import own_trainer
import pytest
import torch

import tombola
from tombola.errors import InputError, WorkFailed
from tombola.running.results import Results
from tombola.running.run import prepare
from tombola.studies import dump_study, load_study
from tombola.work import OwnRun, item_from_json

FIELDS = {
    "name": "mine",
    "network": "own_trainer:make",
    "trainer": "own_trainer:fit",
    "pruning": {"rate": 0.5, "rounds": 2},
    "arms": ["ticket", "reinit", "random-mask"],
    "trials": 1,
}


def study(**changes):
    return tombola.Study.model_validate(FIELDS | changes)


def run(out, workers=0, **changes):
    return tombola.run(study(**changes), out, workers=workers, figures=False, quiet=True)


@pytest.fixture(autouse=True)
def no_calls():
    own_trainer.CALLS.clear()


def test_a_trainer_gives_the_same_tickets_as_a_loop(tmp_path):
    found = run(tmp_path / "study", rewind="step-5")
    options = {"rounds": 2, "rate": 0.5, "trials": 1, "rewind": "step-5", "figures": False, "quiet": True}
    for each in tombola.rounds(own_trainer.make, out=tmp_path / "loop", **options):
        own_trainer.fit(each)
    other = Results.open(tmp_path / "loop")
    columns = ["arm", "level", "density", "sparsity", "final_test_accuracy", "early_stop_iteration", "status"]
    assert found.frame()[columns].equals(other.frame()[columns])
    for arm in ("ticket", "reinit", "random-mask"):
        assert found.ticket(0, 2, arm) == other.ticket(0, 2, arm)
    start = found.store.load(found.frame().job[0]).snapshots["step-5"]
    ticket = found.ticket(0, 2)
    assert all(torch.equal(ticket.weights[name], start[name] * keep) for name, keep in ticket.mask.items())


def test_a_trainer_is_told_which_run_it_has(tmp_path):
    run(tmp_path, arms=["ticket", {"reinit": {"per_trial": 2}}], trials=2)
    assert sorted(own_trainer.CALLS) == sorted(
        [("dense", trial, 0, 0) for trial in (0, 1)]
        + [("ticket", trial, 0, level) for trial in (0, 1) for level in (1, 2)]
        + [("reinit", trial, repeat, level) for trial in (0, 1) for repeat in (0, 1) for level in (1, 2)]
    )


@pytest.mark.slow
def test_workers_train_in_parallel(tmp_path, monkeypatch):
    with tombola.registry.user_path(own_trainer.__file__.rpartition("/")[0]):
        found = run(tmp_path / "two", workers=2)
    assert own_trainer.CALLS == []  # in other processes
    assert found.ticket(0, 2) == run(tmp_path / "none").ticket(0, 2)


def test_a_failing_run_leaves_the_others_alone(tmp_path):
    with pytest.raises(WorkFailed, match="no more memory for level 1"):
        run(tmp_path, trainer="own_trainer:fails_at_level_one", arms=["ticket", "random"])
    assert Results.open(tmp_path).frame().level.tolist() == [0, 0, 2]  # the random mask needs no other level


def test_a_trainer_that_returns_early(tmp_path):
    with pytest.raises(WorkFailed, match="dense ended, and accuracy was expected but nothing was reported"):
        run(tmp_path, trainer="own_trainer:lazy", arms=["ticket"])


def test_a_study_file_needs_no_data_and_reads_back(tmp_path):
    text = dump_study(study())
    assert "data:" not in text
    assert "training:\n" not in text
    (tmp_path / "mine.yaml").write_text(text)
    assert load_study(str(tmp_path / "mine.yaml")) == study()
    assert load_study(str(tmp_path / "mine.yaml"), {"trainer.arguments": {"lr": 0.1}}).trainer.arguments == {"lr": 0.1}


def test_a_kept_plan_of_before_a_new_field_reads_back():
    """Placeholders were written with the fields of their time."""
    kept = study().model_dump(mode="json")
    del kept["training"]["gamma"], kept["data"]["path"]
    assert tombola.Study.model_validate(kept) == study()


def test_arguments_of_a_trainer_count_and_its_unit_does_not():
    def works(**trainer):
        plan, _ = prepare(study(trainer={"name": "own_trainer:fit", **trainer}), None, 0, "cpu", "auto", 30.0)
        return plan.work.keys()

    assert works() == works(unit="")
    assert not works() & works(arguments={"lr": 0.1})
    dense = [key for key, item in prepare(study(), None, 0, "cpu", "auto", 30.0)[0].work.items()]
    assert list(works()) == dense


def test_items_survive_json():
    plan, _ = prepare(study(rewind="step-5"), None, 0, "cpu", "auto", 30.0)
    for item in plan.work.values():
        again = item_from_json(item.as_json())
        assert again == item
        assert again.spec.id == item.id
        if isinstance(item.spec, OwnRun):
            assert item.spec.prunable == {"1.weight": (16, 8), "3.weight": (3, 16)}


REFUSED = [
    ({"data": "mnist"}, "data: the trainer has its own; remove data"),
    ({"training": {"lr": 0.1, "batch_size": 10, "epochs": 2}}, "training: the trainer has its own"),
    ({"retraining": {"lr": 0.1}}, "retraining: the trainer has its own"),
    ({"task": "regression"}, "task: the trainer has its own"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_sections_that_a_trainer_has_no_use_for(changes, message):
    with pytest.raises(ValueError, match=message):
        study(**changes)


IMPOSSIBLE = [
    ({"trainer": "own_trainer:fitt"}, "did you mean 'fit'"),
    ({"trainer": "own_trainer:make"}, r"is called as function\(run\), and can't be"),
    ({"trainer": {"name": "own_trainer:fit", "arguments": {"rate": 1}}}, "unexpected keyword argument 'rate'"),
    ({"connectivity": {"levels": [0]}}, "connectivity evaluates networks between two runs; give `evaluate`"),
    (
        {"arms": [{"rule": "ticket", "training": {"lr": 1.0}}]},
        "training of 'ticket' applies only to tombola's own training",
    ),
    ({"network": "own_trainer:pretrained"}, "'reinit' needs a second initialisation"),
    ({"network": "own_trainer:pretrained_backbone"}, r"equal weights from every seed \(1\.weight: 73% of the prunable"),
    ({"trainer": {"name": "own_trainer:fit", "inputs": [7]}}, "the network can't be run on inputs of shape"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_what_planning_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        tombola.studies.make_plan(study(**changes))


def test_a_snapshot_is_nothing_to_a_study_without_a_trainer():
    with pytest.raises(InputError, match="which only a user's own trainer takes"):
        tombola.studies.make_plan(load_study("demo", {"rewind": "step-500"}))
