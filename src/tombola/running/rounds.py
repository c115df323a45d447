"""`tombola.rounds`: a user's own training loop, called once for each run of a study."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from torch import nn

from tombola import terminal
from tombola.errors import InputError
from tombola.networks import initialised
from tombola.registry import resolve
from tombola.running.kept_plan import keep_plan, what_changed
from tombola.running.options import RunOptions
from tombola.running.own_runs import search_mask, store_run
from tombola.running.progress import remarks_of, result_of
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.running.trackers import TRACKERS, Tracking
from tombola.running.user_run import UserRun
from tombola.studies.explaining import explain
from tombola.studies.own import OwnProblem, make_own_plan
from tombola.studies.plan import Plan
from tombola.studies.study import Study
from tombola.studies.trainer import LOOP
from tombola.user_code.callables import fingerprint_of
from tombola.work import Item, OwnRun

ARMS = ("ticket", "reinit", "random-mask")


class LoopRun(UserRun):
    """The run of a loop over `rounds`, which also knows the results so far."""

    _plan: Plan

    @property
    def results(self) -> Results:
        """The results of all runs that have ended."""
        return Results(self._plan, self._store)


def rounds(
    make_model: Callable[..., nn.Module],
    *,
    out: str | Path,
    rounds: int | None = None,
    rate: float = 0.2,
    arms: Sequence[str | Mapping[str, Any]] = ARMS,
    trials: int = 3,
    name: str = "loop",
    settings: Mapping[str, Any] | None = None,
    metric: str | Mapping[str, Any] = "accuracy",
    inputs: Any = None,
    rewind: int | str | Sequence[int | str] = 0,
    pruning: Mapping[str, Any] | None = None,
    noise: str = "trial",
    seed: int = 0,
    tracker: str | None = None,
    quiet: bool = False,
    finish: Callable[[Results], object] = Results.save,
) -> Iterator[LoopRun]:
    """Return the runs of iterative pruning, one after the other, for any training loop.

    >>> for run in tombola.rounds(make_model, out="results/mine"):          # doctest: +SKIP
    ...     fit(run.model)
    ...     run.report(accuracy=evaluate(run.model))

    The dense run of a trial comes first, then the levels of each arm. A run is stored when the body of the loop ends
    normally. After `break`, an error or a kill, the same loop continues at the run it was in. Tables and figures are
    written after the last run; `tombola.Results.open(out)` reads what is done at any time.

    Before each run the global generators of torch, numpy and random are seeded, equally for all arms and levels of a
    trial.

    Args:
        make_model: returns a fresh model. It takes a `seed`, or draws from torch's global generator.
        out: the results folder.
        rounds: number of pruning rounds; 10 unless `pruning` says how many.
        rate: share of the remaining weights that a round removes; the output layer's is half of it.
        arms: as in a study file.
        trials: independent repetitions.
        name: of the loop. Tombola does not see what the body does: give another name, or other settings, once it
            trains differently, and all runs are trained again.
        settings: of the training, such as {"lr": 0.1, "epochs": 10}. Part of each run's identity; nothing else.
        metric: the one that decides, or {"metric": name, "better": "lower", "unit": "kW"}.
        inputs: a batch, or the shape of one example, for a model from which tombola can't tell.
        rewind: the snapshot that kept weights go back to, such as "step-500"; 0 is the initialisation.
        pruning: further fields of the section `pruning` of a study file, such as {"scope": "global"}.
        noise: "trial", or "level": each level has a `seed` of its own.
        seed: all randomness follows from it and the trial's number.
        tracker: logs each finished run: "tensorboard", "mlflow", "wandb", or `package.module:function`.
        quiet: write nothing but what goes wrong.
        finish: called with the results after the last run; `tombola.rounds` saves tables and draws figures.

    Raises:
        InputError: something can't be as it is asked for. Nothing has been written then.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) not in ("", "1"):
        raise InputError(
            f"WORLD_SIZE={processes}: tombola.rounds runs in one process, and several would wait for each other; start "
            "the script once, and let its body start the processes"
        )
    section: dict[str, Any] = dict(pruning or {})
    if not section.keys() & {"rate", "target", "densities"}:
        section["rate"] = rate
    if "rounds" not in section and "densities" not in section:
        section["rounds"] = 10 if rounds is None else rounds
    elif rounds is not None:
        raise InputError(f"rounds={rounds} and pruning both say how many rounds there are; leave one of them out")
    about = {"metric": metric} if isinstance(metric, str) else dict(metric)
    study = _study(
        name=name,
        seed=seed,
        network={"name": _name_of(make_model), "init": "pytorch"},
        trainer={"name": LOOP + name, "arguments": dict(settings or {}), **about},
        pruning=section,
        noise=noise,
        rewind=list(rewind) if isinstance(rewind, list | tuple) else rewind,
        arms=list(arms) if not isinstance(arms, str) else [arms],
        trials=trials,
    )
    make = partial(_made, make_model)
    problem = OwnProblem(make, inputs, fingerprint_of(make_model), what="make_model")
    plan = make_own_plan(study, problem=problem)
    if tracker is not None:
        resolve(tracker, TRACKERS, "tracker")
    return _run(plan, Store(out), problem, finish, tracker, terminal.console(stderr=True, quiet=quiet))


def _study(**fields: Any) -> Study:
    try:
        return Study.model_validate(fields)
    except ValidationError as error:
        raise InputError(explain(error, Study, lambda place: "tombola.rounds")) from None


def _name_of(make_model: Any) -> str:
    """Return `module:name`, by which a study file could name the function.

    Raises:
        InputError: it can't be called.
    """
    if not callable(make_model):
        raise InputError(
            f"make_model is a {type(make_model).__name__}; give a function that returns a fresh model, such as "
            "lambda: Net()"
        )
    inner = make_model.func if isinstance(make_model, partial) else make_model
    name = getattr(inner, "__qualname__", type(inner).__name__).rpartition(".")[2].strip("<>")
    return f"{getattr(inner, '__module__', None) or '__main__'}:{name}"


def _made(make_model: Callable[..., Any], seed: int) -> nn.Module:
    """Return a module from a seed; the global generator is seeded with it around the call, and put back after."""

    def build() -> nn.Module:
        try:
            module = make_model(seed=seed) if _takes_seed(make_model) else make_model()
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"make_model failed: {type(error).__name__}: {error}") from error
        if not isinstance(module, nn.Module):
            raise InputError(f"make_model gave a {type(module).__name__}, not a torch.nn.Module")
        return module

    return initialised(build, "pytorch", seed)


def _takes_seed(make_model: Callable[..., Any]) -> bool:
    try:
        return "seed" in inspect.signature(make_model).parameters
    except (TypeError, ValueError):
        return False  # compiled: it tells nothing of its parameters


def _run(
    plan: Plan,
    store: Store,
    problem: OwnProblem,
    finish: Callable[[Results], object],
    tracker: str | None,
    console: Console,
) -> Iterator[LoopRun]:
    def note(text: str) -> None:
        console.print(f"note: {terminal.markup(text)}", highlight=False, soft_wrap=True)

    store.create()
    tracking = Tracking(tracker, plan, store, note) if tracker else None
    if changed := what_changed(store, plan):
        note(changed)
    keep_plan(store.root, plan)
    options = RunOptions()
    while True:
        ready, busy = _ready(plan, store)
        if not ready:
            break
        given = 0
        for item in ready:
            with store.claim(item.id) as mine:
                if not mine or store.has(item):
                    continue
                given += 1
                if not isinstance(item.spec, OwnRun):
                    search_mask(item, store, options, problem.make)
                    continue
                run = LoopRun(item, store, problem.make)
                run._plan = plan
                run.seed_all()
                yield run
                store_run(run, store, options)
                if tracking is not None:
                    tracking.finished(item)
                _tell(plan, store, item, console)
        if not given:  # another process trains all that could start
            note(f"another process trains {len(busy)} runs; run this again later")
            return
    finish(Results(plan, store))


def _ready(plan: Plan, store: Store) -> tuple[list[Item], list[Item]]:
    """Return the items that can start, in the plan's order; and of those the ones that another process holds."""
    lost: set[str] = set()
    ready: list[Item] = []
    undone: set[str] = set()
    for item in plan.work.values():
        if lost & set(item.needs):
            lost.add(item.id)
        elif store.has(item):
            if store.outcome(item.id) == "diverged":
                lost.add(item.id)
        else:
            undone.add(item.id)
            if not undone & set(item.needs):
                ready.append(item)
    return ready, [item for item in ready if store.is_claimed(item.id)]


def _tell(plan: Plan, store: Store, item: Item, console: Console) -> None:
    facts = store.facts(item.id)
    for word, text in remarks_of(facts):
        console.print(
            f"{word:<8} {terminal.markup(item.label)}: {terminal.markup(text)}", highlight=False, soft_wrap=True
        )
    done = sum(store.has(each) for each in plan.work.values())
    found = result_of(facts, plan.measures.primary) if facts["diverged_at"] is None else ""
    line = f"done     {item.label}{found}  {facts['seconds']:.1f} s  {done}/{len(plan.work)} done"
    console.print(terminal.markup(line), highlight=False, soft_wrap=True)
