"""Work that goes through an executor of a user's own, and what a worker elsewhere must agree with."""

from __future__ import annotations

import os
import pickle
import sys
import time
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_same_outcomes

import tombola
from tombola.errors import ClusterError, InputError
from tombola.running import remote
from tombola.running.executors import opened
from tombola.running.remote import Remote, Sender, check, check_node, on_node
from tombola.running.sites import site_for
from tombola.studies.cluster import ClusterSettings, read_cluster
from tombola.studies.loading import dump_study
from tombola.studies.plan import make_plan

CHANGES = {"trials": 1, "pruning.rounds": 1, "arms": ["ticket"], "training.iterations": 20}


def sender(tmp_path: Path, **changes: Any) -> Sender:
    file = tmp_path / "jobs" / ".running.x"
    file.parent.mkdir(exist_ok=True)
    file.touch()
    return replace(Sender(remote.versions(), (), (), str(file)), **changes)


def test_a_worker_that_agrees_may_work(tmp_path: Path) -> None:
    check_node(sender(tmp_path, modules=("json",)))


@pytest.mark.parametrize("name", ["tombola", "PyTorch"])
def test_another_version_is_named(tmp_path: Path, name: str) -> None:
    other = tuple((each, "9.9" if each == name else version) for each, version in remote.versions())
    with pytest.raises(ClusterError, match=rf"has {name} .*, but this command has {name} 9\.9; install the same"):
        check_node(sender(tmp_path, versions=other))


def test_a_module_that_is_missing_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"can't import your module 'only_at_home'.*all machines share"):
        check_node(sender(tmp_path, modules=("only_at_home",)))


def test_a_folder_of_data_sets_that_is_missing_there_is_named(tmp_path: Path) -> None:
    check_node(sender(tmp_path, data=str(tmp_path)))
    with pytest.raises(ClusterError, match=f"has no folder {tmp_path / 'data'} of data sets; put the data there too"):
        check_node(sender(tmp_path, data=str(tmp_path / "data")))


def test_a_results_folder_that_workers_do_not_see_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=f"does not see the results folder {tmp_path / 'elsewhere'}; give an --out"):
        check_node(sender(tmp_path, file=str(tmp_path / "elsewhere" / "jobs" / ".running.x")))


def test_the_users_modules_are_those_that_the_study_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_nets", sys)
    study = tombola.Study.load("demo", **CHANGES, description="unknown:thing", network="my_nets:make")
    assert Sender.of(study, "file", 1).modules == ("my_nets",)


def until(path: Path, other: Path) -> int:
    """Wait in a worker's process for a file, and say in another that it waits."""
    other.touch()
    while not path.exists():
        time.sleep(0.02)
    return os.getpid()


class Threads(ThreadPoolExecutor):
    """Takes the place of `Workers`, which would import PyTorch in each process."""

    shut = 0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        Threads.shut += 1
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_processes_end_with_their_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "Workers", Threads)
    monkeypatch.setattr(Threads, "shut", 0)
    first, second = (sender(tmp_path, file=str(tmp_path / name)) for name in ("first", "second"))
    for each in (first, second):
        Path(each.file).touch()
    processes = remote._Processes()
    with processes.of(first) as workers, processes.of(second) as others:
        assert workers is not others
        Path(first.file).unlink()
        Path(second.file).unlink()
        processes.release()
        assert workers.submit(int).result() == others.submit(int).result() == 0
        assert not Threads.shut
    assert Threads.shut == 2
    Path(first.file).touch()
    with processes.of(first) as workers:
        pass
    with processes.of(first) as again:
        assert again is workers
    Path(first.file).unlink()
    processes.release()
    assert Threads.shut == 3


@pytest.mark.slow
def test_commands_on_one_worker_do_not_end_each_others_work(tmp_path: Path) -> None:
    first, second = (sender(tmp_path, file=str(tmp_path / name)) for name in ("first", "second"))
    for each in (first, second):
        Path(each.file).touch()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(on_node, first, pickle.dumps((until, (tmp_path / "go", tmp_path / "waits"), {})))
        try:
            while not (tmp_path / "waits").exists():
                assert not waiting.done()
                time.sleep(0.02)
            assert opened(on_node(second, check())) == 0
            for each in (first, second):
                Path(each.file).unlink()
            remote.PROCESSES.release()  # as the second command does at its end
            assert not waiting.done()  # what the first one computes is still saved
        finally:
            (tmp_path / "go").touch()  # else a failure would wait for ever
        process = opened(waiting.result(20))
    assert process != os.getpid()
    assert not Path(f"/proc/{process}").exists()  # its command has ended


def test_a_worker_that_can_start_no_process_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    plan = make_plan(tombola.Study.load("demo", **CHANGES))
    with ThreadPoolExecutor(1) as pool:
        site = site_for(pool, ClusterSettings(workers=1))
        with pytest.raises(ClusterError, match="a worker of your executor can't start a process"):
            site.executor(plan, 1, 1, tmp_path / "out" / "jobs" / ".running.x")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_gives_the_same_results(tmp_path: Path, kind: type[Executor]) -> None:
    study = tombola.Study.load("demo", **CHANGES)
    tombola.run(study, tmp_path / "alone" / "out", workers=0, figures=False, quiet=True)
    with kind(2) as pool:  # type: ignore[call-arg]
        tombola.run(study, tmp_path / "pool" / "out", workers=2, on=pool, figures=False, quiet=True)
        assert pool.submit(int).result() == 0  # it is the user's own, and stays open
    assert_same_outcomes(tmp_path / "pool" / "out", tmp_path / "alone" / "out")


class Failing(Executor):
    """An engine that answers each call with an exception."""

    def __init__(self, error: BaseException):
        self.error = error

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(self.error)
        return future


class Lost(Exception):
    """What some engine raises when a worker died."""


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        (Lost(), BrokenProcessPool, "a worker died"),
        (BrokenProcessPool("gone"), ClusterError, r"the executor is broken \(gone\); make a new one"),
        (ZeroDivisionError("by zero"), ZeroDivisionError, "by zero"),
    ],
)
def test_what_an_engine_says_is_told_apart(
    tmp_path: Path, error: Exception, expected: type[Exception], message: str
) -> None:
    answer = Remote(Failing(error), sender(tmp_path), (Lost,)).submit(int)
    with pytest.raises(expected, match=message):
        answer.result()


def test_an_engine_that_has_ended_is_said(tmp_path: Path) -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(ClusterError, match="the executor takes no more work"):
        Remote(pool, sender(tmp_path)).submit(int)


def test_calls_that_were_dropped_end_the_run_in_a_sentence(tmp_path: Path) -> None:
    class Waiting(Executor):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
            return Future()

    engine = Remote(Waiting(), sender(tmp_path), waits=lambda: True)
    answer = engine.submit(int)
    engine.withdraw()
    with pytest.raises(ClusterError, match="its scheduler has ended; run the same command again"):
        answer.result(1)


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("slrum", "unknown site 'slrum'; did you mean 'slurm'"),
        ("local=x", "write --on local"),
        (3, "give a name such as 'dask'"),
    ],
)
def test_an_unknown_site_is_refused(on: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        site_for(on, None)


def test_an_executor_does_not_say_how_many_calls_it_makes(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(InputError, match="give workers="):
        tombola.run(tombola.Study.load("demo", **CHANGES), tmp_path / "out", on=pool, figures=False, quiet=True)


@pytest.mark.parametrize("name", ["dask", "slurm"])
def test_a_library_that_is_missing_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.extras.installed", lambda module: False)
    with pytest.raises(InputError, match=rf"--on {name} needs distributed.*pip install 'tombola\[cluster\]'"):
        site_for(name, None)


def test_settings_of_a_file_replace_those_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("partition: gpu\nworkers: 4\n")
    found = read_cluster(tmp_path / "mine.yaml", ClusterSettings(workers=2, walltime="2:00:00"))
    assert found == ClusterSettings(workers=4, walltime="2:00:00", partition="gpu")
    wanted = "workers 4, cores 1, memory 4GB, gpus 0, walltime 2:00:00, partition gpu, lease 60"
    assert found.text() == wanted
    assert found.text(without=("memory", "gpus", "walltime", "partition")) == "workers 4, cores 1, lease 60"


PATTERNS = ("partition", "account", "interface", "walltime")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("waltime: 1", "mine.yaml: unknown field 'waltime'; did you mean 'walltime'?"),
        ("workers: 0", "mine.yaml: workers=0: .*greater than or equal to 1; write for example workers: 4"),
        ("partition: 'a; rm'", "mine.yaml: partition='a; rm' has another form; write for example partition: gpu"),
        ('directives: ["--comment=a\\ntouch b"]', r"mine.yaml: directives=.*'--comment=a\\ntouch b' is not one option"),
        ("directives: [x]", "mine.yaml: directives=.*'x' is not one option of sbatch on one line"),
        *((f'{name}: "1\n"', f"mine.yaml: {name}=.* has another form") for name in PATTERNS),
        ('memory: "1GB\n"', "mine.yaml: memory=.* has another form"),
        ("[1]", "mine.yaml has no settings of a cluster"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        read_cluster(tmp_path / "mine.yaml")


def test_where_a_study_is_computed_is_no_part_of_what_it_is() -> None:
    plain = tombola.Study.load("demo", **CHANGES)
    there = tombola.Study.load("demo", **CHANGES, cluster={"partition": "gpu"})
    assert list(make_plan(plain).work) == list(make_plan(there).work)


@pytest.mark.parametrize("field", ["directives", "environment"])
def test_a_study_sets_nothing_that_a_shell_executes(tmp_path: Path, field: str) -> None:
    (tmp_path / "theirs.yaml").write_text(f"extends: demo\ncluster:\n  {field}: [--touch]\n")
    with pytest.raises(InputError, match=rf"theirs.yaml, line 2: cluster: a study can't set {field}.*--cluster FILE"):
        tombola.Study.load(tmp_path / "theirs.yaml")
    (tmp_path / "mine.yaml").write_text(f"{field}: [--touch]\n")
    assert getattr(read_cluster(tmp_path / "mine.yaml", ClusterSettings(workers=2)), field) == ("--touch",)


def test_a_results_folder_keeps_nothing_that_a_shell_executes() -> None:
    study = tombola.Study.load("demo", cluster={"partition": "gpu"})
    forced = study.model_copy(update={"cluster": ClusterSettings(partition="gpu", environment=("touch x",))})
    text = dump_study(forced)
    assert "partition: gpu" in text
    assert "touch" not in text
