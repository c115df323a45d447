"""Results must not depend on whether the kernels were compiled by this process, another one, or long ago."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from numba import njit

from tombola.running.options import RunOptions
from tombola.running.problem import engine_facts
from tombola.training.engines import ready
from tombola.training.engines.ready import compiled_here

TRAIN = """
import hashlib
from functools import partial
import torch
import small_nets
from plain_loop import begin, random_mask, recipe, splits
from tombola.training.engines import choose_engine, kernels

torch.set_num_threads(1)
mlp, other = partial(small_nets.mlp, (20,), 4, (30, 12)), partial(small_nets.conv_norm, (2, 6, 6), 4)
for build, shape in ((mlp, (20,)), (other, (2, 6, 6))):
    mask = random_mask(build, shape, 0.2)
    start = begin(build, mask, splits(shape))
    for settings in (recipe(lr=0.003), recipe(optimizer="sgd", momentum=0.9, lr=0.05, weight_decay=1e-3)):
        make = choose_engine("sparse", build, mask, settings, start.splits.train.inputs[:1])
        engine = make(build, [start], settings, 1000, torch.device("cpu"))
        engine.advance(100)
        engine.evaluate("test")
        weights = b"".join(tensor.numpy().tobytes() for tensor in engine.weights().values())
        print(make.name, hashlib.sha256(weights).hexdigest())
from tombola.training.engines import conv_kernels, norm_kernels
used = [kernels.train_mlp, kernels.score_mlp, kernels.linear_forward, kernels.linear_backward]
used += [conv_kernels.convolve, conv_kernels.weight_gradients, norm_kernels.normalise_backward]
for kernel in used:
    assert not kernel.stats.cache_misses, kernel
"""


def train(cache: Path) -> str:
    helpers = str(Path(__file__).parent.parent / "helpers")
    path = os.pathsep.join([helpers, os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TRAIN], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_new_machine_gives_the_same_bits_at_once_and_later(tmp_path):
    at_once = train(tmp_path)
    assert at_once.count("\n") == 4
    assert train(tmp_path) == at_once


def test_a_kernel_that_this_process_compiled_is_told_from_one_of_the_cache():
    module = ModuleType("kernels")
    module.double = njit(lambda x: 2 * x)
    assert not compiled_here([module])
    assert module.double(2) == 4
    assert compiled_here([module])


def test_results_say_it(monkeypatch):
    monkeypatch.setattr(ready, "KERNELS", ())
    assert "kernels" not in engine_facts(RunOptions(), "dense")
    assert engine_facts(RunOptions(), "mlp")["kernels"] in ("cached", "compiled here")
    monkeypatch.setattr(ready, "compiled_here", lambda: True)
    assert engine_facts(RunOptions(), "sparse")["kernels"] == "compiled here"
