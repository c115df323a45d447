"""What `tombola.rounds` refuses: one sentence with the run, what was expected, and what to do."""

import numpy as np
import own_trainer
import pytest
import torch
from torch import nn

import tombola
from tombola.errors import InputError
from tombola.running.store import Store

SMALL = {"rounds": 2, "trials": 1, "figures": False, "quiet": True}


def body(run):
    own_trainer.train(run.model, run.seed)
    run.report(20, accuracy=own_trainer.accuracy(run.model))


def loop(out, make=own_trainer.make, **options):
    """Run a whole loop."""
    for run in tombola.rounds(make, out=out, **{**SMALL, **options}):
        body(run)


def each_run(out, action):
    """Call a function with each run of a small loop."""
    for run in tombola.rounds(own_trainer.make, out=out, arms=["ticket"], **SMALL):
        action(run)


def unsteady():
    model = own_trainer.make()
    with torch.no_grad():
        model[1].weight += np.random.rand()
    return model


ONE = own_trainer.make()
PART = own_trainer.make()[1]
FROZEN = own_trainer.make()[1].requires_grad_(False)  # a mask would zero its weights in place


def test_a_model_that_returns_twice_is_refused(tmp_path):
    """Runs would change each other's weights."""

    def with_part(part):
        return lambda: nn.Sequential(nn.Flatten(), part, nn.ReLU(), nn.Linear(16, 3))

    for make in (lambda: ONE, with_part(PART), with_part(FROZEN)):
        with pytest.raises(InputError, match=r"make_model returned '1.weight' twice.*; build a new model in each call"):
            loop(tmp_path / "out", make)
    assert not (tmp_path / "out").exists()


def swap_weight(run):
    run.model[1].weight = nn.Parameter(torch.randn(16, 8))


def swap_layer(run):
    run.model[1] = nn.Linear(8, 16)


def train_a_copy(run):
    own_trainer.train(own_trainer.make(), run.seed)


def replace_model(run):
    run.model = own_trainer.make()


def go_back(run):
    run.report(5, accuracy=0.1)
    run.report(4, accuracy=0.1)


def without_values():
    return own_trainer.make().to("meta")


def test_the_mask_of_a_run_is_not_a_setting(tmp_path):
    def set_mask(run):
        with pytest.raises(AttributeError, match="mask"):
            run.mask = tombola.Mask.full(run.mask.shapes())
        body(run)

    each_run(tmp_path, set_mask)


ARGUMENTS = [
    ({"make": own_trainer.make()}, "make_model is a Sequential; give a function"),
    ({"make": without_values}, "'1.weight' on the device meta, without values"),
    ({"inputs": 8}, r"inputs=8: give the shape of one example"),
    ({"inputs": "batch"}, r"inputs='batch': give the shape of one example"),
    ({"inputs": (-8,)}, r"inputs=\(-8,\): give the shape of one example"),
    ({"metric": None}, "metric=None: give a name"),
    ({"settings": [1]}, "settings is a list; give a dict"),
    ({"settings": {"net": object()}}, "settings: 'net' is a object, which can't be stored"),
    ({"tracker": 5}, "tracker=5: give a name"),
    ({"out": None}, "out=None: name the results folder"),
    ({"out": ""}, "out='': name the results folder"),
]


@pytest.mark.parametrize(("arguments", "message"), ARGUMENTS)
def test_an_argument_of_a_wrong_kind(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        loop(**{"out": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


REFUSED = [
    (swap_weight, "was replaced by another parameter"),
    (swap_layer, "was replaced by another parameter"),
    (train_a_copy, "no weight of run.model changed"),
    (replace_model, "run.model was replaced by a Sequential"),
    (go_back, "step 4 was reported after step 5"),
    (lambda run: run.report(1), "report was called without a metric"),
    (lambda run: run.report(1, accuracy=97.2), "report accuracy=0.972"),
    (lambda run: run.report(1, accuracy=[1, 2]), "reported as a list"),
    (lambda run: run.report(1, accuracy="0.5"), "reported as a str"),
    (lambda run: run.report(1.5, accuracy=0.1), "must be a whole number"),
    (lambda run: run.snapshot("../other"), "use a name such as step-500"),
]


@pytest.mark.parametrize(("act", "message"), REFUSED)
def test_a_body_that_does_what_can_not_be(tmp_path, act, message):
    def act_and_report(run):
        if act not in (train_a_copy, swap_weight, swap_layer):
            own_trainer.train(run.model, run.seed)
        act(run)
        run.report(20, accuracy=0.5)

    with pytest.raises(InputError, match=message) as raised:
        each_run(tmp_path, act_and_report)
    assert "trial-0.dense" in str(raised.value)
    assert Store(tmp_path).finished() == set()


def test_a_metric_that_is_never_reported(tmp_path):
    def report_another(run):
        own_trainer.train(run.model, run.seed)
        run.report(3, val_loss=0.1)

    with pytest.raises(InputError, match=r"dense ended, and accuracy was expected but only val_loss was reported"):
        each_run(tmp_path, report_another)


def test_a_snapshot_that_is_never_taken(tmp_path):
    with pytest.raises(InputError, match=r"without the snapshot 'step-5' of rewind"):
        loop(tmp_path, arms=["ticket"], rewind=5)


def test_a_report_after_the_end(tmp_path):
    runs = []

    def report_the_first(run):
        runs.append(run)
        body(run)
        runs[0].report(30, accuracy=0.5)

    with pytest.raises(InputError, match="dense has ended, but accuracy was reported after that"):
        each_run(tmp_path, report_the_first)


def test_an_optimiser_with_old_state(tmp_path):
    optimizers = {}

    def keep_the_momentum(run):
        optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1, momentum=0.9)
        if optimizers:
            optimizer.load_state_dict(optimizers["dense"])
        run.model(torch.ones(4, 8)).sum().backward()
        optimizer.step()
        optimizers["dense"] = optimizer.state_dict()
        run.report(1, accuracy=0.5)

    expected = r"run .*level-01: SGD has 'momentum_buffer' of '1\.weight' at \d+ pruned weights, .*make a new optimiser"
    with pytest.raises(InputError, match=expected):
        each_run(tmp_path, keep_the_momentum)


def test_an_optimiser_of_another_run(tmp_path):
    optimizers = []

    def train_with_the_first_one(run):
        optimizers.append(torch.optim.SGD(run.model.parameters(), lr=0.1))
        run.model(torch.ones(4, 8)).sum().backward()
        optimizers[0].step()
        run.report(1, accuracy=0.5)

    with pytest.raises(InputError, match=r"run .*level-01: no weight of run\.model changed"):
        each_run(tmp_path, train_with_the_first_one)


def test_a_layer_that_is_swapped_before_training(tmp_path):
    def swap_and_train(run):
        swap_layer(run)
        run.model(torch.ones(4, 8))

    with pytest.raises(
        InputError,
        match=r"run .*dense: '1' was replaced by another module during the run: train the parameters of run\.model",
    ):
        each_run(tmp_path, swap_and_train)


def test_a_factory_whose_draws_depend_on_the_call(tmp_path):
    calls = []

    def make():
        calls.append(None)
        torch.manual_seed(len(calls))
        return own_trainer.make()

    with pytest.raises(InputError, match=r"make_model built two modules from one seed.*both must be equal: draw"):
        loop(tmp_path / "out", make)
    assert not (tmp_path / "out").exists()


def test_a_body_that_ends_early(tmp_path):
    with pytest.raises(
        InputError, match=r"run .*dense ended, and accuracy was expected but nothing was reported; call"
    ):
        each_run(tmp_path, lambda run: None)


IMPOSSIBLE = [
    ({"make": unsteady}, "make_model built two modules from one seed whose '1.weight' differ"),
    ({"make": own_trainer.pretrained}, "'reinit' needs a second initialisation"),
    ({"make": own_trainer.pretrained_backbone}, r"make_model builds equal weights from every seed \(1\.weight: 73% of"),
    ({"make": lambda: 3}, "make_model gave a int"),
    ({"make": 3}, "make_model is a int"),
    ({"make": lambda: 1 / 0}, "make_model failed: ZeroDivisionError"),
    ({"make": lambda: nn.Conv2d(3, 4, 3), "arms": ["ticket"]}, "set inputs to the shape of one example"),
    ({"pruning": {"criterion": "gradient"}}, "criterion=gradient can't be used with a trainer: it needs gradients"),
    ({"pruning": {"criterion": "stability"}}, "criterion=stability can't be used"),
    ({"pruning": {"stop_margin": 0.1}}, "stop_margin needs tombola's own training"),
    ({"pruning": {"rounds": 3}}, "both set the number of rounds"),
    ({"arms": ["snip"]}, "'snip' can't be used with a trainer"),
    ({"arms": ["fine-tune"]}, "'fine-tune' can't be used with a trainer"),
    ({"arms": ["edge-popup"]}, "'edge-popup' can't be used with a trainer"),
    ({"arms": ["early-bird"]}, "'early-bird' can't be used with a trainer"),
    ({"arms": ["ticke"]}, "did you mean 'ticket'"),
    ({"rewind": 0.1}, "must name a snapshot of the trainer, such as step-500"),
    ({"rewind": "2 epochs"}, "must name a snapshot of the trainer"),
    ({"rewind": [5, "epoch-5"]}, "another step of the same number"),
    ({"metric": "val_accuracy"}, "write metric: accuracy"),
    ({"metric": "top 5"}, "must be a name of letters"),
    ({"trials": 0}, "trials"),
]


@pytest.mark.parametrize(("options", "message"), IMPOSSIBLE)
def test_what_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        loop(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
