"""What is said of inputs and weights of different types, and layers that have numbers as names."""

import pytest
import torch
from small_studies import small_study
from torch import nn

from tombola.errors import InputError
from tombola.networks import NetworkSettings, examine
from tombola.studies import make_plan


def test_a_float64_module_comes_with_its_remedy():
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)).double()
    message = r"the weights float64; return a float32 module, and set training\.precision: float64"
    with pytest.raises(InputError, match=message):
        examine(module, (5,))


def test_whole_numbers_need_an_embedding():
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    with pytest.raises(InputError, match="token ids, and the network has no embedding; convert features to float32"):
        examine(module, torch.ones(2, 5, dtype=torch.int64))
    with pytest.raises(InputError) as raised:  # where another reason is likelier, nothing is guessed
        examine(nn.Sequential(nn.Embedding(1, 4), nn.Linear(3, 2)), torch.zeros(2, 5, dtype=torch.int64))
    assert "token ids" not in str(raised.value)


def test_numbers_are_names_of_layers():
    fields = {"network__name": "torch.nn:Sequential", "pruning__exclude": [4], "pruning__rates": {2: 0.1}}
    study = small_study(**fields)
    assert study.pruning.exclude == ("4",)
    assert study.pruning.rates == {"2": 0.1}
    assert NetworkSettings(name="lenet-300-100", output=4).output == "4"
    with pytest.raises(InputError, match=r"pruning\.exclude"):
        make_plan(small_study(pruning__exclude=[4]))
