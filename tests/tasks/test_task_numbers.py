"""Losses and metrics against plain formulas, and in any division into blocks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from tombola.data import Description, Part
from tombola.tasks import Classification, LanguageModel, Multilabel, Regression, Segmentation


def made(kind, examples, seed):
    """Return an output and a batch of a task."""
    g = torch.Generator().manual_seed(seed)
    if kind == "classification":
        return torch.randn(examples, 4, generator=g), Part(
            torch.zeros(examples, 1), torch.randint(4, (examples,), generator=g)
        )
    if kind == "multilabel":
        return torch.randn(examples, 3, generator=g), Part(
            torch.zeros(examples, 1), torch.randint(2, (examples, 3), generator=g).float()
        )
    if kind == "regression":
        return torch.randn(examples, 2, generator=g), Part(
            torch.zeros(examples, 1), torch.randn(examples, 2, generator=g) + 5
        )
    if kind == "segmentation":
        targets = torch.randint(4, (examples, 3, 2), generator=g)
        targets[targets == 3] = 255
        return torch.randn(examples, 3, 3, 2, generator=g), Part(torch.zeros(examples, 1), targets)
    tokens = torch.randint(5, (examples, 6), generator=g)
    return torch.randn(examples, 6, 5, generator=g), Part(tokens)


TASKS = {
    "classification": [
        Classification(),
        Classification(label_smoothing=0.1),
        Classification(class_weights=(1, 2, 0.5, 3), label_smoothing=0.2),
    ],
    "multilabel": [Multilabel(), Multilabel(threshold=0.3, pos_weight=(1, 2, 3))],
    "regression": [Regression()],
    "segmentation": [Segmentation(ignore_index=255, classes=3)],
    "language-model": [LanguageModel(), LanguageModel(ignore_index=0)],
}


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(TASKS)), st.integers(2, 12), st.integers(0, 99), st.integers(1, 5))
def test_sums_of_blocks_give_what_the_whole_gives(kind, examples, seed, step):
    output, batch = made(kind, examples, seed)
    for task in TASKS[kind]:
        whole = task.scores(task.sums(output, batch).tolist())
        total = sum(
            task.sums(output[first : first + step], batch.select(slice(first, first + step)))
            for first in range(0, examples, step)
        )
        assert task.scores(total.tolist()) == pytest.approx(whole, rel=1e-5, nan_ok=True)
        assert len(whole) == 1 + len(task.metrics)
        # The evaluated loss is the loss that is trained.
        assert whole[0] == pytest.approx(float(task.loss(output, batch)), rel=1e-5)


def test_plain_classification_is_cross_entropy_to_the_last_bit():
    output, batch = made("classification", 30, 1)
    assert torch.equal(Classification().loss(output, batch), functional.cross_entropy(output, batch.targets))
    loss, accuracy = Classification().scores(Classification().sums(output, batch).tolist())
    assert loss == functional.cross_entropy(output, batch.targets, reduction="sum").double().item() / 30
    assert accuracy == (output.argmax(1) == batch.targets).sum().item() / 30


def test_smoothing_and_weights_are_those_of_pytorch():
    output, batch = made("classification", 30, 2)
    weights = (1.0, 2.0, 0.5, 3.0)
    task = Classification(label_smoothing=0.2, class_weights=weights)
    expected = functional.cross_entropy(output, batch.targets, weight=torch.tensor(weights), label_smoothing=0.2)
    assert torch.allclose(task.loss(output, batch), expected)
    assert not task.plain_cross_entropy


def test_regression_against_numpy():
    output, batch = made("regression", 40, 3)
    errors = (output - batch.targets).double().numpy()
    loss, rmse, mae, r2 = Regression().scores(Regression().sums(output, batch).tolist())
    targets = batch.targets.double().numpy()
    assert loss == pytest.approx((errors**2).mean())
    assert rmse == pytest.approx(math.sqrt((errors**2).mean()))
    assert mae == pytest.approx(abs(errors).mean())
    assert r2 == pytest.approx(np.mean(1 - (errors**2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)))


def test_a_column_is_no_matrix_of_differences():
    """[N, 1] against [N] would be broadcast to [N, N]."""
    targets = torch.arange(5.0)
    task = Regression()
    assert float(task.loss(targets[:, None], Part(torch.zeros(5, 1), targets))) == 0
    assert task.scores(task.sums(targets[:, None], Part(torch.zeros(5, 1), targets)).tolist())[1] == 0


@pytest.mark.parametrize("value", [2.0, 0.1, -1e6])
def test_a_constant_target_has_no_spread_to_explain(value):
    batch = Part(torch.zeros(7, 1), torch.full((7,), value))
    assert Regression().scores(Regression().sums(torch.zeros(7), batch).tolist())[3] == 0


@pytest.mark.parametrize(("mean", "spread"), [(1.7e9, 1000), (1e6, 0.5), (101325, 0.05)])
def test_a_small_spread_about_a_large_mean_is_explained(mean, spread):
    """Times in seconds, or air pressures, in float32."""
    targets = mean + spread * torch.randn(500, generator=torch.Generator().manual_seed(0))
    guess = targets + 0.1 * spread * torch.randn(500, generator=torch.Generator().manual_seed(1))
    batch = Part(torch.zeros(500, 1), targets)
    exact = targets.double()
    expected = 1 - (guess.double() - exact).square().sum() / (exact - exact.mean()).square().sum()
    assert Regression().scores(Regression().sums(guess, batch).tolist())[3] == pytest.approx(float(expected), abs=0.01)


def test_macro_f1_and_exact_matches_by_hand():
    targets = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])
    output = torch.tensor([[2.0, -1, -1], [2, -1, -1], [1, 3, -1]])
    _, f1, exact = Multilabel().scores(Multilabel().sums(output, Part(torch.zeros(3, 1), targets)).tolist())
    assert f1 == pytest.approx((2 * 2 / (3 + 2) + 2 * 1 / (1 + 2)) / 2)  # the third label is nowhere
    assert exact == pytest.approx(1 / 3)


def test_iou_by_hand_without_the_pixels_that_are_ignored():
    targets = torch.tensor([[[0, 0, 1, 255]]])
    predicted = torch.tensor([[[0, 1, 1, 2]]])
    output = functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float() * 9
    task = Segmentation(ignore_index=255, classes=3)
    batch = Part(torch.zeros(1, 1), targets)
    _, iou, accuracy = task.scores(task.sums(output, batch).tolist())
    assert iou == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert accuracy == pytest.approx(2 / 3)
    everything = Part(torch.zeros(1, 1), torch.full_like(targets, 255))
    assert float(task.loss(output, everything)) == 0


def test_perplexity_and_bits_of_the_next_token():
    output, batch = made("language-model", 8, 4)
    loss, perplexity, bits = LanguageModel().scores(LanguageModel().sums(output, batch).tolist())
    picked = output[:, :-1].log_softmax(2).gather(2, batch.inputs[:, 1:, None])
    assert loss == pytest.approx(-float(picked.mean()), rel=1e-5)
    assert perplexity == pytest.approx(math.exp(loss))
    assert bits == pytest.approx(loss / math.log(2))
    assert LanguageModel().scores([1e6, 1.0])[1] == math.inf


def test_chance_levels():
    data = Description((8,), 4, 10, 10, tokens=None)
    assert Classification().chance(data) == 0.25
    assert Regression().chance(data) is None
    assert Regression(metric="r2").chance(data) == 0
    tokens = Description((8,), None, 10, 10, None, "int64", None, 64)
    assert LanguageModel().chance(tokens) == 64
    assert LanguageModel(metric="bits_per_token").chance(tokens) == 6
