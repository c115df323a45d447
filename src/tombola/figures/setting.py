"""What figures of several studies have to know of each, beside its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from tombola.analysis.layers import layer_densities
from tombola.analysis.overlap import mask_overlap
from tombola.analysis.pixels import live_pixels
from tombola.analysis.signs import sign_flips
from tombola.errors import InputError
from tombola.studies.transfer import source_study
from tombola.tasks.metric import MARGIN
from tombola.training.tracking import EarlyBird

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from tombola.running.results import Results
    from tombola.studies.study import Study


@dataclass(frozen=True)
class Setting:
    """The settings by which the paper's figures set studies beside one another.

    Args:
        dropout: the network's argument of that name, from 0 to 1.
        learning_rate: the peak, and the warmup where there is one: "0.03, warmup 20,000".
        criterion: that weights are pruned by.
        settling: `Results.settling()`, where it is known.
        settles_below: the mask distance at or below which a mask may settle.
        stable_below: the highest error barrier that is called stable, as a fraction.
        target: data and optimiser of the study: "mnist, adam".
        sources: transferred arm -> data and optimiser of where its ticket was found, and what was taken.
        margin: the accepted loss of verdicts, as a fraction.
        reads: functions that read masks or weights, which takes time, where these are known: "flips" returns
            `tombola.analysis.sign_flips` of the study, "layers" `layer_densities`, "overlap" `mask_overlap`, and
            "pixels" `live_pixels`.
    """

    dropout: float = 0.0
    learning_rate: str = ""
    criterion: str = "magnitude"
    settling: pd.DataFrame | None = field(default=None, compare=False, repr=False)
    settles_below: float = EarlyBird().threshold
    stable_below: float = 0.02
    target: str = ""
    sources: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    margin: float = MARGIN
    reads: Mapping[str, Callable[[], pd.DataFrame]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, study: Study) -> Setting:
        """Return the settings of a study."""
        dropout = study.network.arguments.get("dropout", 0.0)
        training = study.training
        warmup = f", warmup {training.warmup:,}" if training.warmup else ""
        return cls(
            # A user's own network may mean anything by it.
            dropout=float(dropout) if isinstance(dropout, int | float) else 0.0,
            learning_rate="" if study.trainer else f"{training.lr:g}{warmup}",
            criterion=study.pruning.criterion.rpartition(":")[2],
            settles_below=(study.pruning.early_bird or EarlyBird()).threshold,
            stable_below=study.connectivity.threshold if study.connectivity else cls.stable_below,
            target=_problem(study),
            margin=study.margin,
            sources={
                arm.label: (_problem(source_study(study, arm.transfer)), arm.transfer.take)
                for arm in study.arms
                if arm.transfer and not arm.is_control
            },
        )

    @classmethod
    def of_results(cls, results: Results) -> Setting:
        """Return the settings of a study, the masks that its dense runs tracked, and ways to its masks and weights."""
        tables = {"flips": sign_flips, "layers": layer_densities, "overlap": mask_overlap}
        reads = {name: partial(table, results) for name, table in tables.items()}
        if any(row.arm == "ticket" for row in results.plan.rows):
            reads["pixels"] = partial(live_pixels, results)
        return replace(cls.of(results.study), settling=results.settling(), reads=reads)


def _problem(study: Study) -> str:
    """Return what tells sources and targets of tickets apart."""
    return "" if study.trainer else f"{study.data.source}, {study.training.optimizer}"


def gather_interpolations(all_results: Sequence[Results], settings: Mapping[str, Setting]) -> pd.DataFrame:
    """Return the points of all interpolations of several results as one table; `settings` come from `gather`."""
    import pandas as pd

    tables = [results.connectivity().assign(study=name) for results, name in zip(all_results, settings, strict=True)]
    return pd.concat([table for table in tables if not table.empty] or tables[:1], ignore_index=True)


def gather(all_results: Sequence[Results]) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Setting]]:
    """Return the levels and curves of several results folders as one table each, and the settings of each study.

    Studies of one name are told apart by their folders: "lenet-mnist (quick)".
    """
    import pandas as pd

    names = [results.study.name for results in all_results]
    tables: tuple[list[pd.DataFrame], list[pd.DataFrame]] = ([], [])
    settings: dict[str, Setting] = {}
    for results in all_results:
        name = results.study.name
        if names.count(name) > 1:
            folder = results.store.root.absolute()
            short = f"{name} ({folder.name})"
            name = f"{name} ({folder})" if short in settings else short
        for found, table in zip(tables, (results.frame(), results.curves()), strict=True):
            found.append(table.assign(study=name))
        settings[name] = Setting.of_results(results)
    # An empty table's columns have no types; pandas would warn that they decide those of the others.
    levels, curves = (pd.concat([t for t in some if not t.empty] or some[:1], ignore_index=True) for some in tables)
    return levels, curves, settings


def gather_tables(files: Sequence[Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the levels and curves of CSV files as one table each; docs/results.md has their columns.

    Raises:
        InputError: a file can't be read, or two hold a study of one name.
    """
    import pandas as pd

    from tombola.analysis.reading import read_curves, read_table

    levels = [read_table(file) for file in files]
    names = [name for table in levels for name in table["study"].unique()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two tables hold a study {twice[0]!r}; give each a name of its own in the column study")
    curves = [read_curves(file, table) for file, table in zip(files, levels, strict=True)]
    known = [table for table in curves if not table.empty] or curves[:1]
    return pd.concat(levels, ignore_index=True), pd.concat(known, ignore_index=True)
