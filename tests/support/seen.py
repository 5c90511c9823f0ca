"""What a reader of a page sees before opening anything: words and tables, by a parser of its own.

    python tests/support/seen.py docs/example/index.html

Left out: folded details but for their summary, lines that a name opens, names that a list offers,
pictures for phones, all but the first of the charts that buttons pick, and what is there for screen
readers alone.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "br", "input", "link", "hr", "img", "wbr"}
UNSEEN = {"script", "style", "title", "desc", "head", "caption", "defs"}
HIDDEN = {"unseen", "phone"}


def _unpicked(tag: str, known: dict[str, str | None]) -> bool:
    return tag == "option" and "selected" not in known


class Seen(HTMLParser):
    """Collects the words and the tables that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[tuple[str, bool]] = []
        self.words: list[str] = []
        self.tables: list[str] = []
        self.panels = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        classes = set((known.get("class") or "").split())
        shown = all(seen for _, seen in self.stack)
        if self.stack and self.stack[-1][0] == "details" and tag != "summary":
            shown = False
        if "panel" in classes:
            self.panels += 1
            shown = shown and self.panels == 1
        if (
            known.get("display") == "none"
            or tag in UNSEEN
            or classes & HIDDEN
            or "popover" in known
            or _unpicked(tag, known)
        ):
            shown = False
        if tag == "table" and shown:
            self.tables.append(known.get("aria-label") or "table")
        if tag not in VOID:
            self.stack.append((tag, shown))

    def handle_endtag(self, tag: str) -> None:
        while self.stack and self.stack.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if all(seen for _, seen in self.stack):
            self.words += data.split()


def seen(page: str) -> Seen:
    """What is open of a page."""
    found = Seen()
    found.feed(page)
    return found


if __name__ == "__main__":
    for name in sys.argv[1:]:
        text = Path(name).read_text("utf-8")
        found = seen(text)
        size = len(text.encode()) / 1000
        print(f"{name}: {len(found.words)} words, {len(found.tables)} tables, {size:,.0f} kB")
