"""A ticket: a mask, the weights to train it from, and their origin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tombola.data import is_one_shape, shape_from_json
from tombola.data.normalising import spread
from tombola.errors import InputError, shown
from tombola.formatting import plain
from tombola.networks import NetworkSettings, check_shapes
from tombola.networks import factory as named_factory
from tombola.pruning.mask import Mask
from tombola.registry import NotWhileReading, reading
from tombola.running.files import Damaged, pack_tensors, under, unpack_tensors, write_whole
from tombola.seeds import own_draws, seed_draws
from tombola.studies.explaining import explain
from tombola.training.engine import Weights

if TYPE_CHECKING:
    from tombola.running.results import Results

Size = Annotated[int, Field(ge=1, le=2**31)]


class _Normalisation(BaseModel):
    """As a ticket's file has it."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    mean: list[float]
    std: list[float]


class _Origin(BaseModel):
    """As a ticket's file has it; fields that other versions add are kept unseen."""

    model_config = ConfigDict(extra="allow", strict=True)

    network: dict[str, Any]
    input_shape: list[Size] | list[list[Size]] | dict[str, list[Size]]
    classes: Size | None
    tokens: Size | list[Size | None] | dict[str, Size | None] | None = None


class About(BaseModel):
    """The description in a ticket's file. A stranger may have written anything into it."""

    model_config = ConfigDict(extra="allow")

    origin: _Origin
    normalisation: _Normalisation
    mask: dict[str, tuple[Annotated[int, Field(ge=0, le=2**40, strict=True)], ...]]


@dataclass(frozen=True, eq=False, repr=False)
class Ticket:
    """A sparse subnetwork.

    Args:
        mask: the kept weights.
        weights: the state_dict to start training from; pruned weights are 0.0.
        trained: the state_dict after training.
        normalisation: "mean" and "std" of the inputs, one number per channel or feature, or a single one, from the
            trial's training examples; for uint8 data in units of 255. Empty without normalisation.
        origin: study, arm, trial, repeat, level, rewind iteration, job, network, input shape, the numbers of classes
            and token ids that the network's factory was given, the study's seed and the draw of the initialisation.
    """

    mask: Mask
    weights: Weights
    trained: Weights
    normalisation: dict[str, list[float]]
    origin: dict[str, Any]
    _factory: Callable[[], nn.Module] | None = None
    _trust: bool = False

    def trusted(self, factory: Callable[[], nn.Module] | None = None) -> Ticket:
        """Return the ticket with permission to build a user's own network, for `build` and `export`.

        Args:
            factory: builds the untrained network. Without it, tombola imports and calls the function that the ticket
                names. A ticket from a stranger may name any function: trust only tickets that you made or read.
        """
        return replace(self, _factory=factory, _trust=factory is None)

    def build(
        self,
        trained: bool = False,
        factory: Callable[[], nn.Module] | None = None,
        trust: bool = False,
    ) -> nn.Module:
        """Return the network with the ticket's starting weights, or with the trained weights.

        >>> ticket.build(factory=lambda: my_nets.make(width=3))         # doctest: +SKIP

        Args:
            trained: True for the weights after training.
            factory: builds the untrained network. tombola's own networks do not need it.
            trust: import and call the function that the ticket names. A ticket from a stranger may name any function of
                any module: trust only tickets that you made or read.

        Pruned weights are exactly 0.0. To keep them so in your own training loop, call `ticket.mask.hold_(module)`. The
        network expects the output of `normalise`.

        Raises:
            InputError: a user's own network needs `factory` or `trust`; or its code is missing, or has changed since
                the ticket's run.
        """
        factory, trust = factory or self._factory, trust or self._trust
        try:
            network = NetworkSettings.model_validate(self.origin["network"])
        except ValidationError as error:
            fault = explain(error, NetworkSettings)
            raise InputError(f"the ticket's network can't be built by this version of tombola: {fault}") from None
        with own_draws():
            seed_draws(0)  # as for the run's own module
            module = factory() if factory else self._named(network, trust)
        try:
            module.load_state_dict(self.trained if trained else self.weights)
        except RuntimeError as error:
            raise _changed(network.name, " ".join(str(error).split())[:200]) from error
        return module

    def _named(self, network: NetworkSettings, trust: bool) -> nn.Module:
        """Return the untrained network that the ticket names."""
        if network.name.startswith("__main__:"):
            raise InputError(
                f"the ticket's network is {network.name!r}, a function of a script or notebook, which tombola can't "
                "import: pass `factory`, which builds the network"
            )
        try:
            with nullcontext() if trust else reading("a ticket"):
                shape, tokens = shape_from_json(self.origin["input_shape"]), shape_from_json(self.origin.get("tokens"))
                make = named_factory(network, shape, self.origin["classes"], tokens)
                self._check_shapes(network.name, make)
                return make()
        except NotWhileReading:
            raise InputError(
                f"the ticket's network is {network.name!r}, a user's function: to run it, add --trust to the "
                "command (in Python: `trust=True`, or `factory`, which builds the network)"
            ) from None

    def _check_shapes(self, name: str, make: Callable[[], nn.Module]) -> None:
        try:
            check_shapes(name, make, {key: tensor.shape for key, tensor in self.weights.items()})
        except InputError as error:
            raise _changed(name, str(error)) from error

    def normalise(self, inputs: Tensor | np.ndarray) -> Tensor:
        """Return raw examples in the form of the training inputs: float32, (x - mean) / std.

        Args:
            inputs: [N, ...], each of the ticket's input shape, or without a single channel. As in the data set: uint8
                is divided by 255 first, floats are not scaled.

        Raises:
            InputError: the examples have another shape.
        """
        shape = shape_from_json(self.origin["input_shape"])
        if self.origin.get("tokens") is not None or not is_one_shape(shape):
            raise InputError("this ticket's network takes inputs without normalisation; pass them unchanged")
        # PyTorch warns of arrays that are read-only, such as those of a data set.
        values = torch.as_tensor(np.require(inputs, requirements="W") if isinstance(inputs, np.ndarray) else inputs)
        if values.shape[1:] == shape[1:] and shape[0] == 1 and len(shape) > 1:
            values = values[:, None]
        if values.shape[1:] != shape:
            raise InputError(
                f"inputs of shape {tuple(values.shape)}: the ticket takes (N, {', '.join(map(str, shape))})"
            )
        exact = values.double() / 255 if values.dtype == torch.uint8 else values.double()
        if not self.normalisation["mean"]:
            return exact.float()
        try:
            mean, std = (spread(self.normalisation[name], shape) for name in ("mean", "std"))
        except ValueError as error:
            raise InputError(f"the ticket's normalisation is damaged: {error}") from None
        return ((exact - mean.to(exact.device)) / std.to(exact.device)).float()

    def save(self, path: str | Path) -> None:
        """Write the ticket as one safetensors file.

        Raises:
            StoreError: it can't be written.
        """
        tensors = {f"mask/{name}": bits for name, bits in self.mask.pack().items()}
        for prefix, weights in (("start", self.weights), ("trained", self.trained)):
            tensors |= {f"{prefix}/{name}": tensor for name, tensor in weights.items()}
        about = {"origin": self.origin, "normalisation": self.normalisation, "mask": self.mask.shapes()}
        write_whole(Path(path), pack_tensors(tensors, about), "name an existing folder with free space")

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a file from `save`.

        Raises:
            InputError: the file is missing, damaged, or not a ticket.
        """
        if not Path(path).is_file():
            raise InputError(f"no ticket's file is at {str(path)!r}: give a file from Ticket.save")
        try:
            tensors, about = unpack_tensors(Path(path))
        except Damaged as error:
            raise InputError(str(error)) from error
        try:
            described = About.model_validate(about)
            mask = _unpacked(under("mask", tensors), described.mask)
        except ValidationError as error:
            raise InputError(f"{path} is not a ticket: {'; '.join(explain(error, About).splitlines())}") from None
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise InputError(f"{path} is not a ticket: its mask does not fit its shapes ({error})") from error
        return cls(
            mask=mask,
            weights=under("start", tensors),
            trained=under("trained", tensors),
            normalisation=about["normalisation"],
            origin=about["origin"],
        )

    def export(self, to: str, path: str | Path | None = None, **options: Any) -> Path:
        """Write the ticket in another format, such as "compact" or "packed", and return the file's path.

        A ticket of a user's own network must first be `trusted`.

        Args:
            to: a name in `tombola.export.FORMATS`.
            path: the file; by default in the current folder, named after study, arm, trial and level.
            options: of the format.

        Raises:
            InputError: the format or an option is unknown, or the format does not support the ticket.
            StoreError: the file can't be written.
        """
        from tombola.export import export

        return export(self, to, path, **options)

    def save_pretrained(self, folder: str | Path, results: Results | None = None) -> Path:
        """Write the ticket into a folder in the Hub's layout: see `tombola.export.hub.save_pretrained`."""
        from tombola.export import hub

        return hub.save_pretrained(self, folder, results)

    def push_to_hub(self, repo: str, results: Results | None = None, **options: Any) -> str:
        """Upload the ticket to the Hub and return its address: see `tombola.export.hub.push_to_hub`.

        >>> ticket.push_to_hub("me/lenet-ticket", results)              # doctest: +SKIP
        """
        from tombola.export import hub

        return hub.push_to_hub(self, repo, results, **options)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> Ticket:
        """Return the ticket of a folder, or of a repository of the Hub: see `tombola.export.hub.from_pretrained`.

        >>> ticket = tombola.Ticket.from_pretrained("me/lenet-ticket")  # doctest: +SKIP
        """
        from tombola.export import hub

        return hub.from_pretrained(name, **options)

    def __eq__(self, other: object) -> bool:
        """Return whether mask, starting and trained weights are the same to the last bit."""
        if not isinstance(other, Ticket):
            return NotImplemented
        return self.mask == other.mask and _equal(self.weights, other.weights) and _equal(self.trained, other.trained)

    __hash__ = None  # type: ignore[assignment]  # compared by content, and too large to hash by it

    def _repr_html_(self) -> str:
        """Return where the ticket is from, and its mask, for notebooks."""
        names = ("study", "arm", "trial", "repeat", "level", "rewind")
        facts = [f"{name} {plain(self.origin[name])}" for name in names if name in self.origin]
        return f"<p>Ticket: {escape(', '.join(facts))}</p>{self.mask._repr_html_()}"

    def __repr__(self) -> str:
        where = ", ".join(f"{name}={self.origin.get(name)!r}" for name in ("study", "arm", "trial", "repeat", "level"))
        return f"Ticket({where}, {self.mask!r})"


def _changed(name: str, reason: str) -> InputError:
    return InputError(
        f"network {shown(name)} has changed since the ticket's run ({reason}); restore its code, or use "
        "ticket.weights and ticket.mask"
    )


def _unpacked(packed: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Mask:
    """Return a mask whose bytes are as many as its shapes need; ValueError else, before memory is taken."""
    if packed.keys() != shapes.keys():
        raise ValueError("the names of its layers differ")
    for name, bits in packed.items():
        if bits.dtype != torch.uint8 or bits.ndim != 1 or len(bits) != (math.prod(shapes[name]) + 7) // 8:
            raise ValueError(f"{name!r} has shape {shapes[name]} and {bits.numel():,} bytes")
    return Mask.unpack(packed, shapes)


def _equal(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
