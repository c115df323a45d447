"""Figures for files, drawn with matplotlib.

Importing this does not import matplotlib, which is loaded when something is drawn.
"""

from __future__ import annotations

from tombola.figures.draw import FIGURES, draw
from tombola.figures.form import SCREEN, Form, paper
from tombola.figures.setting import Setting, gather, gather_interpolations, gather_tables

__all__ = [
    "FIGURES",
    "SCREEN",
    "Form",
    "Setting",
    "draw",
    "gather",
    "gather_interpolations",
    "gather_tables",
    "paper",
]
