"""Loops over models with tied weights, infinite buffers, extra state, complex weights, and metrics of any name."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
from tombola.errors import InputError
from tombola.running.notes import notes_on, turned_round
from tombola.running.store import Store
from tombola.studies.trainer import Trainer
from tombola.tasks.metric import direction_of, unit_of

SMALL = {"rounds": 1, "rate": 0.5, "trials": 1, "figures": False, "quiet": True}


class Tied(nn.Module):
    """Predicts its own token, with one table for both ends."""

    def __init__(self):
        super().__init__()
        self.embedding, self.middle = nn.Embedding(12, 6), nn.Linear(6, 6)
        self.decoder = nn.Linear(6, 12, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.middle(self.embedding(x))))


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def train(run, inputs):
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        run.model(inputs).square().mean().backward()
        optimizer.step()


def loop(out, make, action=lambda run: None, inputs=(6,), **options):
    """Run a whole loop; return the state in which each run of an arm starts, and its mask."""
    starts = {}
    batch = torch.randn(8, *inputs) if isinstance(inputs, tuple) else inputs
    for run in tombola.rounds(make, out=out, inputs=inputs, **{"arms": ["ticket"], **SMALL, **options}):
        starts[run.arm] = {name: each.clone() for name, each in run.model.state_dict().items()}, run.mask
        train(run, batch)
        action(run)
        run.report(10, **{options.get("metric", "accuracy"): 0.5})
    return starts


REDRAWN = ("shuffled-weights", "redrawn-magnitudes", "constant", "constant-signs", "random-signs")


def test_controls_redraw_tied_weights(tmp_path):
    arms = [
        "ticket",
        *REDRAWN[:2],
        {"of": "ticket", "kept": "constant", "name": "constant"},
        {"of": "ticket", "kept": "constant", "signs": True, "name": "constant-signs"},
        {"of": "ticket", "kept": "random-signs", "name": "random-signs"},
    ]
    starts = loop(tmp_path, Tied, inputs=torch.arange(12).view(2, 6), arms=arms)
    ticket, mask = starts["ticket"]
    keep = mask["embedding.weight"]
    assert 0 < int(keep.sum()) < keep.numel()
    for arm in REDRAWN:
        state, held = starts[arm]
        assert held == mask
        assert torch.equal(state["embedding.weight"], state["decoder.weight"])
        assert not torch.equal(state["embedding.weight"], ticket["embedding.weight"])
        assert not state["embedding.weight"][~keep].any()
    sizes = ticket["embedding.weight"][keep].abs().sort().values
    assert torch.equal(starts["shuffled-weights"][0]["embedding.weight"][keep].abs().sort().values, sizes)


class Causal(Plain):
    """Masks scores with -inf, as attention does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.triu(torch.full((8, 8), -torch.inf), 1))

    def forward(self, x):
        return self.b(functional.softmax(torch.relu(self.a(x))[:, None] + self.mask, -1)[:, -1])


def test_a_buffer_that_is_infinite_from_the_start_is_no_divergence(tmp_path):
    evaluated = {"evaluate": lambda model: {"accuracy": float(model(torch.ones(2, 6)).isfinite().all())}}
    loop(tmp_path, Causal, connectivity={"levels": [0], "points": 3}, **evaluated)
    results = tombola.Results.open(tmp_path)
    assert set(results.frame()["status"]) == {"ok"}
    assert results.connectivity()["test_error"].tolist() == [0, 0, 0]


def test_a_weight_that_becomes_infinite_is_a_divergence(tmp_path):
    def spoil(run):
        with torch.no_grad():
            run.model.a.bias[0] = math.inf

    loop(tmp_path, Causal, spoil)
    assert set(tombola.Results.open(tmp_path).frame()["status"]) == {"diverged"}


class WithState(Plain):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass


class Spectral(Plain):
    def __init__(self):
        super().__init__()
        self.a.weight = nn.Parameter(torch.randn(8, 6, dtype=torch.cfloat))

    def forward(self, x):
        return self.b((x.cfloat() @ self.a.weight.t()).abs())


@pytest.mark.parametrize(("make", "options", "message"), [
    (WithState, {}, r"make_model keeps '_extra_state' in its state_dict, a dict; tombola stores tensors alone"),
    (lambda: torch.jit.script(Plain()), {}, "make_model is a TorchScript module, which can't be pruned"),
    (Spectral, {"arms": ["ticket", "redrawn-magnitudes"]}, "complex weights have no sign"),
    (Plain, {"settings": {"augment": [{"flip", "crop"}]}}, "settings: 'augment' holds a set, which has no order"),
    (Plain, {"metric": "balance"}, "'balance' does not say whether higher or lower is better; set better to one"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_what_can_not_be_kept_is_refused(tmp_path, make, options, message):
    with pytest.raises(InputError, match=message):
        loop(tmp_path, make, **options)


def test_complex_weights_are_pruned(tmp_path):
    starts = loop(tmp_path, Spectral, arms=["ticket", "reinit", "random-mask", "shuffled-weights"])
    assert starts["ticket"][1].densities()["a.weight"] == 0.5


@pytest.mark.parametrize("when", ["before the snapshot", "after it"])
def test_a_buffer_of_the_loops_own_is_refused(tmp_path, when):
    def action(run):
        if when == "before the snapshot":
            run.model.register_buffer("mean", torch.zeros(1))
        run.snapshot("step-5")
        run.model.register_buffer("mean", torch.zeros(1))

    with pytest.raises(
        InputError, match=r"'mean' was added to run.model or removed from it, .* where the model is made"
    ):
        loop(tmp_path, Plain, action, rewind="step-5")


class BeliefAdam(torch.optim.Optimizer):
    """Like AdaBelief: adds epsilon to its variance at each step, so that this is nowhere zero."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self):
        for weight in self.param_groups[0]["params"]:
            state = self.state[weight]
            if not state:
                state |= {"step": 0, "exp_avg": torch.zeros_like(weight), "exp_avg_var": torch.zeros_like(weight)}
            state["step"] += 1
            state["exp_avg"].lerp_(weight.grad, 0.1)
            state["exp_avg_var"].add_(weight.grad.square()).add_(1e-8)
            weight.addcdiv_(state["exp_avg"], state["exp_avg_var"].sqrt(), value=-0.01)


def stepped(module, optimizer):
    optimizer.zero_grad()
    module(torch.randn(8, 6)).square().mean().backward()
    optimizer.step()


def test_an_optimizer_may_load_the_state_that_it_had_under_the_mask():
    module = Plain()
    mask = tombola.Mask.from_weights({"a.weight": torch.rand(8, 6).round()})
    mask.hold_(module)
    optimizer = BeliefAdam(module.parameters())
    stepped(module, optimizer)
    resumed = BeliefAdam(module.parameters())
    resumed.load_state_dict(optimizer.state_dict())
    mask.hold_(module)
    stepped(module, resumed)
    assert not module.a.weight[~mask["a.weight"]].any()


def test_an_optimizer_of_the_dense_network_is_still_refused():
    module = Plain()
    optimizer = BeliefAdam(module.parameters())
    stepped(module, optimizer)
    tombola.Mask.from_weights({"a.weight": torch.rand(8, 6).round()}).hold_(module)
    with pytest.raises(InputError, match="from before hold_"):
        stepped(module, optimizer)


def test_a_loop_names_parameters_that_no_density_counts(tmp_path, capsys):
    class Gated(Plain):
        def __init__(self):
            super().__init__()
            self.gate = nn.Parameter(torch.randn(10, 6))

        def forward(self, x):
            return super().forward(x * self.gate.sum(0))

    loop(tmp_path, Gated, quiet=False)
    assert "note: 60 of 143 parameters (42.0 %) are never pruned, and no density counts them: gate (" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.parametrize(("name", "better", "unit"), [
    ("accuracy", "higher", "%"), ("top5_accuracy", "higher", "%"), ("error", "lower", "%"),
    ("top10_error", "lower", "%"),
    ("loss", "lower", ""), ("RMSE", "lower", ""), ("word_error_rate", "lower", ""), ("mean_squared_error", "lower", ""),
    ("F1", "higher", ""), ("f1_macro", "higher", ""), ("cross_entropy", "lower", ""), ("log_likelihood", "higher", ""),
    ("bits_per_token", "lower", ""), ("brier_score", "lower", ""), ("depth_rmse", "lower", ""),
    ("Accuracy", "higher", ""),
    ("neg_log_likelihood", None, ""), ("accuracy_loss", None, ""), ("accuracy_drop", None, ""), ("balance", None, ""),
    ("error_reduction", None, ""), ("error_free_rate", None, ""), ("one_over_loss", None, ""), ("rate", None, ""),
])  # fmt: skip
def test_what_the_name_of_a_metric_says(name, better, unit):
    assert (direction_of(name), unit_of(name)) == (better, unit)
    given = {"name": "a:b", "metric": name}
    if better is None:
        with pytest.raises(ValueError, match="does not say whether"):
            Trainer.model_validate(given)
    stated = Trainer.model_validate({**given, "better": "lower"}).primary
    assert (stated.better, stated.unit) == ("lower", unit)
    if better is not None:
        assert Trainer.model_validate(given).primary.better == better


def test_a_folder_that_has_the_other_direction_is_said(tmp_path):
    loop(tmp_path, Plain, metric="loss")
    plan = tombola.Results.open(tmp_path).plan
    assert turned_round(plan) == ""
    trainer = plan.study.trainer.model_copy(update={"better": "higher"})
    plan = replace(plan, study=plan.study.model_copy(update={"trainer": trainer}))
    assert turned_round(plan) == "note: loss counts as better when higher; if that is wrong, set trainer.better"
    assert turned_round(plan) in notes_on(plan, Store(tmp_path / "new"))
