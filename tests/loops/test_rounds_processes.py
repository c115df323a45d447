"""`tombola.rounds` under DDP: two gloo processes train each run together, and only the first one writes."""

import os
import subprocess
import sys
from pathlib import Path

import own_trainer
import pytest
import torch
from torch import distributed

import tombola
from tombola.pruning import Mask

SMALL = {"rounds": 2, "trials": 1, "arms": ["ticket", "reinit"], "rewind": "step-2", "figures": False, "quiet": True}

needs_gloo = pytest.mark.skipif(
    not distributed.is_available() or not distributed.is_gloo_available(), reason="torch has no gloo here"
)


def train_together(folder, stop_after=None, differ=False):
    """Train all runs in this process, which is one of several; keep what it sees of each."""
    rank = distributed.get_rank()
    inputs, targets = own_trainer.examples()
    options = SMALL | ({"arms": ["ticket"]} if differ and rank else {})
    for number, run in enumerate(tombola.rounds(own_trainer.make, out=folder / f"out-{rank}", **options)):
        if number == stop_after:
            break
        model = torch.nn.parallel.DistributedDataParallel(run.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
        generator = torch.Generator().manual_seed(rank)  # the batches of the processes differ
        for step in range(run.start_step + 1, 6):
            batch = torch.randint(len(inputs), (8,), generator=generator)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimizer.step()
            if f"step-{step}" in run.wanted_snapshots:
                run.snapshot(f"step-{step}")
        run.report(5, accuracy=own_trainer.accuracy(run.model))
        seen = {"mask": dict(run.mask), "held": dict(Mask.held(run.model)), "weights": run.model.state_dict()}
        torch.save(seen | {"place": (run.arm, run.level, run.seed)}, folder / f"{rank}-{run.arm}-{run.level}")


def main(folder, action):
    """Run as one of the processes that `start` starts."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", world_size=2, rank=int(sys.argv[3]))
    if action == "stop":
        train_together(folder, stop_after=2)
    train_together(folder, differ=action == "differ")
    distributed.destroy_process_group()


def start(folder, action):
    """Start two processes and return their exit codes and messages."""
    paths = [str(Path(own_trainer.__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(folder), action]
    ends = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    messages = [each.communicate(timeout=120)[1] for each in ends]
    return [each.returncode for each in ends], messages


@pytest.mark.slow
@needs_gloo
@pytest.mark.parametrize("action", ["whole", "stop"])
def test_two_processes_train_one_run(tmp_path, action):
    codes, messages = start(tmp_path, action)
    assert codes == [0, 0], messages
    results = tombola.Results.open(tmp_path / "out-0")
    frame = results.frame()
    assert len(frame) == 6
    assert not (tmp_path / "out-1").exists()  # the second process has written nothing
    for arm, level in (("dense", 0), ("ticket", 1), ("ticket", 2), ("reinit", 1), ("reinit", 2)):
        one, other = (torch.load(tmp_path / f"{rank}-{arm}-{level}", weights_only=True) for rank in (0, 1))
        assert one["place"] == other["place"]
        for part in ("mask", "held", "weights"):
            assert all(torch.equal(one[part][name], other[part][name]) for name in one[part]), (arm, level, part)
        assert one["mask"].keys() == one["held"].keys()
        ticket = results.ticket(0, level, "ticket" if arm == "dense" else arm)
        for name, keep in ticket.mask.items():
            assert torch.equal(keep, other["held"][name])
            assert not other["weights"][name][~keep].any()
            assert torch.equal(other["weights"][name], ticket.trained[name])


@pytest.mark.slow
@needs_gloo
def test_processes_with_other_arguments_are_refused(tmp_path):
    codes, messages = start(tmp_path, "differ")
    assert all(codes)
    assert all("process 1 planned other runs than process 0" in each for each in messages)
    assert not (tmp_path / "out-0").exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
