"""Tickets in the Hub's layout: written, read back, uploaded and downloaded; and what a stranger may have put there."""

import json

import own_trainer
import pytest
import torch
from safetensors.torch import load_file
from small_hub import small_hub
from small_tickets import random_ticket

import tombola
from tombola.analysis import verdicts
from tombola.errors import InputError
from tombola.export.hub import TENSORS


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A loop of two trials and one round."""
    out = tmp_path_factory.mktemp("loop")
    for run in tombola.rounds(
        own_trainer.make, out=out, rounds=1, trials=2, arms=["ticket"], figures=False, quiet=True, name="mine"
    ):
        own_trainer.fit(run)
    return tombola.Results.open(out)


def test_a_folder_and_back(tmp_path):
    ticket = random_ticket()
    assert ticket.save_pretrained(tmp_path / "new") == tmp_path / "new"
    again = tombola.Ticket.from_pretrained(tmp_path / "new")
    assert again == ticket
    assert (again.origin, again.normalisation) == (ticket.origin, ticket.normalisation)
    assert torch.equal(again.build(trained=True).state_dict()["output.weight"], ticket.trained["output.weight"])
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"README.md", "config.json", *TENSORS}
    plain = load_file(tmp_path / "new" / "model.safetensors")  # as any other program reads it
    assert all(torch.equal(plain[name], ticket.trained[name]) for name in plain)


def test_the_card_has_verdict_interval_and_command(tmp_path, results):
    results.ticket(1, 1).save_pretrained(tmp_path, results)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: tombola\n")
    frame = results.frame()
    mine = frame[(frame.trial == 1) & (frame.level == 1)].early_stop_test_accuracy.item()
    assert f"at early stop: {mine:.2%}".replace("%", " %") in text
    row = verdicts(frame).iloc[0]
    assert f"over 2 trials: **{row.verdict}**" in text
    assert f"{row.accuracy_difference_low:+.2f} to {row.accuracy_difference_high:+.2f} points" in text
    assert "loop over tombola.rounds has name='mine'" in text
    results.ticket(0, 0).save_pretrained(tmp_path, results)
    assert "It is the dense network" in (tmp_path / "README.md").read_text()


def test_the_card_of_a_preset_has_its_command(tmp_path):
    changes = {"training.iterations": 20, "pruning.rounds": 1}
    study = tombola.Study.load("demo", trials=1, arms=["ticket"], **changes)
    found = tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    found.ticket(0, 1).save_pretrained(tmp_path / "hub", found)
    text = (tmp_path / "hub" / "README.md").read_text()
    (command,) = (line for line in text.splitlines() if line.startswith("    tombola run demo "))
    assert {"trials=1", "training.iterations=20", "pruning.rounds=1"} <= set(command.split())
    assert "none: fewer than two trials can be compared" in text


def test_results_of_another_study_are_refused(tmp_path, results):
    with pytest.raises(InputError, match=r"this ticket \(made-up, ticket, trial 0, level 3\) is not of the results in"):
        random_ticket().save_pretrained(tmp_path / "new", results)
    assert not (tmp_path / "new").exists()
    random_ticket().save_pretrained(tmp_path)
    assert "Unknown: the ticket was written without the results" in (tmp_path / "README.md").read_text()


def test_names_of_a_stranger_stay_text_in_the_card(tmp_path):
    ticket = random_ticket()
    ticket.origin["study"] = "a`b\n---\nlicense: mit\n# [x](javascript:1)"
    ticket.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert "\nlicense" not in text
    assert "`ab --- license: mit # [x](javascript:1)`" in text


def edited(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


DAMAGES = [
    (lambda folder: (folder / "config.json").unlink(), r"it has no config\.json; give what"),
    (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not JSON"),
    (lambda folder: (folder / "config.json").write_text("[" * 100_000), r"config\.json is not JSON"),
    (lambda folder: (folder / "config.json").write_text("[]"), "is of another library"),
    (lambda folder: edited(folder, lambda config: config.update(format=2)), "format is 2, but this version reads"),
    (lambda folder: edited(folder, lambda config: config.update(files=[])), "reads format 1"),
    (lambda folder: edited(folder, lambda config: config.pop("origin")), "contains no ticket: .*origin"),
    (lambda folder: edited(folder, lambda config: config["mask"].update(more=[2])), "differ in the shapes of layers"),
    (lambda folder: (folder / "start.safetensors").unlink(), r"start\.safetensors is missing; download"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 99), r"another checksum of model\.safet"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_folders_are_refused(tmp_path, damage, message):
    random_ticket().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        tombola.Ticket.from_pretrained(tmp_path)


def test_loading_runs_no_code(tmp_path):
    """A ticket may name any function; it is imported only where the caller trusts it."""
    ticket = random_ticket()
    ticket.origin["network"] = {"name": "antigravity:fly", "arguments": {}}
    ticket.save_pretrained(tmp_path)
    (tmp_path / "config.py").write_text("raise SystemExit")
    again = tombola.Ticket.from_pretrained(tmp_path)
    assert again.mask == ticket.mask
    with pytest.raises(InputError, match=r"a user's function: to run it, add --trust"):
        again.build()


def test_upload_and_download(tmp_path, monkeypatch, results):
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    files = {}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with small_hub(files) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        ticket = results.ticket(0, 1)
        assert ticket.push_to_hub("me/ticket", results, token="hf_none") == f"{address}/me/ticket"
        assert {path for _, path in files} == {"README.md", "config.json", *TENSORS}
        assert b"Verdict on its level" in files["me/ticket", "README.md"]
        assert tombola.Ticket.from_pretrained("me/ticket") == ticket
        with pytest.raises(InputError, match=r"'me/other' can't be read from http://127.*; check the name"):
            tombola.Ticket.from_pretrained("me/other")
        with pytest.raises(InputError, match="check the name"):
            tombola.Ticket.from_pretrained("no/such/form")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("tombola.extras.installed", lambda module: False)
    with pytest.raises(InputError, match=r"\(not a local folder\) needs huggingface_hub.*pip install 'tombola\[hub\]'"):
        tombola.Ticket.from_pretrained("me/ticket")
    with pytest.raises(InputError, match=r"push_to_hub needs huggingface_hub"):
        random_ticket().push_to_hub("me/ticket")
