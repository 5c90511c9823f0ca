"""Text and numbers as LaTeX: escaped, and aligned on the decimal point without a package for it."""

from __future__ import annotations

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\to$",
    "√": r"$\surd$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "…": r"\dots{}",
    "“": "``",
    "”": "''",
    "\u00a0": "~",
    "\u202f": r"\,",
}


def escape(text: str) -> str:
    """Text that LaTeX shows as it is: on one line, no commands, no control characters."""
    line = " ".join(text.splitlines())
    return "".join(_SPECIAL.get(c) or (c if c.isprintable() else "?") for c in line)


def number(text: str, *, bold: bool = False) -> str:
    """A number, with what follows it, as two columns `r@{}l` that meet at its decimal point."""
    left, point, right = text.partition(".")
    if not left.lstrip("−+").replace(",", "").isdigit():
        left, point, right = text, "", ""
    parts = (escape(left), escape(point + right))
    return " & ".join(f"\\textbf{{{part}}}" if bold and part else part for part in parts)


def across(text: str) -> str:
    """Escaped text in the middle of both columns of a number."""
    return f"\\multicolumn{{2}}{{c}}{{{text}}}"
