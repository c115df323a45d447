"""Callbacks of other libraries' trainers: masks hold, metrics are reported, snapshots are taken."""

import own_trainer
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import tombola
from tombola.errors import InputError

SMALL = {"rounds": 1, "trials": 1, "arms": ["ticket"], "rewind": "step-5", "figures": False, "quiet": True}


def check(out):
    """Require rewound tickets with zeros at pruned places, and the reported metrics."""
    results = tombola.Results.open(out)
    frame = results.frame()
    assert frame.early_stop_iteration.tolist() == [20, 25]  # the ticket starts at step 5
    assert frame.iterations.tolist() == [20, 20]
    assert frame.final_test_accuracy.between(0.4, 1).all()
    ticket, start = results.ticket(0, 1), results.store.load(frame.job[0]).snapshots["step-5"]
    for name, keep in ticket.mask.items():
        assert torch.equal(ticket.weights[name], start[name] * keep)
        assert not ticket.trained[name][~keep].any()
        assert not torch.equal(ticket.trained[name], ticket.weights[name])


@pytest.mark.filterwarnings("ignore")  # Lightning's own, of the versions around it
def test_lightning(tmp_path):
    lightning = pytest.importorskip("lightning.pytorch")
    from tombola.integrations.lightning import TombolaCallback

    inputs, targets = own_trainer.examples()
    train = DataLoader(TensorDataset(inputs[:200], targets[:200]), 20)
    test = DataLoader(TensorDataset(inputs[200:], targets[200:]), 60)

    class Module(lightning.LightningModule):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def training_step(self, batch, number):
            return functional.cross_entropy(self.model(batch[0]), batch[1])

        def validation_step(self, batch, number):
            self.log("acc", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=0.02)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **SMALL):
        callback = TombolaCallback(run, {"acc": "accuracy"})
        trainer = lightning.Trainer(max_epochs=2, callbacks=[callback], enable_model_summary=False, **quiet)
        trainer.fit(Module(run.model), train, test)
    check(tmp_path)


class Classifier(nn.Module):
    """Of the form that transformers' Trainer takes."""

    def __init__(self):
        super().__init__()
        self.net = own_trainer.make()

    def forward(self, inputs, labels=None):
        logits = self.net(inputs)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits} if labels is not None else logits


def test_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from tombola.integrations.transformers import TombolaCallback

    inputs, targets = own_trainer.examples()
    rows = [{"inputs": row, "labels": label} for row, label in zip(inputs, targets, strict=True)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "hf"),
        num_train_epochs=2,
        per_device_train_batch_size=20,
        learning_rate=0.02,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    for run in tombola.rounds(Classifier, out=tmp_path / "out", inputs=(8,), **SMALL):
        trainer = transformers.Trainer(
            run.model,
            arguments,
            train_dataset=rows[:200],
            eval_dataset=rows[200:],
            compute_metrics=lambda found: {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()},
            callbacks=[TombolaCallback(run, {"eval_loss": "val_loss", "eval_accuracy": "accuracy"})],
        )
        trainer.train()
    frame = tombola.Results.open(tmp_path / "out").frame()
    assert frame.final_test_accuracy.between(0.4, 1).all()
    assert frame.early_stop_val_loss.notna().all()
    assert frame.iterations.tolist() == [20, 20]


def test_accelerate(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    from tombola.integrations.accelerate import TombolaTracker

    inputs, targets = own_trainer.examples()
    loader = DataLoader(TensorDataset(inputs[:200], targets[:200]), 20)
    for run in tombola.rounds(own_trainer.make, out=tmp_path, **SMALL):
        tracker = TombolaTracker(run, {"acc": "accuracy"})
        accelerator = accelerate.Accelerator(log_with=tracker, cpu=True)
        accelerator.init_trackers("mine")
        optimizer = torch.optim.AdamW(run.model.parameters(), lr=0.02)
        model, optimizer, batches = accelerator.prepare(run.model, optimizer, loader)
        step = run.start_step
        for _ in range(2):
            for batch, labels in batches:
                optimizer.zero_grad()
                accelerator.backward(functional.cross_entropy(model(batch), labels))
                optimizer.step()
                step += 1
                tracker.stepped(step)
        accelerator.log({"acc": own_trainer.accuracy(run.model)}, step=step)
    check(tmp_path)


def test_a_trainer_that_counts_from_zero_is_counted_from_the_snapshot(tmp_path):
    from tombola.integrations.reporting import Reporting

    for run in tombola.rounds(own_trainer.make, out=tmp_path, **SMALL):
        reporting = Reporting(run, {"acc": "accuracy"})
        own_trainer.train(run.model, run.seed, after=reporting.stepped)
        reporting.logged(20, {"acc": 0.5, "other": 1.0})
    frame = tombola.Results.open(tmp_path).frame()
    assert frame.early_stop_iteration.tolist() == [20, 25]
    assert frame.iterations.tolist() == [20, 20]


def test_a_trainer_of_another_module_is_refused(tmp_path):
    from tombola.integrations.reporting import Reporting

    for run in tombola.rounds(own_trainer.make, out=tmp_path, **SMALL):
        reporting = Reporting(run, {"acc": "accuracy"})
        with pytest.raises(InputError, match=r"lacks '1\.weight' of run\.model"):
            reporting.check_model(own_trainer.make())
        with pytest.raises(InputError, match="must map the trainer's names"):
            Reporting(run, {})
        with pytest.raises(InputError, match="a str is not a run"):
            Reporting("run", {"acc": "accuracy"})
        break


def test_several_processes_without_a_group_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="WORLD_SIZE=2: several processes run this script"):
        tombola.rounds(own_trainer.make, out=tmp_path, **SMALL)
