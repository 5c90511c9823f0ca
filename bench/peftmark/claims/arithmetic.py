"""Figures that can be checked on paper: an arithmetic expression as text, never run as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

LONGEST_EXPRESSION = 200

OPERATIONS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: math.pow,
}


def calculate(expression: str) -> float:
    """The value of an arithmetic expression of numbers, + - * / ** and brackets.

    Raises:
        ValueError: anything else stands in it, or it has no finite value.
    """
    if len(expression) > LONGEST_EXPRESSION:
        raise ValueError(f"longer than {LONGEST_EXPRESSION} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not an arithmetic expression") from error
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError("it has no finite value") from error
    if not math.isfinite(value):
        raise ValueError("it has no finite value")
    return value


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    shown = ast.unparse(node)
    raise ValueError(f"only numbers, + - * / ** and brackets are allowed, found {shown!r}")
