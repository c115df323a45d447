"""Files whose checksum is right and whose content was made to harm."""

import dataclasses
import resource
import time
from pathlib import Path

import pytest
import torch

import tombola
from helpers.small_tickets import random_ticket
from tombola.errors import InputError
from tombola.tensor_files import pack_tensors

MOST_SECONDS, MOST_BYTES = 2, 200 * 2**20


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        ("lenet-300-100", (1, 2_000_000, 4_000)),  # 9.6 TB in the first layer
        ("lenet-300-100", (1, 2**31, 2**31)),  # more than any address
        ("conv-2", (3, 16_000, 16_000)),  # 4.2 PB
        ("resnet-20", (2_000_000_000, 32, 32)),
    ],
)
def test_a_ticket_can_not_ask_for_a_network_larger_than_its_weights(
    tmp_path: Path, network: str, shape: tuple[int, ...]
) -> None:
    honest = random_ticket()
    origin = {**honest.origin, "network": {"name": network}, "input_shape": list(shape)}
    dataclasses.replace(honest, origin=origin).save(tmp_path / "ticket.safetensors")
    ticket = tombola.Ticket.load(tmp_path / "ticket.safetensors")

    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=network):
        ticket.build()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_BYTES / 1024
    assert time.monotonic() - begun < MOST_SECONDS


@pytest.mark.parametrize(
    ("shape", "fault"),
    [
        ([-4, -4], "damaged"),
        ([4, 4.0], "damaged"),
        ([True, 16], "damaged"),
        ("4x4", "damaged"),
        ([1] * 33, "too large"),
        ([2**40, 2**40, 0], "too large"),
        ([4, 5], "is not packed"),
        ([], "is not packed"),
        (None, "damaged"),
    ],
)
def test_the_shapes_of_a_mask_file_are_checked(tmp_path: Path, shape: object, fault: str) -> None:
    path = tmp_path / "mask.safetensors"
    path.write_bytes(pack_tensors({"weight": torch.full((2,), 255, dtype=torch.uint8)}, {"mask": {"weight": shape}}))
    with pytest.raises(InputError, match=fault):
        tombola.Mask.load(path)


@pytest.mark.parametrize(
    "about",
    [{"mask": {"other": [4, 4]}}, {"mask": {}}, {"mask": [4, 4]}, {"mask": {"weight": [4, 4]}, "more": 1}, [], None, 1],
)
def test_a_mask_file_describes_its_own_layers_and_nothing_else(tmp_path: Path, about: object) -> None:
    path = tmp_path / "mask.safetensors"
    path.write_bytes(pack_tensors({"weight": torch.full((2,), 255, dtype=torch.uint8)}, about))
    with pytest.raises(InputError, match=r"not a file from Mask\.save"):
        tombola.Mask.load(path)
