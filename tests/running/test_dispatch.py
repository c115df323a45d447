"""Work for workers that do not see the results folder: what is sent, what comes back, and who may write."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tombola
from tombola.errors import StoreError
from tombola.running import courier as couriers
from tombola.running import training
from tombola.running.courier import Courier, leave
from tombola.running.depots import RUNNING, AddressDepot, checkpoint_name
from tombola.running.dispatch import Dispatch, announce
from tombola.running.execute import execute
from tombola.running.options import RunOptions
from tombola.running.parcels import pack
from tombola.running.remote import Remote, Sender, check
from tombola.running.sites import site_for
from tombola.running.store import Store
from tombola.running.worker import Answer, answered
from tombola.studies.plan import Plan, make_plan
from tombola.training.loop import Interrupted
from tombola.work import Item


@pytest.fixture(scope="module")
def plan() -> Plan:
    changes = {
        "trials": 1,
        "arms": ["ticket"],
        "pruning.rounds": 1,
        "training.iterations": 90,
        "training.evaluate_every": 10,
    }
    return make_plan(tombola.Study.load("demo", **changes))


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(_sender: Sender, call: bytes, watch: Callable[[Future[Any]], None] | None = None) -> Answer:
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(answered, call)
            if watch is not None:
                watch(under_way)
            return under_way.result()

    monkeypatch.setattr(couriers, "on_node", here)
    monkeypatch.setattr(couriers, "LOOK", 0.05)


class Scene:
    """A command, its depot, and an engine whose calls `engine` may change."""

    def __init__(self, plan: Plan, folder: Path):
        self.plan, self.store = plan, Store(folder)
        self.store.create()
        self.file = self.store.jobs / ".running.here"
        self.file.touch()
        self.depot = AddressDepot(f"memory://{uuid.uuid4().hex}")
        self.command = uuid.uuid4().hex
        self.courier = Courier(partial(AddressDepot, self.depot.address), self.command)
        self.sender = Sender.of(plan.study, "", 1)
        announce(self.depot, self.file, self.command)

    def dispatch(self, node: Callable[[Sender, bytes], Answer] | None = None) -> Dispatch:
        remote = Remote(Threads(), self.sender, (Killed,), node=node or self.courier)
        return Dispatch(remote, self.depot, self.plan, self.file, self.command, 60.0)

    def done(self, dispatch: Dispatch, item: Item, options: RunOptions | None = None) -> list[str]:
        outcomes: list[str] = dispatch.submit(execute, [item.as_json()], "", options or RunOptions(), {}).result(60)
        return outcomes

    def names(self) -> set[str]:
        return {f"{folder}/{name}" for folder in self.depot.names("") for name in self.depot.names(folder)}


class Threads(ThreadPoolExecutor):
    def __init__(self) -> None:
        super().__init__(2)


class Killed(BrokenExecutor):
    """What an engine says when a worker died."""


@pytest.fixture
def scene(plan: Plan, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(plan, tmp_path / "out")
    yield made
    leave(made.command)


@pytest.fixture(scope="module")
def trained(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("trained") / "out")
    store.create()
    for item in plan.work.values():
        assert execute([item.as_json()], str(store.root), RunOptions()) == ["done"]
    return store


def same(found: Store, expected: Store, item: Item) -> bool:
    both = [store.load(item.id) for store in (found, expected)]
    weights = [each.snapshots["final"] for each in both] if "final" in both[0].snapshots else [{}, {}]
    return both[0].history == both[1].history and all((weights[0][key] == weights[1][key]).all() for key in weights[0])


def test_results_are_those_of_this_machine_and_nothing_is_left(scene: Scene, trained: Store) -> None:
    dispatch = scene.dispatch()
    for item in scene.plan.work.values():
        assert scene.done(dispatch, item) == ["done"]
        assert item.kind != "run" or same(scene.store, trained, item)
    worked_in = Path(couriers._FOLDERS._open[scene.command][0])
    assert {path.name for path in worked_in.iterdir()} == {couriers.ALIVE, "lock"}
    dispatch.shutdown()
    leave(scene.command)
    assert not worked_in.exists()
    assert scene.names() == set()
    hidden = {path.name for path in scene.store.jobs.glob(".*")}
    assert hidden <= {".leases", ".locks", scene.file.name}
    assert not list((scene.store.jobs / ".leases").glob("*/*"))


def test_the_execution_that_answers_counts(scene: Scene, trained: Store) -> None:
    """An engine gave a silent worker's call to another one: the silent one sends its result too."""
    item = next(iter(scene.plan.work.values()))

    def twice(sender: Sender, call: bytes) -> Answer:
        first = scene.courier(sender, call)
        (name,) = (name for name in scene.depot.names(item.id) if name.endswith(".result"))
        scene.depot.put(f"{item.id}/{name}", b"what a broken machine sends")
        assert pickle.loads(first.content)[1] in name
        return scene.courier(sender, call)

    dispatch = scene.dispatch(twice)
    assert scene.done(dispatch, item) == ["done"]
    assert same(scene.store, trained, item)
    assert len(scene.depot.names(item.id)) == 1  # a later run needs it
    dispatch.shutdown()
    assert scene.names() == set()


def test_what_a_worker_sends_after_another_did_its_work_is_not_left(scene: Scene, trained: Store) -> None:
    """A frozen worker wakes up: its item has no children, and its result came from another execution."""
    dispatch = scene.dispatch()
    for item in scene.plan.work.values():
        assert scene.done(dispatch, item) == ["done"]
    (leaf,) = [item for item in scene.plan.work.values() if not dispatch._children[item.id]]
    late = f"{leaf.id}/{uuid.uuid4().hex}.result"
    scene.depot.put(late, pack(scene.store.folder(leaf.id) or Path()))
    scene.depot.put(f"{leaf.id}/{checkpoint_name(4, uuid.uuid4().hex)}", b"late")
    assert late in scene.names()
    dispatch.shutdown()
    assert not {name for name in scene.names() if name.startswith(leaf.id)}
    assert same(scene.store, trained, leaf)


def test_a_result_that_is_not_whole_is_not_stored(scene: Scene) -> None:
    item = next(iter(scene.plan.work.values()))

    def cut(sender: Sender, call: bytes) -> Answer:
        answer = scene.courier(sender, call)
        (name,) = scene.depot.names(item.id)
        scene.depot.put(f"{item.id}/{name}", scene.depot.get(f"{item.id}/{name}")[:-100])
        return answer

    dispatch = scene.dispatch(cut)
    with pytest.raises(StoreError, match="is not what was sent"):
        scene.done(dispatch, item)
    dispatch.shutdown()
    assert not scene.store.has(item)
    assert not scene.store.is_claimed(item.id)


def test_a_result_of_other_work_is_not_stored(scene: Scene, trained: Store) -> None:
    first, other = (item for item in scene.plan.work.values() if item.kind == "run")

    def wrong(sender: Sender, call: bytes) -> Answer:
        answer = scene.courier(sender, call)
        (name,) = scene.depot.names(first.id)
        scene.depot.put(f"{first.id}/{name}", pack(trained.folder(other.id)))
        return answer

    dispatch = scene.dispatch(wrong)
    with pytest.raises(StoreError, match="contains the result of another work item"):
        scene.done(dispatch, first)
    dispatch.shutdown()
    assert scene.store.finished() == set()


def test_work_whose_worker_died_resumes_from_its_checkpoint(
    scene: Scene, trained: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = next(iter(scene.plan.work.values()))
    checkpoint = trained_halfway(scene, item, monkeypatch)
    assert 0 < checkpoint < 90
    dispatch = scene.dispatch()
    assert scene.done(dispatch, item) == ["done"]
    assert same(scene.store, trained, item)
    dispatch.shutdown()
    assert scene.names() == set()
    assert not scene.store.part(item.id).exists()


def trained_halfway(scene: Scene, item: Item, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a worker save a checkpoint in the middle of a run and die; return the checkpoint's iteration."""

    def interrupted(*arguments: Any, **options: Any) -> None:
        def check() -> None:
            if arguments[0].iteration:
                raise Interrupted

        original(*arguments, **{**options, "check": check, "save_every": 0.0})

    original = training.train
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", interrupted)

        def dies(sender: Sender, call: bytes) -> Answer:
            scene.courier(sender, call)
            raise Killed("a worker died")

        dispatch = scene.dispatch(dies)
        with pytest.raises(BrokenProcessPool):
            scene.done(dispatch, item)
    assert scene.store.is_claimed(item.id) is False
    iteration = scene.store.checkpoint_iteration(item.id)
    assert iteration is not None
    return iteration


def test_a_command_takes_over_what_one_that_died_has_left(scene: Scene, trained: Store) -> None:
    first, *others = (item for item in scene.plan.work.values() if item.kind == "run")
    scene.depot.put(f"{first.id}/{uuid.uuid4().hex}.result", pack(trained.folder(first.id)))
    scene.depot.put(f"{others[0].id}/{checkpoint_name(3, 'ab')}", b"half of a check")

    def refuse(sender: Sender, call: bytes) -> Answer:
        raise AssertionError("a worker was asked")

    dispatch = scene.dispatch(refuse)
    assert scene.done(dispatch, first) == ["done"]
    assert same(scene.store, trained, first)
    dispatch.shutdown()
    assert scene.names() == set()


def test_work_that_another_command_has_is_busy(scene: Scene) -> None:
    item = next(iter(scene.plan.work.values()))
    dispatch = scene.dispatch()
    with Store(scene.store.root).claim(item.id) as mine:
        assert mine
        assert scene.done(dispatch, item) == ["busy"]
    assert scene.done(dispatch, item) == ["done"]
    dispatch.shutdown()


def test_workers_stop_when_the_command_wants_no_more(scene: Scene) -> None:
    item = next(iter(scene.plan.work.values()))
    scene.depot.delete(f"{RUNNING}/{scene.command}")

    def slow(sender: Sender, call: bytes) -> Answer:
        return scene.courier(sender, pickle.dumps((until_stopped, *pickle.loads(call)[1:])))

    dispatch = scene.dispatch(slow)
    assert scene.done(dispatch, item) == ["stopped"]
    dispatch.shutdown()


def until_stopped(specs: list[Any], address: str, options: RunOptions) -> list[str]:
    while Path(str(options.stop_file)).exists():
        threading.Event().wait(0.02)
    return ["stopped"] * len(specs)


def test_the_command_says_so_itself(scene: Scene) -> None:
    dispatch = scene.dispatch()
    assert scene.depot.has(f"{RUNNING}/{scene.command}")
    scene.file.unlink()
    dispatch._watcher.join(5)
    assert not scene.depot.has(f"{RUNNING}/{scene.command}")
    dispatch.shutdown()


def test_a_command_ends_those_of_its_folder_that_died(scene: Scene, tmp_path: Path) -> None:
    elsewhere = tmp_path / "other" / "jobs" / ".running.there"
    announce(scene.depot, elsewhere, "of-another-folder")
    dead = scene.file.with_name(".running.dead")
    announce(scene.depot, dead, "dead")
    announce(scene.depot, scene.file, "next")
    assert set(scene.depot.names(RUNNING)) == {"of-another-folder", scene.command, "next"}


def test_a_worker_that_does_not_reach_the_store_says_so(scene: Scene) -> None:
    def asked(courier: Courier) -> str:
        answer = courier.check(scene.sender, check())
        return str(pickle.loads(answer.content)) if answer.traceback else ""

    assert asked(scene.courier) == ""
    assert "sees another store than this command" in asked(Courier(scene.courier.depot, "unknown"))
    assert "does not reach the store" in asked(Courier(unreachable, scene.command))


def unreachable() -> AddressDepot:
    raise OSError("no route to host")


def test_an_executor_has_no_store_of_its_own(scene: Scene) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(tombola.InputError, match="give an address such as s3://"):
        site_for(pool, None, "via-engine").executor(scene.plan, 1, 1, scene.file)
