"""The studies whose numbers are frozen: each family of presets, each engine and each option, cut down to a second.

Every case runs through the public interface alone. Training steps stay below the size from which tombola computes a
run with several threads: the number of cores would change the sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """One small study.

    Args:
        preset: the study that it cuts down.
        data: a data set of `golden_data`, or "digits".
        fields: overrides for `Study.load`; dotted keys stand for fields of a section.
        engine: the option of `tombola.run`. "stacked" groups runs as one process finds them: another grouping changes
            the last bits.
    """

    preset: str
    data: str
    fields: Mapping[str, Any]
    engine: str = "auto"


STEPS = {"batch_size": 20, "iterations": 12, "evaluate_every": 4}
FEW = {"batch_size": 10, "iterations": 6, "evaluate_every": 3}  # for networks of 100,000 weights and more
LENET = {"network.arguments": {"hidden": [40, 20]}, "training": STEPS, "trials": 1}
CONV = {"training": FEW, "pruning": {"rate": 0.5, "rates": {"conv": 0.4}, "rounds": 2}, "trials": 1}
RESNET = {"network.arguments": {"width": 4}, "training": FEW | {"milestones": [3, 5]}, "trials": 1}
VGG = {"network.arguments": {"width": 4}, "training": FEW | {"milestones": [3, 5]}, "trials": 1}
GLOBAL = {"pruning": {"rate": 0.4, "rounds": 2}}
SOME_ARMS = {"arms": ["ticket", "reinit", "random-mask"]}
AT_INIT = {
    "arms": [
        "ticket",
        {"snip": {"per_trial": 2}},
        "grasp",
        "synflow",
        "magnitude-at-init",
        "random",
        "random-erk",
        {"of": "snip", "shuffle": True},
        {"of": "snip", "reinit": True},
        {"of": "grasp", "shuffle": True},
        {"of": "grasp", "reinit": True},
        {"of": "synflow", "shuffle": True, "reinit": True},
    ]
}
FEWER_AT_INIT = {"arms": ["snip", "grasp", "synflow", "random-erk", {"of": "synflow", "reinit": True}]}


def lenet(**fields: Any) -> Case:
    """Return a case on the small Lenet with the ticket alone; `__` in a name stands for a dot."""
    dotted = {name.replace("__", "."): value for name, value in fields.items()}
    plain = {"arms": ["ticket"], "pruning.rate": 0.4, "pruning.rounds": 3}
    training = STEPS | {"lr": 5.0e-3} | dotted.pop("training", {})
    return Case("lenet-mnist", "gray-8", LENET | plain | dotted | {"training": training})


LENETS = {
    "demo": Case("demo", "digits", {"training": STEPS | {"batch_size": 60}, "trials": 2, "pruning": {"rounds": 3}}),
    "lenet-mnist": Case("lenet-mnist", "gray-8", LENET | {"pruning": {"rate": 0.4, "rounds": 3}}),
    "lenet-whole": Case(
        "lenet-mnist",
        "gray-28",
        {
            "training": STEPS | {"batch_size": 60},
            "trials": 1,
            "arms": ["ticket"],
            "pruning": {"rate": 0.5, "rounds": 4},
        },
    ),
    "lenet-global": Case(
        "lenet-mnist-global", "gray-8", LENET | GLOBAL | {"training": {"epochs": 2, "batch_size": 20}}
    ),
    "lenet-layerwise": Case(
        "lenet-mnist-layerwise",
        "gray-8",
        LENET | GLOBAL | {"training": {"epochs": 2, "evaluate_every": "epoch", "batch_size": 20}},
    ),
    "lenet-rewind": Case(
        "lenet-mnist-rewind",
        "gray-8",
        LENET
        | {
            "training": STEPS | {"schedule": "step", "milestones": [5, 9], "gamma": 0.3},
            "pruning": {"rate": 0.5, "rounds": 2},
            "rewind": [0, 2, 0.5],
            "arms": ["ticket", "late-reinit", "lr-rewind", "fine-tune", "random-mask", "one-shot"],
        },
    ),
    "lenet-connectivity": Case(
        "lenet-mnist-connectivity",
        "gray-8",
        LENET | {"pruning": {"rate": 0.5, "rounds": 2}, "connectivity": {"levels": [0, 1, 2], "points": 5}},
    ),
    "lenet-at-init": Case("lenet-mnist-at-init", "gray-8", LENET | AT_INIT | {"pruning": {"target": 0.1, "rounds": 2}}),
    "lenet-supermask": Case("lenet-mnist-supermask", "gray-8", LENET | {"pruning": {"rounds": 2}}),
}
CONVS = {
    "conv-2": Case("conv2-cifar10", "color-8", CONV | SOME_ARMS | {"pruning.rounds": 1}),
    "conv-2-bfloat16": Case("conv2-cifar10-10k", "color-8", CONV | {"arms": ["ticket"]}),
    "conv-2-dropout": Case("conv2-cifar10-dropout", "color-8", CONV | {"arms": ["ticket"]}),
    "conv-2-rewind": Case("conv2-cifar10-rewind-10k", "color-8", CONV | {"rewind": [0, 4], "pruning.rounds": 1}),
    "conv-2-at-init": Case(
        "conv2-cifar10-at-init",
        "color-8",
        CONV | {"arms": ["snip", "grasp", "synflow"], "pruning": {"target": 0.1, "rounds": 1, "init_examples": 2}},
    ),
    "conv-2-supermask": Case("conv2-cifar10-supermask", "color-8", CONV | {"pruning.rounds": 1}),
    "conv-2-connectivity": Case(
        "conv2-cifar10-connectivity-10k",
        "color-8",
        CONV | {"rewind": [0, 3], "pruning.rounds": 1, "connectivity": {"levels": [0, 1], "points": 3}},
    ),
    "conv-4-stability": Case(
        "conv4-cifar10-stability",
        "color-8",
        {
            "training": {"epochs": 2, "batch_size": 20, "lr": 5.0e-3},
            "retraining": {"epochs": 1, "evaluate_every": 4},
            "pruning": {"rate": 0.3, "rounds": 2},
            "trials": 1,
        },
    ),
    "conv-4": Case("conv4-cifar10", "color-8", CONV | {"arms": ["ticket"]}),
    "conv-6": Case(
        "conv6-cifar10", "color-8", CONV | {"arms": ["ticket"], "training": FEW | {"batch_size": 6, "iterations": 3}}
    ),
}
DEEP = {
    "resnet-20": Case("resnet18-cifar10", "color-8", RESNET | GLOBAL | SOME_ARMS),
    "resnet-20-warmup": Case(
        "resnet18-cifar10-warmup",
        "color-8",
        RESNET | GLOBAL | {"arms": ["ticket"], "training": RESNET["training"] | {"warmup": 3}},
    ),
    "resnet-20-bfloat16": Case("resnet18-cifar10-10k", "color-8", RESNET | GLOBAL | {"arms": ["ticket"]}),
    "resnet-20-rewind": Case("resnet20-cifar10-rewind", "color-8", RESNET | {"pruning.rounds": 1, "rewind": 3}),
    "resnet-20-at-init": Case(
        "resnet20-cifar10-at-init",
        "color-8",
        RESNET | FEWER_AT_INIT | {"pruning": {"target": 0.2, "rounds": 1, "init_examples": 2}},
    ),
    "resnet-20-connectivity": Case(
        "resnet20-cifar10-connectivity",
        "color-8",
        RESNET | {"pruning.rounds": 1, "rewind": 3, "connectivity": {"levels": [0, 1], "points": 3}},
    ),
    "resnet-20-supermask": Case("resnet20-cifar10-supermask", "color-8", RESNET | {"pruning.rounds": 1}),
    "resnet-18": Case(
        "resnet18-cifar10-lr0.01",
        "color-8",
        RESNET | GLOBAL | {"network": {"name": "resnet-18", "arguments": {"width": 4}}, "arms": ["ticket"]},
    ),
    "vgg-19": Case("vgg19-cifar10-lr0.01", "color-16", VGG | GLOBAL | {"arms": ["ticket", "reinit"]}),
    "vgg-19-warmup": Case(
        "vgg19-cifar10-warmup",
        "color-16",
        VGG | GLOBAL | {"arms": ["ticket"], "training": VGG["training"] | {"warmup": 3, "lr": 0.01}},
    ),
    "vgg-11-bfloat16": Case(
        "vgg19-cifar10-10k",
        "color-16",
        VGG | GLOBAL | {"network": {"name": "vgg-11", "arguments": {"width": 4}}, "arms": ["ticket"]},
    ),
}
CRITERIA = {
    f"criterion-{name}": lenet(pruning__criterion=name, pruning__scope=scope, rewind=rewind)
    for name, scope, rewind in (
        ("initial-magnitude", "layer", 0),
        ("magnitude-increase", "global", 4),
        ("movement", "global", 0),
        ("gradient", "layer", 4),
        ("random", "global", 0),
    )
}
OPTIONS = {
    "criterion-stability": lenet(
        pruning__criterion="stability",
        pruning__scope="global",
        noise="level",
        training={"lr": 0.03, "iterations": 32},
    ),
    "round-skipped": lenet(pruning__criterion="stability", noise="level", pruning__rounds=2),
    "early-bird": lenet(
        arms=["ticket", "early-bird"],
        training={"iterations": 20, "evaluate_every": 2},
        pruning__rounds=2,
        pruning__early_bird={"threshold": 0.02, "window": 2},
        rewind=[0, 4],
    ),
    "back-off": lenet(
        arms=["ticket", "reinit", "random-mask"],
        pruning__rate=0.8,
        pruning__rounds=4,
        pruning__back_off={"margin": 0.05, "factor": 0.4},
        training={"iterations": 20, "evaluate_every": 5},
    ),
    "stop-margin": lenet(pruning__rate=0.8, pruning__rounds=4, pruning__stop_margin=0.1, training={"iterations": 20}),
    "patience": lenet(training={"lr": 0.05, "iterations": 60, "patience": 2}),
    "retraining": lenet(retraining={"iterations": 7, "lr": 5.0e-3}, noise="level", arms=["ticket", "reinit"]),
    "recipe-of-an-arm": lenet(arms=["ticket", {"ticket": {"name": "slow", "training": {"lr": 1.0e-4}}}, "fine-tune"]),
    "schedule-cosine": lenet(
        training=STEPS
        | {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3, "schedule": "cosine", "warmup": 3},
        arms=["ticket", "lr-rewind"],
    ),
    "adam-weight-decay": lenet(training={"weight_decay": 0.01}, network__init="kaiming-normal"),
    "init-glorot-uniform": lenet(network__init="glorot-uniform", pruning__rate=[0.5, 0.3], pruning__rounds=None),
    "init-kaiming-uniform": lenet(
        network__init="kaiming-uniform",
        pruning__rate=None,
        pruning__output_rate=None,
        pruning__densities=[0.5, 0.1],
        pruning__rounds=None,
    ),
    "scope-global-minimum": lenet(
        pruning__scope="global",
        pruning__output_rate=None,
        pruning__exclude=["fc2"],
        pruning__minimum=150,
        pruning__rounds=4,
    ),
    "features": Case("lenet-mnist", "features", LENET | GLOBAL | SOME_ARMS),
    "seed": lenet(seed=7, trials=2),
    "supermask-init": lenet(
        arms=[
            {"edge-popup": {"weights": "init", "per_trial": 2}},
            "edge-popup-trained",
            {"of": "edge-popup-trained", "shuffle": True},
        ],
        pruning__scope="global",
        pruning__output_rate=None,
    ),
    "diverges": lenet(training={"optimizer": "sgd", "lr": 1.0e30}),
    "own-network": Case(
        "demo",
        "color-8",
        {
            "network": {"name": "golden_own:small", "arguments": {"width": 8}, "init": "pytorch"},
            "training": STEPS,
            "pruning": {"criterion": "golden_own:change", "rate": 0.5, "rounds": 2},
            "rewind": 3,
            "arms": [
                "ticket",
                "reinit",
                {"rule": "golden_own:once", "name": "once"},
                {"rule": "golden_own:sensitive", "name": "sensitive"},
            ],
            "trials": 1,
        },
    ),
}


def _with(engine: str, data: str = "gray-8", **fields: Any) -> Case:
    dotted = {name.replace("__", "."): value for name, value in fields.items()}
    few = {"arms": ["ticket", "reinit"], "pruning": {"rate": 0.6, "rounds": 2}, "trials": 2}
    return Case("lenet-mnist", data, LENET | few | dotted, engine)


ENGINES = {
    "engine-dense": _with("dense"),
    "engine-sparse": _with("sparse"),
    "engine-stacked": _with("stacked"),
    "engine-sparse-sgd": _with(
        "sparse", training=STEPS | {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}, trials=1
    ),
    "engine-stacked-sgd": _with(
        "stacked", training=STEPS | {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    ),
    "engine-sparse-batch-norm": _with("sparse", network={"name": "golden_own:norm", "init": "glorot-normal"}, trials=1),
    "engine-stacked-batch-norm": _with("stacked", network={"name": "golden_own:norm", "init": "glorot-normal"}),
    "engine-sparse-convolution": _with(
        "sparse", "color-8", network={"name": "golden_own:small", "init": "glorot-normal"}, trials=1
    ),
    "engine-dense-supermask": _with("dense", arms=["edge-popup", "edge-popup-trained"], trials=1),
    "engine-stacked-augment": _with(
        "stacked",
        "color-8",
        network={"name": "golden_own:small", "init": "glorot-normal"},
        training=STEPS | {"augment": ["flip", "crop"]},
    ),
}

# Rounding grows fast in these (batch norm over few examples, bfloat16): on another machine losses differ by per cents.
SENSITIVE = {*DEEP, "conv-2-bfloat16", "conv-4-stability"}

# The cases of one family are frozen in one file.
FAMILIES: dict[str, dict[str, Case]] = {
    "lenet": LENETS,
    "conv": CONVS,
    "deep": DEEP,
    "options": CRITERIA | OPTIONS,
    "engines": ENGINES,
}
CASES = {name: case for family in FAMILIES.values() for name, case in family.items()}
