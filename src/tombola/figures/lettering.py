"""Text in figures: which characters can be drawn, how wide it is, where it breaks."""

from __future__ import annotations

from matplotlib import font_manager
from matplotlib.textpath import text_to_path


def drawable(text: str) -> str:
    """Return `text` with a box for each character that matplotlib's default font lacks, instead of a warning."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in text)


def inches(text: str, size: float) -> float:
    """Return the width of `text` at `size` points."""
    width, _, _ = text_to_path.get_text_width_height_descent(text, font_manager.FontProperties(size=size), ismath=False)
    # Hinting makes drawn text a little wider than its outlines, most at a low resolution.
    return 1.04 * width / 72


def wrapped(text: str, size: float, width: float) -> list[str]:
    """Break `text` into lines that fit into `width` inches, between words; a longer word has a line of its own."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and inches(longer, size) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines
