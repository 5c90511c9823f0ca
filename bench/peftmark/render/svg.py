"""From matplotlib's SVG to a theme-aware `<svg>` element for a page or a file of its own.

Pictures are drawn in stand-in colours, replaced here by CSS variables, so that one picture serves
light and dark.
"""

from __future__ import annotations

import html
import re
import textwrap

from peftmark.core.shown import visible
from peftmark.render.series import SERIES, dark_rules

INK, MUTED, LINE, PAPER = "#010203", "#010204", "#010205", "#010206"
VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted,#5c6066)",
    LINE: "var(--line,#d9dce0)",
    PAPER: "var(--paper,#fff)",
    **{s.light: f"var(--c-{s.key},{s.light})" for s in SERIES.values()},
}


def _dark() -> str:
    """What a picture that stands alone looks like on a dark page, in lines of a style sheet."""
    plain = {"paper": "#15171a", "muted": "#a3a7ad", "line": "#373b41"}
    rules = [*(f"--{name}: {value};" for name, value in plain.items()), *dark_rules()]
    start = "@media (prefers-color-scheme:dark){svg{color:#e8e6e3;background:#15171a;"
    text = " ".join([start, *(rule.replace(": ", ":") for rule in rules)]).removesuffix(";")
    lines = textwrap.wrap(f"{text}}}}}", 100, break_on_hyphens=False)
    return "\n".join(line.replace("; --", ";--") for line in lines)


STANDALONE = f"""<style>
svg{{color:#1b1d21;background:#fff;font-family:system-ui,sans-serif}}
svg *{{stroke-linejoin:round;stroke-linecap:butt}}
{_dark()}
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
    return visible(f"{svg[:end]}\n{STANDALONE}{svg[end:]}\n")
