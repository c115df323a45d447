"""What is known of the study in which a transferred ticket is found, before its work is planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tombola.data import Description, describe, fingerprint
from tombola.networks import Coverage, examined, initialised, network_for
from tombola.pruning import try_criterion
from tombola.pruning.select import plan_counts
from tombola.studies.layer_checks import check_sparse_gradients, frozen_weights
from tombola.studies.recipe_checks import check_recipe
from tombola.studies.study import Study
from tombola.studies.task_checks import check_outputs
from tombola.studies.trial import Codes, Trial, epoch_length
from tombola.work import Item


@dataclass(frozen=True)
class Source:
    """A source's study, checked.

    Args:
        study: in which the ticket is found.
        rates, codes, data, coverage, remaining: as in `Trial`.
        budget: iterations of its shortest run.
        frozen: names of the weights that are not trained.
    """

    study: Study
    rates: tuple[dict[str, float], ...]
    codes: Codes
    data: Description
    coverage: Coverage
    remaining: Sequence[int]
    budget: int
    frozen: frozenset[str]

    def trial(
        self, number: int, items: dict[str, Item], rewind: int, starts: tuple[int, ...], target: Coverage
    ) -> Trial:
        """Return a trial, which plans its work into `items`.

        Args:
            number: of the trial.
            items: all work of the plan.
            rewind: the iteration that kept weights go back to.
            starts: all such iterations of the plan.
            target: coverage of the study's own network, beside which costs are counted.
        """
        return Trial(
            self.study,
            number,
            self.rates,
            self.codes,
            items,
            self.data,
            self.coverage,
            self.remaining,
            rewind,
            starts,
            role="source: ",
            size=self.coverage.multiply_adds / target.multiply_adds if target.multiply_adds else 1.0,
        )


def source_of(study: Study, root: Path | None) -> Source:
    """Return what is known of a source.

    Args:
        study: the source's.
        root: folder of data sets.

    Raises:
        InputError: its network, data, task or recipe does not exist or does not fit.
    """
    data, task = describe(study.data, root), study.task.make()
    task.check_data(data, study.data.source)
    build = network_for(study.network, data, task)
    coverage = examined(build, data, study.network)
    module = initialised(build, "pytorch", 0)
    check_sparse_gradients(module, f"network {study.network.name!r}")
    check_outputs(task, module, data, study.data.source)
    untrained = partial(initialised, build, study.network.init, 0)
    budgets = []
    for recipe in (study.training, study.recipe(1)):
        budgets.append(recipe.budget(epoch_length(study, data, recipe)))
        check_recipe(recipe, budgets[-1], untrained, data, task, study.data)
    rates = study.pruning.resolve(coverage)
    remaining = plan_counts(coverage.sizes(), rates, study.pruning.scope, study.pruning.minimum)
    criterion, shapes = study.pruning.criterion, coverage.shapes()
    try_criterion(criterion, shapes, untrained, data, task, pruned=list(rates[0]) if rates else None)
    codes = Codes(study.network.fingerprint(untrained()), fingerprint(study.data, root), study.task.code())
    return Source(study, rates, codes, data, coverage, tuple(remaining), min(budgets), frozen_weights(module))
