"""Exports a ticket to ONNX through `torch.onnx.export(dynamo=True)`, and checks what ONNX Runtime makes of it.

Runtimes densify sparse weights, so the dense form gains nothing from a mask; the compact form leaves dead units out,
and int8 makes a fourth of the size by ONNX Runtime's own quantiser.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.errors import InputError
from tombola.export.check import TOLERANCE, check_same, examples_for, outputs_of
from tombola.export.compact import compact, is_trained
from tombola.export.following import followed, layer_of, operator_of_error, quietly
from tombola.export.graph import Unsupported
from tombola.export.write import write
from tombola.formatting import plain
from tombola.running.files import writing

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

VARIANTS = ("dense", "compact", "int8", "compact-int8")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INT8_TOLERANCE = 0.25
"""Largest difference that int8 may make on random inputs, relative to the largest output."""
CALIBRATION = 100  # examples that activations are measured on


def export_onnx(
    ticket: Ticket,
    path: Path,
    variant: str = "dense",
    weights: str = "trained",
    opset: int = 18,
    examples: Tensor | None = None,
) -> None:
    """Write a ticket as an ONNX model of a batch of any size.

    Inputs are called "input", as `ticket.normalise` returns them, and outputs "output". The file is compared with
    PyTorch before it is written.

    Args:
        ticket: mask and weights.
        path: of the file.
        variant: "dense", "compact" (dead units removed), "int8" or "compact-int8". In int8 weights and activations
            have 8 bits: of linear layers chosen while it runs, of convolutions measured on examples beforehand.
        weights: "trained", or "start" for the starting weights.
        opset: version of the ONNX operators.
        examples: inputs as the network takes them, [N, ...], for int8 with convolutions; synthetic ones by default.

    Raises:
        InputError: tombola[onnx] is not installed, an option is unknown, PyTorch can't export the network, or the model
            does not give what PyTorch gives.
        StoreError: the file can't be written.
    """
    if variant not in VARIANTS:
        raise InputError(f"variant {variant!r}: choose {', '.join(VARIANTS)}")
    require_packages()
    module = ticket.build(is_trained(weights))
    exported = compact(ticket, weights) if variant.startswith("compact") else module
    inputs = examples_for(ticket)
    content = to_onnx(exported, inputs, opset)
    expected = outputs_of(module, inputs)
    check_same(expected, run_onnx(content, inputs), "the ONNX model", TOLERANCE)
    if variant.endswith("int8"):
        content = quantised(content, inputs if examples is None else examples[:CALIBRATION])
        check_same(expected, run_onnx(content, inputs), "the int8 model", INT8_TOLERANCE)
    write(path, content)


def require_packages() -> None:
    """Raise where a package that ONNX needs is missing.

    Raises:
        InputError: with the command that installs it.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"export to onnx needs {' and '.join(missing)}: pip install 'tombola[onnx]'")


def to_onnx(module: nn.Module, inputs: Tensor, opset: int = 18) -> bytes:
    """Return the ONNX model of a module in evaluation mode, for batches of any size.

    Raises:
        InputError: PyTorch can't export it.
    """
    program: Any = followed(module.eval(), inputs, any_batch=True)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["output"]}
    with quietly():
        try:
            program = torch.onnx.export(program, (), dynamo=True, opset_version=opset, verbose=False, **names)
        except Exception as error:
            raise _untranslated(error) from error
    written = next(each.version for each in program.model_proto.opset_import if not each.domain)
    if written != opset:
        raise InputError(f"PyTorch can't write this network in opset {opset}: give opset={written}")
    content: bytes = program.model_proto.SerializeToString()
    return content


def _untranslated(error: Exception) -> InputError:
    """Return the error for an operator that PyTorch can't write as ONNX."""
    if (node := operator_of_error(error)) is None:
        return InputError(f"PyTorch can't export this network to ONNX: {type(error).__name__}: {_readable(error)}")
    name = str(node.target).removeprefix("aten.").split(".")[0]
    remedy = "replace the layer, or choose another format"
    return Unsupported(layer_of(node), f"the operator {name!r}, which PyTorch can't export to ONNX", remedy)


def run_onnx(content: bytes, inputs: Tensor) -> Tensor:
    """Return what ONNX Runtime gives on the CPU.

    Raises:
        InputError: it can't load or run the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    except Exception as error:
        layer = _layer_of(content, str(error))
        raise InputError(
            f"ONNX Runtime can't run {f'layer {layer!r}' if layer else 'the model'}: {_readable(error)}"
        ) from error
    return torch.from_numpy(result)


def _layer_of(content: bytes, message: str) -> str:
    """Return the layer of the node that a message of ONNX Runtime's names; "" where it names none."""
    import onnx

    nodes = {node.name: node for node in onnx.load_from_string(content).graph.node}
    named = re.search("node with name '([^']+)'", message)
    if named is None or named[1] not in nodes:
        return ""
    written = {each.key: each.value for each in nodes[named[1]].metadata_props}
    scopes = ast.literal_eval(written.get("pkg.torch.onnx.name_scopes", "[]"))  # modules, then the operator
    return str(scopes[-2]) if len(scopes) > 1 else ""


def quantised(content: bytes, examples: Tensor) -> bytes:
    """Return an int8 model by ONNX Runtime's quantiser: static where it has convolutions, else dynamic.

    Raises:
        InputError: the quantiser fails.
        StoreError: there is no room for temporary files.
    """
    import onnx

    model = onnx.load_from_string(content)
    del model.graph.value_info[:]  # the quantiser infers shapes again, and refuses those of transposed weights
    place, remedy = Path(tempfile.gettempdir()), "make room there, or name another folder in TMPDIR"
    with writing(place, f"{remedy}; tombola wrote nothing"), tempfile.TemporaryDirectory() as folder, quietly():
        whole, smaller = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, str(whole))
        try:
            _quantise(whole, smaller, examples, any(node.op_type == "Conv" for node in model.graph.node))
        except OSError:
            raise
        except Exception as error:
            reason = _readable(error)
            raise InputError(f"ONNX Runtime can't quantise the model: {type(error).__name__}: {reason}") from error
        return smaller.read_bytes()


def _quantise(whole: Path, smaller: Path, examples: Tensor, has_convolutions: bool) -> None:
    from onnxruntime import quantization

    if not has_convolutions:
        quantization.quantize_dynamic(str(whole), str(smaller), per_channel=True)
        return
    prepared = whole.with_name("prepared.onnx")
    quantization.quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(str(prepared), str(smaller), _reader(examples), per_channel=True)


def _readable(error: Exception) -> str:
    """Return an error of another package in one line, without the colours of its terminal text."""
    return plain(re.sub(r"\x1b\[[0-9;]*m", "", str(error)), 300)


def _reader(examples: Tensor) -> Any:
    """Return what the quantiser reads examples from."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(examples.split(10))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch.numpy()}

    return Reader()
