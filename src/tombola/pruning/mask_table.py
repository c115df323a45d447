"""A mask as a table for notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from torch import Tensor


def mask_table(keep: Mapping[str, Tensor]) -> str:
    """Return an HTML table: each layer's shape, kept weights and density, and the sum.

    Args:
        keep: bool tensors by parameter name: True where the weight is kept.
    """
    kept = {name: int(pattern.sum()) for name, pattern in keep.items()}
    rows = [
        _row("td", name, " &times; ".join(map(str, pattern.shape)), kept[name], pattern.numel())
        for name, pattern in keep.items()
    ]
    total = _row("th", "all", "", sum(kept.values()), sum(pattern.numel() for pattern in keep.values()))
    heads = "".join(f"<th>{head}</th>" for head in ("layer", "shape", "kept", "density"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody><tfoot>{total}</tfoot></table>"


def _row(tag: str, name: str, shape: str, kept: int, size: int) -> str:
    density = f"{kept / size:.2%}" if size else "-"
    cells = (escape(name), shape, f"{kept:,} of {size:,}", density)
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"
