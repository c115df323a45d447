"""Tables for a terminal.

Importing this does not cost pandas, which is loaded when something is summed up.
"""

from __future__ import annotations

from tombola.tables.summary import barrier_table, summary_table, ticket_versus_reinit

__all__ = ["barrier_table", "summary_table", "ticket_versus_reinit"]
