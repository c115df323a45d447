"""The revision of tombola's own numerics: part of every identity, so results of two revisions are never mixed."""

from __future__ import annotations

NUMERICS = 2
"""Raised by one whenever the same settings give other numbers than before. CHANGELOG.md says what changed.

1: version 0.1. 2: random criteria and shuffled controls draw from streams of their own; masks are searched once.
"""
