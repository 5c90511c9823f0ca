"""From matplotlib's SVG to a theme-aware `<svg>` element for a page or a file of its own.

Pictures are drawn in stand-in colours, replaced here by CSS variables, so that one picture serves
light and dark.
"""

from __future__ import annotations

import html
import re

INK, MUTED, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
COLOURS = {
    "lora": "#0072b2",
    "adalora": "#d55e00",
    "lora-nf4": "#009e73",
    "adalora-nf4": "#cc79a7",
    "full": "#3a3a3b",
    "head": "#6e6e6f",
    "base": "#7c7c7d",
    "adapter": "#a67c00",
    "selective": "#6b7f01",
    "prompt": "#7b52ab",
    "mixed": "#b0305c",
    "peft": "#7a4b2a",
    "other": "#8a8a8b",
}
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted,#5c6066)",
    LINE: "var(--line,#d9dce0)",
    PAPER: "var(--paper,#fff)",
    **{colour: f"var(--c-{key},{colour})" for key, colour in COLOURS.items()},
}
STANDALONE = """<style>
svg{color:#1b1d21;background:#fff;font-family:system-ui,sans-serif}
svg *{stroke-linejoin:round;stroke-linecap:butt}
@media (prefers-color-scheme:dark){svg{color:#e8e6e3;background:#15171a;--paper:#15171a;
--muted:#a3a7ad;--line:#373b41;--c-lora:#4aa3df;--c-adalora:#f0813a;--c-lora-nf4:#2fbf91;
--c-adalora-nf4:#dd9cc0;--c-full:#d5d5d6;--c-head:#a0a0a1;--c-base:#b9b9ba;--c-other:#8f8f90;
--c-adapter:#d9b23c;--c-selective:#b3c74a;--c-prompt:#b795e0;--c-mixed:#ec7ba0;
--c-peft:#c9966b}}
</style>"""


def inline(text: str, name: str, label: str, note: str, width: int, height: int) -> str:
    """Strip what a page doesn't need, make ids unique, and hand the colours to CSS.

    Args:
        text: what matplotlib wrote.
        name: prefix of every id, unique on the page.
        label: alternative text.
        note: how to read it; may be empty.
        width: width in CSS pixels.
        height: height in CSS pixels.
    """
    body = text[text.index("<svg") :]
    body = body[body.index(">") + 1 :].strip()
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.S)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.S)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "system-ui, sans-serif", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda m: VARIABLES.get(m[0], m[0]), body)
    label = html.escape(label, quote=True)
    description = f"<desc>{html.escape(note)}</desc>" if note else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>{label}</title>{description}{re.sub(chr(10) + ' *', chr(10), body)}"
    )


def standalone(svg: str) -> str:
    """The same picture as a file of its own, with the colours of both themes inside."""
    end = svg.index(">") + 1
    return f"{svg[:end]}\n{STANDALONE}{svg[end:]}\n"
