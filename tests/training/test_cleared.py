"""Gradients of pruned weights."""

import math

import pytest
import torch
from torch import nn

from tombola.training.engines.cleared import Pruned, clear_pruned


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pruned_places_become_zero_and_others_keep_their_bits(dtype, layout):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 4, 3, 3, generator=generator).to(dtype)
    values[0, :, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf, -0.0]).to(dtype)
    pruned = torch.rand(values.shape, generator=generator) < 0.6
    pruned[0, :2] = True
    parameter = nn.Parameter(torch.ones_like(values).to(memory_format=layout))
    parameter.grad = values.to(memory_format=layout)
    expected = values.masked_fill(pruned, 0.0)
    each = Pruned(parameter, pruned)
    clear_pruned([each])
    torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=0, equal_nan=True, check_stride=False)
    assert not torch.signbit(torch.view_as_real(parameter.grad) if dtype.is_complex else parameter.grad)[pruned].any()
    assert torch.equal(each.pruned, pruned)
    narrow = torch.ones(values.shape, dtype=torch.uint8)  # an optimiser may keep state of another width
    each.clear_(narrow)
    assert torch.equal(narrow == 0, pruned)


def test_a_parameter_without_a_gradient_is_left_alone():
    parameter = nn.Parameter(torch.ones(3))
    clear_pruned([Pruned(parameter, torch.tensor([True, False, True]))])
    assert parameter.grad is None


def test_pruned_weights_get_other_values_back():
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    Pruned(parameter, torch.tensor([True, False, True])).restore(torch.tensor([7.0, 8.0, 9.0]))
    assert parameter.tolist() == [7.0, 2.0, 9.0]
