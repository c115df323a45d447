"""Tickets as seed and mask."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_up_tickets import ticket_of

import tombola
from tombola.errors import InputError
from tombola.export.packed.decode import read
from tombola.export.packed.recipe import drawn
from tombola.export.packed.ticket import load_packed


def drawn_ticket(name="lenet-300-100", shape=(1, 6, 6), draw=0, **arguments) -> tombola.Ticket:
    ticket = ticket_of(name, shape, 0.5, **arguments)
    origin = {**ticket.origin, "seed": 5, "trial": 2, "draw": draw}
    weights = drawn(origin, {"seed": 5, "draw": draw}, ticket.mask)
    return replace(ticket, weights=weights, origin=origin)


@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [
        ("lenet-300-100", (1, 6, 6), {"hidden": [9]}),
        ("resnet-20", (3, 8, 8), {"width": 4}),
        ("made_up_modules:tied", (4,), {}),
    ],
)
@pytest.mark.parametrize("draw", [0, 3])
def test_a_recipe_gives_the_starting_weights_bit_by_bit(name, shape, arguments, draw, tmp_path):
    ticket = drawn_ticket(name, shape, draw, **arguments)
    path = ticket.export("packed", tmp_path / "x.tombola", form="recipe")
    found = load_packed(path, trust=":" in name).state_dict()
    assert found.keys() == ticket.weights.keys()
    assert all(torch.equal(found[key], value) for key, value in ticket.weights.items())
    masks = read(path).masks
    assert all(torch.equal(torch.from_numpy(masks[key]), keep) for key, keep in ticket.mask.items())
    assert not read(path).tensors


def test_a_study_s_own_tickets_have_recipes(tmp_path):
    study = tombola.Study.load(
        "demo",
        **{"training.iterations": 10, "training.evaluate_every": 10, "pruning.rounds": 1},
        trials=1,
        rewind=0,
        arms=["ticket", "reinit", "random-mask"],
    )
    results = tombola.run(study, tmp_path / "results", workers=0, quiet=True, figures=False)
    for arm in ("ticket", "reinit", "random-mask"):
        ticket = results.ticket(level=1, arm=arm)
        path = ticket.export("packed", tmp_path / arm, form="recipe")
        found = load_packed(path).state_dict()
        assert all(torch.equal(found[key], value) for key, value in ticket.weights.items())


def test_what_no_seed_gives_is_refused(tmp_path):
    ticket = drawn_ticket()
    other = {key: value + 1 for key, value in ticket.weights.items()}
    for made, match in [
        (replace(ticket, weights=other), "differ from the initialisation of its seed"),
        (replace(ticket, origin={**ticket.origin, "rewind": 100}), "starts from iteration 100"),
        (
            replace(ticket, origin={key: ticket.origin[key] for key in ticket.origin if key != "seed"}),
            "its study's seed",
        ),
    ]:
        with pytest.raises(InputError, match=match):
            made.export("packed", tmp_path / "x", form="recipe")
    assert not list(tmp_path.iterdir())


def test_another_generator_is_noticed(tmp_path, monkeypatch):
    import tombola.export.packed.ticket as module

    path = drawn_ticket().export("packed", tmp_path / "x", form="recipe")
    monkeypatch.setattr(module, "drawn", lambda origin, recipe, *others: drawn(origin, {**recipe, "seed": 6}, *others))
    with pytest.raises(InputError, match="gives other weights on this machine"):
        load_packed(path)
