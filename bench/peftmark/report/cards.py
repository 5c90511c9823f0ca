"""Which sections are questions of their own, and which are folded at the end."""

from __future__ import annotations

from dataclasses import replace

from peftmark.render.page import Figures, Section

CARDS = ("choice", "quality", "costs", "learning", "ranks", "glance", "validity")
"""The seven questions in their order."""


def arranged(sections: tuple[Section, ...]) -> tuple[Section, ...]:
    """Questions as cards with one picture each, everything else as an appendix.

    Where nothing finished there are no questions to answer: what ran is open then.
    """
    found = {s.key: s for s in sections}
    cards = [_card(found[key]) for key in CARDS if key in found]
    if not cards:
        return sections
    rest = (replace(s, depth="appendix") for s in sections if s.key not in CARDS)
    return (*cards, *rest)


def _card(section: Section) -> Section:
    """A section with its first picture above the fold."""
    if section.picture:
        return replace(section, depth="card")
    for i, block in enumerate(section.blocks):
        if isinstance(block, Figures) and block.figures:
            first, *others = block.figures
            left = (replace(block, figures=tuple(others)),) if others else ()
            blocks = (*section.blocks[:i], *left, *section.blocks[i + 1 :])
            return replace(section, depth="card", picture=(first,), blocks=blocks)
    return replace(section, depth="card")
