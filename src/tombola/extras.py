"""Optional packages: each supports one feature. The extra of that feature installs the package."""

from __future__ import annotations

import importlib.util

from tombola.errors import InputError

EXTRAS = {"codecarbon": "energy", "numba": "fast", "pyarrow": "parquet", "scipy": "align", "vl_convert": "report"}
EXTRAS |= dict.fromkeys(("dask", "dask_jobqueue", "distributed"), "cluster")
EXTRAS |= dict.fromkeys(("onnx", "onnxruntime", "onnxscript"), "onnx")
"""The package extra that installs each optional module."""

INTEGRATIONS = {"accelerate": "accelerate", "lightning": "lightning", "transformers": "transformers"}
INTEGRATIONS |= {"mlflow": "mlflow", "tensorboard": "tensorboard", "wandb": "wandb"}
INTEGRATIONS |= {"huggingface_hub": "hub"}
"""The same for trainers, trackers and the Hub of other libraries. The extra `all` leaves them out."""


def installed(module: str) -> bool:
    """Return whether an optional module is installed, without an import."""
    return importlib.util.find_spec(module) is not None


def install(module: str) -> str:
    """Return the command that installs an optional module."""
    return f"pip install 'tombola[{(EXTRAS | INTEGRATIONS)[module]}]'"


def need(module: str, feature: str) -> None:
    """Check that an optional module is installed.

    Args:
        module: a key of `EXTRAS` or `INTEGRATIONS`.
        feature: the option or command that needs it; it begins the message.

    Raises:
        InputError: the module is not installed. The message gives the command that installs it.
    """
    if not installed(module):
        raise InputError(f"{feature} needs {module}, which is not installed: {install(module)}")
