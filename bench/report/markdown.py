"""A page as GitHub-flavoured Markdown with its pictures beside it."""

from __future__ import annotations

import re

from bench.report.page import Block, Column, Entry, Figure, Figures, Grid, Page, Paragraph

PICTURES = "figures"


def render(page: Page) -> str:
    """The Markdown text; pictures are expected as `figures/<name>.svg`."""
    parts = [f"# {escape(page.title)}"]
    parts.append("\n".join(f"- **{escape(k)}:** {escape(v)}" for k, v in page.facts))
    parts.append(escape(page.finding))
    parts += [f"> **{escape(alarm)}**" for alarm in page.alarms]
    if page.warning:
        parts.append(f"> **{escape(page.warning)}**")
    if page.notes:
        parts.append("\n".join(f"- {escape(note)}" for note in page.notes))
    if page.links:
        links = (f"[{escape(text)}](<{address}>)" for text, address in page.links)
        parts.append(" · ".join(links))
    parts += [_block(b) for b in page.opening]
    for section in page.sections:
        parts += [f"## {escape(section.title)}", escape(section.lead)]
        parts += [_block(b) for b in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is: on one line, no markup, no mentions."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_|\[\]#~])", r"\\\1", line)
    line = re.sub(r"^([-+]|\d+[.)])(?=\s)", lambda m: f"{m[1][:-1]}\\{m[1][-1]}", line)
    return re.sub(r"(?<!\w)@(?=\w)", "@\u200b", line)


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Figures):
        return "\n\n".join(_figure(figure) for figure in block.figures)
    return _grid(block)


def _figure(figure: Figure) -> str:
    title = f"{escape(figure.title)}: " if figure.title else ""
    finding = escape(figure.finding)
    image = f"![{finding}]({PICTURES}/{figure.name}.svg)"
    return f"**{title}{finding}**{_small(figure.note)}\n\n{image}"


def _small(note: str) -> str:
    return f" {escape(note)}" if note else ""


def _grid(grid: Grid) -> str:
    lines = [
        _line([_head(c) for c in grid.columns]),
        _line(["---:" if c.numeric else "---" for c in grid.columns]),
        *(_line([_entry(e) for e in row]) for row in grid.rows),
    ]
    table = "\n".join(lines)
    if grid.note:
        table += f"\n\n{escape(grid.note)}"
    if grid.folded or grid.is_long:
        summary = f"<summary>{escape(grid.caption)}</summary>"
        return f"<details>{summary}\n\n{table}\n\n</details>"
    return f"**{escape(grid.caption)}**\n\n{table}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(column: Column) -> str:
    return escape(column.title) + (f"<br>{escape(column.hint)}" if column.hint else "")


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.kind == "code":
        text = f"<code>{text}</code>"
    return f"{text}<br>{escape(entry.note)}" if entry.note else text
