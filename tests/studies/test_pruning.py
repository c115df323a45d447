"""The pruning section: rates by round, by kind and by pattern, and the densities that they lead to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tombola.errors import InputError
from tombola.networks import Coverage, Layer
from tombola.pruning import plan_counts
from tombola.studies import Pruning

CONV = Coverage(
    (
        Layer("conv1.weight", "conv", (8, 3, 3, 3), 64),
        Layer("conv2.weight", "conv", (8, 8, 3, 3), 64),
        Layer("block.shortcut.weight", "conv", (8, 8, 1, 1), 64),
        Layer("fc1.weight", "linear", (50, 128), 1),
        Layer("output.weight", "linear", (10, 50), 1),
    ),
    "output.weight",
)


def totals(pruning):
    return plan_counts(CONV.sizes(), pruning.resolve(CONV), pruning.scope, pruning.minimum)


def test_a_list_of_rates_is_one_for_each_round():
    rounds = Pruning(rate=[0.5, 0.2, 0.1]).resolve(CONV)
    assert [rates["fc1.weight"] for rates in rounds] == [0.5, 0.2, 0.1]
    assert [rates["output.weight"] for rates in rounds] == [0.25, 0.1, 0.05]


def test_kinds_patterns_and_names():
    pruning = Pruning(rate=0.2, rates={"conv1": 0.05, "conv": 0.1, "*shortcut*": 0.0}, output_rate=0.15, rounds=1)
    (rates,) = pruning.resolve(CONV)
    assert rates == {
        "conv1.weight": 0.05,
        "conv2.weight": 0.1,
        "block.shortcut.weight": 0.0,
        "fc1.weight": 0.2,
        "output.weight": 0.15,
    }


def test_the_output_layer_before_its_kind():
    """As one would write the paper's table; and half of its kind's rate where nothing is said."""
    rates = {"conv": 0.1, "linear": 0.2}
    assert Pruning(rate=0.5, rates=rates, output_rate=0.1, rounds=1).resolve(CONV)[0]["output.weight"] == 0.1
    assert Pruning(rate=0.5, rates=rates, rounds=1).resolve(CONV)[0]["output.weight"] == 0.1
    named = Pruning(rate=0.5, rates=rates | {"out*": 0.3}, output_rate=0.1, rounds=1)
    assert named.resolve(CONV)[0]["output.weight"] == 0.3


def test_a_kind_is_a_kind_where_a_layer_is_called_so():
    layers = (Layer("conv.weight", "conv", (4, 3, 3, 3), 1), Layer("other.weight", "conv", (4, 4, 3, 3), 1))
    coverage = Coverage((*layers, Layer("fc.weight", "linear", (10, 4), 1)), "fc.weight")
    (rates,) = Pruning(rate=0.5, rates={"conv": 0.2, "oth*": 0.3}, rounds=1).resolve(coverage)
    assert rates == {"conv.weight": 0.2, "other.weight": 0.3, "fc.weight": 0.25}
    (rates,) = Pruning(rate=0.5, exclude=("conv.weight",), rounds=1).resolve(coverage)
    assert list(rates) == ["other.weight", "fc.weight"]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_target_is_reached_with_a_minimum(scope):
    pruning = Pruning(target=0.3, rounds=6, scope=scope, minimum=300)
    counts = totals(pruning)
    assert counts[-1] / counts[0] == pytest.approx(0.3, abs=6 * 5 / counts[0])


def test_what_is_excluded_has_no_rate():
    (rates,) = Pruning(rate=0.2, scope="global", exclude=("output", "*shortcut*"), rounds=1).resolve(CONV)
    assert rates == {"conv1.weight": 0.2, "conv2.weight": 0.2, "fc1.weight": 0.2}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("exclude", [(), ("output",)])
def test_a_target_is_reached_at_a_constant_rate(scope, exclude):
    pruning = Pruning(target=0.1, rounds=7, scope=scope, exclude=exclude)
    rounds = pruning.resolve(CONV)
    assert all(rates == rounds[0] for rates in rounds)
    counts = totals(pruning)
    assert counts[-1] / counts[0] == pytest.approx(0.1, abs=7 * 5 / counts[0])  # half a weight a layer and round


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0.05, 0.95), min_size=1, max_size=6, unique_by=lambda d: round(d, 2)),
    st.sampled_from(["layer", "global"]),
)
def test_densities_are_reached_to_a_weight_a_layer(densities, scope):
    densities = sorted(densities, reverse=True)
    pruning = Pruning(densities=densities, scope=scope)
    assert pruning.rounds == len(densities)
    counts = totals(pruning)
    for wanted, count in zip(densities, counts[1:], strict=True):
        assert abs(count - wanted * counts[0]) <= len(CONV.layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 2}, "exactly one of rate, target and densities"),
        ({"rate": 0.2, "target": 0.1, "rounds": 2}, "exactly one of rate, target and densities"),
        ({"rate": [0.2, 0.3], "rounds": 3}, "lists 2 values for 3 rounds"),
        ({"rate": 0.2, "output_rate": [0.1], "rounds": 3}, "output_rate lists 1 values for 3 rounds"),
        ({"densities": [0.5, 0.5]}, "densities must fall"),
        ({"rate": 1.5, "rounds": 1}, r"the rate is 1.5: it must lie between 0 and 1"),
        ({"rate": "fast", "rounds": 1}, r"the rate is fast: it must lie between 0 and 1"),
        ({"rate": 0.1, "rates": {"fc1": [0.1, 2]}, "rounds": 2}, r"the rate of 'fc1' is 2"),
        ({"rate": 0.2, "scope": "global", "rates": {"fc1": 0.1}, "rounds": 1}, "one rate; rates and output_rate"),
    ],
)
def test_what_can_not_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        Pruning(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 0.2, "rates": {"pool*": 0.1}, "rounds": 1}, "no prunable layer matches 'pool"),
        ({"rate": 0.2, "exclude": ["conv", "linear"], "rounds": 1}, "it excludes every prunable layer"),
        ({"rate": 0.2, "exclude": ["fc1"], "rates": {"fc1": 0.1}, "rounds": 1}, "both in exclude and in rates"),
        ({"target": 0.1, "minimum": 1000, "rounds": 3}, r"0\.1 can't be reached"),
        ({"target": 0.01, "exclude": ["fc1"], "rounds": 3}, r"0\.01 can't be reached: .* allow 0\.8"),
        ({"densities": [0.9, 0.05], "rates": {"fc1": 0.1}}, r"level 2: a density of 0\.05 can't be reached"),
        ({"target": 0.1, "rates": {"fc1": [0.1, 0.2]}, "rounds": 2}, "one constant rate"),
    ],
)
def test_what_does_not_fit_the_network(settings, message):
    with pytest.raises(InputError, match=message):
        Pruning(**settings).resolve(CONV)


def test_recurrent_layers_and_attention_are_kinds_too():
    layers = (
        Layer("core.weight_ih_l0", "recurrent", (8, 4), 5),
        Layer("attention.in_proj_weight", "attention", (12, 4), 5),
        Layer("matrix", "parameter", (4, 4), 1),
        Layer("output.weight", "linear", (3, 4), 1),
    )
    coverage = Coverage(layers, "output.weight")
    pruning = Pruning(rate=0.5, rates={"recurrent": 0.2, "attention": 0.3}, exclude=("parameter",), rounds=1)
    (rates,) = pruning.resolve(coverage)
    assert rates == {"core.weight_ih_l0": 0.2, "attention.in_proj_weight": 0.3, "output.weight": 0.25}
    with pytest.raises(
        InputError, match=r"pruning\.rates: no prunable layer matches 'conv'; the layers are core.weight_ih_l0"
    ):
        Pruning(rate=0.5, rates={"conv": 0.2}, rounds=1).resolve(coverage)
