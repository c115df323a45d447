"""Methods at initialisation against direct computations: finite differences, plain loops, closed formulas."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tombola.data import Description, balanced
from tombola.errors import InputError
from tombola.pruning import AT_INIT, CRITERIA, Goal, Mask, Snapshots, scores_of, select, try_criterion
from tombola.pruning.at_init.grasp import hessian_gradient
from tombola.pruning.at_init.random import apportioned
from tombola.pruning.at_init.synflow import exponential, linearised, saliencies, synflow
from tombola.running.collapse import collapse, said


def network(*widths, activation=nn.Tanh, bias=True, seed=0, dtype=torch.float64):
    """Return a fully connected network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs, bias=bias), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def conv_network(seed=0):
    """Convolution, batch norm that does something, pooling, dropout; no bias anywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(0.5),
            nn.Flatten(),
            nn.Linear(16, 5, bias=False),
        )
        with torch.no_grad():
            module[1].weight.uniform_(-1, 1)
            module[1].running_var.uniform_(0.5, 2)
    return module


def weights_of(module):
    return {name: each.detach().clone() for name, each in module.named_parameters() if each.dim() > 1}


def seen(module, share=0.5, examples=40, minimum=0, input_shape=None, layers=None, seed=0):
    """Return what a method sees of an untrained network that is pruned to a share of its weights."""
    start = weights_of(module)
    shape = input_shape or (next(iter(start.values())).shape[1],)
    generator = torch.Generator().manual_seed(seed)
    dtype = next(iter(start.values())).dtype
    inputs = torch.randn(examples, *shape, generator=generator, dtype=dtype)
    classes = list(start.values())[-1].shape[0]
    targets = torch.randint(classes, (examples,), generator=generator)
    layers = tuple(start) if layers is None else layers
    return Snapshots(
        start,
        start,
        start,
        start,
        generator=generator,
        goal=Goal(layers, round(share * sum(start[name].numel() for name in layers)), minimum),
        network=lambda: copy.deepcopy(module).eval(),
        examples=lambda: (inputs, targets),
        loss=lambda module, temperature: functional.cross_entropy(module(inputs) / temperature, targets),
        input_shape=shape,
    )


def pruned(method, snapshots):
    """Return the mask that selection makes of a method's scores."""
    goal = snapshots.goal
    pool = sum(snapshots.start[name].numel() for name in goal.layers)
    full = Mask.full({name: tuple(weight.shape) for name, weight in snapshots.start.items()})
    rates = dict.fromkeys(goal.layers, (pool - goal.keep) / pool)
    return select(scores_of(method, snapshots), full, rates, "global", goal.minimum)


# SNIP


def test_the_gradient_at_initialisation_is_that_of_a_finite_difference():
    module = network(6, 5, 4)
    given_ = seen(module)
    found = AT_INIT["gradient-at-init"](given_)
    for name, score in found.items():
        for place in [(0, 0), (3, 2)]:
            losses = []
            for step in (1e-5, -1e-5):
                moved = given_.network()
                with torch.no_grad():
                    moved.get_parameter(name)[place] += step
                    losses.append(float(given_.loss(moved, 1.0)))
            assert float(score[place]) == pytest.approx(abs(losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_snip_is_the_change_of_the_loss_as_a_weight_is_scaled_down():
    module = network(5, 4, 3)
    given_ = seen(module)
    found = AT_INIT["snip"](given_)
    inputs, targets = given_.examples()
    step = 1e-5
    for name, parameter in module.named_parameters():
        if name not in found:
            continue
        for place in range(parameter.numel()):
            losses = []
            for factor in (1 + step, 1 - step):
                scaled = copy.deepcopy(module)
                with torch.no_grad():
                    dict(scaled.named_parameters())[name].view(-1)[place] *= factor
                    losses.append(float(functional.cross_entropy(scaled(inputs), targets)))
            difference = abs(losses[0] - losses[1]) / (2 * step)
            assert float(found[name].view(-1)[place]) == pytest.approx(difference, rel=1e-5, abs=1e-9)


# GraSP


def gradient(module, inputs, targets):
    loss = functional.cross_entropy(module(inputs) / 200, targets)
    names = list(weights_of(module))
    parameters = dict(module.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, [parameters[name] for name in names]), strict=True))


def test_grasp_is_the_weight_times_the_change_of_the_gradient_along_itself():
    """H g by differences of g; its sign is that of the change in |g|^2 as the weight goes."""
    module = network(5, 4, 3)
    snapshots = seen(module)
    inputs, targets = snapshots.examples()
    here = gradient(module, inputs, targets)
    step = 10.0  # of gradients that the temperature makes small
    ends = []
    for sign in (1, -1):
        moved = copy.deepcopy(module)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in here:
                    parameter += sign * step * here[name]
        ends.append(gradient(moved, inputs, targets))
    scores = AT_INIT["grasp"](snapshots)
    for name, weight in snapshots.start.items():
        product = (ends[0][name] - ends[1][name]) / (2 * step)
        assert torch.allclose(scores[name], weight * product, rtol=1e-3, atol=1e-12)
        assert bool((product.abs() > 1e-10).any())


def test_grasp_keeps_the_weights_that_gradients_flow_by():
    """A few per cent removed by its scores leave a larger gradient than by the same scores turned round."""
    module = network(20, 30, 30, 5, activation=nn.ReLU)
    snapshots = seen(module, examples=100)
    inputs, targets = snapshots.examples()
    scores = AT_INIT["grasp"](snapshots)
    full = Mask.full({name: tuple(weight.shape) for name, weight in scores.items()})

    def flow(signed):
        mask = select(signed, full, dict.fromkeys(full, 0.05), "global")
        masked = copy.deepcopy(module)
        mask.apply_(masked)
        return sum(
            float(mask[name].mul(each).square().sum()) for name, each in gradient(masked, inputs, targets).items()
        )

    dense = sum(float(each.square().sum()) for each in gradient(module, inputs, targets).values())
    assert flow(scores) > dense > flow({name: -score for name, score in scores.items()})


def test_the_product_is_the_hessian_times_the_gradient():
    module = network(3, 2, bias=False)
    snapshots = seen(module)
    inputs, targets = snapshots.examples()
    (weight,) = module.parameters()

    def loss(flat):
        return functional.cross_entropy(inputs @ flat.view_as(weight).T / 200, targets)

    flat = weight.detach().flatten()
    expected = torch.autograd.functional.hessian(loss, flat) @ torch.autograd.functional.jacobian(loss, flat)
    (found,) = hessian_gradient({"0.weight": weight}, lambda: functional.cross_entropy(module(inputs) / 200, targets))
    assert torch.allclose(found.flatten(), expected)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(context, values):
        context.save_for_backward(values)
        return values.clamp(min=0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, of_result):
        (values,) = context.saved_tensors
        return of_result * (values > 0)


class Rectified(nn.Module):
    def forward(self, values):
        return Once.apply(values)


class Inside(nn.Module):
    """The operation stands in the network's own forward pass, in no layer of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, values):
        return self.last(Once.apply(self.first(values)))


@pytest.mark.parametrize(
    ("module", "where"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(Rectified(), nn.Linear(4, 3))), r"its layer '1.0' \(Rectified\)"),
        (Inside(), "one of its operations"),
    ],
)
def test_a_network_that_can_not_be_differentiated_twice_is_refused_by_name(module, where):
    match = (
        rf"grasp needs second derivatives of the network, but {where} has none \(.*once_differentiable.*\); use snip"
    )
    with pytest.raises(InputError, match=match):
        AT_INIT["grasp"](seen(module))
    shapes = {name: tuple(weight.shape) for name, weight in weights_of(module).items()}
    with pytest.raises(InputError, match=match):  # before anything is trained
        try_criterion("grasp", shapes, lambda: module, Description((4,), 3, 20, 10), examples=True)
    assert pruned("snip", seen(module)).remaining == round(0.5 * pruned("snip", seen(module)).total)


def test_grasp_on_a_network_whose_scores_do_not_bend():
    module = network(4, 5, 3)
    with torch.no_grad():
        for each in module.parameters():
            each.zero_()
    snapshots = seen(module, examples=1)
    inputs, targets = torch.zeros_like(snapshots.examples()[0]), snapshots.examples()[1]
    loss = {"loss": lambda module, temperature: functional.cross_entropy(module(inputs) / temperature, targets)}
    still = Snapshots(**{**vars(snapshots), "examples": lambda: (inputs, targets), **loss})
    with pytest.raises(InputError, match="grasp scores all weights equally"):
        AT_INIT["grasp"](still)


# SynFlow


@pytest.mark.parametrize("bias", [False, True])
def test_synflow_is_conserved_from_layer_to_layer(bias):
    """Without biases, or with biases of zero, each layer's scores sum to what flows out."""
    module = network(6, 9, 7, 4, activation=nn.ReLU, bias=bias)
    with torch.no_grad():
        for name, each in module.named_parameters():
            each.mul_(0 if "bias" in name else 1)
    module = linearised(module)
    example = torch.ones(1, 6, dtype=torch.float64)
    scores = saliencies(module, {name: each for name, each in module.named_parameters() if each.dim() > 1}, example)
    flow = float(module(example).sum().detach())
    for score in scores.values():
        assert float(score.sum()) == pytest.approx(flow, rel=1e-12)
        assert bool((score >= 0).all())


def test_synflow_is_conserved_through_convolutions_and_batch_norm():
    module = linearised(conv_network().eval())
    example = torch.ones(1, 2, 4, 4, dtype=torch.float64)
    scores = saliencies(module, {name: each for name, each in module.named_parameters() if each.dim() > 1}, example)
    flow = float(module(example).sum().detach())
    assert flow > 0
    for score in scores.values():
        assert float(score.sum()) == pytest.approx(flow, rel=1e-12)


def test_synflow_is_what_a_plain_loop_finds():
    """A hundred rounds in NumPy, for a network of three layers without biases."""
    module = network(8, 12, 10, 4, activation=nn.ReLU, bias=False, dtype=torch.float32)
    snapshots = seen(module, share=0.07)
    sizes = {name: weight.abs().double().numpy() for name, weight in snapshots.start.items()}
    names, total = list(sizes), sum(each.size for each in sizes.values())
    for number in range(1, 101):
        first, second, third = (sizes[name] for name in names)
        into = [np.ones(8), first @ np.ones(8), second @ first @ np.ones(8)]
        out = [third.sum(0) @ second, third.sum(0), np.ones(4)]
        scores = [size * np.outer(o, i) for size, o, i in zip((first, second, third), out, into, strict=True)]
        keep = round(total * (snapshots.goal.keep / total) ** (number / 100))
        least = np.sort(np.concatenate([score.ravel() for score in scores]))[::-1][keep - 1]
        for name, score in zip(names, scores, strict=True):
            sizes[name] = np.where(score >= least, sizes[name], 0.0)
    mask = pruned("synflow", snapshots)
    assert mask.remaining == snapshots.goal.keep == sum(int((each > 0).sum()) for each in sizes.values())
    for name in names:
        assert torch.equal(mask[name], torch.from_numpy(sizes[name] > 0))


def test_synflow_keeps_every_layer_where_others_empty_some():
    """A wide layer with small weights beside narrow ones: the paper's Figure 1 in small."""
    module = network(40, 200, 10, 5, activation=nn.ReLU, bias=False, dtype=torch.float32)
    with torch.no_grad():
        module[0].weight.mul_(0.01)
    snapshots = seen(module, share=0.004)
    lost = {
        method: said(collapse(copy.deepcopy(module), pruned(method, snapshots), (40,)))
        for method in ("synflow", "snip", "initial-magnitude")
    }
    assert lost["synflow"] == ""
    assert lost["initial-magnitude"] == "the mask empties layer 0, and no path leads from an input to the output"
    assert "the mask empties layer" in lost["snip"]


def test_synflow_sees_no_data_and_leaves_the_network_as_it_was():
    module = conv_network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    snapshots = seen(module, share=0.3, input_shape=(2, 4, 4))

    def no_data():
        raise AssertionError("data were asked for")

    mask = pruned("synflow", Snapshots(**{**vars(snapshots), "examples": no_data}))
    assert mask.remaining == snapshots.goal.keep
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert module.training


def test_synflow_never_goes_below_a_minimum_on_its_way():
    module = network(30, 40, 6, 4, activation=nn.ReLU, dtype=torch.float32)
    with torch.no_grad():
        module[4].weight.mul_(1e-6)  # a layer whose flow still is everyone's
    snapshots = seen(module, share=0.04, minimum=15)
    mask = pruned("synflow", snapshots)
    assert mask.remaining == snapshots.goal.keep
    assert min(mask.counts().values()) >= 15
    survived = synflow(snapshots)
    assert {name: int((score == 100).sum()) for name, score in survived.items()} == mask.counts()


def test_a_network_too_deep_for_double_precision():
    module = network(3, 3, 3, activation=nn.ReLU)
    with torch.no_grad():
        module[0].weight.fill_(1e200)
        module[2].weight.fill_(1e200)
    with pytest.raises(InputError, match=r"exceeds the range of double precision; use another network\.init"):
        AT_INIT["synflow"](seen(module))


class SinglePrecision(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Linear(4, 3)

    def forward(self, values):
        return self.only(values) + values @ torch.ones(4, 3)


def test_a_network_that_insists_on_single_precision():
    with pytest.raises(
        InputError, match=r"synflow runs the network in double precision .* fails \(.*\); use snip or grasp"
    ):
        AT_INIT["synflow"](seen(SinglePrecision()))
    with pytest.raises(InputError, match="synflow runs the network in double precision"):  # before anything is trained
        try_criterion("synflow", {"only.weight": (3, 4)}, SinglePrecision, Description((4,), 3, 20, 10))


def test_the_rounds_of_synflow_are_exponential():
    counts = exponential(10_000, Goal((), 100), 100)
    assert len(counts) == 100
    assert (counts[-1], counts[49]) == (100, 1_000)
    assert counts == sorted(counts, reverse=True)


# Random layer densities


def test_uniform_keeps_the_same_share_of_each_layer():
    module = network(30, 40, 10, dtype=torch.float32)
    mask = pruned("random-uniform", seen(module, share=0.1))
    assert mask.counts() == {"0.weight": 120, "2.weight": 40}
    again = pruned("random-uniform", seen(module, share=0.1, seed=1))
    assert again.counts() == mask.counts()
    assert again != mask


def erk_by_raising_one_layer_at_a_time(shapes, density):
    """The published procedure: the layer whose density is most above 1 becomes dense, until none is."""
    dense = set()
    while True:
        of = {n: sum(shape) / math.prod(shape) for n, shape in shapes.items() if n not in dense}
        wanted = density * sum(map(math.prod, shapes.values())) - sum(math.prod(shapes[n]) for n in dense)
        epsilon = wanted / sum(raw * math.prod(shapes[n]) for n, raw in of.items())
        highest = max(of, key=of.get)
        if epsilon * of[highest] <= 1:
            return {n: 1.0 if n in dense else epsilon * of[n] for n in shapes}
        dense.add(highest)


@pytest.mark.parametrize("density", [0.05, 0.3, 0.7])
def test_erk_is_the_published_procedure(density):
    """Convolutions and linear layers; the small first and last ones become dense."""
    shapes = {"a": (16, 3, 3, 3), "b": (32, 16, 3, 3), "c": (64, 32, 3, 3), "d": (10, 64)}
    start = {name: torch.zeros(shape) for name, shape in shapes.items()}
    total = sum(map(math.prod, shapes.values()))
    goal = Goal(tuple(shapes), round(density * total))
    expected = erk_by_raising_one_layer_at_a_time(shapes, density)
    mask = pruned("random-erk", Snapshots(start, start, start, start, goal=goal))
    assert mask.remaining == goal.keep
    for name, found in mask.counts().items():
        assert found == pytest.approx(expected[name] * math.prod(shapes[name]), abs=1)
    assert (density < 0.2) or mask["d"].all()


@given(
    sizes=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 60)), min_size=1, max_size=8),
    share=st.floats(0, 1),
    minimum=st.integers(0, 20),
)
def test_any_number_of_weights_is_apportioned_exactly(sizes, share, minimum):
    names = [str(number) for number in range(len(sizes))]
    of = {name: size for name, (size, _) in zip(names, sizes, strict=True)}
    proportions = {name: part for name, (_, part) in zip(names, sizes, strict=True)}
    least, most = sum(min(minimum, size) for size in of.values()), sum(of.values())
    goal = Goal(tuple(names), least + round(share * (most - least)), minimum)
    found = apportioned(proportions, of, goal)
    assert sum(found.values()) == goal.keep
    assert all(min(minimum, of[name]) <= found[name] <= of[name] for name in names)
    for one in names:  # in proportion, but for bounds and a weight
        for other in names:
            if found[one] > min(minimum, of[one]) and found[other] < of[other]:
                assert (found[one] - 1) / proportions[one] <= (found[other] + 1) / proportions[other]


def test_more_weights_than_there_are_can_not_be_apportioned():
    with pytest.raises(ValueError, match="7 weights can't be kept: the layers allow 4 to 6"):
        apportioned({"a": 1, "b": 1}, {"a": 3, "b": 3}, Goal(("a", "b"), 7, 2))


# All of them


@pytest.mark.parametrize("method", [*AT_INIT, "initial-magnitude"])
@pytest.mark.parametrize("make", [lambda: network(9, 8, 7, dtype=torch.float32), conv_network])
def test_each_method_keeps_exactly_what_is_asked_for(method, make):
    module = make()
    shape = (9,) if isinstance(module[0], nn.Linear) else (2, 4, 4)
    for share in (0.9, 0.31, 0.05):
        snapshots = seen(module, share, input_shape=shape)
        assert pruned(method, snapshots).remaining == snapshots.goal.keep
    last = list(snapshots.start)[-1]
    some = seen(module, 0.2, input_shape=shape, layers=tuple(snapshots.start)[:-1])
    mask = pruned(method, some)
    assert bool(mask[last].all())  # a layer that is left alone stays whole
    assert mask.remaining == some.goal.keep + mask[last].numel()


@pytest.mark.parametrize("method", [*AT_INIT])
def test_a_frozen_layer_is_scored_like_any_other(method):
    module, frozen = conv_network(), conv_network()
    frozen[0].requires_grad_(False)
    one, other = (AT_INIT[method](seen(each, input_shape=(2, 4, 4))) for each in (module, frozen))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_methods_at_initialisation_are_no_criteria_of_rounds():
    assert not AT_INIT.keys() & CRITERIA.keys()


# The examples


def test_examples_are_balanced_and_drawn():
    targets = torch.tensor([0] * 50 + [2] * 30 + [5] * 12)

    def draw(seed):
        return balanced(targets, 10, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert targets[draw(1)].bincount().tolist() == [10, 0, 10, 0, 0, 10]
    assert len(draw(1).unique()) == 30
    with pytest.raises(InputError, match=r"pruning\.init_examples=13: class 5 has 12 training examples in this trial"):
        balanced(targets, 13, torch.Generator())
