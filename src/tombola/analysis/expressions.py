"""The little language of claims: numbers, + - * /, one comparison, and a few functions of a study. Nothing is executed.

    expression  = sum [ ("<" | "<=" | ">" | ">=") sum ]
    sum         = product { ("+" | "-") product }
    product     = factor { ("*" | "/") factor }
    factor      = [ "-" | "+" ] ( number | function "(" argument { "," argument } ")" | "(" sum ")" )

Python's parser makes the tree, because its grammar contains this one. Only the listed nodes of the tree are allowed.
The value is computed by walking the tree.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from tombola.analysis.measures import rounded
from tombola.analysis.quantities import FUNCTIONS, Evidence, wanted_of
from tombola.errors import nearest

LONGEST, DEEPEST = 400, 20  # characters; operations within operations
LARGEST = 1e9
QUOTED = re.compile(r"""\"[^"]*\"|'[^']*'""")


def _divide(left: Any, right: Any) -> Any:
    return left * math.nan if isinstance(right, float) and right == 0 else left / right


OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
}
SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
GREATER: dict[type[ast.cmpop], bool] = {ast.Gt: True, ast.GtE: True, ast.Lt: False, ast.LtE: False}
ALLOWED = f"allowed are numbers, + - * /, one of < <= > >=, and {', '.join(FUNCTIONS)}"
Side = Literal["greater", "less"]


class BadExpression(Exception):
    """An expression outside the language; the message names the place, the fault and the allowed syntax."""


@dataclass(frozen=True)
class Expression:
    """A parsed expression.

    Args:
        text: as it was written.
        left: the measured quantity.
        side: of a comparison, "greater" or "less"; None for none.
        right: what it is compared with; None where there is no comparison.
        strict: of a comparison, whether it is < or >, which equality does not satisfy.
    """

    text: str
    left: ast.expr
    side: Side | None = None
    right: ast.expr | None = None
    strict: bool = False

    @property
    def bound(self) -> float | None:
        """The number that a comparison compares with; None where the other side is measured, too."""
        if self.right is None or any(isinstance(node, ast.Call) for node in ast.walk(self.right)):
            return None
        return float(_value(self.right, None))

    @cached_property
    def arms(self) -> frozenset[str]:
        """The arms that it names, without the iterations that they are rewound to, and `dense`."""
        nodes = [node for side in (self.left, self.right) if side is not None for node in ast.walk(side)]
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        return frozenset(text.partition("@")[0] for text in texts)

    def measure(self, evidence: Evidence) -> pd.Series:
        """Return the value of each trial: the left side, minus the right one if it is measured too.

        Trials in which a part is missing are omitted.

        Raises:
            NotMeasured: the study lacks a part of the expression.
        """
        values = _value(self.left, evidence)
        if self.right is not None and self.bound is None:
            others = _value(self.right, evidence)
            sides = [each.dropna().to_numpy() for each in (values, others)]
            values = values - others
            values = pd.Series(rounded(values.to_numpy(), sides, evidence.metric), index=values.index)
        return values.replace([np.inf, -np.inf], np.nan).dropna()


class _Refused(Exception):
    def __init__(self, node: ast.AST, problem: str):
        self.node, self.problem = node, problem


def parse(text: str) -> Expression:
    """Return the expression that a text means.

    Raises:
        BadExpression: the text is not an expression.
    """
    text = text.strip()
    if len(text) > LONGEST:
        raise BadExpression(f"it has {len(text)} characters; at most {LONGEST} are allowed")
    if len(text.splitlines()) > 1:
        raise BadExpression(f"it has more than one line; {ALLOWED}")
    if (place := QUOTED.sub(lambda found: "x" * len(found[0]), text).find("#")) >= 0:
        raise BadExpression(
            f"at character {place + 1}: # is not allowed, because the rest of the line would be ignored; {ALLOWED}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about what is refused below anyway
            tree = ast.parse(text, mode="eval").body
        return _expression(text, tree)
    except SyntaxError as error:
        raise BadExpression(f"at character {error.offset or len(text) + 1}: {error.msg}; {ALLOWED}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise BadExpression(f"it can't be read ({type(error).__name__}); {ALLOWED}") from None
    except _Refused as error:
        start, end = (getattr(error.node, key, 0) for key in ("col_offset", "end_col_offset"))
        before, shown = (text.encode()[slice(*ends)].decode() for ends in ((0, start), (start, end)))
        shown = shown if len(shown) <= 40 else shown[:37] + "..."
        raise BadExpression(f"at character {len(before) + 1}: {shown}: {error.problem}; {ALLOWED}") from None


def _expression(text: str, tree: ast.expr) -> Expression:
    """Return the expression of a tree, checked."""
    found = Expression(text, tree)
    if isinstance(tree, ast.Compare):
        greater = GREATER.get(type(tree.ops[0]))
        if greater is None or len(tree.ops) > 1:
            raise _Refused(tree, "an expression may have one comparison: < <= > or >=")
        strict = isinstance(tree.ops[0], ast.Gt | ast.Lt)
        found = Expression(text, tree.left, "greater" if greater else "less", tree.comparators[0], strict)
    for side in (found.left, found.right):
        if side is not None:
            _check(side)
    if not any(isinstance(node, ast.Call) for node in ast.walk(found.left)):
        raise _Refused(
            found.left,
            "measures nothing"
            + (" on the left" if found.side else "")
            + "; measure something, such as gain('ticket', 0.2)",
        )
    if found.right is not None and found.bound is not None and not math.isfinite(found.bound):
        raise _Refused(found.right, "is not a finite number")
    return found


def _check(node: ast.AST, depth: int = 0) -> None:
    """Refuse everything outside the language."""
    if depth > DEEPEST:
        raise _Refused(node, f"is nested more than {DEEPEST} deep")
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        _check(node.left, depth + 1)
        _check(node.right, depth + 1)
    elif isinstance(node, ast.UnaryOp) and type(node.op) in SIGNS:
        _check(node.operand, depth + 1)
    elif isinstance(node, ast.Call):
        _check_call(node)
    elif not _is_number(node):
        raise _Refused(node, "is not allowed")


def _check_call(node: ast.Call) -> None:
    name = node.func.id if isinstance(node.func, ast.Name) else ""
    if name not in FUNCTIONS:
        known = nearest(name, FUNCTIONS) if name else ""
        raise _Refused(node.func, f"is not a function of this language{known}")
    if node.keywords:
        raise _Refused(node, f"{name} takes positional arguments only; remove the names")
    _, kinds, optional = FUNCTIONS[name]
    if not len(kinds) - optional <= len(node.args) <= len(kinds):
        required = len(kinds) - optional
        shown = ", ".join(kinds[:required]) + "".join(f" [, {kind}]" for kind in kinds[required:])
        raise _Refused(node, f"takes other arguments: {name}({shown})")
    for kind, argument in zip(kinds, node.args, strict=False):
        text = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        if wanted := wanted_of(kind, _constant(argument) if text or _is_number(argument) else None):
            raise _Refused(argument, f"must be {wanted}")


def _is_number(node: ast.AST) -> bool:
    """Return whether a node is a number that is neither too large nor a truth value."""
    value = node.value if isinstance(node, ast.Constant) else None
    return type(value) in (int, float) and abs(value) <= LARGEST  # type: ignore[arg-type]


def _constant(node: ast.expr) -> Any:
    assert isinstance(node, ast.Constant)
    return node.value if isinstance(node.value, str) else float(node.value)  # type: ignore[arg-type]


def _value(node: ast.expr, evidence: Evidence | None) -> Any:
    """Compute a checked node: a number, or a Series over trials."""
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](_value(node.left, evidence), _value(node.right, evidence))
    if isinstance(node, ast.UnaryOp):
        return SIGNS[type(node.op)](_value(node.operand, evidence))
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        return FUNCTIONS[node.func.id][0](evidence, *(_constant(argument) for argument in node.args))
    return _constant(node)
