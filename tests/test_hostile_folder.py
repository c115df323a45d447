"""Standing in a stranger's folder, and reading a stranger's results, runs nothing of theirs."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tombola
from tombola.errors import InputError

# Everything that a command might import, under the name under which a stranger may lay a file into the folder.
LIBRARIES = {
    "PIL",
    "click",
    "cloudpickle",
    "codecarbon",
    "filelock",
    "jinja2",
    "loky",
    "matplotlib",
    "networkx",
    "numba",
}
LIBRARIES |= {"numpy", "pandas", "platformdirs", "pooch", "psutil", "pyarrow", "pydantic", "requests", "rich", "ruamel"}
LIBRARIES |= {
    "click",
    "safetensors",
    "scipy",
    "sitecustomize",
    "sklearn",
    "sympy",
    "torch",
    "typing_extensions",
    "yaml",
}
SMALL = ("trials=1", "training.iterations=20", "training.evaluate_every=10", "pruning.rounds=1", "arms=[ticket]")
COMMANDS = {
    "status": ["status", "nothing-here"],
    "report": ["report", "results/demo"],
    "run": ["run", "demo", *SMALL, "--workers", "1", "--out", "here"],
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results, and a file for each library and each module of Python that says that it was run."""
    folder = tmp_path_factory.mktemp("hostile")
    study = tombola.Study.load("demo", trials=1, **{"pruning.rounds": 1, "training.iterations": 20})
    tombola.run(study, folder / "results/demo", workers=0, figures=False, quiet=True)
    lay(folder, LIBRARIES | set(sys.stdlib_module_names))
    return folder


def lay(folder: Path, names: set[str]) -> None:
    """Write a module of each of these names that says that it was run."""
    for name in names:
        ran = f"open({str(folder / 'RAN')!r}, 'a').write(__name__ + ' ')"
        (folder / f"{name}.py").write_text(f"{ran}\nraise ImportError\n")


def check(command: list[str], hostile: Path) -> None:
    done = subprocess.run(command, cwd=hostile, capture_output=True, text=True)
    ran = hostile / "RAN"
    assert not ran.exists(), ran.read_text()
    assert done.returncode == (2 if "nothing-here" in command else 0), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [pytest.param(COMMANDS[name], id=name, marks=[pytest.mark.slow] * (name == "report")) for name in COMMANDS],
)
def test_a_file_named_like_a_library_is_not_run(hostile: Path, tmp_path: Path, command: list[str]) -> None:
    """`tombola` is a script in the environment's folder, which Python puts on the search path instead."""
    script = tmp_path / "start.py"
    script.write_text("import sys\nfrom tombola.cli import main\nsys.exit(main())\n")
    check([sys.executable, str(script), *command], hostile)


def test_nor_is_it_by_python_m(tmp_path: Path) -> None:
    """But for what Python itself imports before tombola can do anything about it."""
    listing = subprocess.run(
        [sys.executable, "-c", "import runpy, sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    lay(tmp_path, (LIBRARIES | set(sys.stdlib_module_names)) - set(listing.stdout.split()))
    assert (tmp_path / "random.py").exists()
    assert (tmp_path / "typing.py").exists()
    check([sys.executable, "-m", "tombola", "status", "nothing-here"], tmp_path)


# A results folder that names what is not tombola's


NAMES = ["subprocess:getoutput", "os:system", "own_evil:make", "numpy:zeros", "builtins:exec"]
FIELDS = {
    "network": "network: {{name: '{}', arguments: {{cmd: 'touch RAN'}}}}",
    "criterion": "pruning: {{criterion: '{}'}}",
    "arm": "arms: [ticket, '{}']",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("command", ["status", "results", "figures", "report", "claims", "open"])
def test_reading_results_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    field: str,
    name: str,
) -> None:
    from tombola import cli

    folder = tmp_path / "theirs"
    (folder / "jobs").mkdir(parents=True)
    (tmp_path / "own_evil.py").write_text("open('RAN', 'w').close()\ndef make(**options): ...\n")
    (folder / "study.yaml").write_text(f"extends: demo\n{field.format(name)}\n")
    monkeypatch.chdir(tmp_path)
    if command == "open":
        with pytest.raises(InputError, match="runs no code"):
            tombola.Results.open(folder)
    else:
        monkeypatch.setattr(sys, "argv", ["tombola", command, str(folder)])
        with contextlib.suppress(SystemExit):
            cli.main()
        said = " ".join("".join(capsys.readouterr()).split())
        assert "runs no code" in said or "can't be read" in said
    assert not (tmp_path / "RAN").exists()
    assert "own_evil" not in sys.modules


# A ticket that names what is not tombola's


@pytest.fixture
def ticket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tombola.Ticket:
    """A ticket of a user's own network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_ticket_net.py").write_text(
        "from torch import nn\nopen('RAN', 'w').close()\n"
        "def make(input_shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
    )
    mask = tombola.Mask({"1.weight": torch.tensor([[1, 0, 1, 1], [0, 1, 1, 0]]).bool()})
    weights, trained = ({"1.weight": torch.ones(2, 4), "1.bias": torch.zeros(2)} for _ in range(2))
    origin = {"network": {"name": "own_ticket_net:make"}, "input_shape": [1, 2, 2], "classes": 2}
    return tombola.Ticket(mask, weights, trained, {"mean": [0.0], "std": [1.0]}, origin)


def test_a_ticket_runs_nothing_unless_it_is_trusted(ticket: tombola.Ticket, tmp_path: Path) -> None:
    ticket.save("ticket.safetensors")
    loaded = tombola.Ticket.load("ticket.safetensors")
    assert loaded == ticket
    with pytest.raises(InputError, match=r"'own_ticket_net:make', a user's function: .* --trust .*`trust=True`"):
        loaded.build()
    assert "own_ticket_net" not in sys.modules
    built = loaded.build(factory=lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    assert bool((built[1].weight == 1).all())
    assert not (tmp_path / "RAN").exists()
    assert bool((loaded.build(trust=True)[1].weight == 1).all())
    assert (tmp_path / "RAN").exists()
    del sys.modules["own_ticket_net"]


def test_a_factory_that_does_not_fit_is_said(ticket: tombola.Ticket) -> None:
    with pytest.raises(InputError, match="has changed since the ticket's run"):
        ticket.build(factory=lambda: nn.Linear(4, 2))


def test_a_ticket_of_a_trusted_name_still_may_not_name_python_itself(ticket: tombola.Ticket) -> None:
    ticket.origin["network"] = {"name": "subprocess:getoutput", "arguments": {"cmd": "touch RAN"}}
    with pytest.raises(InputError, match="is part of Python itself"):
        ticket.build(trust=True)
    assert not Path("RAN").exists()
