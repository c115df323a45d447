"""Planning a study whose runs a user's own trainer trains.

Arms, controls, rewinding and criteria work as in every study if they need only weights. Tombola refuses, by name, those
that need its own data, gradients or schedule.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tombola.data import Description
from tombola.errors import InputError
from tombola.networks import Coverage, examine, factory, initialised
from tombola.pruning import CRITERIA, try_criterion
from tombola.pruning.at_init import WITH_EXAMPLES
from tombola.pruning.select import plan_counts
from tombola.registry import code_fingerprint, resolve
from tombola.studies.arms import arm_named
from tombola.studies.controls import control
from tombola.studies.plan import Plan, rows_of
from tombola.studies.rewind import SNAPSHOT
from tombola.studies.size import MAX_RUNS, check_size, runs_of
from tombola.studies.study import ArmSettings, Study
from tombola.studies.trainer import Trainer
from tombola.studies.trial import Codes, Trial
from tombola.tasks import Measures
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe
from tombola.work import (
    Cost,
    InitialState,
    Item,
    MaskSearch,
    MaskUse,
    Observations,
    OwnMaskSearch,
    OwnRun,
    SgdNoise,
    Spec,
    Training,
)

Make = Callable[[int], nn.Module]  # an initialised module from a seed

REFUSED_ARMS = {
    "fine-tune": "it sets the learning rate, but the trainer sets its own; use lr-rewind, which also keeps the final "
    "weights",
    "edge-popup": "it trains scores instead of weights",
    "edge-popup-trained": "its mask comes from training scores instead of weights",
    "early-bird": "it records masks at iterations that tombola does not see",
    "snip": "it needs gradients on examples that tombola does not have",
    "grasp": "it needs gradients on examples that tombola does not have",
}
REFUSED_CRITERIA = {
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
        network_code, trainer_code: fingerprints.
        what: names the factory in messages.
    """

    make: Make
    inputs: Any = None
    network_code: str = ""
    trainer_code: str = ""
    what: str = "the network"

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
    names = _snapshots(study)
    fresh = [arm.label for arm in study.arms if arm.reinit or arm_named(arm.rule).fresh]
    module = _checked(problem)
    inputs = example_inputs(module, problem.inputs, problem.what)
    coverage = examine(module, inputs, study.network.output, study.network.embeddings)
    if fresh:
        _check_fresh(problem, coverage, fresh[0])
    rates = study.pruning.resolve(coverage)
    remaining = plan_counts(coverage.sizes(), rates, study.pruning.scope, study.pruning.minimum)
    resolve(study.pruning.criterion, CRITERIA, "criterion")
    data = _described(inputs)
    try_criterion(study.pruning.criterion, coverage.shapes(), partial(problem.make, 0), replace(data, train=1000))
    arms = [control(arm.rule, arm_named(arm.rule).rule, arm.shuffle, arm.reinit) for arm in study.arms]
    items: dict[str, Item] = {}

    def trial(number: int, rewind: int, settings: ArmSettings | None) -> Trial:
        return OwnTrial(
            study,
            number,
            rates,
            Codes(problem.network_code, ""),
            items,
            data,
            coverage,
            remaining,
            rewind,
            tuple(names),
            settings,
            trainer=trainer,
            trainer_code=problem.trainer_code,
            names=names,
        )

    rows = rows_of(study, arms, tuple(names), trial)
    measures = Measures((trainer.primary,), trainer.primary)
    return Plan(study, data, coverage, tuple(remaining), items, tuple(rows), (), measures)


def _refuse(study: Study) -> None:
    """Refuse settings that need tombola's own data, gradients or schedule.

    Raises:
        InputError: the study asks for some of it; the message names it.
    """
    pruning = study.pruning
    if pruning.criterion in REFUSED_CRITERIA:
        why = REFUSED_CRITERIA[pruning.criterion]
        raise InputError(f"pruning.criterion={pruning.criterion} can't be used with a trainer: {why}; {USABLE}")
    for arm in study.arms:
        if arm.rule in REFUSED_ARMS:
            raise InputError(f"arm {arm.label!r} can't be used with a trainer: {REFUSED_ARMS[arm.rule]}; remove it")
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
    if study.connectivity is not None:
        raise InputError(
            "connectivity evaluates networks between two runs, but tombola can't evaluate a trainer's networks; "
            "remove connectivity"
        )


def _snapshots(study: Study) -> dict[int, str | None]:
    """Return the snapshots that are rewound to, by the number in their names; 0 is the initialisation, None.

    Raises:
        InputError: a rewind step is not a name of a snapshot, or two have one number.
    """
    steps = study.rewind if isinstance(study.rewind, tuple) else (study.rewind,)
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
        InputError: two calls with one seed give different weights.
    """
    one, other = problem.make(0), problem.make(0)
    first, second = one.state_dict(), other.state_dict()
    if first.keys() != second.keys():
        names = sorted(first.keys() ^ second.keys())
        raise InputError(f"{problem.what} built two modules from one seed, and only one of them has {names[0]!r}")
    for name, tensor in first.items():
        if tensor.shape != second[name].shape or not torch.equal(tensor, second[name]):
            raise InputError(
                f"{problem.what} built two modules from one seed whose {name!r} differ; both must be equal: draw "
                "weights from torch's global generator, which tombola seeds, or from a `seed` argument"
            )
    return one


def _check_fresh(problem: OwnProblem, coverage: Coverage, arm: str) -> None:
    """Refuse controls on fresh initialisations of a network that has one initialisation only.

    Raises:
        InputError: two seeds give equal prunable weights.
    """
    one, other = (dict(problem.make(seed).named_parameters()) for seed in (0, 1))
    if all(torch.equal(one[name], other[name]) for name in coverage.shapes()):
        raise InputError(
            f"arm {arm!r} needs a second initialisation, but {problem.what} builds equal weights from every seed, so "
            "this control would equal the ticket; use shuffled-weights or redrawn-magnitudes"
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
        return tuple(given) if isinstance(given, list | torch.Size) else given
    for name in ("example_input_array", "dummy_inputs"):  # of Lightning, of transformers
        found = getattr(module, name, None)
        if isinstance(found, Tensor | tuple | Mapping) and len(found):
            return found
    first = next((part for part in module.modules() if next(iter(part._parameters), None)), None)
    if isinstance(first, nn.Linear):
        return (first.in_features,)
    raise InputError(
        f"{what}: tombola runs one batch to find the prunable layers, but has no batch; set inputs to the shape of "
        "one example, such as [3, 32, 32], or to a batch"
    )


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


@dataclass
class OwnTrial(Trial):
    """One trial of a study with a trainer, while it is planned.

    Args:
        trainer: that trains all runs.
        trainer_code: its fingerprint.
        names: of the snapshots that are rewound to, by number.
    """

    trainer: Trainer = field(default_factory=lambda: Trainer(name="unknown"))
    trainer_code: str = ""
    names: Mapping[int, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._place = ("dense", 0)
        named = tuple(sorted(name for name in self.names.values() if name))
        self.dense = self._train("dense", "dense", 0, InitialState(), None, observe=Observations(named=named))
        self._chains = {}

    @property
    def rewound(self) -> InitialState:
        """The trial's own weights at the snapshot that is rewound to."""
        return InitialState(run=self.dense.id, name=self.names[self.rewind])

    def other_start(self, draw: int) -> InitialState:
        """Return the weights of another initialisation, at the snapshot of a run without a mask."""
        name = self.names[self.rewind]
        if name is None:
            return InitialState(draw=draw)
        observe = Observations(named=(name,))
        label = f"late-reinit-{draw - 1}.start"
        run = self._train(label, "late-reinit", 0, InitialState(draw=draw), None, observe=observe)
        return InitialState(run=run.id, name=name)

    def early_bird(self, level: int) -> MaskUse:
        """Refuse masks that are tracked during the dense run."""
        raise InputError(f"early-bird masks can't be used with a trainer: {REFUSED_ARMS['early-bird']}")

    def popup(self, level: int, draw: int) -> Popup:
        """Refuse supermasks."""
        raise InputError(f"supermasks can't be used with a trainer: {REFUSED_ARMS['edge-popup']}")

    def last_rate(self, level: int) -> Recipe:
        """Refuse recipes."""
        raise InputError(f"a recipe can't be used with a trainer: {REFUSED_ARMS['fine-tune']}")

    def at_init(self, method: str, level: int, repeat: int = 0) -> MaskUse:
        """Return the mask found by pruning the untrained network once, by its weights alone."""
        if method in WITH_EXAMPLES:
            raise InputError(f"{method} can't be used with a trainer: {REFUSED_ARMS['snip']}")
        if method == "synflow" and not self._input_shape:
            raise InputError("synflow needs one float32 tensor as input; set inputs to the shape of one example")
        return super().at_init(method, level, repeat)

    def add(
        self, spec: Spec, label: str, group: str, cost: Cost | None = None, observe: Observations | None = None
    ) -> Item:
        """Add work of any kind to the plan, with the arm and repeat that a trainer is told."""
        known = spec.id in self.items
        item = super().add(spec, label, group, cost, observe)
        if not known:
            item = self.items[item.id] = replace(item, arm=self._place[0], repeat=self._place[1])
        return item

    def plan_arm(
        self,
        label: str,
        rule: Any,
        level: int,
        repeat: int,
        repeats: int,
        training: Mapping[str, Any] | None = None,
        group: str = "",
    ) -> Training:
        """Plan the work of an arm at a level."""
        before, self._place = self._place, (label, repeat)
        try:
            return super().plan_arm(label, rule, level, repeat, repeats, training, group)
        finally:
            self._place = before

    @property
    def _input_shape(self) -> tuple[int, ...] | None:
        shape = self.data.input_shape
        return shape if shape and self.data.input_dtype == "float32" else None

    def spec(self, kind: type[Any], **fields: Any) -> Any:
        """Return a spec of own work with the network, seed and trial of the study."""
        study = self.study
        if kind is MaskSearch:
            kind, fields = OwnMaskSearch, fields | {"examples": 0} if "examples" in fields else fields
        return kind(
            network=study.network.model_copy(update={"output": None}),
            seed=study.seed,
            trial=self.number,
            network_code=self.codes.network,
            prunable=self.coverage.shapes(),
            input_shape=self._input_shape,
            **fields,
        )

    def _train(
        self,
        label: str,
        group: str,
        level: int,
        initial: InitialState,
        mask: MaskUse | Popup | None,
        recipe: Recipe | None = None,
        observe: Observations | None = None,
        until: int | None = None,
        copy_number: int = 0,
    ) -> Training:
        if isinstance(mask, Popup) or (recipe is not None and recipe != self.study.training):
            raise InputError(
                f"arm {label!r} returns a recipe or trains scores, but the study has its own trainer; remove the arm"
            )
        trainer = self.trainer
        if initial.trained:  # only tombola's own training continues a schedule there
            initial = initial.model_copy(update={"iteration": 0})
        spec = self.spec(
            OwnRun,
            mask=mask,
            initial=initial,
            noise=SgdNoise(level=level if self.study.noise == "level" else 0, copy_number=copy_number),
            level=level,
            trainer=trainer.name,
            arguments=trainer.arguments,
            trainer_code=self.trainer_code,
            metric=trainer.metric,
            better=trainer.better,
            unit=trainer.unit,
        )
        density = self.coverage.density(self.remaining[level])
        cost = Cost(iterations=1, batch_size=1, density=density)
        item = self.add(spec, f"{label}.level-{level:02}" if level else label, group, cost, observe)
        assert isinstance(item.spec, OwnRun)
        return item.spec
