"""Networks whose outputs depend on more than their state_dict are refused; those that only keep more are not."""

import random
from functools import partial

import pytest
import small_nets
import torch
from torch import nn

import tombola
from tombola.data import Description
from tombola.errors import InputError
from tombola.networks import initialised
from tombola.studies.state_checks import check_state_of_loop, check_state_of_study
from tombola.tasks import Classification

DATA = Description((6,), 2, 100, 20)
PRUNABLE = ("a.weight", "b.weight")


class Net(nn.Module):
    """Two linear layers; `kept` is what it keeps beside them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)
        self.keep()

    def keep(self):
        pass

    def change(self, hidden):
        return hidden

    def forward(self, x):
        return self.b(self.change(torch.relu(self.a(x))))


# What outputs depend on


class Projected(Net):
    def keep(self):
        self.kept = torch.randn(8, 8)

    def change(self, hidden):
        return torch.cos(hidden @ self.kept)


class ProjectedByBuffer(Projected):
    def keep(self):
        self.register_buffer("kept", torch.randn(8, 8), persistent=False)


class ProjectedInList(Projected):
    """Kept where only a look at the attribute can find it."""

    def keep(self):
        self.kept = [torch.randn(8, 8)]

    def change(self, hidden):
        return torch.cos(hidden @ self.kept[0])


class Averaged(Net):
    def keep(self):
        self.register_buffer("kept", torch.zeros(8), persistent=False)

    def change(self, hidden):
        if self.training:
            self.kept = 0.9 * self.kept + 0.1 * hidden.mean(0).detach()
        return hidden - self.kept


class Counted(Net):
    def keep(self):
        self.kept = 0

    def change(self, hidden):
        self.kept += self.training
        return hidden / (1 + self.kept)


class CountedInTraining(Counted):
    def change(self, hidden):
        return super().change(hidden) if self.training else hidden


class Carried(Net):
    """The state of the last batch, as of a recurrent network over pieces of a text."""

    def keep(self):
        self.kept = None

    def change(self, hidden):
        last, self.kept = self.kept, hidden.mean(0).detach()
        return hidden if last is None else hidden + last


class DrawnElsewhere(Net):
    def keep(self):
        self.rng = torch.Generator().manual_seed(3)

    def change(self, hidden):
        return hidden + torch.rand(8, generator=self.rng)


# What does no harm


class Drawing(Net):
    def change(self, hidden):
        return hidden if random.random() < 0.5 else nn.functional.dropout(hidden, 0.5, self.training)


class Cached(Net):
    """Tables that are made when they are needed, and grow with the batch."""

    def keep(self):
        self.kept, self.counted, self.last = {}, 0, None
        self.register_buffer("positions", torch.arange(8.0), persistent=False)

    def change(self, hidden):
        if len(hidden) not in self.kept or self.training:
            self.kept[len(hidden)] = torch.linspace(0, 1, 8).expand_as(hidden)
        self.counted += 1
        self.last = hidden.detach()
        return hidden + self.kept[len(hidden)] + self.positions


class Unused(Projected):
    def change(self, hidden):
        return hidden


class Persistent(Net):
    def keep(self):
        self.register_buffer("kept", torch.randn(8))
        self.register_buffer("steps", torch.zeros(()))
        self.norm = nn.BatchNorm1d(8)

    def change(self, hidden):
        self.steps += self.training
        return self.norm(hidden * self.kept) / (1 + self.steps)


def seeded(net):
    return partial(initialised, net, "pytorch")


@pytest.mark.parametrize(
    "net", [Projected, ProjectedByBuffer, ProjectedInList, Averaged, Counted, CountedInTraining, Carried]
)
def test_a_study_refuses_what_its_state_dict_lacks(net):
    with pytest.raises(InputError, match=r"^network 'n' computes with 'kept', which .*self\.register_buffer"):
        check_state_of_study(seeded(net), Classification(), DATA, PRUNABLE, "network 'n'")


def test_a_study_refuses_a_generator_of_the_networks_own():
    with pytest.raises(InputError, match="draw from the global generators"):
        check_state_of_study(seeded(DrawnElsewhere), Classification(), DATA, PRUNABLE, "network 'n'")


@pytest.mark.parametrize("net", [Projected, ProjectedByBuffer, ProjectedInList, Averaged])
@pytest.mark.parametrize("inputs", [(6,), torch.zeros(3, 6)], ids=["shape", "zeros"])
def test_a_loop_refuses_what_its_tickets_lack(net, inputs):
    with pytest.raises(InputError, match=r"^make_model computes with 'kept', which"):
        check_state_of_loop(seeded(net), inputs, PRUNABLE, "make_model")


@pytest.mark.parametrize("net", [Counted, CountedInTraining, Carried])
def test_a_loop_keeps_its_own_attributes(net):
    check_state_of_loop(seeded(net), (6,), PRUNABLE, "make_model")


@pytest.mark.parametrize("net", [Net, Drawing, Cached, Unused, Persistent])
def test_harmless_state_is_accepted(net):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_state_of_study(seeded(net), Classification(), DATA, PRUNABLE, "network 'n'")
    check_state_of_loop(seeded(net), (6,), PRUNABLE, "make_model")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [small_nets.conv_norm_dropout, small_nets.Dropping])
def test_batch_norm_and_dropout_are_accepted(make):
    data = Description((2, 6, 6), 4, 100, 20)
    check_state_of_study(seeded(partial(make, (2, 6, 6), 4)), Classification(), data, PRUNABLE, "network 'n'")


def test_a_network_of_another_shape_from_each_seed_is_refused():
    def net():
        return nn.Linear(6, 2 + int(torch.randint(1000, ())))

    with pytest.raises(InputError, match="builds other parameters or buffers from another seed"):
        check_state_of_loop(seeded(net), (6,), PRUNABLE, "make_model")


def test_a_loop_is_refused_before_its_first_run(tmp_path):
    with pytest.raises(InputError, match="make_model computes with 'kept'"):
        next(tombola.rounds(Projected, out=tmp_path, inputs=(6,)))


# Memory that several models share


VECTORS = torch.arange(24.0).view(4, 6) / 24


class Looking(nn.Module):
    """Takes `VECTORS` as they are."""

    def __init__(self, freeze=False, buffer=False, moves=False):
        super().__init__()
        self.moves = moves
        if buffer:
            self.register_buffer("table", VECTORS)
        else:
            self.table = nn.Parameter(VECTORS.view(6, 4).t(), requires_grad=not freeze)
        self.a = nn.Linear(6, 2)

    def forward(self, x):
        if self.moves and self.training:
            self.table.add_(1.0)
        return self.a(x * self.table.reshape(4, 6)[0])


SHARED = r"puts the same memory into 'table' of every model, .*; clone\(\) the tensor"


@pytest.mark.parametrize("options", [{}, {"buffer": True, "moves": True}])
def test_memory_that_one_run_would_change_for_another_is_refused(options):
    before = VECTORS.clone()
    try:
        with pytest.raises(InputError, match=f"^network 'n' {SHARED}"):
            check_state_of_study(
                seeded(partial(Looking, **options)), Classification(), DATA, ("a.weight",), "network 'n'"
            )
        with pytest.raises(InputError, match=f"^make_model {SHARED}"):
            check_state_of_loop(seeded(partial(Looking, **options)), (6,), ("a.weight",), "make_model")
    finally:
        VECTORS.copy_(before)


@pytest.mark.parametrize("options", [{"freeze": True}, {"buffer": True}])
def test_memory_that_nothing_changes_may_be_shared(options):
    check_state_of_loop(seeded(partial(Looking, **options)), (6,), ("a.weight",), "make_model")
    check_state_of_study(seeded(partial(Looking, **options)), Classification(), DATA, ("a.weight",), "network 'n'")


def test_a_mask_changes_frozen_weights_too():
    with pytest.raises(InputError, match=SHARED):
        check_state_of_loop(seeded(partial(Looking, freeze=True)), (6,), ("a.weight", "table"), "make_model")


class Halving(Net):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


def test_a_study_refuses_a_network_that_changes_its_inputs():
    with pytest.raises(InputError, match="changes its inputs in place"):
        check_state_of_study(seeded(Halving), Classification(), DATA, PRUNABLE, "network 'n'")


class Changing(Net):
    """Changes its weights in forward, always or while it trains."""

    def __init__(self, how, always=True):
        super().__init__()
        self.how, self.always = how, always

    def forward(self, x):
        if self.training or self.always:
            self.how(self.a.weight)
        return super().forward(x)


def centre(weight):
    weight.data -= weight.data.mean()


def clamp(weight):
    with torch.no_grad():
        weight.clamp_(-1, 1)  # beyond all that are drawn


@pytest.mark.parametrize("always", [True, False])
@pytest.mark.parametrize("how", [centre, clamp])
def test_a_study_refuses_a_network_that_changes_its_weights(how, always):
    net = seeded(partial(Changing, how, always))
    with pytest.raises(InputError, match=r"changes its weight 'a\.weight' in forward"):
        check_state_of_study(net, Classification(), DATA, PRUNABLE, "network 'n'")
    check_state_of_study(net, Classification(), DATA, (), "network 'n'")


class Replacing(Net):
    def forward(self, x):
        self.a.weight = nn.Parameter(self.a.weight.detach().clone())
        return super().forward(x)


class Bounded(Net):
    """Says `max_norm`, as an embedding does, and does otherwise; fails where its weights are large."""

    max_norm = 1.0

    def forward(self, x):
        if self.a.weight.abs().max() > 10:
            raise ValueError("too large")
        centre(self.a.weight)
        return super().forward(x)


@pytest.mark.parametrize("net", [Replacing, Bounded])
def test_weights_that_are_replaced_or_change_while_they_are_small_are_seen(net):
    with pytest.raises(InputError, match=r"changes its weight 'a\.weight' in forward"):
        check_state_of_study(seeded(net), Classification(), DATA, PRUNABLE, "network 'n'")


class Renormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 4, max_norm=0.1), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.table(x.long().clamp(0, 8)).mean(1))


def test_an_embedding_may_scale_its_rows():
    check_state_of_study(seeded(Renormed), Classification(), DATA, ("table.weight", "out.weight"), "network 'n'")


class ClassMasked(Projected):
    def forward(self, x):
        return super().forward(x) + torch.tensor([0.0, -torch.inf])


def test_infinite_outputs_do_not_hide_other_differences():
    with pytest.raises(InputError, match="computes with 'kept'"):
        check_state_of_loop(seeded(ClassMasked), (6,), PRUNABLE, "make_model")


class WithState(Net):
    def get_extra_state(self):
        return {"seen": 1}

    def set_extra_state(self, state):
        pass


def test_a_study_refuses_state_that_is_no_tensor():
    with pytest.raises(InputError, match="network 'n' keeps '_extra_state' in its state_dict, a dict"):
        check_state_of_study(seeded(WithState), Classification(), DATA, PRUNABLE, "network 'n'")
