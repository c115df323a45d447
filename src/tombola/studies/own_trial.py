"""One trial of a study with a trainer of the user's own, while it is planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tombola.errors import InputError
from tombola.pruning.at_init import WITH_EXAMPLES
from tombola.studies.arms import Found
from tombola.studies.trainer import Trainer
from tombola.studies.trial import Trial
from tombola.training.moving import Moving
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe
from tombola.work import (
    Cost,
    InitialState,
    Item,
    MaskSearch,
    MaskUse,
    Observations,
    OwnInterpolation,
    OwnMaskSearch,
    OwnRun,
    SgdNoise,
    Spec,
    Training,
)

REFUSED_ARMS = {
    "fine-tune": "it sets the learning rate, but the trainer sets its own; use lr-rewind, which also keeps the final "
    "weights",
    "edge-popup": "it trains scores instead of weights",
    "supermask": "it trains scores instead of weights",
    **dict.fromkeys(("gradual", "set", "rigl", "ac-dc"), "its mask moves within a run, but the trainer holds it fixed"),
    "small-dense": "tombola does not build the trainer's network",
    "edge-popup-trained": "its mask comes from training scores instead of weights",
    "early-bird": "it records masks at iterations that tombola does not see",
    "gradient-at-init": "it needs gradients on examples that tombola does not have",
    "snip": "it needs gradients on examples that tombola does not have",
    "grasp": "it needs gradients on examples that tombola does not have",
}


@dataclass
class OwnTrial(Trial):
    """One trial of a study with a trainer, while it is planned.

    Args:
        trainer: that trains all runs.
        trainer_code: its fingerprint.
        names: of the snapshots that are rewound to, by number.
        evaluate_code: fingerprint of the trainer's `evaluate`.
    """

    trainer: Trainer = field(default_factory=lambda: Trainer(name="unknown"))
    trainer_code: str = ""
    names: Mapping[int, str | None] = field(default_factory=dict)
    evaluate_code: str = ""

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

    def copy(self, level: int, number: int) -> Training:
        """Return a run of a level's network with training noise of its own, under a name of its own."""
        before, self._place = self._place, (f"copy-{number}", 0) if number else self._place
        try:
            return super().copy(level, number)
        finally:
            self._place = before

    def interpolation(self, one: Training, other: Training, points: int, align: bool = False) -> Spec:
        """Return the spec of the line between two runs, which the trainer's `evaluate` evaluates."""
        trainer = self.trainer
        return self.spec(
            OwnInterpolation,
            one=one.id,
            other=other.id,
            points=points,
            align=align,
            evaluate=trainer.evaluate,
            evaluate_code=self.evaluate_code,
            metric=trainer.metric,
            better=trainer.better,
            unit=trainer.unit,
        )

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
        mask: Found | None,
        recipe: Recipe | None = None,
        observe: Observations | None = None,
        until: int | None = None,
        copy_number: int = 0,
    ) -> Training:
        if isinstance(mask, Popup | Moving) or (recipe is not None and recipe != self.study.training):
            raise InputError(
                f"arm {label!r} returns a recipe or finds its mask by training, but the study has its own trainer; "
                "remove it"
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
        cost = Cost(iterations=1, batch_size=1)  # a masked weight costs a trainer as much as a live one
        item = self.add(spec, f"{label}.level-{level:02}" if level else label, group, cost, observe)
        assert isinstance(item.spec, OwnRun)
        return item.spec
