"""A dense network of the ticket's size: how it is found, trained and shown, and what can't be scaled."""

import pytest
import torch
from small_studies import find, run_study, small_study

from tombola.analysis import sign_flips
from tombola.analysis.layers import dead_units, layer_densities
from tombola.analysis.overlap import mask_overlap
from tombola.data import Description
from tombola.errors import InputError
from tombola.networks import NetworkSettings, examined, network_for
from tombola.networks.narrow import Narrower
from tombola.running.results import Results
from tombola.studies import make_plan
from tombola.tasks import CLASSIFICATION

IMAGES = Description((3, 32, 32), 10, 100, 100)


class Fixed(torch.nn.Module):
    """A network of one width."""

    def __init__(self, spread="wide"):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 30), torch.nn.Linear(30, 10))

    def forward(self, x):
        return self.layers(x)


def skipping(width=20):
    """One weight is normalised, and so never pruned."""
    first = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(64, width))
    return torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(width, 10))


def narrower(name, data=IMAGES, **arguments):
    settings = NetworkSettings(name=name, arguments=arguments)
    coverage = examined(network_for(settings, data, CLASSIFICATION), data, settings)
    return Narrower(settings, data, CLASSIFICATION, coverage)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("lenet-300-100", "hidden"),
        ("conv-2", "width"),
        ("conv-6", "width"),
        ("resnet-20", "width"),
        ("vgg-11", "width"),
    ],
)
def test_our_networks_become_as_narrow_as_asked(name, argument):
    scaler = narrower(name)
    for share in (0.5, 0.1):
        wanted = round(share * scaler.coverage.matrix_weights)
        found = scaler.at(wanted, "here")
        assert found.settings.arguments.keys() == {argument}
        coverage = examined(network_for(found.settings, IMAGES, CLASSIFICATION), IMAGES, found.settings)
        assert coverage.matrix_weights == found.weights == pytest.approx(wanted, rel=0.06)
        assert found.share == coverage.multiply_adds / scaler.coverage.multiply_adds


def test_no_other_width_is_nearer():
    """A list is scaled as a whole; each width of the Lenet on digits is tried by hand."""
    digits = Description((1, 8, 8), 10, 100, 100)
    scaler = narrower("lenet-300-100", digits, hidden=[30, 10])

    def weights(hidden):
        return 64 * hidden[0] + hidden[0] * hidden[1] + 10 * hidden[1]

    every = [[max(1, round(each * step / 1024)) for each in (30, 10)] for step in range(1, 1025)]
    for wanted in (2400, 1000, 333, 150):
        found = scaler.at(wanted, "here")
        best = min(abs(weights(hidden) - wanted) for hidden in every)
        assert abs(found.weights - wanted) == best
        assert weights(found.settings.arguments["hidden"]) == found.weights


def annotated(input_shape, classes, width: "int | float" = 20):
    """The annotation alone says that the width may be a float."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3072, round(4 * width)), torch.nn.Linear(round(4 * width), classes)
    )


@pytest.mark.parametrize(("name", "width"), [("conv-2", 1), ("resnet-20", 16), ("test_small_dense:annotated", 1)])
def test_a_whole_number_of_a_float_width_is_scaled_as_a_float(name, width):
    whole, broken = (narrower(name, width=each) for each in (width, float(width)))
    share = 0.8 if width == 16 else 0.75
    wanted = round(share * whole.coverage.matrix_weights)
    assert whole.at(wanted, "here").settings == broken.at(wanted, "here").settings
    assert whole.at(wanted, "here").weights == pytest.approx(wanted, rel=0.06)


def units(input_shape, classes, hidden=2):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, hidden), torch.nn.Linear(hidden, classes))


def test_the_whole_network_is_never_its_own_rival():
    """Of two units and 148 weights, a narrower copy has one unit and 74."""
    scaler = narrower("test_small_dense:units", Description((1, 8, 8), 10, 100, 100))
    with pytest.raises(InputError, match=r"about 140 weights; the nearest is hidden=1, with 74 \(the whole .* 148\)"):
        scaler.at(140, "here")
    assert scaler.at(75, "here").weights == 74
    with pytest.raises(InputError, match=r"about 30 weights; the nearest is hidden=1, with 74"):
        scaler.at(30, "here")


def test_it_is_the_dense_run_of_a_study_of_that_network(tmp_path):
    plan, store = run_study(tmp_path / "a" / "out", arms=["ticket", {"small-dense": {"per_trial": 2}}])
    run = find(plan, "small-dense", 2)
    alone = make_plan(small_study(network={"name": "small_nets:mlp", "arguments": run.spec.network.arguments}))
    assert run.id == find(alone, "ticket", 0).id
    assert find(plan, "small-dense", 2, repeat=1).spec.initial.draw == 1
    assert run.cost.density == pytest.approx(alone.multiply_adds / plan.multiply_adds)

    results = Results(plan, store)
    row = results.frame().query("arm == 'small-dense' and level == 2 and repeat == 0").iloc[0]
    assert row.remaining_weights == alone.coverage.matrix_weights == pytest.approx(plan.remaining[2], rel=0.1)
    assert row.density == alone.coverage.matrix_weights / plan.coverage.matrix_weights
    assert row.cost == pytest.approx(run.cost.density)
    ticket = results.ticket(arm="small-dense", level=2)
    assert sum(p.numel() for p in ticket.build(trust=True).parameters() if p.dim() > 1) == row.remaining_weights

    for table in (
        layer_densities(results),
        mask_overlap(results),
        dead_units(results, arms=["small-dense"], trust=True),
    ):
        assert "small-dense" not in set(table.loc[table["level"] > 0, "arm"])
    assert "small-dense" in set(sign_flips(results)["arm"])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"network": "test_small_dense:Fixed"},
            r"network 'test_small_dense:Fixed' can't be made narrower .* takes no width",
        ),
        ({"network": "test_small_dense:skipping"}, "has weights that are never pruned, such as"),
        (
            {
                "network": {"name": "small_nets:mlp", "arguments": {"hidden": [2]}},
                "pruning": {"rate": 0.6, "rounds": 2},
            },
            r"arm 'small-dense' at level \d: no width of 'small_nets:mlp' gives about [\d,]+ weights; the nearest is",
        ),
        ({"pruning__pattern": {"n": 2, "m": 4}}, "a dense network can't follow a pattern"),
        ({"arms": [{"of": "small-dense", "shuffle": True}]}, "small-dense trains a whole network and has no mask"),
        (
            {"arms": [{"small-dense": {"transfer": {"from": {"seed": 1}, "take": "mask"}}}]},
            "a source has no narrower network; take small-dense without transfer",
        ),
    ],
)
def test_what_can_not_be_scaled(changes, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(**({"arms": ["small-dense"]} | changes)))
    assert len(str(caught.value).splitlines()) == 1
