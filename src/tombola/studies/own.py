"""Planning a study whose runs a user's own trainer trains.

Arms, controls, rewinding and criteria work as in every study if they need only weights. Tombola refuses, by name, those
that need its own data, gradients or schedule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.data import Description
from tombola.errors import InputError, shown
from tombola.networks import (
    Coverage,
    equal_weights,
    examine,
    factory,
    fixed_weights,
    initialised,
    without_second_initialisation,
)
from tombola.pruning import CRITERIA, try_criterion
from tombola.registry import code_fingerprint, resolve
from tombola.studies.arms import arm_named
from tombola.studies.connectivity import Pair, check_align, connect
from tombola.studies.controls import control
from tombola.studies.own_trial import REFUSED_ARMS, OwnTrial
from tombola.studies.plan import Plan, check_levels, reach, rows_of
from tombola.studies.rewind import SNAPSHOT
from tombola.studies.size import MAX_RUNS, check_size, runs_of
from tombola.studies.state_checks import check_state_of_loop, require_tensors
from tombola.studies.study import ArmSettings, Study
from tombola.studies.trainer import Trainer
from tombola.studies.trial import Codes
from tombola.tasks import Measures
from tombola.work import Item

Make = Callable[[int], nn.Module]  # an initialised module from a seed

REFUSED_CRITERIA = {
    "wanda": "it needs activations on a batch that tombola does not have",
    "gradient": "it needs gradients on a batch that tombola does not have",
    "stability": "it needs the weights at the lowest validation loss, which tombola does not see",
}
USABLE = "use magnitude, initial-magnitude, magnitude-increase, movement or random, which need only weights"


@dataclass(frozen=True)
class OwnProblem:
    """The network to train, as far as tombola knows it.

    Args:
        make: returns an initialised module from a seed.
        inputs: a batch or the shape of one example; None looks for one on the module.
        network_code, trainer_code, evaluate_code: fingerprints.
        what: names the factory in messages.
    """

    make: Make
    inputs: Any = None
    network_code: str = ""
    trainer_code: str = ""
    what: str = "the network"
    evaluate_code: str = ""

    @classmethod
    def of(cls, study: Study) -> OwnProblem:
        """Return the problem that a study file names.

        Raises:
            InputError: a function is missing, or the trainer can't be called with a run.
        """
        trainer = study.trainer
        assert trainer is not None
        if trainer.is_loop:
            raise InputError(
                f"study {study.name!r} belongs to a loop over tombola.rounds; start the script of that loop"
            )
        check_call(trainer)
        inputs: Any = trainer.inputs
        if isinstance(inputs, str):
            inputs = resolve(inputs, {}, "trainer.inputs")()
        shape = inputs if isinstance(inputs, tuple) and all(isinstance(size, int) for size in inputs) else None
        return cls(
            partial(_make, study, shape),
            inputs,
            study.network.fingerprint(_make(study, shape, 0)),
            code_fingerprint(trainer.name, {}, "trainer"),
            f"network {study.network.name!r}",
            "" if trainer.evaluate is None else code_fingerprint(trainer.evaluate, {}, "trainer.evaluate"),
        )


def _make(study: Study, shape: Any, seed: int) -> nn.Module:
    return initialised(factory(study.network, shape, None), study.network.init, seed)


def check_call(trainer: Trainer) -> None:
    """Check that a trainer can be called as `function(run, **arguments)`.

    Raises:
        InputError: it can't.
    """
    function = resolve(trainer.name, {}, "trainer")
    try:
        inspect.signature(function).bind(None, **trainer.arguments)
    except TypeError as error:
        given = "".join(f", {name}=..." for name in trainer.arguments)
        raise InputError(f"trainer {trainer.name!r} is called as function(run{given}), and can't be: {error}") from None
    except ValueError:
        return  # compiled: it tells nothing of its parameters


def make_own_plan(study: Study, max_runs: int = MAX_RUNS, problem: OwnProblem | None = None) -> Plan:
    """Plan the work of a study that has a `trainer`.

    Args:
        study: what to plan.
        max_runs: more are refused.
        problem: the problem of a loop, whose network a study can't name.

    Raises:
        InputError: a function does not exist or does not fit, or the study needs tombola's own training.
    """
    trainer = study.trainer
    assert trainer is not None
    check_size(runs_of(study), max_runs)
    _refuse(study)
    problem = problem or OwnProblem.of(study)
    names = _snapshots(study.rewind)
    rewinds, partings = tuple(names), _partings(study, names)
    names |= partings
    fresh = [arm.label for arm in study.arms if arm.redraws or arm_named(arm.rule).fresh]
    module = _checked(problem)
    inputs = example_inputs(module, problem.inputs, problem.what)
    coverage = examine(module, inputs, study.network.output, study.network.embeddings)
    check_state_of_loop(problem.make, inputs, coverage.shapes(), problem.what)
    if fresh:
        _check_fresh(problem, coverage, fresh[0])
    _, remaining = reach(study, coverage)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    data = _described(inputs)
    try_criterion(study.pruning.criterion, coverage.shapes(), partial(problem.make, 0), replace(data, train=1000))
    arms = [control(arm, arm_named(arm.rule).rule) for arm in study.arms]
    items: dict[str, Item] = {}

    def trial(number: int, rewind: int, settings: ArmSettings | None) -> OwnTrial:
        mine, left = reach(study, coverage, settings)
        return OwnTrial(
            study,
            number,
            mine,
            Codes(problem.network_code, ""),
            items,
            data,
            coverage,
            left,
            rewind,
            tuple(names),
            settings,
            trainer=trainer,
            trainer_code=problem.trainer_code,
            names=names,
            evaluate_code=problem.evaluate_code,
        )

    rows = rows_of(study, arms, rewinds, trial)
    pairs: list[Pair] = []
    for rewind in partings:
        assert study.connectivity is not None
        _check_between(module, problem.what)
        check_align(study.connectivity, module, data.input_shape)
        for number in study.trial_numbers:
            pairs += connect(trial(number, rewind, None), study.connectivity)
    measures = Measures((trainer.primary,), trainer.primary)
    return Plan(study, data, coverage, remaining, items, tuple(rows), tuple(pairs), measures)


def _check_between(module: nn.Module, what: str) -> None:
    """Refuse networks whose buffers mean nothing between two runs.

    Raises:
        InputError: there is a batch norm with running statistics.
    """
    for name, part in module.named_modules():
        if isinstance(part, _BatchNorm) and part.track_running_stats:
            raise InputError(
                f"connectivity: {what} has a batch norm ({name!r}), whose running statistics are wrong between two "
                "runs, and tombola has no examples to renew them; leave connectivity out, or use another norm"
            )


def _refuse(study: Study) -> None:
    """Refuse settings that need tombola's own data, gradients or schedule.

    Raises:
        InputError: the study asks for some of it; the message names it.
    """
    pruning, trainer = study.pruning, study.trainer
    assert trainer is not None
    asked = {"pruning.criterion": pruning.criterion}
    asked |= {f"arm {arm.label!r}: criterion": arm.criterion for arm in study.arms if arm.criterion}
    for where, criterion in asked.items():
        if criterion in REFUSED_CRITERIA:
            why = REFUSED_CRITERIA[criterion]
            raise InputError(f"{where}={criterion} can't be used with a trainer: {why}; {USABLE}")
    for arm in study.arms:
        if arm.rule in REFUSED_ARMS:
            raise InputError(f"arm {arm.label!r} can't be used with a trainer: {REFUSED_ARMS[arm.rule]}; remove it")
        if arm.pruned != "zero":
            raise InputError(
                f"arm {arm.label!r}: pruned={arm.pruned} can't be used with a trainer, whose pruned weights are held "
                "at 0.0; remove pruned"
            )
        if arm.training:
            raise InputError(
                f"arms: training of {arm.label!r} applies only to tombola's own training; remove it, "
                "because the trainer sets its own"
            )
    for field_name in ("back_off", "early_bird", "stop_margin"):
        if getattr(pruning, field_name) is not None:
            raise InputError(
                f"pruning.{field_name} needs tombola's own training, but the study has a trainer; remove the field"
            )
    if study.connectivity is not None and trainer.evaluate is None:
        raise InputError(
            "connectivity evaluates networks between two runs; give `evaluate`, a function that returns the metrics of "
            "a model, or remove connectivity"
        )


def _partings(study: Study, rewinds: Mapping[int, str | None]) -> dict[int, str | None]:
    """Return the snapshots from which copies are trained, by the number in their names.

    Raises:
        InputError: `connectivity` names a level or a snapshot that can't be.
    """
    settings = study.connectivity
    if settings is None:
        return {}
    check_levels(study)
    return dict(rewinds) if settings.rewind is None else _snapshots(settings.rewind)


def _snapshots(rewind: Any) -> dict[int, str | None]:
    """Return the snapshots that are rewound to, by the number in their names; 0 is the initialisation, None.

    Raises:
        InputError: a rewind step is not a name of a snapshot, or two have one number.
    """
    steps = rewind if isinstance(rewind, tuple) else (rewind,)
    found: dict[int, str | None] = {}
    for step in steps:
        name = f"step-{step}" if isinstance(step, int) and step else step
        match = SNAPSHOT.fullmatch(name) if isinstance(name, str) else None
        if name != 0 and match is None:
            raise InputError(
                f"rewind={step}: with a trainer, rewind must name a snapshot of the trainer, such as step-500; "
                'the trainer calls run.snapshot("step-500")'
            )
        number = int(match[1]) if match else 0
        if number in found or (match and not number):
            raise InputError(f"rewind names {step} and another step of the same number; remove one of them")
        found[number] = str(name) if match else None
    if not found:
        raise InputError("rewind=[]: name at least one snapshot, or 0 for the initialisation")
    return found


def _checked(problem: OwnProblem) -> nn.Module:
    """Return the module of seed 0, after comparing it with a second one of that seed.

    Raises:
        InputError: two calls with one seed give different weights, or share parameters.
    """
    one, other = problem.make(0), problem.make(0)
    if isinstance(one, torch.jit.ScriptModule):
        raise InputError(
            f"{problem.what} is a TorchScript module, which can't be pruned; return the module that it is of"
        )
    shared = set(map(id, other.parameters()))  # frozen ones too: masks zero them in place
    for name, weight in one.named_parameters():
        if id(weight) in shared:
            raise InputError(
                f"{problem.what} returned {name!r} twice, so one run would change the weights of another; build a "
                "new model in each call"
            )
    require_tensors(one, problem.what)
    first, second = one.state_dict(), other.state_dict()
    if first.keys() != second.keys():
        names = sorted(first.keys() ^ second.keys())
        raise InputError(f"{problem.what} built two modules from one seed, and only one of them has {names[0]!r}")
    for name, tensor in first.items():
        if tensor.is_meta:
            raise InputError(f"{problem.what} builds {name!r} on the device meta, without values; build it on the CPU")
        if tensor.shape != second[name].shape or not torch.equal(tensor, second[name]):
            raise InputError(
                f"{problem.what} built two modules from one seed whose {name!r} differ; both must be equal: draw "
                "weights from torch's global generator, which tombola seeds, or from a `seed` argument"
            )
    return one


def has_one_start(make: Make, coverage: Coverage) -> bool:
    """Return whether two seeds give equal prunable weights, as a pretrained network has them."""
    return equal_weights(make, 0, 1).issuperset(coverage.shapes())


def _check_fresh(problem: OwnProblem, coverage: Coverage, arm: str) -> None:
    """Refuse controls on fresh initialisations of a network with weights that have one initialisation only.

    Raises:
        InputError: two seeds give equal prunable weights.
    """
    sizes = coverage.sizes()
    if fixed := fixed_weights(problem.make, sizes):
        raise InputError(
            f"arm {arm!r} needs a second initialisation, but {problem.what} "
            f"{without_second_initialisation(fixed, sizes)}"
        )


def example_inputs(module: nn.Module, given: Any, what: str) -> Any:
    """Return a batch for a module, or the shape of one example.

    Args:
        module: that it is for.
        given: by the user; None looks at `example_input_array`, `dummy_inputs` and a first linear layer.
        what: names the factory in messages.

    Raises:
        InputError: there is none.
    """
    if given is not None:
        return _given(given)
    for name in ("example_input_array", "dummy_inputs"):  # of Lightning, of transformers
        found = getattr(module, name, None)
        if isinstance(found, Tensor | tuple | Mapping) and len(found):
            return found
    first = next((part for part in module.modules() if next(part.parameters(recurse=False), None) is not None), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise InputError(
        f"{what}: tombola runs one batch to find the prunable layers, but has no batch; set inputs to the shape of "
        "one example, such as [3, 32, 32], or to a batch"
    )


def _given(inputs: Any) -> Any:
    """Return a user's batch, or shape of one example, as a tuple where it is a list; refuse anything else."""
    inputs = tuple(inputs) if isinstance(inputs, list | torch.Size) else inputs
    sizes = inputs if isinstance(inputs, tuple) and all(isinstance(size, int) for size in inputs) else ()
    if not isinstance(inputs, Tensor | Mapping | tuple) or any(size < 1 for size in sizes):
        raise InputError(
            f"inputs={shown(inputs)}: give the shape of one example, such as (3, 32, 32), or a batch: a tensor, or a "
            "tuple or dict of tensors"
        )
    return inputs


def _described(inputs: Any) -> Description:
    """Return the known facts about the data: the shape of an example, if it is one tensor."""
    if isinstance(inputs, tuple) and len(inputs) == 1 and isinstance(inputs[0], Tensor):
        inputs = inputs[0]
    if isinstance(inputs, Tensor):
        shape, dtype = tuple(inputs.shape[1:]), str(inputs.dtype).removeprefix("torch.")
        return Description(shape, None, 0, 0, input_dtype=dtype)
    if isinstance(inputs, tuple) and all(isinstance(size, int) for size in inputs):
        return Description(inputs, None, 0, 0)
    return Description((), None, 0, 0)
