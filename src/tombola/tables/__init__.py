"""Tables for a terminal, and the captions that they share with figures and pages."""

from __future__ import annotations

from tombola.tables.summary import barrier_table, level_tables, summary_table, ticket_versus_reinit

__all__ = ["barrier_table", "level_tables", "summary_table", "ticket_versus_reinit"]
