"""Coverage: which parameters a forward pass multiplies by, counted by hand, and what is named as not prunable."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from tombola.errors import InputError
from tombola.networks import NETWORKS, check_scores, examine


class Around(nn.Module):
    """A core, what is taken of its result, and a linear layer."""

    def __init__(self, core, width, take=lambda result: result, classes=4):
        super().__init__()
        self.core, self.take, self.head = core, take, nn.Linear(width, classes)

    def forward(self, *args, **options):
        return self.head(self.take(self.core(*args, **options)))


def uses(coverage):
    return {layer.name: (layer.kind, layer.uses) for layer in coverage.layers}


def names(parameters):
    return [each.name for each in parameters]


def lstm():
    return Around(nn.LSTM(20, 32, batch_first=True), 32, lambda result: result[0][:, -1])


def encoder(**options):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, **options)
    return Around(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 16, lambda result: result.mean(1))


# Layers of PyTorch


def test_an_lstm_is_prunable():
    """4 gates of 32 units, each on 20 inputs and 32 units: 6,656 weights, and 128 in the output layer."""
    coverage = examine(lstm(), (5, 20))
    assert uses(coverage) == {
        "core.weight_ih_l0": ("recurrent", 5),
        "core.weight_hh_l0": ("recurrent", 5),
        "head.weight": ("linear", 1),
    }
    assert coverage.prunable == coverage.matrix_weights == 4 * 32 * (20 + 32) + 32 * 4 == 6784
    assert coverage.parameters == 6784 + 2 * 128 + 4
    assert coverage.multiply_adds == coverage.all_multiply_adds == 5 * 6656 + 128
    assert coverage.output == "head.weight"


@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2}, {"bidirectional": True}, {"bias": False}])
def test_recurrent_layers_use_every_weight_once_a_token(layer, options):
    core = layer(6, 5, batch_first=True, **options)
    width = 10 if "bidirectional" in options else 5
    coverage = examine(Around(core, width, lambda result: result[0][:, -1]), (7, 6))
    matrices = {f"core.{name}" for name, weight in core.named_parameters() if weight.dim() > 1}
    found = {name: count for name, (kind, count) in uses(coverage).items() if kind == "recurrent"}
    assert found == dict.fromkeys(matrices, 7)


def test_an_lstm_with_projection_in_double_precision():
    """The fused kernel takes neither, so the products are plain ones."""
    core = nn.LSTM(6, 5, proj_size=3, batch_first=True).double()
    module = Around(core, 3, lambda result: result[0][:, -1]).double()
    coverage = examine(module, torch.zeros(2, 7, 6, dtype=torch.float64))
    assert coverage.sizes() == {
        "core.weight_ih_l0": 120,
        "core.weight_hh_l0": 60,
        "core.weight_hr_l0": 15,
        "head.weight": 12,
    }
    assert {layer.uses for layer in coverage.layers[:3]} == {7}


def test_recurrent_cells():
    class Cells(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.LSTMCell(4, 6), nn.GRUCell(6, 5)

        def forward(self, x):
            state, other = None, None
            for step in x.unbind(1):
                state = self.one(step, state)
                other = self.two(state[0], other)
            return other

    found = uses(examine(Cells(), (3, 4)))
    assert found == dict.fromkeys(
        ("one.weight_ih", "one.weight_hh", "two.weight_ih", "two.weight_hh"), ("recurrent", 3)
    )


@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_encoder_is_prunable(training):
    """In evaluation mode PyTorch fuses a whole layer into one call, in which no product is to be seen."""
    coverage = examine(encoder().train(training), (5, 16))
    by_kind = {"attention": 2 * 48 * 16, "linear": 2 * (16 * 16 + 2 * 16 * 32) + 16 * 4}
    for kind, weights in by_kind.items():
        assert sum(layer.size for layer in coverage.layers if layer.kind == kind) == weights
    assert coverage.matrix_weights == coverage.prunable == sum(by_kind.values())
    assert [layer.uses for layer in coverage.layers] == [5] * 8 + [1]
    # And of each of 2 heads and 2 layers, scores and averages over 5 x 5 tokens of 8 features.
    assert coverage.all_multiply_adds == coverage.multiply_adds + 2 * 2 * 2 * 25 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_between_two_sequences():
    """The queries' third of `in_proj_weight` is used by 3 tokens, the other two by 5."""

    class Cross(nn.Module):
        def __init__(self, **options):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

        def forward(self, query, memory):
            return self.attention(query, memory, memory)[0].mean(1)

    coverage = examine(Cross(), (torch.zeros(2, 3, 8), torch.zeros(2, 5, 8)))
    assert uses(coverage) == {
        "attention.in_proj_weight": ("attention", (3 + 5 + 5) / 3),
        "attention.out_proj.weight": ("linear", 3),
    }
    apart = examine(Cross(kdim=6, vdim=6), (torch.zeros(2, 3, 8), torch.zeros(2, 5, 6)))
    assert uses(apart) == {
        "attention.q_proj_weight": ("attention", 3),
        "attention.k_proj_weight": ("attention", 5),
        "attention.v_proj_weight": ("attention", 5),
        "attention.out_proj.weight": ("linear", 3),
    }


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_transposed_convolutions(dimensions):
    """A transposed convolution uses each weight once for every input position."""
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dimensions - 1](4, 6, 3, stride=2, groups=2)
    (found,) = examine(layer, (4, *[5] * dimensions)).layers
    assert (found.kind, found.size, found.uses) == ("conv", 4 * 3 * 3**dimensions, 5**dimensions)


def test_bilinear_layers_count_both_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Bilinear(4, 5, 3)

        def forward(self, one, other):
            return self.both(one, other)

    coverage = examine(Two(), {"one": torch.zeros(2, 7, 4), "other": torch.zeros(2, 7, 5)})
    assert uses(coverage) == {"both.weight": ("linear", 7)}
    assert coverage.output_shape == (2, 7, 3)


def test_depthwise_and_dilated_convolutions():
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4, padding="same"), nn.Conv2d(4, 6, 3, dilation=2), nn.Flatten(), nn.Linear(24, 3)
    )
    assert [layer.uses for layer in examine(module, (4, 6, 6)).layers] == [36, 4, 1]


def test_total_multiply_adds_are_those_that_pytorch_counts():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.up = nn.Conv2d(2, 16, 3, stride=2, padding=1), nn.ConvTranspose2d(16, 16, 2, stride=2)
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
            self.mix = nn.Parameter(torch.randn(16, 2, 8))

        def forward(self, x):
            x = self.up(self.conv(x)).flatten(2).transpose(1, 2)
            return torch.einsum("nti,ihd->nthd", self.attention(x, x, x)[0], self.mix).flatten(2)

    module = Small().eval()
    coverage = examine(module, (2, 8, 8))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(torch.zeros(2, 2, 8, 8))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert coverage.all_multiply_adds == counter.get_total_flops() / 2 / 2  # two examples, two operations each


# Parameters outside layers

FORMS = {
    "matmul": (lambda w: lambda x: x @ w, (6, 5)),
    "einsum": (lambda w: lambda x: torch.einsum("ni,io->no", x, w), (6, 5)),
    "linear": (lambda w: lambda x: functional.linear(x, w), (5, 6)),
    "transposed": (lambda w: lambda x: functional.linear(x, w.t()), (6, 5)),
    "cast": (lambda w: lambda x: (x.double() @ w.to(torch.float64)).float(), (6, 5)),
    "half": (lambda w: lambda x: (x.bfloat16() @ w.bfloat16()).float(), (6, 5)),
    "reshaped": (lambda w: lambda x: x @ w.reshape(6, 5), (3, 2, 5)),
    "permuted": (lambda w: lambda x: x @ w.permute(2, 0, 1).reshape(6, 5), (2, 5, 3)),
    "flipped": (lambda w: lambda x: x @ w.flip(0), (6, 5)),
    "indexed": (lambda w: lambda x: x @ w[torch.arange(6)], (6, 5)),
    "batched": (lambda w: lambda x: torch.bmm(x[:, None], w.expand(len(x), 6, 5))[:, 0], (6, 5)),
    "sliced": (lambda w: lambda x: torch.cat([x @ w[:, :2], x @ w[:, 2:]], 1), (6, 5)),
    "copied": (lambda w: lambda x: x @ torch.empty(6, 5).copy_(w), (6, 5)),
    "addmm": (lambda w: lambda x: torch.addmm(torch.zeros(5), x, w), (6, 5)),
    "tensordot": (lambda w: lambda x: torch.tensordot(x, w, dims=1), (6, 5)),
    "vectors": (lambda w: lambda x: torch.stack([torch.mv(w.t(), each) for each in x]), (6, 5)),
    "convolved": (lambda w: lambda x: functional.conv1d(x[:, :, None], w)[:, :, 0], (5, 6, 1)),
}


class Bare(nn.Module):
    def __init__(self, forms):
        super().__init__()
        self.forms = forms
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(FORMS[form][1])) for form in forms])
        self.back = nn.Linear(5, 6)

    def forward(self, x):
        for form, weight in zip(self.forms, self.weights, strict=True):
            x = self.back(torch.relu(FORMS[form][0](weight)(x)))
        return x


@pytest.mark.parametrize("form", FORMS)
def test_a_parameter_is_prunable_however_the_product_takes_it(form):
    layers = {layer.name: layer for layer in examine(Bare([form]), (6,)).layers}
    assert set(layers) == {"weights.0", "back.weight"}
    assert layers["weights.0"].uses == 1
    assert layers["weights.0"].kind == ("conv" if form == "convolved" else "parameter")


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from(list(FORMS)), min_size=1, max_size=5), st.integers(1, 4))
def test_every_matrix_is_covered_once_and_in_order(forms, examples):
    module = Bare(forms)
    coverage = examine(module, torch.zeros(examples, 6))
    assert names(coverage.layers) == [*[f"weights.{place}" for place in range(len(forms))], "back.weight"]
    assert [layer.uses for layer in coverage.layers] == [1] * len(forms) + [len(forms)]
    assert coverage.matrix_weights == sum(weight.numel() for weight in module.parameters() if weight.dim() > 1)
    assert coverage.examples == examples


def test_queries_that_are_learned_are_prunable():
    """A parameter that stands where activations do is still multiplied, and so is the layer behind it."""

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(3, 8))
            self.project, self.exit = nn.Linear(8, 8), nn.Linear(24, 4)

        def forward(self, x):
            return self.exit((self.project(self.queries) @ x.transpose(1, 2) @ x).flatten(1))

    assert set(examine(Pooling(), (5, 8)).sizes()) == {"queries", "project.weight", "exit.weight"}


def test_a_tied_weight_counts_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(11, 6)
            self.exit = nn.Linear(6, 11, bias=False)
            self.exit.weight = self.table.weight

        def forward(self, ids):
            return self.exit(self.table(ids))

    for embeddings in (False, True):
        coverage = examine(Tied(), torch.zeros(2, 7, dtype=torch.int64), embeddings=embeddings)
        assert uses(coverage) == {"table.weight": ("embedding", 7)}
        assert coverage.parameters == coverage.matrix_weights == 66
        assert coverage.output == "table.weight"


def test_parameters_in_one_memory_are_no_two_matrices():
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    module[1].weight.data = module[0].weight.data
    coverage = examine(module, (6,))
    assert uses(coverage) == {"0.weight": ("linear", 2)}
    assert [(each.name, each.why) for each in coverage.unmultiplied] == [
        ("1.weight", "it lies in the memory of '0.weight'; make both the same nn.Parameter")
    ]


def test_parameters_that_are_slices_of_one_memory_are_told_apart():
    module = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    flat = torch.randn(72)
    module[0].weight.data, module[1].weight.data = flat[:36].view(6, 6), flat[36:].view(6, 6)
    assert uses(examine(module, (6,))) == {f"{place}.weight": ("linear", 1) for place in range(3)}


# What is not prunable is named


class Embedded(nn.Module):
    """Token and position embeddings, a class token, a gate, a table of biases, and layers that are never reached."""

    def __init__(self):
        super().__init__()
        self.token, self.exit, self.spare = nn.Embedding(11, 6), nn.Linear(6, 3), nn.Linear(6, 6)
        self.position, self.start = nn.Parameter(torch.randn(1, 5, 6)), nn.Parameter(torch.randn(1, 1, 6))
        self.gate, self.bias = nn.Parameter(torch.ones(1, 6)), nn.Parameter(torch.randn(7, 2))
        self.last = nn.Parameter(torch.randn(6))

    def forward(self, ids):
        x = self.token(ids) * self.gate + self.position
        x = torch.cat([self.start.expand(len(x), -1, -1), x], 1)
        scores = x @ x.transpose(1, 2) + self.bias[torch.arange(6), 0]
        return self.exit(scores.softmax(-1) @ x).mean(1) + (x @ self.last)[:, :1]


def test_parameters_without_a_product_are_named_with_the_reason():
    ids = torch.zeros(2, 5, dtype=torch.int64)
    coverage = examine(Embedded(), ids)
    assert uses(coverage) == {"exit.weight": ("linear", 6)}
    assert {each.name: each.why for each in coverage.skipped} == {"spare.weight": "the forward pass never reaches it"}
    assert {each.name: each.why for each in coverage.unmultiplied} == {
        "token.weight": "an embedding table: looked up, not multiplied; prunable on request",
        "gate": "no product takes it; the forward pass uses it in: mul",
        "position": "no product takes it; the forward pass uses it in: add",
        "start": "no product takes it; the forward pass uses it in: cat",
        "bias": "no product takes it; the forward pass uses it in: add",
        "last": "it has one dimension",
    }
    assert coverage.matrix_weights == 18 + 36
    assert coverage.never_pruned() == (
        "36 of 54 matrix weights (66.7 %) are never pruned, and count as remaining: spare.weight (the forward pass "
        "never reaches it)"
    )


class Experts(nn.Module):
    """Four experts, each for the examples that a gate sends to it."""

    def __init__(self, gate, experts):
        super().__init__()
        self.gate, self.experts, self.exit = gate, nn.ModuleList(experts), nn.Linear(32, 2)

    def forward(self, x):
        chosen, found = self.gate(x).argmax(1), x.new_zeros(len(x), 32)
        for number, expert in enumerate(self.experts):
            if (sent := chosen == number).any():
                found[sent] = expert(x[sent])
        return self.exit(found)


class Own(nn.Module):
    """A linear layer of a user's own."""

    def __init__(self):
        super().__init__()
        self.kernel, self.scale = nn.Parameter(torch.randn(8, 32)), nn.Parameter(torch.ones(1, 32))

    def forward(self, x):
        return x @ self.kernel * self.scale


@pytest.mark.parametrize("expert", [lambda: nn.Linear(8, 32), Own])
@pytest.mark.parametrize("inputs", [(8,), torch.zeros(64, 8), {"x": torch.zeros(64, 8)}])
def test_random_examples_reach_experts(expert, inputs):
    """Zeros go to one expert."""
    torch.manual_seed(0)
    coverage = examine(Experts(nn.Linear(8, 4), [expert() for _ in range(4)]), inputs)
    assert coverage.prunable == coverage.matrix_weights == 8 * 4 + 4 * 8 * 32 + 64
    experts = [layer for layer in coverage.layers if layer.name.startswith("experts")]
    assert len(experts) == 4
    assert sum(layer.uses for layer in experts) == pytest.approx(1)  # an example goes to one of them
    assert (coverage.multiply_adds, coverage.output) == (8 * 4 + 8 * 32 + 64, "exit.weight")
    assert coverage.output_shape == (coverage.examples, 2)


@pytest.mark.parametrize(
    "expert", [lambda: nn.Linear(8, 32), Own, lambda: parametrizations.weight_norm(nn.Linear(8, 32))]
)
def test_experts_that_no_example_is_sent_to_count_as_remaining(expert):
    gate = nn.Linear(8, 4)
    nn.init.zeros_(gate.weight)  # as some are: until it has learned, it sends all to one
    nn.init.constant_(gate.bias, 0)
    coverage = examine(
        Experts(gate, [nn.Linear(8, 32) if expert is not Own else Own(), *[expert() for _ in range(3)]]), (8,)
    )
    assert coverage.prunable == 8 * 4 + 8 * 32 + 64
    assert coverage.matrix_weights - coverage.prunable == 3 * 8 * 32
    assert {each.why for each in coverage.skipped} == {"the forward pass never reaches it"}
    assert coverage.density(coverage.prunable // 10) == (coverage.prunable // 10 + 768) / coverage.matrix_weights


def test_an_expert_that_gets_no_example_is_prunable():
    """A product with no example takes it all the same."""

    class Every(Experts):
        def forward(self, x):
            chosen, found = self.gate(x).argmax(1), x.new_zeros(len(x), 32)
            for number, expert in enumerate(self.experts):
                found[chosen == number] = expert(x[chosen == number])
            return self.exit(found)

    module = Every(nn.Linear(8, 4), [nn.Linear(8, 32) for _ in range(4)])
    nn.init.zeros_(module.gate.weight)
    assert examine(module, (8,)).prunable == 8 * 4 + 4 * 8 * 32 + 64


class Helped(nn.Module):
    """A second head helps in training alone."""

    def __init__(self, classes=10):
        super().__init__()
        self.body, self.exit = nn.Linear(8, 32), nn.Linear(32, 2)
        self.second, self.bare = nn.Linear(32, classes), nn.Parameter(torch.randn(32, 3))

    def forward(self, x):
        hidden = torch.relu(self.body(x))
        return (self.exit(hidden), self.second(hidden), hidden @ self.bare) if self.training else self.exit(hidden)


@pytest.mark.parametrize("classes", [10, 1])
def test_weights_of_training_alone_count_as_remaining(classes):
    module = Helped(classes)
    coverage = examine(module, (8,))
    assert set(coverage.sizes()) == {"body.weight", "exit.weight"}
    assert {each.name: each.size for each in coverage.skipped} == {"second.weight": 32 * classes, "bare": 32 * 3}
    assert {each.why for each in coverage.skipped} == {"only the forward pass in training mode multiplies by it"}
    assert coverage.output == "exit.weight"
    assert module.training


def test_what_fails_on_random_examples_is_looked_at_as_far_as_it_runs():
    class Looked(Helped):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(3, 8)

        def forward(self, x):
            return super().forward(self.table(x.long()[:, 0]))

    coverage = examine(Looked(), (5,))
    assert [each.name for each in coverage.skipped] == ["bare", "second.weight"]
    assert [each.name for each in coverage.unmultiplied] == ["table.weight"]


def test_layers_that_nothing_uses_count_by_their_kind():
    """A table that is never looked up is no matrix, nor are the lengths of weight norm or the biases of attention."""

    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.table = nn.Linear(8, 2), nn.Embedding(7, 8)
            self.left = nn.ModuleList(
                [
                    nn.Linear(8, 1),
                    nn.Conv2d(3, 4, 3),
                    nn.LSTM(1, 2),
                    nn.MultiheadAttention(8, 2, add_bias_kv=True),
                    parametrizations.weight_norm(nn.Linear(8, 6)),
                ]
            )
            self.bare = nn.Parameter(torch.randn(5, 5))

        def forward(self, x):
            return self.used(x)

    coverage = examine(Left(), (8,))
    assert {each.name.removeprefix("left."): each.size for each in coverage.skipped} == {
        "0.weight": 8,
        "1.weight": 108,
        "2.weight_ih_l0": 8,
        "2.weight_hh_l0": 16,
        "3.in_proj_weight": 192,
        "3.out_proj.weight": 64,
        "4.parametrizations.weight.original1": 48,
    }
    assert {each.name for each in coverage.unmultiplied} == {
        "table.weight",
        "bare",
        "left.3.bias_k",
        "left.3.bias_v",
        "left.4.parametrizations.weight.original0",
    }
    assert "table.weight" in names(examine(Left(), (8,), embeddings=True).skipped)


def test_embeddings_are_prunable_on_request():
    ids = torch.zeros(2, 5, dtype=torch.int64)
    coverage = examine(Embedded(), ids, embeddings=True)
    assert uses(coverage) == {"token.weight": ("embedding", 0), "exit.weight": ("linear", 6)}
    assert (coverage.output, coverage.matrix_weights) == ("exit.weight", 66 + 18 + 36)


def reparametrised(how):
    body = nn.Linear(8, 6)
    if how == "prune":
        prune.random_unstructured(body, "weight", 0.5)
    else:
        getattr(parametrizations, how)(body)
    return nn.Sequential(body, nn.ReLU(), nn.Linear(6, 3))


@pytest.mark.parametrize(
    ("how", "name", "operation"),
    [
        ("weight_norm", "0.parametrizations.weight.original1", "weight_norm"),
        ("spectral_norm", "0.parametrizations.weight.original", "div"),
        ("orthogonal", "0.parametrizations.weight.original", "tril"),
        ("prune", "0.weight_orig", "mul"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_a_weight_that_is_computed_is_skipped_by_name(how, name, operation, training):
    coverage = examine(reparametrised(how).train(training), (8,))
    assert coverage.sizes() == {"2.weight": 18}
    (skipped,) = coverage.skipped
    assert (skipped.name, skipped.shape) == (name, (6, 8))
    assert operation in skipped.why
    assert coverage.matrix_weights == 48 + 18
    assert coverage.density(9) == (48 + 9) / 66
    assert "18 of 66 matrix weights are prunable" in coverage.text()
    if how == "weight_norm":
        (lengths,) = coverage.unmultiplied
        assert lengths.name == "0.parametrizations.weight.original0"
        assert "it scales 0.parametrizations.weight.original1" in lengths.why


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_the_old_kind():
    module = nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 6)), nn.Linear(6, 3))
    assert names(examine(module, (8,)).skipped) == ["0.weight_v"]


def test_a_parametrised_layer_costs_what_it_costs():
    """The products of spectral norm's own estimate are there too, in no share of the prunable layer."""
    coverage = examine(reparametrised("weight_norm"), (8,))
    assert (coverage.multiply_adds, coverage.all_multiply_adds) == (18, 48 + 18)
    assert coverage.skipped[0].multiply_adds == 48


def test_where_all_is_computed_there_is_nothing_to_prune():
    with pytest.raises(InputError, match=r"no prunable layer.*'parametrizations\.weight\.original1'.*weight_norm"):
        examine(parametrizations.weight_norm(nn.Linear(8, 6)), (8,))


def test_a_layer_that_is_not_prunable_is_named_with_the_reason_where_a_study_asks_for_it():
    coverage = examine(Embedded(), torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(InputError, match=r"pruning\.exclude: 'spare\.weight' is not prunable: .* never reaches it"):
        coverage.select("spare", "pruning.exclude")


def test_every_parameter_of_two_dimensions_is_named_exactly_once():
    modules = [
        (Embedded(), torch.zeros(2, 5, dtype=torch.int64)),
        (lstm(), (5, 20)),
        (encoder(), (5, 16)),
        *[(reparametrised(how), (8,)) for how in ("weight_norm", "spectral_norm", "orthogonal", "prune")],
    ]
    for module, inputs in modules:
        expected = {name for name, weight in module.named_parameters() if weight.dim() > 1}
        found = [row["name"] for row in examine(module, inputs).rows() if len(row["shape"]) > 1]
        assert sorted(found) == sorted(expected)


# Density is of all matrix weights


def test_the_density_of_an_lstm_classifier_of_which_the_head_alone_is_pruned():
    """What was reported as 64.1 %."""
    coverage = examine(lstm(), (5, 20))
    kept = 6656 + 82  # of the head's 128 weights
    assert pytest.approx(0.641, abs=1e-3) == 82 / 128
    assert coverage.density(kept) == pytest.approx(0.993, abs=1e-3)


def test_shares_are_rounded_to_all_only_where_they_are_all():
    module = nn.Sequential(nn.Linear(2000, 10, bias=False), nn.Linear(10, 1))
    assert "20,010 of 20,010 matrix weights are prunable (99.9 % of all 20,011 parameters, 100 % of" in (
        examine(module, (2000,)).summary()
    )


def test_the_text_has_a_line_for_each_parameter():
    lines = examine(reparametrised("weight_norm"), (8,)).text().splitlines()
    assert lines[0].split() == ["parameter", "kind", "shape", "weights", "multiply-adds"]
    assert lines[1].split() == ["2.weight", "linear", "3x6", "18", "18"]
    assert lines[2].split()[:5] == ["0.parametrizations.weight.original1", "-", "6x8", "48", "48"]
    assert "not prunable: products take a tensor computed from it" in lines[2]
    assert lines[-1].startswith("18 of 66 matrix weights are prunable (22.2 % of all 81 parameters")


# Batches and results


def test_a_batch_may_be_a_tensor_a_tuple_or_a_dict():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x, gate=None):
            return self.fc(x if gate is None else x * gate)

    x, gate = torch.ones(3, 4), torch.ones(3, 4)
    for batch in (x, (x,), (x, gate), {"x": x}, {"x": x, "gate": gate}, (4,)):
        assert uses(examine(Gated(), batch)) == {"fc.weight": ("linear", 1)}


@pytest.mark.parametrize(
    ("returns", "shape", "kind"),
    [
        (lambda y: y[:, :, None, None].expand(-1, -1, 4, 4), (2, 3, 4, 4), "Tensor"),
        (lambda y: (y, y), None, "tuple"),
        (lambda y: {"logits": y, "loss": y.sum()}, (2, 3), "dict"),
    ],
)
def test_any_result_is_taken_but_class_scores_are_checked(returns, shape, kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)

        def forward(self, x):
            return returns(self.fc(x))

    coverage = examine(Model(), (5,))
    assert (coverage.output_shape, coverage.returned, coverage.classes) == (shape, kind, None)
    with pytest.raises(InputError, match="one row of class scores per example; for 2 examples it returned"):
        check_scores(coverage)


def test_a_network_of_several_inputs_asks_for_several():
    with pytest.raises(InputError, match="takes several inputs, give a tuple or map of them"):
        examine(nn.Bilinear(5, 5, 3), (5,))


def test_class_scores_are_counted():
    assert check_scores(examine(nn.Linear(5, 3), torch.zeros(7, 5))) == 3


def test_double_precision():
    module = nn.Linear(5, 3).double()
    assert examine(module, torch.zeros(2, 5, dtype=torch.float64)).prunable == 15
    with pytest.raises(InputError, match=r"inputs of shape \(5,\).*\(the inputs are float32, the weights float64; "):
        examine(module, (5,))


def test_a_lazy_layer_is_refused_by_name():
    with pytest.raises(InputError, match=r"'0\.weight' has no size before the first batch"):
        examine(nn.Sequential(nn.LazyLinear(3)), (5,))


def test_a_lazy_layer_that_has_seen_a_batch_is_like_any_other():
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    module(torch.zeros(1, 2, 6, 6))
    assert [layer.kind for layer in examine(module, (2, 6, 6)).layers] == ["conv", "linear"]


def test_a_model_that_runs_in_training_mode_alone():
    class Trains(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

        def forward(self, x):
            if not self.training:
                raise RuntimeError("for training")
            return functional.dropout(self.norm(self.fc(x)), 0.5)

    module = Trains()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    batch, state = torch.randn(4, 5), torch.get_rng_state()
    assert examine(module, batch).sizes() == {"fc.weight": 15}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert (module.training, module.fc.training, module.norm.training) == (True, True, False)


def test_dropout_draws_nothing_from_the_global_generator():
    module = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))
    state = torch.get_rng_state()
    examine(module, (5,))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_first_failure_is_the_one_that_is_told():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)

        def forward(self, x):
            raise ValueError("training" if self.training else "evaluation")

    with pytest.raises(InputError, match="the network can't be run on the given batch: ValueError: evaluation"):
        examine(Fails(), torch.zeros(2, 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_and_checkpointed_modules():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)

        def forward(self, x):
            return checkpoint(self.fc, x, use_reentrant=False)

    assert uses(examine(Checkpointed(), (5,))) == {"fc.weight": ("linear", 1)}
    assert set(examine(torch.jit.script(nn.Sequential(nn.Linear(5, 3))), (5,)).sizes()) == {"0.weight"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_module_is_not_compiled_for_it():
    compiled = torch.compile(nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), backend="eager")
    assert list(examine(compiled, (5,)).sizes()) == ["_orig_mod.0.weight", "_orig_mod.2.weight"]


def test_a_unet_segments():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
            self.up, self.merge, self.exit = (
                nn.ConvTranspose2d(8, 4, 2, stride=2),
                nn.Conv2d(8, 4, 3, padding=1),
                nn.Conv2d(4, 2, 1),
            )

        def forward(self, x):
            first = torch.relu(self.down1(x))
            second = torch.relu(self.down2(functional.max_pool2d(first, 2)))
            return self.exit(torch.relu(self.merge(torch.cat([first, self.up(second)], 1))))

    coverage = examine(UNet(), (1, 8, 8))
    assert coverage.sizes() == {
        "down1.weight": 36,
        "down2.weight": 288,
        "up.weight": 128,
        "merge.weight": 288,
        "exit.weight": 8,
    }
    assert [layer.uses for layer in coverage.layers] == [64, 16, 16, 64, 64]
    assert coverage.output_shape == (2, 2, 8, 8)


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "resnet-20", "vgg-11"])
def test_all_matrices_of_our_networks_are_prunable(name):
    module = NETWORKS[name](input_shape=(3, 32, 32), classes=10)
    coverage = examine(module, (3, 32, 32))
    assert coverage.prunable == coverage.matrix_weights == sum(w.numel() for w in module.parameters() if w.dim() > 1)
    assert not coverage.skipped
    assert not coverage.unmultiplied
    assert coverage.multiply_adds == coverage.all_multiply_adds


def test_our_networks_are_examined_without_importing_the_compiler():
    """Which takes a second, in every worker."""
    code = (
        "import sys; from tombola.networks import NETWORKS, examine; "
        "examine(NETWORKS['conv-2'](input_shape=(3, 8, 8), classes=10), (3, 8, 8)); "
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_product_of_two_parameters_costs_once():
    class Factored(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Parameter(torch.randn(6, 2)), nn.Parameter(torch.randn(2, 4))

        def forward(self, x):
            return x @ (self.left @ self.right)

    coverage = examine(Factored(), torch.zeros(1, 6))
    assert coverage.sizes() == {"left": 12, "right": 8}
    assert (coverage.multiply_adds, coverage.all_multiply_adds) == (6 * 2 * 4, 6 * 2 * 4 + 6 * 4)


def test_a_low_rank_change_of_a_weight_leaves_the_weight_itself_out():
    class Changed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(5, 3)
            self.left, self.right = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 5))

        def forward(self, x):
            return functional.linear(x, self.fc.weight + self.left @ self.right)

    coverage = examine(Changed(), (5,))
    assert (set(coverage.sizes()), names(coverage.skipped)) == ({"left", "right"}, ["fc.weight"])
    assert coverage.density(0) == 15 / 31


def test_sparse_tensors_vmap_and_autocast():
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.each = nn.Linear(5, 4), nn.Parameter(torch.randn(3, 4, 2))
            self.register_buffer("adjacency", torch.eye(6).to_sparse())

        def forward(self, x):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                x = self.fc(x)
            x = torch.stack([torch.sparse.mm(self.adjacency, each.float()) for each in x])
            return torch.vmap(lambda weight: x.mean(1) @ weight)(self.each).mean(0)

    module = Graph()
    adjacency = module.adjacency
    assert uses(examine(module, (6, 5))) == {"fc.weight": ("linear", 6), "each": ("parameter", 1)}
    assert module.adjacency is adjacency


def test_buffers_that_the_forward_pass_replaces_are_put_back():
    class Counting(nn.Linear):
        def __init__(self):
            super().__init__(5, 3)
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("mean", torch.zeros(5))

        def forward(self, x):
            self.calls = self.calls + 1
            self.mean.add_(1)
            return super().forward(x)

    module = Counting()
    calls = module.calls
    examine(module, (5,))
    assert module.calls is calls
    assert module.state_dict()["calls"] == 0
    assert bool((module.mean == 0).all())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flex_attention_is_passed_over():
    from torch.nn.attention.flex_attention import flex_attention

    class Flexible(nn.Module):
        def __init__(self):
            super().__init__()
            self.project, self.exit = nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.project(x)[:, None]
            return self.exit(flex_attention(x, x, x)[:, 0].mean(1))

    assert uses(examine(Flexible(), (5, 16))) == {"project.weight": ("linear", 5), "exit.weight": ("linear", 1)}
