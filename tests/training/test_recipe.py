"""Recipes: learning rates against PyTorch's own schedulers, budgets, and what can't be."""

import warnings

import pytest
import torch
from plain_loop import recipe
from pydantic import ValidationError
from torch.optim import lr_scheduler

from tombola.training.recipe import Recipe


def torch_rates(make, lr, iterations):
    """Return what a scheduler of PyTorch's gives for each iteration."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR itself uses what PyTorch warns of
        for _ in range(iterations):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
    return rates


def rates(settings, iterations):
    return [settings.learning_rate(iteration, iterations) for iteration in range(iterations)]


def test_constant():
    assert rates(recipe(lr=0.3), 20) == [0.3] * 20


def test_step_agrees_with_pytorch():
    settings = recipe(lr=0.1, schedule="step", milestones=(5, 12, 13), gamma=0.2)
    expected = torch_rates(lambda o: lr_scheduler.MultiStepLR(o, [5, 12, 13], 0.2), 0.1, 20)
    assert rates(settings, 20) == pytest.approx(expected, rel=1e-12)


def test_cosine_agrees_with_pytorch():
    settings = recipe(lr=0.1, schedule="cosine")
    expected = torch_rates(lambda o: lr_scheduler.CosineAnnealingLR(o, 20), 0.1, 20)
    assert rates(settings, 20) == pytest.approx(expected, rel=1e-9)
    assert settings.learning_rate(20, 20) == pytest.approx(0, abs=1e-18)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warmup_agrees_with_pytorch(schedule):
    """Linear: the first step at 1/8 of the rate, the eighth at all of it; then the schedule, in what is left."""

    def make(optimizer):
        warm = lr_scheduler.LinearLR(optimizer, 1 / 8, 1.0, 7)
        after = (
            lr_scheduler.CosineAnnealingLR(optimizer, 12)
            if schedule == "cosine"
            else lr_scheduler.ConstantLR(optimizer, 1.0)
        )
        return lr_scheduler.SequentialLR(optimizer, [warm, after], [8])

    settings = recipe(lr=0.4, schedule=schedule, warmup=8)
    assert rates(settings, 20) == pytest.approx(torch_rates(make, 0.4, 20), rel=1e-9)


def test_the_papers_resnet_with_warmup():
    """Multiplied by a tenth at 20,000 and again at 25,000, whenever the warmup ends (Appendix I)."""
    settings = recipe(
        iterations=30_000,
        optimizer="sgd",
        lr=0.03,
        momentum=0.9,
        warmup=10_000,
        schedule="step",
        milestones=(20_000, 25_000),
    )
    expected = {0: 3e-6, 4_999: 0.015, 9_999: 0.03, 10_000: 0.03, 19_999: 0.03, 20_000: 0.003, 25_000: 0.0003}
    assert {i: settings.learning_rate(i, 30_000) for i in expected} == pytest.approx(expected)


def test_a_warmup_as_long_as_the_budget_never_divides_by_zero():
    settings = recipe(schedule="cosine", warmup=10, lr=1.0)
    assert rates(settings, 10) == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert 0 <= settings.learning_rate(10, 10) <= 1


@pytest.mark.parametrize(
    ("settings", "epoch_length", "budget"),
    [
        ({"iterations": 123}, 50, 123),
        ({"iterations": None, "epochs": 20}, 859, 17_180),
        ({"iterations": None, "epochs": 0.5}, 11, 6),
        ({"iterations": None, "epochs": 0.001}, 11, 1),
        ({"iterations": None, "epochs": 2.5}, 100, 250),
    ],
)
def test_the_budget(settings, epoch_length, budget):
    assert recipe(**settings).budget(epoch_length) == budget


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 3}, "exactly one of iterations and epochs"),
        ({"iterations": None}, "exactly one of iterations and epochs"),
        ({"iterations": 0}, "greater than or equal to 1"),
        ({"iterations": None, "epochs": 0}, "greater than 0"),
        ({"lr": 0}, "greater than 0"),
        ({"lr": float("nan")}, "finite|greater"),
        ({"lr": float("inf")}, "finite"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"evaluate_every": 0}, "greater than or equal to 1"),
        ({"momentum": 0.9}, "momentum belongs to optimizer: sgd"),
        ({"optimizer": "sgd", "momentum": 1.0}, "less than 1"),
        ({"weight_decay": -1e-4}, "greater than or equal to 0"),
        ({"optimizer": "adamax"}, "unknown optimizer 'adamax'; did you mean 'adam' or 'adamw'"),
        ({"optimizer": "muon", "momentum": 0.9}, "optimizer_options: {momentum"),
        ({"optimizer": "my_code:make", "weight_decay": 0.1}, "optimizer_options: {weight_decay"),
        ({"optimizer_options": {"lr": 0.1}}, "lr has a field of its own"),
        ({"optimizer_options": {"fused": False}}, "not for a study to choose"),
        ({"optimizer_options": {"beta": 0.1}}, "adam has no option 'beta'; did you mean 'betas'"),
        ({"optimizer_options": {"betas": [0.9, 1.5]}}, "Invalid beta"),
        (
            {"optimizer_options": {"amsgrad": True, "betas": [0.9]}},
            r"optimizer_options\.betas=\[0\.9\]: adam does not take this value \(IndexError",
        ),
        ({"optimizer_options": {"eps": float("nan")}}, "numbers"),
        ({"clip_norm": 0}, "greater than 0"),
        ({"clip_value": -1}, "greater than 0"),
        ({"schedule": "liner"}, "unknown schedule 'liner'; did you mean 'linear'"),
        ({"schedule": "onecycle", "warmup": 3}, "its own warmup"),
        ({"schedule": "step"}, "milestones and schedule: step need each other"),
        ({"milestones": (3,)}, "milestones and schedule: step need each other"),
        ({"schedule": "step", "milestones": (5, 3)}, "rising"),
        ({"schedule": "step", "milestones": (3, 3)}, "rising"),
        ({"schedule": "step", "milestones": (0, 3)}, "above 0"),
        ({"augment": ["flip", "crop", "flip"]}, "names one augmentation twice"),
        ({"augment": ["cutout"]}, "unknown augmentation 'cutout'; known: crop, flip"),
        ({"augment": "flip"}, "valid tuple"),
        ({"warmup": -1}, "greater than or equal to 0"),
        ({"learning_rate": 1}, "[Ee]xtra"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**settings)


def test_the_identity_holds_what_differs_from_the_defaults():
    """A setting that is added later must leave it as it is."""
    assert Recipe(lr=0.1, batch_size=5, iterations=3).identity() == {"lr": 0.1, "batch_size": 5, "iterations": 3}


def test_the_order_of_augmentations_makes_no_difference():
    one, other = recipe(augment=["crop", "flip"]), recipe(augment=["flip", "crop"])
    assert one == other
    assert one.augment == ("flip", "crop")
