"""What tombola prunes in many families of models: the table of the documentation, to be run again.

    python -m benchmarks.coverage_table             # Markdown; timm's and transformers' families where installed
    python -m benchmarks.coverage_table --write     # the same, into docs/own-models.md
    python -m benchmarks.coverage_table lstm gpt-2  # these families, a line for each parameter

The script builds every model from its configuration and downloads nothing. "works" means: `examine` finds the coverage,
and a mask on half of the prunable weights holds over three steps of SGD with momentum and weight decay, every pruned
weight exactly zero. A refused model has the message of the refusal instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations
from torch.utils._pytree import tree_leaves

from tombola import InputError
from tombola.networks import Coverage, examine, initialised
from tombola.pruning import Mask

TOKENS = torch.arange(14).reshape(2, 7) % 11 + 1
LABELS = 3
SMALL = {"vocab_size": 50, "num_labels": LABELS}


@dataclass(frozen=True)
class Family:
    """A model of its kind.

    Args:
        build: makes it.
        inputs: as `examine` takes them.
        needs: the package that it comes from, beside PyTorch.
        lines: of the script that change, as in examples/plain_after.py; a test counts them there.
    """

    build: Callable[[], nn.Module]
    inputs: Any
    needs: str = ""
    lines: int = 4


class Classifier(nn.Module):
    """A core, the mean of its result over tokens, and a linear layer."""

    def __init__(self, core: nn.Module, width: int):
        super().__init__()
        self.core, self.head = core, nn.Linear(width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores [N, LABELS] of sequences [N, tokens, features]."""
        result = self.core(x)
        return self.head((result[0] if isinstance(result, tuple) else result).mean(1))


class UNet(nn.Module):
    """Two levels down, two up, with the way around."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, padding=1)
        self.bottom = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.up2, self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.merge2, self.merge1 = (
            nn.Conv2d(4 * width, 2 * width, 3, padding=1),
            nn.Conv2d(2 * width, width, 3, padding=1),
        )
        self.exit = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores [N, 2, height, width] of each pixel of images [N, 3, height, width]."""
        first = torch.relu(self.down1(x))
        second = torch.relu(self.down2(functional.max_pool2d(first, 2)))
        bottom = torch.relu(self.bottom(functional.max_pool2d(second, 2)))
        second = torch.relu(self.merge2(torch.cat([second, self.up2(bottom)], 1)))
        return self.exit(torch.relu(self.merge1(torch.cat([first, self.up1(second)], 1))))


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.core = nn.Embedding(50, 16), nn.GRU(16, 16, batch_first=True)
        self.output = nn.Linear(16, 50, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return scores [N, tokens, 50] of the next token of each."""
        return self.output(self.core(self.embedding(ids))[0])


class Bare(nn.Module):
    """Matrices that stand in no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(16, 12)), nn.Parameter(torch.randn(12, 2, 5))
        self.output = nn.Linear(10, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores [N, LABELS] of features [N, 16]."""
        return self.output(torch.einsum("ni,ihd->nhd", torch.relu(x @ self.first), self.second).flatten(1))


class Mixing(nn.Module):
    """A product element by element and a sum, which is no matrix product to PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.locally, self.output = nn.Parameter(torch.randn(4, 16)), nn.Linear(4, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores [N, LABELS] of features [N, 16]."""
        return self.output((x[:, None] * self.locally).sum(-1))


def _perceptron() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, LABELS))


def _normed(how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    module = _perceptron()
    module[0] = how(module[0])
    return module


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return Classifier(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 16)


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(LABELS))


def _lazy_run() -> nn.Module:
    module = _lazy()
    module(torch.zeros(1, 3, 8, 8))
    return module


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return build


def _transformers(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        return getattr(transformers, model)(getattr(transformers, config)(**options))

    return build


_IDS = {"input_ids": TOKENS}
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_BERT |= {"max_position_embeddings": 16}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16, "pad_token_id": 0}
_GPT2 |= {"bos_token_id": 0, "eos_token_id": 0}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
_IMAGES = (3, 64, 64)

FAMILIES: dict[str, Family] = {
    "MLP": Family(_perceptron, (16,)),
    "ViT (timm vit_tiny_patch16_224)": Family(_timm("vit_tiny_patch16_224", img_size=64), _IMAGES, "timm"),
    "Swin (timm swin_tiny_patch4_window7_224)": Family(
        _timm("swin_tiny_patch4_window7_224", img_size=56), (3, 56, 56), "timm"
    ),
    "MobileNetV3 (timm mobilenetv3_small_050)": Family(_timm("mobilenetv3_small_050"), _IMAGES, "timm"),
    "EfficientNet (timm efficientnet_b0)": Family(_timm("efficientnet_b0"), _IMAGES, "timm"),
    "ConvNeXt (timm convnext_atto)": Family(_timm("convnext_atto"), _IMAGES, "timm"),
    "BERT classifier": Family(
        _transformers("BertForSequenceClassification", "BertConfig", **SMALL, **_BERT), _IDS, "transformers"
    ),
    "GPT-2 classifier": Family(
        _transformers("GPT2ForSequenceClassification", "GPT2Config", **SMALL, **_GPT2), _IDS, "transformers"
    ),
    "GPT-2 language model (tied)": Family(
        _transformers("GPT2LMHeadModel", "GPT2Config", vocab_size=50, **_GPT2), _IDS, "transformers"
    ),
    "T5": Family(
        _transformers("T5ForConditionalGeneration", "T5Config", vocab_size=50, **_T5),
        {"input_ids": TOKENS, "decoder_input_ids": TOKENS[:, :4]},
        "transformers",
    ),
    "LSTM classifier": Family(lambda: Classifier(nn.LSTM(16, 32, batch_first=True), 32), (7, 16)),
    "GRU classifier": Family(lambda: Classifier(nn.GRU(16, 32, num_layers=2, batch_first=True), 32), (7, 16)),
    "nn.TransformerEncoder": Family(_encoder, (7, 16)),
    "U-Net": Family(UNet, (3, 16, 16)),
    "tied embedding": Family(Tied, TOKENS),
    "float64": Family(lambda: _perceptron().double(), torch.zeros(2, 16, dtype=torch.float64)),
    "x @ W and einsum": Family(Bare, (16,)),
    "(x * W).sum()": Family(Mixing, (16,)),
    "weight_norm": Family(lambda: _normed(parametrizations.weight_norm), (16,)),
    "spectral_norm": Family(lambda: _normed(parametrizations.spectral_norm), (16,)),
    "lazy layers": Family(_lazy, (3, 8, 8)),
    "lazy layers, a batch run in the factory": Family(_lazy_run, (3, 8, 8), lines=5),
}


def installed(family: Family) -> bool:
    """Return whether the package that a family needs can be imported."""
    if not family.needs or importlib.util.find_spec(family.needs) is None:
        return not family.needs
    try:
        importlib.import_module(family.needs)
    except ImportError:  # of a package that it needs
        return False
    return True


def covered(family: Family) -> Coverage:
    """Build the model as a study would, and return its coverage.

    Raises:
        InputError: tombola refuses the model.
    """
    return examine(initialised(family.build, "pytorch", 0), family.inputs)


def holds(family: Family) -> bool:
    """Return whether a mask of half of each prunable parameter holds over three steps of training."""
    module = initialised(family.build, "pytorch", 0).train()
    generator = torch.Generator().manual_seed(0)
    shapes = examine(module, family.inputs).shapes()
    mask = Mask({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()})
    mask.hold_(module)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(3):
        optimiser.zero_grad()
        _loss(module, family.inputs).backward()
        optimiser.step()
    parameters = dict(module.named_parameters())
    return all(bool((parameters[name][~keep] == 0).all()) for name, keep in mask.items())


def _loss(module: nn.Module, inputs: Any) -> Tensor:
    if isinstance(inputs, dict):
        result = module(**inputs)
    else:
        result = module(inputs if isinstance(inputs, Tensor) else torch.ones(2, *inputs))
    if not isinstance(result, Tensor):
        result = result["logits"]
    return torch.stack([each.float().square().mean() for each in tree_leaves(result)]).sum()


def row(name: str, family: Family) -> str:
    """Return a family's line of the Markdown table."""
    try:
        coverage = covered(family)
    except InputError as error:
        return f"| {name} | | | | | | refused: {error} |"
    share = f"{100 * coverage.prunable / coverage.parameters:.1f} %"
    cost = f"{100 * coverage.multiply_adds / coverage.all_multiply_adds:.1f} %"
    result = "works" if holds(family) else "the mask did not hold"
    if coverage.skipped:
        result += "; stays dense: " + ", ".join(f"`{each.name}`" for each in coverage.skipped)
    if coverage.unmultiplied:
        few = [f"`{each.name}`" for each in coverage.unmultiplied[:2]]
        more = len(coverage.unmultiplied) - len(few)
        result += f"; no product: {', '.join(few)}" + (f" and {more} more" if more else "")
    prunable = f"{coverage.prunable:,} of {coverage.matrix_weights:,}"
    cells = (f"{coverage.parameters:,}", prunable, share, cost, str(family.lines), result)
    return f"| {name} | {' | '.join(cells)} |"


HEAD = (
    "| family | parameters | prunable weights in matrices | of all parameters | of multiply-adds | lines | result |\n"
    "|---|---|---|---|---|---|---|"
)
PAGE = Path(__file__).parents[1] / "docs" / "own-models.md"
BEGIN, END = "<!-- python -m benchmarks.coverage_table --write -->\n", "<!-- end -->"


def rows() -> Iterator[str]:
    """Yield the line of each family whose package is installed; name the others on stderr."""
    torch.manual_seed(0)
    for name, family in FAMILIES.items():
        if installed(family):
            yield row(name, family)
        else:
            print(f"{name}: {family.needs} can't be imported", file=sys.stderr)


def write() -> None:
    """Put the table into the page.

    Raises:
        SystemExit: a package is missing, so the table would lose lines.
    """
    if missing := {family.needs for family in FAMILIES.values() if not installed(family)}:
        raise SystemExit(f"install {', '.join(sorted(missing))} first: the table has lines of these packages")
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    table = "\n".join([HEAD, *rows()])
    PAGE.write_text(f"{before}{BEGIN}{table}\n{END}{rest.partition(END)[2]}", "utf-8")


def main(wanted: list[str]) -> None:
    """Print the table, or the parameters of the families whose names hold one of the words."""
    warnings.simplefilter("ignore")  # those of other packages
    if wanted == ["--write"]:
        write()
    elif not wanted:
        print(HEAD)
        for line in rows():
            print(line, flush=True)
    for name, family in FAMILIES.items():
        if any(word.lower() in name.lower() for word in wanted) and installed(family):
            print(f"{name}\n{covered(family).text()}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
