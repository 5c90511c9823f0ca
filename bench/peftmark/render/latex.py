"""Text and numbers as LaTeX: escaped, and aligned on the decimal point without a package for it."""

from __future__ import annotations

import unicodedata

_GREEK = {
    unicodedata.lookup(f"GREEK SMALL LETTER {name}"): name.lower().replace("lamda", "lambda")
    for name in (
        "ALPHA", "BETA", "GAMMA", "DELTA", "EPSILON", "ZETA", "ETA", "THETA", "IOTA", "KAPPA",
        "LAMDA", "MU", "NU", "XI", "PI", "RHO", "SIGMA", "TAU", "UPSILON", "PHI", "CHI", "PSI",
        "OMEGA",
    )
}  # fmt: skip
_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LETTERS = "ÆæŒœØøßŁłı"
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
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    **{letter: f"$\\{name}$" for letter, name in _GREEK.items()},
    **{sign: f"$^{digit}$" for digit, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
}


def escape(text: str) -> str:
    """Text that LaTeX shows as it is: on one line, no commands, no control characters."""
    line = " ".join(text.splitlines())
    return "".join(_SPECIAL.get(c) or (c if c.isprintable() else "?") for c in line)


def beyond(text: str) -> str:
    """The characters, each once, that pdfLaTeX knows nothing of, so that it takes another one."""
    return "".join(sorted({c for c in text if c not in _SPECIAL and not _is_known(c)}))


def _is_known(character: str) -> bool:
    if character.isascii() or character in _LETTERS or not character.isprintable():
        return True
    parts = unicodedata.normalize("NFD", character)
    letter = len(parts) == 2 and parts[0].isascii() and parts[0].isalpha()
    return letter and parts[1] in _ACCENTS and character < "\u0180"


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
