"""Facts looked up in a JSON file by their place, with the reason of each that is not there."""

from __future__ import annotations

from typing import Any

LONGEST_NAME = 200


def clean(text: str) -> str:
    """One line of at most `LONGEST_NAME` characters that a terminal shows as it is."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= LONGEST_NAME else line[: LONGEST_NAME - 1] + "…"


class Facts:
    """Looks values up in a file by their place, such as a.b.c, and notes why a field has none."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self._tree = tree
        self.reasons: dict[str, str] = {}

    def _find(self, field: str, places: tuple[str, ...]) -> Any:
        """The first value that is there and not null."""
        for place in places:
            found: Any = self._tree
            for key in place.split("."):
                found = found.get(key) if isinstance(found, dict) else None
            if found is not None:
                return found
        self.reasons[field] = f"the file has no {_key(places)}"
        return None

    def number(
        self, field: str, *places: str, least: float = 0.0, most: float = 2.0**63
    ) -> float | None:
        """A finite number within limits; of several places the first that has something."""
        value = self._find(field, places)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            fault = "not a number"
        elif value != value or abs(value) >= 2**63:
            fault = "NaN, infinite or too large"
        elif not least <= value <= most:
            fault = f"{value:g}, which can't be"
        else:
            return float(value)
        self.reasons[field] = f"{_key(places)} is {fault} in the file"
        return None

    def count(self, field: str, *places: str) -> int | None:
        """A whole number from 0."""
        value = self.number(field, *places)
        if value is not None and not value.is_integer():
            self.reasons[field] = f"{_key(places)} is not a whole number in the file"
            return None
        return None if value is None else int(self._find(field, places))

    def text(self, field: str, *places: str) -> str | None:
        """A text that isn't empty, on one line."""
        value = self._find(field, places)
        if isinstance(value, str) and value.strip():
            return clean(value)
        if value is not None:
            self.reasons[field] = f"{_key(places)} is not text in the file"
        return None

    def own(self, name: str) -> str:
        """What peftmark noted in a file that it wrote itself; empty in every other file."""
        meta = self._tree["meta_info"].get("peftmark")
        value = meta.get(name) if isinstance(meta, dict) else None
        return clean(value) if isinstance(value, str) else ""

    def flag(self, field: str, *places: str) -> bool | None:
        """True or false."""
        value = self._find(field, places)
        if isinstance(value, bool):
            return value
        if value is not None:
            self.reasons[field] = f"{_key(places)} is neither true nor false in the file"
        return None

    def needed(self, place: str) -> str:
        """A text without which a row would mean nothing."""
        value = self.text("", place)
        if value is None:
            raise ValueError(self.reasons.pop(""))
        return value


def _key(places: tuple[str, ...]) -> str:
    return places[0].split(".")[-1]
