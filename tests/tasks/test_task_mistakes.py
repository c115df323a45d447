"""Settings and data that look right, and would learn or measure something else."""

from contextlib import nullcontext

import pytest
import torch
from test_task_faults import changed_source, refused
from torch import nn

import tombola
from tombola.data import DataSettings, Description, Part
from tombola.studies.recipe_checks import check_recipe
from tombola.tasks import Classification
from tombola.tasks.language_model import LanguageModel
from tombola.tasks.segmentation import Segmentation
from tombola.tasks.settings import TaskSettings
from tombola.training.recipe import Recipe


@pytest.mark.parametrize("kind", ["flip", "crop"])
def test_pictures_do_not_move_without_their_targets(kind):
    refused(
        r"moves the pixels of inputs, but not those of targets.*\(\d+, \d+\); remove flip and crop",
        "segmentation",
        training__augment=[kind],
    )


@pytest.mark.parametrize(("shape", "fits"), [((4, 9), False), ((2, 4, 4, 4), False), ((9,), True), ((3, 4, 4), True)])
def test_only_images_have_channels_to_normalise(shape, fits):
    data, settings = Description(shape, 2, 9, 9), DataSettings(source="my:data", validation=2, normalise="channel")
    task = Classification()
    with nullcontext() if fits else pytest.raises(tombola.InputError, match="needs images or feature vectors"):
        check_recipe(Recipe(iterations=9, batch_size=4, lr=0.1), 9, nn.Identity, data, task, settings)


def test_options_of_a_task_of_ones_own_are_part_of_the_identity():
    options = {"radius": 2.0, "metric": "far", "unit": "m"}
    assert TaskSettings(name="task_nets:Other", options=options).deciding().options == options
    shown = TaskSettings(name="task_nets:Shown", options=options).deciding().options
    assert shown == {"radius": 2.0, "metric": "far"}
    assert TaskSettings(name="regression", options={"metric": "mae", "unit": "kW"}).deciding().options == {}


@pytest.mark.parametrize("names", [["loss"], ["near", "near"], [""], ["err/../x"], ["a\tb"]])
def test_metrics_need_names_of_their_own(names):
    refused("each needs a name of its own", "regression", task={"name": "task_nets:named", "names": names})
    assert TaskSettings(name="task_nets:named", options={"names": ["top-5", "F1 (macro)"]}).make()


def test_the_ignored_class_has_no_share_in_the_iou():
    targets = torch.tensor([[0, 0, 1, 1, 2, 2, 2, 2]])
    predicted = torch.tensor([[1, 2, 1, 0, 2, 2, 2, 1]])  # a stray 0 where a 1 was
    output = nn.functional.one_hot(predicted, 3).movedim(-1, 1).double()
    task = Segmentation(ignore_index=0)
    _, iou, accuracy = task.scores(task.sums(output, Part(torch.zeros(1, 8), targets)).tolist())
    assert iou == pytest.approx((1 / 3 + 3 / 4) / 2)  # of classes 1 and 2, over the six pixels that count
    assert accuracy == pytest.approx(4 / 6)


def test_class_numbers_below_0_ask_for_the_number_of_classes(monkeypatch):
    data = changed_source(monkeypatch, "segmentation", classes=None)
    task = {"name": "segmentation", "ignore_index": -1}
    refused(
        "has class numbers below 0, .*: set task.classes, and task.ignore_index", "segmentation", data=data, task=task
    )


MASK, IDS = torch.ones(2, 5, dtype=torch.int64), torch.tensor([[3, 1, 4, 1, 5], [2, 7, 1, 8, 2]])


def described(names, output_shape=None):
    counts = {"attention_mask": 2, "input_ids": 9, "tokens": 9}
    return Description(
        input_shape=dict.fromkeys(names, (5,)),
        classes=None,
        train=9,
        test=9,
        output_shape=output_shape,
        input_dtype=dict.fromkeys(names, "int64"),
        tokens={name: counts[name] for name in names},
    )


@pytest.mark.parametrize("names", [("attention_mask", "input_ids"), ("input_ids", "attention_mask")])
def test_a_language_model_predicts_the_input_ids_wherever_they_stand(names):
    task, known = LanguageModel(), {"attention_mask": MASK, "input_ids": IDS}
    batch = Part({name: known[name] for name in names}, None)
    data = described(names)
    task.check_data(data, "data")
    assert task.outputs(data) == 9
    output = torch.randn(2, 5, 9, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.cross_entropy(output[:, :-1].reshape(-1, 9), IDS[:, 1:].reshape(-1))
    assert task.loss(output, batch) == pytest.approx(float(expected), rel=1e-6)

    class Leaky(nn.Module):
        def forward(self, input_ids, attention_mask):
            return nn.functional.one_hot(input_ids.roll(-1, 1), 9).float()

    with pytest.raises(tombola.InputError, match="depend on later tokens"):
        task.check_network(Leaky(), batch)


def test_a_language_model_asks_which_of_two_inputs_it_predicts():
    task = LanguageModel()
    with pytest.raises(tombola.InputError, match="attention_mask, tokens; name them input_ids, or return targets"):
        task.check_data(described(("attention_mask", "tokens")), "data")
    task.check_data(described(("tokens",)), "data")
    task.check_data(described(("attention_mask", "tokens"), output_shape=(5,)), "data")


def test_with_targets_of_their_own_the_scores_are_for_the_first_input():
    """Of an encoder and a decoder, say, which differ in length."""
    data = Description(
        input_shape={"decoder_input_ids": (4,), "input_ids": (7,)},
        classes=9,
        train=9,
        test=9,
        output_shape=(4,),
        input_dtype={"decoder_input_ids": "int64", "input_ids": "int64"},
        tokens={"decoder_input_ids": 9, "input_ids": 20},
    )
    task, batch = LanguageModel(), Part({"decoder_input_ids": IDS[:, :4], "input_ids": IDS}, IDS[:, :4])
    task.check_data(data, "data")
    assert task.outputs(data) == 9
    task.check_output(torch.zeros(2, 4, 9), batch, data, "data")


def test_a_function_that_makes_a_task_has_all_its_options_in_the_identity():
    options = {"names": ["a"]}
    assert TaskSettings(name="task_nets:named", options=options).deciding().options == options
    assert TaskSettings(name="task_nets:shown", options={"unit": "m"}).deciding().options == {"unit": "m"}
