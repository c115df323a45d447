"""Loops of a script or notebook, whose functions other processes can't import: reading needs none of them."""

import own_trainer
import pytest
from click.testing import CliRunner

import tombola
from tombola.cli import cli
from tombola.errors import InputError


def make():
    return own_trainer.make()


make.__module__ = "__main__"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop")
    for run in tombola.rounds(make, out=out, rounds=1, trials=1, figures=False, quiet=True):
        own_trainer.train(run.model, run.seed)
        run.report(20, accuracy=0.5)
    return out


@pytest.mark.parametrize("command", ["report", "figures", "claims", "results", "status"])
def test_each_reading_command_works(done, command):
    found = CliRunner().invoke(cli, [command, str(done)])
    assert found.exit_code == 0, found.output


def test_a_ticket_is_built_by_the_function_that_is_passed(done):
    ticket = tombola.Results.open(done).ticket(0, 1)
    for trust in (False, True):
        with pytest.raises(InputError, match=r"'__main__:make', a function of a script or notebook.*pass `factory`"):
            ticket.build(trust=trust)
    weights = dict(ticket.build(trained=True, factory=make).named_parameters())
    assert all(not weights[name][~keep].any() for name, keep in ticket.mask.items())


def test_measuring_needs_no_data_of_the_trainer(done):
    from tombola.export.source import examples_of, splits_of

    results = tombola.Results.open(done)
    assert examples_of(results, 0) is None
    with pytest.raises(InputError, match="study 'loop' has its own trainer"):
        splits_of(results, 0)


def test_damaged_notes_of_an_interrupted_run_repeat_it(tmp_path):
    options = {"rounds": 1, "trials": 1, "arms": ["ticket"], "figures": False, "quiet": True}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **options):
        (run.checkpoint_dir / "last.pt").write_bytes(b"state")
        for path in run.checkpoint_dir.parent.iterdir():
            if path.is_file():
                path.write_bytes(b"\xff\x00{")
        break
    found = []
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **options):
        found.append(list(run.checkpoint_dir.iterdir()))
        own_trainer.train(run.model, run.seed)
        run.report(20, accuracy=0.5)
    assert found == [[], []]
