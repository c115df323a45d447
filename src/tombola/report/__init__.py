"""What a person looks at: terminal tables and figures.

Importing this costs neither matplotlib nor pandas: both are loaded when something is drawn or summed up.
"""

from __future__ import annotations

from tombola.report.figures import FIGURES, draw
from tombola.report.form import SCREEN, Form, paper
from tombola.report.setting import Setting, gather, gather_lines
from tombola.report.table import barrier_table, summary_table, ticket_versus_reinit

__all__ = [
    "FIGURES",
    "SCREEN",
    "Form",
    "Setting",
    "barrier_table",
    "draw",
    "gather",
    "gather_lines",
    "paper",
    "summary_table",
    "ticket_versus_reinit",
]
