"""Where each page of the docs stands on the site, and its links as they are there.

The docs are written for a reader of the repository: links name files from the page's own folder.
On the site some pages have other names; what is no page of the site is linked in the repository,
where its address is known, and is plain text otherwise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from peftmark.core.errors import UserError

LIST = "docs/README.md"
"""The page that lists all others by room; the menu is made of it."""
EVIDENCE = "Evidence"
IN_EVIDENCE = ("docs/memory-tables.md",)
"""Pages of the docs that stand beside the evidence on the site."""
BESIDE: Mapping[str, Sequence[str]] = {
    "Tutorials": ("README.md", LIST),
    "How-to": ("CONTRIBUTING.md",),
    "Reference": ("CHANGELOG.md",),
}
"""Room -> pages that the list has no line for, as they are not of the docs or the list itself."""

RENAMED: Mapping[str, str] = {
    "README.md": "docs/start.md",
    LIST: "docs/all-pages.md",
    "CONTRIBUTING.md": "docs/contributing.md",
    "CHANGELOG.md": "docs/changelog.md",
    "docs/example/README.md": "docs/example/about.md",
    "docs/decisions": "docs/decisions/index.md",
}
"""What has another place on the site; a README would be the first page of its folder."""

DECISIONS = Path("docs") / "decisions"
UNSEARCHED = (
    "docs/memory-tables.md",
    "CHANGELOG.md",
    "docs/architectures.md",
    "docs/published-recipes.md",
    *("docs/architecture.md", "docs/faults.md", "docs/gpu-checklist.md"),
)
"""Pages that the search leaves out, as it does decisions: a visitor's first page loads all that is
searched."""
NOT_SEARCHED = "---\nsearch: {exclude: true}\n---\n\n"
COPIED = ("*.png", "notebooks/*.ipynb")
"""Files of the docs that pages link to, besides pages."""

NOWHERE: Mapping[str, str] = {}

_ROOM = re.compile(r"^## ([^:\n]+):.*?(?=^## |\Z)", re.M | re.S)
_ROW = re.compile(r"^\| \[[^\]]+\]\(([^)]+\.md)\) \|", re.M)
_TEXT = re.compile(
    r"(?P<code>^(?P<fence>```+|~~~+).*?^(?P=fence)\s*?$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|\[(?P<text>[^\[\]]*)\]\((?P<target>[^)\s]+)\)",
    re.M | re.S,
)
_HEADING = re.compile(r"^# +(.+?) *$", re.M)


def rooms(root: Path) -> dict[str, list[str]]:
    """Room -> its pages in their order, as the list of all pages has them, which names decisions as
    a folder (`decisions`)."""
    listed = (root / LIST).read_text(encoding="utf-8")
    found = {EVIDENCE: list(IN_EVIDENCE)}
    for room in _ROOM.finditer(listed):
        pages = [os.path.normpath(f"docs/{page}") for page in _ROW.findall(room[0])]
        mine = [page for page in pages if page not in IN_EVIDENCE]
        found[room[1]] = [*BESIDE.get(room[1], ()), *mine]
    return found


def decisions(root: Path) -> list[str]:
    """The decisions, the latest first."""
    found = sorted((root / DECISIONS).glob("*.md"), reverse=True)
    return [path.relative_to(root).as_posix() for path in found]


def pages(root: Path) -> dict[str, str]:
    """Page of the repository -> its place on the site."""
    every = [*(page for room in rooms(root).values() for page in room), *decisions(root)]
    return {page: RENAMED.get(page, page) for page in every}


def files(root: Path) -> list[str]:
    """What is copied beside the pages."""
    found = [path for pattern in COPIED for path in sorted((root / "docs").glob(pattern))]
    return [path.relative_to(root).as_posix() for path in found]


def places(root: Path, elsewhere: Mapping[str, str] = NOWHERE) -> dict[str, str]:
    """Everything of the repository that the site has -> its place there.

    Args:
        elsewhere: what stands at another place than a page or a copied file.
    """
    same = {name: name for name in files(root)}
    folder = DECISIONS.as_posix()
    return pages(root) | same | {folder: RENAMED[folder]} | dict(elsewhere)


def title(text: str, page: str) -> str:
    """A page's own title, without marks of code.

    Raises:
        UserError: it has none.
    """
    found = _HEADING.search(text)
    if found is None:
        raise UserError(f"{page} has no title", "Begin it with a line such as: # What it is")
    return found[1].replace("`", "")


def for_site(text: str, page: str, root: Path, known: Mapping[str, str], repository: str) -> str:
    """A page of the repository with its links as they are on the site.

    Args:
        text: the page.
        page: its path below the project's folder.
        known: what the site has, of `places`.
        repository: address that a path of the repository is put after; empty if there is none.

    Raises:
        UserError: a link leads to a file that isn't there.
    """
    here = known[page]

    def link(match: re.Match[str]) -> str:
        if match["code"] is not None:
            return match[0]
        target = _there(match["target"], page, here, root, known, repository)
        image = match.string[: match.start()].endswith("!")
        if target is None:
            return match["text"] if not image else match[0]
        return f"[{match['text']}]({target})"

    return _TEXT.sub(link, text)


def _there(
    target: str, page: str, here: str, root: Path, known: Mapping[str, str], repository: str
) -> str | None:
    """Where a link leads on the site; None where that is nowhere."""
    if re.match(r"[a-z][a-z0-9+.-]*:|#", target):
        return target
    path, hash_, fragment = target.partition("#")
    name = os.path.normpath(os.path.join(os.path.dirname(page), unquote(path)))
    if name in known:
        return quote(relative(known[name], here)) + hash_ + fragment
    if not (root / name).exists():
        raise UserError(f"{page} links to {target}, which is not there", "Fix the link.")
    return f"{repository.rstrip('/')}/{quote(name)}{hash_}{fragment}" if repository else None


def relative(target: str, page: str) -> str:
    """The way from a page of the site to another file of it."""
    return os.path.relpath(target, os.path.dirname(page) or ".").replace(os.sep, "/")


def docs(
    root: Path, repository: str = "", elsewhere: Mapping[str, str] = NOWHERE
) -> dict[str, str]:
    """Every page of the docs, by its place on the site.

    Args:
        root: the project's folder.
        repository: as in `for_site`.
        elsewhere: as in `places`.

    Raises:
        UserError: a link leads nowhere, or a page has no title.
    """
    known = places(root, elsewhere)
    found = {}
    for page, place in pages(root).items():
        text = (root / page).read_text(encoding="utf-8")
        title(text, page)
        made = for_site(text, page, root, known, repository)
        left_out = page in UNSEARCHED or page.startswith(DECISIONS.as_posix())
        found[place] = f"{NOT_SEARCHED}{made}" if left_out else made
    found[RENAMED[DECISIONS.as_posix()]] = _list_of_decisions(root)
    return found


def _list_of_decisions(root: Path) -> str:
    lines = ["# Decisions", "", "What shapes the numbers, and why it is so; the latest first.", ""]
    for page in decisions(root):
        name = title((root / page).read_text(encoding="utf-8"), page)
        day = Path(page).name[:10]
        lines.append(f"- {day}: [{_plain(name)}]({Path(page).name})")
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", text)


Nav = list[dict[str, object]]


def nav(root: Path, made: Callable[[str], Sequence[tuple[str, str]]]) -> Nav:
    """Room -> (title, place) of its pages, as MkDocs wants them.

    Args:
        made: the pages of a room that are made from rows and code, which come first.
    """
    known = pages(root)
    found: Nav = []
    for room, names in rooms(root).items():
        inside: list[dict[str, object]] = [{name: place} for name, place in made(room)]
        for page in names:
            text = (root / page).read_text(encoding="utf-8")
            inside.append({NAMES.get(page, title(text, page)): known[page]})
        if room == "Explanation":
            inside.append({"Decisions": _decided(root)})
        found.append({room: inside})
    return found


NAMES: Mapping[str, str] = {
    "README.md": "Getting started",
    LIST: "All pages",
    "docs/commands.md": "Commands",
    "CONTRIBUTING.md": "Change peftmark",
    "docs/memory-tables.md": "Memory of large models",
    "docs/gate.md": "The gate",
    "docs/alarms.md": "Alarms",
    "docs/columns.md": "Columns",
}
"""Names in the menu where a title is too long for one."""


def _decided(root: Path) -> list[object]:
    known: list[object] = [RENAMED[DECISIONS.as_posix()]]
    for page in decisions(root):
        text = (root / page).read_text(encoding="utf-8")
        known.append({title(text, page): page})
    return known
