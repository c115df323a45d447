"""Tickets to packed files and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from tombola.data import is_one_shape, shape_from_json
from tombola.errors import InputError, shown
from tombola.export.check import EXAMPLES, TOLERANCE, examples_for, outputs_of
from tombola.export.compact import fold_into, is_trained
from tombola.export.graph import Unsupported
from tombola.export.packed.decode import MOST, Packed, unpack
from tombola.export.packed.encode import Coded, Writer, of_mask, of_plain, of_shared, pack
from tombola.export.packed.fast import compiled
from tombola.export.packed.finetune import Examples, Tuning, tuned
from tombola.export.packed.recipe import digest, drawn, named_by, recipe_of
from tombola.export.packed.share import METHODS, Method, Shared, share
from tombola.export.paths import NoPath
from tombola.export.write import write
from tombola.memory import extent, layout, overlap
from tombola.networks import NETWORKS, NetworkSettings, check_shapes
from tombola.pruning.mask import Mask
from tombola.registry import NotWhileReading, reading
from tombola.studies.explaining import explain

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

ORIGIN = ("study", "arm", "trial", "repeat", "level", "rewind", "job", "input_shape", "classes", "seed", "draw")
ORIGIN_IF_ANY = ("tokens",)

_PLAIN = "float16 float32 float64 int8 int16 int32 int64 uint8 bool"
PLAIN = frozenset(getattr(torch, name) for name in _PLAIN.split())
"""Types of tensors that NumPy has too."""


def export_packed(
    ticket: Ticket,
    path: Path,
    form: str = "values",
    bits: int = 4,
    other_bits: int = 8,
    values: Method = "kmeans",
    weights: str = "trained",
    finetune: Examples | None = None,
    tuning: Tuning | None = None,
) -> None:
    """Write a ticket as one small file; `load_packed` reads it, and `decode.read` does with NumPy alone.

    Args:
        ticket: mask and weights.
        path: of the file.
        form: "values" stores shared values; "recipe" stores the mask and the seed of the starting weights.
        bits: of the number of a weight's shared value, 1 to 8.
        other_bits: the same of biases, batch norm and weights that no mask covers.
        values: "kmeans", or "grid" for evenly spaced ones.
        weights: "trained", or "start" for the starting weights.
        finetune: training examples to fine-tune the shared values on: inputs as the network takes them, and classes.
        tuning: how to fine-tune.

    Raises:
        InputError: an option is unknown or out of range, the ticket has no path from an input to an output, or no
            seed gives its starting weights (form "recipe").
        StoreError: the file can't be written.
    """
    if form == "recipe":
        write(path, _recipe(ticket))
    elif form == "values":
        write(path, _values(ticket, bits, other_bits, values, weights, finetune, tuning or Tuning()))
    else:
        raise InputError(f"form {form!r}: choose values or recipe")


def largest_difference(ticket: Ticket, path: Path, weights: str = "trained") -> float | None:
    """Return the largest difference of an output of a packed file from the ticket's, relative to the largest output.

    It is that of synthetic examples; None where the network does not take any, or gives zeros alone.
    """
    module = ticket.build(is_trained(weights))
    module.load_state_dict(state_of(unpack(path.read_bytes(), str(path), 2**62, compiled())))
    try:
        examples = examples_for(ticket)
        expected, found = outputs_of(ticket.build(is_trained(weights)), examples), outputs_of(module, examples)
    except Exception:  # whatever a user's forward pass does with made-up examples
        return None
    largest = float(expected.abs().max())
    return float((expected - found).abs().max()) / largest if largest else None


Size = Annotated[int, Field(ge=1, le=2**31)]


class _Origin(BaseModel):
    """As a packed file has it. Whoever made the file may have written anything."""

    model_config = ConfigDict(extra="allow", strict=True)

    network: dict[str, Any]
    input_shape: list[Size] | list[list[Size]] | dict[str, list[Size]]
    classes: Size | None
    tokens: Size | list[Size | None] | dict[str, Size | None] | None = None
    trial: int = 0


class _Recipe(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    seed: int
    draw: int
    digest: str


class _Values(BaseModel):
    model_config = ConfigDict(extra="allow")

    form: Literal["values"]
    origin: _Origin


class _Seeded(BaseModel):
    model_config = ConfigDict(extra="allow")

    form: Literal["recipe"]
    origin: _Origin
    recipe: _Recipe


def load_packed(
    path: str | Path, most: int = MOST, trust: bool = False, factory: Callable[[], nn.Module] | None = None
) -> nn.Module:
    """Return the network of a packed file, in evaluation mode.

    >>> network = load_packed("ticket.tombola")                         # doctest: +SKIP

    Args:
        path: of the file.
        most: as in `decode.read`; also of the network.
        trust: import the user's network that the file names, and call it. A file from a stranger may name any function:
            trust only what you have made, or read.
        factory: builds the untrained network. tombola's own networks do not need it.

    Raises:
        InputError: the file can't be read or is damaged, the network's own code is missing or differs, or it is a
            user's own and there is neither `trust` nor `factory`.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    packed = unpack(content, str(path), most, compiled())
    model = _Seeded if packed.about.get("form") == "recipe" else _Values
    try:
        model.model_validate(packed.about)
        network = NetworkSettings.model_validate(packed.about["origin"]["network"])
    except ValidationError as error:
        fault = explain(error, NetworkSettings if error.title == NetworkSettings.__name__ else model)
        raise InputError(f"{path} holds no ticket of tombola's: {fault}") from None
    origin = packed.about["origin"]
    try:
        with nullcontext() if trust else reading("a packed file"):
            build = factory or _named(network, origin)
            _check_shapes(network.name, build, packed, most)
            with torch.random.fork_rng(devices=[]):
                module = build()
                module.load_state_dict(state_of(packed, build))
    except NotWhileReading:
        raise InputError(
            f"the network of {path} is {shown(network.name)}, a function of a user's: give trust=True to import and "
            "call it, or `factory`, which builds the network"
        ) from None
    except RuntimeError as error:
        raise _changed(network.name, path, " ".join(str(error).split())[:200]) from error
    return module.eval()


def _named(network: NetworkSettings, origin: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return the function that a packed file names."""
    if network.name.startswith("__main__:"):
        raise InputError(
            f"the network is {shown(network.name)}, a function of a script or notebook, which tombola can't import: "
            "pass `factory`, which builds the network"
        )
    return named_by(origin, network)


def _check_shapes(name: str, build: Callable[[], nn.Module], packed: Packed, most: int) -> None:
    """Refuse a file that does not fit its network, before memory is taken for the network."""
    if packed.about["form"] == "values":
        shapes = {key: torch.Size(values.shape) for key, values in packed.tensors.items()}
        check_shapes(name, build, shapes)
    elif name in NETWORKS:
        with torch.device("meta"):
            size = sum(tensor.numel() for tensor in build().state_dict().values())
        if size > most:
            raise InputError(f"network {name!r} has {size:,} values, more than the {most:,} allowed; give most={size}")


def _changed(name: str, path: str | Path, reason: str) -> InputError:
    return InputError(f"network {shown(name)} has changed since {path} was written ({reason})")


def state_of(packed: Packed, build: Callable[[], nn.Module] | None = None) -> dict[str, Tensor]:
    """Return the state_dict that a packed file stands for.

    Args:
        packed: what the file holds.
        build: makes the untrained network; by default the function that the file names.

    Raises:
        InputError: its seed gives other weights here.
    """
    if packed.about["form"] == "values":
        return {name: torch.from_numpy(values) for name, values in packed.tensors.items()}
    mask = Mask({name: torch.from_numpy(keep) for name, keep in packed.masks.items()})
    recipe = packed.about["recipe"]
    weights = drawn(packed.about["origin"], recipe, mask, build)
    if digest(weights) != recipe["digest"]:
        raise InputError(
            "the seed in this file gives other weights on this machine: the network's code or PyTorch's random "
            f"numbers differ (this is PyTorch {torch.__version__})"
        )
    return weights


def _about(ticket: Ticket, form: str, **others: Any) -> dict[str, Any]:
    origin = {name: ticket.origin[name] for name in ORIGIN if name in ticket.origin}
    origin |= {name: ticket.origin[name] for name in ORIGIN_IF_ANY if ticket.origin.get(name) is not None}
    origin["network"] = NetworkSettings.model_validate(ticket.origin["network"]).identity()
    return {"form": form, **others, "normalisation": ticket.normalisation, "origin": origin}


def _recipe(ticket: Ticket) -> bytes:
    recipe, shape = recipe_of(ticket), shape_from_json(ticket.origin["input_shape"])
    coded = []
    for name, keep in ticket.mask.items():
        candidates = [of_mask(name, keep.numpy(), *each) for each in _layouts(tuple(keep.shape), shape)]
        coded.append(_smallest(candidates))
    return pack(coded, _about(ticket, "recipe", recipe=recipe))


def _values(
    ticket: Ticket,
    bits: int,
    other_bits: int,
    method: Method,
    weights: str,
    examples: Examples | None,
    tuning: Tuning,
) -> bytes:
    module, shape = ticket.build(is_trained(weights)), shape_from_json(ticket.origin["input_shape"])
    _require_known_types(module, ticket.mask)
    for number in (bits, other_bits):
        if not 1 <= number <= 8:
            raise InputError(f"bits {number}: a shared value has 1 to 8 bits")
    if method not in METHODS:
        raise InputError(f"values {method!r}: choose {' or '.join(METHODS)}")
    if examples is not None and method == "grid":
        raise InputError("values 'grid' stay evenly spaced and can't be fine-tuned: choose kmeans")
    module, mask = _folded(module, ticket, is_trained(weights), shape)
    mask.apply_(module)
    floats = _floats(module)
    views = _views(floats)
    # A view's mask tells only of one order of the weights: all that was pruned in any is zero.
    keep = {name: value != 0 if name in views else mask.get(name, value != 0) for name, value in floats.items()}
    shared = {}
    for name, value in floats.items():
        is_weight = bool({name, *views.get(name, ())} & mask.keys())
        given = value.numpy()[keep[name].numpy()]
        # Sorted, the same weights in another order get the same shared values to the last bit.
        shared[name] = share(np.sort(given) if name in views else given, bits if is_weight else other_bits, method)
    symbols: dict[str, np.ndarray] = {}
    if examples is not None:
        if parted := [name for name, _ in module.named_parameters() if name in views]:
            raise InputError(f"{', '.join(map(repr, parted))} share memory, which finetune would part: leave it out")
        parameters = {name: shared[name] for name, _ in module.named_parameters() if name in shared}
        for name, (better, numbers) in tuned(module, keep, parameters, examples, tuning).items():
            shared[name], symbols[name] = better, numbers
    return pack(_coded(module, mask, keep, shared, symbols, shape), _about(ticket, "values", weights=weights))


def _require_known_types(module: nn.Module, mask: Mask) -> None:
    """Refuse tensors of a type that NumPy lacks, and masked weights that are not float32, by the layer's name."""
    for name, value in module.state_dict().items():
        if value.dtype not in PLAIN or (name in mask and value.dtype != torch.float32):
            layer, _, last = name.rpartition(".")
            kind = str(value.dtype).removeprefix("torch.")
            raise Unsupported(layer, f"{last!r} of type {kind}", "convert the network to float32 first")


def _folded(module: nn.Module, ticket: Ticket, trained: bool, shape: Any) -> tuple[nn.Module, Mask]:
    """Return a network without its dead units, and its mask; where that can't be, the network as it is.

    Raises:
        NoPath: the output is the same for every example.
    """
    if not is_one_shape(shape):
        return module, ticket.mask
    smaller = ticket.build(trained)
    try:
        live = fold_into(smaller, ticket.mask, shape)
    except NoPath:
        raise
    except InputError:  # an operator that can't be followed
        return module, ticket.mask  # dead units stay in: the file is larger, and as right
    inputs = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    expected, found = outputs_of(module, inputs), outputs_of(smaller, inputs)
    # A weight that is used twice, and once where no layer shows it, can't lose what one use does not need.
    is_same = (expected - found).abs().max() <= TOLERANCE * expected.abs().max()
    return (smaller, live) if is_same else (module, ticket.mask)


def _floats(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that get shared values; a buffer with infinities, such as a causal mask, stays as it is.

    Raises:
        InputError: a number of the others is not finite.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found = {}
    for name, value in module.state_dict().items():
        if value.dtype != torch.float32 or (name not in parameters and value.isinf().any()):
            continue
        if not value.isfinite().all():
            raise InputError(f"{name!r} has numbers that are not finite: export a level whose training did not diverge")
        found[name] = value.detach()
    return found


def _views(floats: Mapping[str, Tensor]) -> dict[str, set[str]]:
    """Return for each tensor those in the same memory with another layout, such as a transposed one, if there are any.

    The names of one tied weight have the same layout.
    """
    places = {name: (layout(value), where) for name, value in floats.items() if (where := extent(value)) is not None}
    found: dict[str, set[str]] = {}
    for name, (mine, where) in places.items():
        for other, (another, there) in places.items():
            if mine != another and overlap(where, there):
                found.setdefault(name, set()).add(other)
    return found


def _coded(
    module: nn.Module,
    mask: Mask,
    keep: Mapping[str, Tensor],
    shared: Mapping[str, Shared],
    symbols: Mapping[str, np.ndarray],
    input_shape: Any,
) -> list[Coded]:
    """Return every tensor of a state_dict as it goes into the file."""
    twins: dict[tuple[Any, ...], str] = {}  # a tied weight has several names; all get the values of the first
    coded = []
    for name, value in module.state_dict().items():
        if name not in shared:
            coded.append(of_plain(name, value.numpy()))
            continue
        twin = twins.setdefault(layout(value), name)
        source = next((each for each in (twin, name) if each in symbols), twin)
        flags = keep[source].numpy()
        is_weight = name in mask or value.dim() > 1
        layouts = _layouts(tuple(value.shape), input_shape) if is_weight else [(0, 1)]
        given = name, value.numpy(), flags, shared[source], name in mask
        candidates = [of_shared(*given, *each, symbols.get(source)) for each in layouts]
        coded.append(_smallest(candidates))
    return coded


def _layouts(shape: tuple[int, ...], input_shape: Any) -> list[tuple[int, int]]:
    """Return the (width, period) with which a weight's places may be easiest to foretell."""
    found = [(0, 1)]
    is_picture = is_one_shape(input_shape) and len(input_shape) == 3
    if len(shape) == 2 and is_picture and shape[1] % (input_shape[1] * input_shape[2]) == 0:
        found.append((input_shape[2], 1))
    if len(shape) > 2:
        places = int(np.prod(shape[2:]))
        found += [(0, places), (shape[-1], places), (places, places)]
    return [each for each in found if each[0] < max(int(np.prod(shape[1:])), 1)]


def _smallest(candidates: list[Coded]) -> Coded:
    """Return the one that takes the fewest bytes; the first of equals."""
    if len(candidates) == 1:
        return candidates[0]

    def size(each: Coded) -> int:
        writer = Writer(compiled())
        assert each.symbols is not None
        writer.matrix(each.entry, each.symbols)
        return len(writer.finish())

    return min(candidates, key=size)
