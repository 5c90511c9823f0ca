"""The package that docs/plugins.md shows, installed as pip would leave it, into a folder."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
NAME, PACKAGE = "peftmark-example", "peftmark_example"
_BLOCK = re.compile(r"^```\w+\n# (\S+)\n(.*?)^```$", re.M | re.S)


def shown() -> dict[str, str]:
    """File -> its content, as the page has it."""
    return dict(_BLOCK.findall(DOCS.read_text(encoding="utf-8")))


def rows(count: int = 64) -> str:
    """A class by which half of the words a text has, which a tiny model learns."""
    lines = ["sentence,half"]
    for n in range(count):
        words = " ".join(f"w{(7 * n + k) % 20 + 20 * (n % 2)}" for k in range(3 + n % 4))
        lines.append(f"{words} w{n % 40},{'second' if n % 2 else 'first'}")
    return "\n".join(lines) + "\n"


def install(site: Path, listed: bool = True, **changed: str) -> None:
    """Put the package into a folder of `sys.path`.

    Args:
        listed: whether its distribution lists its files; an editable one does not.
        changed: entry points in place of the page's, group -> lines.
    """
    files = shown()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    written = {f"{PACKAGE}/__init__.py": "", f"{PACKAGE}/halves.csv": rows()}
    written |= {name: text for name, text in files.items() if name.startswith(f"{PACKAGE}/")}
    for name, text in written.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    points = {
        group: [f"{key} = {value}" for key, value in entries.items()]
        for group, entries in project["entry-points"].items()
    }
    points |= {f"peftmark.{group}": [lines] for group, lines in changed.items()}
    needs = "\n".join(f"Requires-Dist: {one}" for one in project["dependencies"])
    distribute(
        site,
        NAME,
        project["version"],
        "\n".join(f"[{group}]\n" + "\n".join(lines) for group, lines in points.items()),
        [*written] if listed else [],
        needs,
    )


def distribute(
    site: Path, name: str, version: str, points: str, listed: list[str], needs: str = ""
) -> None:
    """What pip leaves of an installed package beside its files."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(points, encoding="utf-8")
    (info / "RECORD").write_text(
        "".join(f"{one},,\n" for one in [*listed, f"{info.name}/METADATA"]), encoding="utf-8"
    )
