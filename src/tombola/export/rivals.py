"""What an exported ticket is compared with: other ways to compute the same network on this machine.

Each rival is one entry of `RIVALS`. A rival whose package is not installed is reported by name, not left out silently.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.export import graph as g
from tombola.export.following import quietly
from tombola.export.graph_run import apply
from tombola.export.graph_trace import trace

Call = Callable[[], Any]
"""Computes the network for the examples it was made for; its result can be turned into an array."""


@dataclass(frozen=True)
class Contest:
    """What a rival is made for.

    Args:
        module: the network, in evaluation, float32 on the CPU.
        inputs: float32 [N, ...], a batch.
        threads: how many the rival may use.
        calibration: float32 [M, ...], examples that show a quantiser the range of values.
    """

    module: nn.Module
    inputs: Tensor
    threads: int
    calibration: Tensor


@dataclass(frozen=True)
class Rival:
    """Another way to compute a network.

    Args:
        make: returns the function to time.
        needs: packages that must be installed.
        dense: whether it computes all weights, the pruned ones too.
        exact: whether it computes in float32.
    """

    make: Callable[[Contest], Call]
    needs: tuple[str, ...] = ()
    dense: bool = True
    exact: bool = True

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


class NotFor(Exception):
    """A rival can't compute this network; the message says why."""


def _eager(contest: Contest) -> Call:
    module, inputs = contest.module, contest.inputs
    return _without_gradients(lambda: module(inputs))


def _channels_last(contest: Contest) -> Call:
    if contest.inputs.dim() != 4:
        raise NotFor("examples are not images")
    module: Any = copy.deepcopy(contest.module)
    module = module.to(memory_format=torch.channels_last)
    inputs = contest.inputs.contiguous(memory_format=torch.channels_last)
    return _without_gradients(lambda: module(inputs))


def _compiled(contest: Contest) -> Call:
    torch.compiler.reset()
    module, inputs = torch.compile(contest.module), contest.inputs
    call = _without_gradients(lambda: module(inputs))
    with quietly(logging.ERROR):
        try:
            call()
        except Exception as error:  # whatever its compiler does not manage
            raise NotFor(f"torch.compile fails: {type(error).__name__}") from error
    return call


def _without_gradients(call: Call) -> Call:
    def without() -> Any:
        with torch.inference_mode():
            return call()

    return without


def onnx_bytes(module: nn.Module, inputs: Tensor) -> bytes:
    """Return a module as an ONNX file.

    Raises:
        NotFor: PyTorch can't write it.
    """
    with tempfile.TemporaryDirectory() as folder, quietly(logging.ERROR):
        path = Path(folder) / "network.onnx"
        try:
            torch.onnx.export(module, (inputs,), str(path), dynamo=True, verbose=False, external_data=False)
        except Exception as error:  # whatever the exporter does not manage
            raise NotFor(f"torch.onnx.export fails: {type(error).__name__}") from error
        return path.read_bytes()


def _onnxruntime(contest: Contest) -> Call:
    return _session(onnx_bytes(contest.module, contest.inputs), contest)


def _session(model: bytes, contest: Contest) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = contest.threads, 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: contest.inputs.numpy()}
    return lambda: session.run(None, feed)[0]


def _onnxruntime_int8(contest: Contest) -> Call:
    with tempfile.TemporaryDirectory() as folder, quietly(logging.ERROR):
        import onnx
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process

        path, ready, made = (Path(folder) / f"{name}.onnx" for name in ("float", "ready", "int8"))
        model = onnx_bytes(contest.module, contest.inputs)
        path.write_bytes(model)
        examples = _Examples(onnx.load_from_string(model).graph.input[0].name, contest)
        try:
            quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
            q.quantize_static(str(ready), str(made), examples, per_channel=True, quant_format=q.QuantFormat.QDQ)
        except Exception as error:  # whatever the quantiser does not manage
            raise NotFor(f"ONNX Runtime's quantiser fails: {type(error).__name__}") from error
        return _session(made.read_bytes(), contest)


class _Examples:
    """Hands batches to ONNX Runtime's quantiser, one at a time.

    Args:
        name: of the network's input.
        contest: batch size and examples.
    """

    def __init__(self, name: str, contest: Contest):
        size = len(contest.inputs)
        count = max(1, len(contest.calibration) // size)
        picked = torch.arange(size * count) % len(contest.calibration)
        self._name, self._batches = (
            name,
            iter(contest.calibration[picked].reshape(count, *contest.inputs.shape).numpy()),
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next batch by the name of the network's input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _openvino(precision: str) -> Callable[[Contest], Call]:
    def make(contest: Contest) -> Call:
        with quietly(logging.ERROR):
            import openvino

            core = openvino.Core()
            settings: dict[str, Any] = {
                "INFERENCE_NUM_THREADS": contest.threads,
                "PERFORMANCE_HINT": "LATENCY",
                "NUM_STREAMS": 1,
            }
            if precision:
                settings["INFERENCE_PRECISION_HINT"] = precision
            model = core.read_model(onnx_bytes(contest.module, contest.inputs))
            request = core.compile_model(model, "CPU", settings).create_infer_request()
            request.set_input_tensor(openvino.Tensor(contest.inputs.numpy(), shared_memory=True))

        def call() -> Any:
            request.infer()
            return request.get_output_tensor().data

        return call

    return make


def _interpreter(contest: Contest, product: Callable[[np.ndarray], Callable[[Tensor], Tensor]]) -> Call:
    """Return a function that computes the network node by node, its matrices by a sparse product.

    Args:
        contest: what to compute.
        product: makes of a matrix a function that multiplies it by dense [columns, N].
    """
    graph = trace(contest.module, tuple(contest.inputs.shape[1:]))
    steps: list[tuple[g.Node, Callable[[list[Tensor]], Tensor]]] = []
    for node in graph.nodes[1:]:
        if isinstance(node, g.Linear) and len(node.shape) == 1:
            steps.append((node, _sparse_linear(node, product)))
        elif isinstance(node, g.Conv) and len(node.stride) == 2 and node.groups == 1:
            steps.append((node, _sparse_conv(node, product)))
        else:
            steps.append((node, lambda values, node=node: apply(node, values)))  # type: ignore[misc]
    first, inputs, last = graph.input.name, contest.inputs, graph.output

    def call() -> Tensor:
        values = {first: inputs}
        for node, step in steps:
            values[node.name] = step([values[name] for name in node.inputs])
        return values[last]

    return _without_gradients(call)


def _sparse_linear(node: g.Linear, product: Any) -> Callable[[list[Tensor]], Tensor]:
    multiply, bias = product(node.weight.detach().numpy()), node.bias
    shift = 0.0 if bias is None else bias.detach()[:, None]
    return lambda values: (multiply(values[0].t()) + shift).t()


def _sparse_conv(node: g.Conv, product: Any) -> Callable[[list[Tensor]], Tensor]:
    kernel = node.weight.detach()
    multiply = product(kernel.flatten(1).numpy())
    shift = 0.0 if node.bias is None else node.bias.detach()[:, None, None]
    sides = [side for pair in reversed(node.padding) for side in pair]

    def step(values: list[Tensor]) -> Tensor:
        padded = functional.pad(values[0], sides)
        windows = functional.unfold(padded, tuple(kernel.shape[2:]), node.dilation, 0, node.stride)
        result = multiply(windows.transpose(0, 1).reshape(windows.shape[1], -1)).reshape(len(kernel), len(padded), -1)
        return (result + shift).transpose(0, 1).reshape(len(padded), *node.shape)

    return step


def _torch_csr(contest: Contest) -> Call:
    def product(matrix: np.ndarray) -> Callable[[Tensor], Tensor]:
        with quietly(logging.ERROR):  # that CSR is a beta feature
            sparse = torch.from_numpy(matrix).to_sparse_csr()
        return lambda dense: sparse @ dense

    return _interpreter(contest, product)


def _scipy_csr(contest: Contest) -> Call:
    from scipy.sparse import csr_matrix

    def product(matrix: np.ndarray) -> Callable[[Tensor], Tensor]:
        sparse = csr_matrix(matrix)
        return lambda dense: torch.from_numpy(sparse @ dense.numpy())

    return _interpreter(contest, product)


ONNX = ("onnx", "onnxscript")

RIVALS: dict[str, Rival] = {
    "PyTorch": Rival(_eager),
    "PyTorch, channels last": Rival(_channels_last),
    "torch.compile": Rival(_compiled),
    "ONNX Runtime": Rival(_onnxruntime, (*ONNX, "onnxruntime")),
    "ONNX Runtime int8": Rival(_onnxruntime_int8, (*ONNX, "onnxruntime"), exact=False),
    "OpenVINO": Rival(_openvino("f32"), (*ONNX, "openvino")),
    "OpenVINO, own precision": Rival(_openvino(""), (*ONNX, "openvino"), exact=False),
    "torch CSR": Rival(_torch_csr, dense=False),
    "SciPy CSR": Rival(_scipy_csr, ("scipy",), dense=False),
}
"""Every rival by name."""
