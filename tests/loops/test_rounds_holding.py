"""Pruned weights stay exactly 0.0 in runs of `tombola.rounds`, whatever optimiser and kind of loop trains them."""

import own_trainer
import pytest
import torch
from optimizers import SAM, Lion
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import tombola
from tombola.errors import InputError

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "muon": lambda p: torch.optim.Muon([one for one in p if one.dim() == 2], lr=0.1, weight_decay=0.1),
    "lion": Lion,
    "sam": SAM,
}
LOOPS = ("plain", "accumulation", "clipping", "ema", "amp", "resumed")
FAST = ("plain", "resumed")  # the others belong to `make test-all`
STEPS = 4
ONE_TRIAL = {"rate": 0.5, "trials": 1, "arms": ["ticket"], "figures": False, "quiet": True}


class Training:
    """One kind of loop with one optimiser, as anyone would write it."""

    def __init__(self, run, optimizer, loop):
        self.model, self.loop = run.model, loop
        self.optimizer = OPTIMIZERS[optimizer](list(run.model.parameters()))
        self.average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(0.5)) if loop == "ema" else None
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0) if loop == "amp" else None

    def backward(self, inputs, targets):
        self.optimizer.zero_grad()
        parts = 4 if self.loop == "accumulation" else 1
        for x, y in zip(inputs.chunk(parts), targets.chunk(parts), strict=True):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.loop == "amp"):
                loss = functional.cross_entropy(self.model(x), y) / parts
            (self.scaler.scale(loss) if self.scaler else loss).backward()
        if self.loop == "clipping":
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        return loss

    def step(self, inputs, targets):
        self.backward(inputs, targets)
        if isinstance(self.optimizer, SAM):
            self.optimizer.step(lambda: self.backward(inputs, targets))
        elif self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.model)

    @property
    def inner(self):
        return self.optimizer.base if isinstance(self.optimizer, SAM) else self.optimizer

    def save(self, path, step):
        torch.save((step, self.model.state_dict(), self.inner.state_dict()), path)

    def load(self, path):
        step, weights, state = torch.load(path, weights_only=True)
        self.model.load_state_dict(weights)
        self.inner.load_state_dict(state)
        return step


def revived(run, module):
    parameters = dict(module.named_parameters())
    return sum(int((parameters[name].detach()[~keep] != 0.0).sum()) for name, keep in run.mask.items())


def loop(out, optimizer, kind, stop_at=None):
    """Train all runs; count revived weights after each step. Return (runs, steps, revived)."""
    inputs, targets = own_trainer.examples()
    runs = steps = back = 0
    for run in tombola.rounds(own_trainer.make, out=out, rounds=2, **ONE_TRIAL):
        training, path = Training(run, optimizer, kind), run.checkpoint_dir / "last.pt"
        first = training.load(path) if path.exists() else 0
        for step in range(first, STEPS):
            batch = torch.randint(200, (16,), generator=torch.Generator().manual_seed(run.seed + step))
            training.step(inputs[batch], targets[batch])
            back += revived(run, run.model) + (revived(run, training.average.module) if training.average else 0)
            steps += 1
            training.save(path, step + 1)
            if stop_at == (run.level, step + 1):
                return runs, steps, back
        run.report(STEPS, accuracy=own_trainer.accuracy(run.model))
        runs += 1
    return runs, steps, back


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[] if kind in FAST else pytest.mark.slow) for kind in LOOPS])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_pruned_weight_comes_back(tmp_path, optimizer, kind):
    if kind == "resumed":  # stopped in the middle of the first pruned level
        assert loop(tmp_path, optimizer, kind, stop_at=(1, 2)) == (1, STEPS + 2, 0)
        assert loop(tmp_path, optimizer, kind) == (2, STEPS + 2, 0)
        loop(tmp_path / "whole", optimizer, kind)
        assert tombola.Results.open(tmp_path).ticket(0, 2) == tombola.Results.open(tmp_path / "whole").ticket(0, 2)
    else:
        assert loop(tmp_path, optimizer, kind) == (3, 3 * STEPS, 0)
    ticket = tombola.Results.open(tmp_path).ticket(0, 2)
    assert 0 < ticket.mask.density < 0.5
    for name, keep in ticket.mask.items():
        assert not ticket.trained[name][~keep].any()
        assert not torch.equal(ticket.trained[name], ticket.weights[name])


def evolved(run, accuracy):
    """Improve a model without a backward pass, in place through `.data`; return its accuracy."""
    best = accuracy()
    for _ in range(20):
        before = [parameter.data.clone() for parameter in run.model.parameters()]
        for parameter in run.model.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=run.rng), alpha=0.1)
        if (now := accuracy()) >= best:
            best = now
        else:
            for parameter, value in zip(run.model.parameters(), before, strict=True):
                parameter.data.copy_(value)
    return best


def test_the_accuracy_of_an_evolved_model_is_that_of_the_pruned_one(tmp_path):
    reported = {}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, rounds=1, **ONE_TRIAL):
        reported[run.level] = evolved(run, lambda run=run: own_trainer.accuracy(run.model))
        run.report(accuracy=reported[run.level])
    for level, accuracy in reported.items():
        ticket = tombola.Results.open(tmp_path).ticket(0, level)
        assert own_trainer.accuracy(ticket.build(trained=True, factory=own_trainer.make)) == accuracy


def test_a_metric_of_a_network_that_may_be_unpruned_is_refused(tmp_path):
    """The body computes the network by hand, as a compiled module does: no hook sees that the weights are used."""

    def loop():
        for run in tombola.rounds(own_trainer.make, out=tmp_path, rounds=1, **ONE_TRIAL):
            for parameter in run.model.parameters():
                parameter.data.add_(0.1)
            run.report(1, train_loss=1.0)
            run.report(1, accuracy=0.9)

    with pytest.raises(
        InputError, match=r"level-01: accuracy was reported, but \d+ pruned weights of '1.weight' changed"
    ):
        loop()
