"""What a network's layers can't do is refused before training: sparse gradients, and scores that tell nothing apart."""

import pytest
import torch
from small_studies import run_study, small_study
from torch import nn

from tombola.errors import InputError
from tombola.studies import make_plan


class Looking(nn.Module):
    """Looks up each pixel in a table."""

    def __init__(self, classes, sparse=False, trained=True, bag=False):
        super().__init__()
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.table = kind(17, 6, sparse=sparse).requires_grad_(trained)
        self.bag = bag
        self.output = nn.Linear(6, classes)

    def forward(self, x):
        ids = (x.flatten(1).abs() * 4).long().clamp(max=16)
        return self.output(self.table(ids) if self.bag else self.table(ids).mean(1))


def looking(classes, **arguments):
    return Looking(classes, **arguments)


def narrow(classes):
    """Each output of its last layer has one weight."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 1), nn.Linear(1, classes))


def refused(**changes):
    with pytest.raises(InputError) as caught:
        make_plan(small_study(pruning__rounds=1, **changes))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("bag", [False, True])
def test_an_embedding_with_sparse_gradients_is_refused(bag):
    network = {"name": "test_layer_checks:looking", "arguments": {"sparse": True, "bag": bag}}
    assert refused(network=network) == (
        "network 'test_layer_checks:looking' has sparse gradients in layer 'table'; set sparse=False in that layer"
    )


def test_a_source_has_no_sparse_gradients_either():
    ours, theirs = ({"name": "test_layer_checks:looking", "arguments": {"sparse": sparse}} for sparse in (False, True))
    arms = ["ticket", {"ticket": {"transfer": {"from": {"network": theirs}}, "name": "there"}}]
    assert "has sparse gradients in layer 'table'" in refused(network=ours, arms=arms)


def test_an_embedding_without_sparse_gradients_is_taken():
    for arguments in ({}, {"sparse": True, "trained": False}):
        network = {"name": "test_layer_checks:looking", "arguments": arguments}
        assert make_plan(small_study(network=network, pruning__rounds=1)).rows


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("criterion", ["movement", "magnitude-increase", "movement-same-sign", "stability"])
def test_how_far_a_frozen_layer_moved_is_no_score(criterion, scope):
    changes = {"network": "small_nets:frozen", "pruning__criterion": criterion, "pruning__scope": scope}
    assert refused(**changes) == (
        f"criterion {criterion!r} scores how far training moves a weight, and layer '1' has requires_grad=False; "
        "exclude it: pruning.exclude: [1]"
    )
    assert make_plan(small_study(pruning__rounds=1, **changes, pruning__exclude=[1])).rows


def test_an_arms_criterion_is_checked_alike():
    arms = ["ticket", {"one-shot": {"criterion": "movement"}}]
    assert "criterion 'movement' scores how far" in refused(network="small_nets:frozen", arms=arms)


def test_a_transfer_is_checked_by_the_networks_that_its_searches_prune():
    """Of a source, all work is planned first, and then what the arm takes is kept."""
    frozen, trained = {"name": "small_nets:frozen"}, {"name": "small_nets:mlp"}
    arm = {"ticket": {"transfer": {"from": {"network": trained}, "take": "mask"}, "name": "there"}}
    movement = {"pruning__criterion": "movement"}
    assert make_plan(small_study(network=frozen, arms=[arm], pruning__rounds=1, **movement)).rows
    assert "layer '1' has requires_grad=False" in refused(network=frozen, arms=["ticket", arm], **movement)
    back = {"ticket": {"transfer": {"from": {"network": frozen}, "take": "mask"}, "name": "there"}}
    assert "layer '1' has requires_grad=False" in refused(network=trained, arms=["ticket", back], **movement)
    snip = {"snip": {"transfer": {"from": {"network": frozen}, "take": "mask"}, "name": "there"}}
    assert make_plan(small_study(network=trained, arms=["ticket", snip], pruning__rounds=1, **movement)).rows


class Backbone(nn.Module):
    """Its first layer is frozen, and computed without gradients or with a result that is changed in place."""

    def __init__(self, classes, without, in_place):
        super().__init__()
        self.back, self.output = nn.Linear(64, 8).requires_grad_(False), nn.Linear(8, classes)
        self.without, self.in_place = without, in_place

    def forward(self, x):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.without):
            x = torch.sigmoid(self.back(x.flatten(1)))
        if self.in_place:
            x -= 0.5
        return self.output(x)


def backbone(classes, without=False, in_place=False):
    return Backbone(classes, without, in_place)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("without", "layer 'back' has requires_grad=False, and no gradient reaches it; let forward"),
        ("in_place", "can't differentiate the layers with requires_grad=False (one of the variables"),
    ],
)
def test_a_frozen_layer_that_no_gradient_reaches_is_refused(how, words, tmp_path):
    network = {"name": "test_layer_checks:backbone", "arguments": {how: True}}
    gradient = {"pruning__criterion": "gradient", "network": network}
    found = refused(**gradient)
    assert words in found
    assert found.endswith("pruning.exclude: [back]")
    _, store = run_study(tmp_path, **gradient, pruning__rounds=1, pruning__exclude=["back"], arms=["ticket"])
    assert store.finished()


def test_a_criterion_of_values_scores_a_frozen_layer():
    for criterion in ("magnitude", "gradient", "large-final-diff-sign"):
        assert make_plan(small_study(network="small_nets:frozen", pruning__criterion=criterion)).rows


@pytest.mark.parametrize("method", ["gradual", "set", "rigl", "ac-dc"])
def test_a_mask_can_not_move_in_a_frozen_layer(method):
    changes = {"network": "small_nets:frozen", "arms": ["ticket", method]}
    assert refused(**changes) == (
        f"arm '{method}': layer '1' has requires_grad=False, so its mask can't move; exclude it: pruning.exclude: [1]"
    )
    assert make_plan(small_study(pruning__rounds=1, **changes, pruning__exclude=[1])).rows


WANDA = {"pruning__criterion": "wanda"}


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        (WANDA | {"pruning__pattern": "channel"}, "the pattern channel of layer '1'"),
        (WANDA | {"pruning__pattern": {"block": [2, 64]}}, "the pattern block-2x64 of layer '1'"),
        (WANDA | {"pruning__pattern": {"block": [1, 12]}}, "the pattern block-1x12 of layer '3'"),
        (
            {"pruning__pattern": "channel", "arms": ["ticket", {"one-shot": {"criterion": "wanda"}}]},
            "the pattern channel of layer '1'",
        ),
        (
            WANDA | {"arms": ["ticket", {"ticket": {"pattern": "channel"}}]},
            "the pattern channel of layer '1'",
        ),
        ({"network": "test_layer_checks:narrow", "pruning__criterion": "wanda"}, "single weights of layer '4'"),
    ],
)
def test_wanda_can_not_choose_among_whole_outputs(changes, groups):
    assert refused(**changes) == (
        "criterion 'wanda' ranks the weights of each output alone, so it can't choose among whole outputs, which "
        f"{groups} are; exclude the layer in pruning.exclude, or use the criterion magnitude or gradient"
    )


@pytest.mark.parametrize("pattern", [None, {"n": 2, "m": 4}, {"block": [4, 2]}])
def test_wanda_chooses_within_outputs(pattern):
    changes = {} if pattern is None else {"pruning__pattern": pattern}
    assert make_plan(small_study(pruning__criterion="wanda", pruning__rounds=1, **changes)).rows


STEP = {"training__schedule": "step", "training__milestones": [5]}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"training__gamma": 0.5}, "training.gamma=0.5 belongs to schedule: step; remove gamma, or set that schedule"),
        ({"training__gamma": 0.5, "training__schedule": "cosine"}, "training.gamma=0.5 belongs to"),
        ({"retraining": {"gamma": 0.5}}, "retraining.gamma=0.5 belongs to"),
        (
            {**STEP, "retraining": {"gamma": 0.5, "schedule": "constant", "milestones": []}},
            "retraining.gamma=0.5 belongs to",
        ),
        (
            {**STEP, "arms": ["ticket", {"fine-tune": {"training": {"gamma": 0.5}}}]},
            "arms: training of 'fine-tune'.gamma",
        ),
        (
            {"arms": [{"ticket": {"training": {"gamma": 0.5}}}]},
            "arms: training of 'ticket'.gamma=0.5 belongs to",
        ),
    ],
)
def test_a_gamma_that_no_schedule_uses_is_refused(changes, match):
    assert match in refused(**changes)


STEPS = {"schedule": "step", "milestones": [5]}


@pytest.mark.parametrize(
    "changes",
    [
        {**STEP, "training__gamma": 0.5},
        {"training__gamma": 0.1},
        {"training__gamma": 0.5, "retraining": STEPS},
        {
            "training__gamma": 0.5,
            "arms": ["ticket", {"ticket": {"transfer": {"from": {"training": STEPS}}, "name": "there"}}],
        },
        {"training__gamma": 0.5, "arms": ["ticket", {"lr-rewind": {"training": STEPS}}]},
        {**STEP, "training__gamma": 0.5, "arms": [{"ticket": {"training": {"schedule": "cosine", "milestones": []}}}]},
    ],
)
def test_a_gamma_that_some_schedule_uses_is_taken(changes):
    assert make_plan(small_study(pruning__rounds=1, **changes)).rows
