"""`tombola.rounds`: gives the runs of a study to a user's own training loop."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python
from rich.console import Console
from torch import nn

from tombola.errors import InputError
from tombola.formatting import counted, first_of
from tombola.networks import initialised
from tombola.running.kept_plan import keep_plan, require_folder_of_loop, what_changed
from tombola.running.leases import LEASE
from tombola.running.loop_run import FollowingRun, LoopRun, Team, require_held
from tombola.running.notes import never_pruned, uncounted
from tombola.running.options import RunOptions
from tombola.running.own_interpolations import Evaluate, interpolate
from tombola.running.own_runs import search_mask, store_run
from tombola.running.progress import Display
from tombola.running.results import Results
from tombola.running.scheduler import PATIENCE
from tombola.running.store import Store
from tombola.running.trackers import Tracking
from tombola.studies.explaining import explain
from tombola.studies.own import Make, OwnProblem, has_one_start, make_own_plan
from tombola.studies.plan import Plan
from tombola.studies.study import Study
from tombola.studies.trainer import LOOP
from tombola.user_code.callables import Reached, reached_by
from tombola.work import Item, OwnMaskSearch, OwnRun

ARMS = ("ticket", "reinit", "random-mask")
ONE_START = (
    "note: make_model builds equal weights from every seed, so the trials differ only by run.seed; if the weights are "
    "not pretrained, remove torch.manual_seed from make_model"
)
Finish = Callable[[Results], object]
Runs = Generator[LoopRun, None, None]


@dataclass(frozen=True)
class Loop:
    """A loop over `tombola.rounds`.

    Args:
        plan: all runs.
        make: builds the model from a seed.
        view: class of the results that a run has.
        evaluate: returns the metrics of a model, for connectivity.
        untracked: what the user's functions use and no fingerprint covers, by name.
    """

    plan: Plan
    make: Make
    view: type[Results] = Results
    evaluate: Evaluate | None = None
    untracked: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        make_model: Callable[..., nn.Module],
        inputs: Any,
        fields: Mapping[str, Any],
        view: type[Results] = Results,
        evaluate: Evaluate | None = None,
    ) -> Loop:
        """Plan a loop.

        Args:
            make_model: returns a new model.
            inputs: as `tombola.rounds` takes them.
            fields: of the study, all but its network.
            view, evaluate: as above.

        Raises:
            InputError: the arguments do not make a valid study.
        """
        _check_processes()
        study = _study(network={"name": _name_of(make_model), "init": "pytorch"}, **fields)
        make = partial(_made, make_model)
        reached = reached_by(make_model, "make_model")
        measured = Reached("") if evaluate is None else reached_by(evaluate, "evaluate")
        problem = OwnProblem(make, inputs, reached.digest, what="make_model", evaluate_code=measured.digest)
        untracked = tuple(dict.fromkeys((*reached.untracked, *measured.untracked)))
        return cls(make_own_plan(study, problem=problem), make, view, evaluate, untracked)

    def runs(self, store: Store, tracker: str | None, console: Console, finish: Finish) -> Iterator[LoopRun]:
        """Return the missing runs, and store each one when the loop asks for the next.

        Args:
            store: where results go; it is created.
            tracker: logs each finished run.
            console: shows the progress.
            finish: called with the results after the last run.
        """
        team = Team()
        team.check(self.plan)
        if not team.leads:
            yield from self._follow(team, store)
            return
        try:
            with closing(self._lead(store, tracker, console, finish)) as runs:
                for run in runs:
                    team.share(run.for_others())
                    run.seed_all()
                    yield run
        except Exception as error:
            team.share(str(error))
            raise
        team.share(None)

    def _follow(self, team: Team, store: Store) -> Iterator[LoopRun]:
        while (turn := team.share(None)) is not None:
            if isinstance(turn, str):
                raise InputError(f"process 0 failed: {turn}")
            run = FollowingRun(turn, self.plan.work[turn.item], store, self.make)
            run.see = lambda: self.view(self.plan, store)
            run.seed_all()
            yield run
            run.close()

    def _lead(
        self, store: Store, tracker: str | None, console: Console, finish: Finish
    ) -> Generator[LoopRun, None, None]:
        plan = self.plan
        require_folder_of_loop(store, plan.study)
        store.create()
        display = Display(plan, store, 1, console, console.quiet, in_script=True)
        display.tracking = Tracking(tracker, plan, store, display.note) if tracker else None
        if changed := what_changed(store, plan):
            display.note(f"note: {changed}")
        if plan.study.trials > 1 and has_one_start(self.make, plan.coverage):
            display.note(ONE_START)
        if self.untracked:
            display.note(_what_is_untracked(self.untracked))
        for note in filter(None, (never_pruned(plan), uncounted(plan))):
            display.note(note)
        keep_plan(store.root, plan)
        display.begin([item for item in plan.work.values() if not store.has(item)])
        display.opening()
        waits = False
        with display:
            while True:
                ready, busy = _ready(plan, store)
                if not ready:
                    break
                given = 0
                for item in ready:
                    with store.claim(item.id, store.leases.expired(item.id)) as mine:
                        if not mine or store.has(item):
                            continue
                        given += 1
                        yield from self._each(item, store, display)
                if given:
                    continue
                silent = [item for item in busy if not store.leases.is_alive(item.id)]
                if busy and not silent:
                    runs = counted(len(busy), "run")
                    display.note(f"note: another process trains {runs}; start this script again later")
                    return
                if silent and not waits:
                    waits = True
                    display.note(_why_it_waits(store, silent))
                time.sleep(PATIENCE)
        finish(self.view(plan, store))

    def _each(self, item: Item, store: Store, display: Display) -> Runs:
        """Do one piece of work; a run is given to the loop's body."""
        options = RunOptions()
        display.started(item)
        if isinstance(item.spec, OwnRun):
            run = LoopRun(item, store, self.make)
            run.see = lambda: self.view(self.plan, store)
            run.beat = lambda: display.tick([item], lambda item: run.progress().get(item.id))
            yield run
            require_held(item, store)
            store_run(run, store, options)
        elif isinstance(item.spec, OwnMaskSearch):
            search_mask(item, store, options, self.make)
        else:
            assert self.evaluate is not None
            interpolate(item, store, options, self.make, self.evaluate)
        if not store.has(item):  # nothing was written of a lost item
            require_held(item, store)
        display.finished(item, store.outcome(item.id))


def _check_processes() -> None:
    """Refuse several processes without a process group.

    Raises:
        InputError: there are some.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) in ("", "1") or Team().several:
        return
    raise InputError(
        f"WORLD_SIZE={processes}: several processes run this script, and each would train every run; start the "
        "script once, or call torch.distributed.init_process_group() (or make the Accelerator) before tombola.rounds"
    )


def pruning_section(rounds: int | None, rate: float, pruning: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the section `pruning` of a loop's study.

    Raises:
        InputError: the number of rounds is given twice.
    """
    section: dict[str, Any] = dict(pruning or {})
    if not section.keys() & {"rate", "target", "densities"}:
        section["rate"] = rate
    if "rounds" not in section and "densities" not in section:
        section["rounds"] = 10 if rounds is None else rounds
    elif rounds is not None:
        raise InputError(f"rounds={rounds} and pruning both set the number of rounds; remove one of them")
    return section


def trainer_section(
    name: str,
    settings: Mapping[str, Any] | None,
    metric: str | Mapping[str, Any],
    evaluate: Evaluate | None = None,
) -> dict[str, Any]:
    """Return the section `trainer` of a loop's study.

    Raises:
        InputError: `evaluate` can't be called.
    """
    if evaluate is not None and not callable(evaluate):
        raise InputError(
            f"evaluate is a {type(evaluate).__name__}; give a function that returns the metrics of a model"
        )
    if not isinstance(metric, str | Mapping):
        raise InputError(f"metric={metric!r}: give a name, such as accuracy, or a dict with the key metric")
    about = {"metric": metric} if isinstance(metric, str) else dict(metric)
    named = None if evaluate is None else LOOP + name
    return {"name": LOOP + name, "arguments": _plain_settings(settings), "evaluate": named, **about}


def _plain_settings(settings: Any) -> dict[str, Any]:
    """Return the settings of a loop, which must be numbers, texts, lists and dicts.

    Raises:
        InputError: they are not.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise InputError(f'settings is a {type(settings).__name__}; give a dict, such as {{"lr": 0.1}}')
    for name, value in (settings or {}).items():
        if any(isinstance(each, set | frozenset) for each in _parts_of(value)):
            raise InputError(f"settings: {name!r} holds a set, which has no order; give a sorted list")
        try:
            to_jsonable_python(value)
        except PydanticSerializationError:
            raise InputError(
                f"settings: {name!r} is a {type(value).__name__}, which can't be stored; give a number, a text, or "
                "lists or dicts of them"
            ) from None
    return dict(settings or {})


def _parts_of(value: Any) -> Iterator[Any]:
    """Yield a value and everything in it, in lists, tuples and dicts."""
    yield value
    if isinstance(value, Mapping | list | tuple):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _parts_of(each)


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
    if not callable(make_model) or isinstance(make_model, nn.Module):  # a module is callable, on a batch
        raise InputError(
            f"make_model is a {type(make_model).__name__}; give a function that returns a new model, such as lambda: "
            "Net()"
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


def _what_is_untracked(names: tuple[str, ...]) -> str:
    untracked = first_of(names, 5)
    return f"note: tombola can't track changes of {untracked}; when they change, give tombola.rounds other settings"


def _why_it_waits(store: Store, silent: list[Item]) -> str:
    notes = [note for item in silent if (note := store.leases.note(item.id)) is not None]
    nodes = ", ".join(sorted({note.node for note in notes})) or "an unknown machine"
    seconds = max((note.lease for note in notes), default=LEASE)
    return (
        f"note: a process on {nodes} took {counted(len(silent), 'run')} and may have ended; tombola waits up to "
        f"{seconds:g} seconds for a sign of life"
    )


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
