"""An export whole: files, the code that loads them, and what holding them against training says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from peftmark.lab.export import code, forms
from peftmark.lab.export.check import ROWS, difference
from peftmark.lab.export.opened import Opened

_WRITERS = {
    "adapter": forms.write_adapter,
    "lora": forms.write_lora,
    "model": forms.write_model,
}


@dataclass(frozen=True)
class Written:
    """An export that was checked.

    Attributes:
        form: see `peftmark.lab.export.forms`.
        with_base: whether the base is in it.
        difference: the largest of a logit from the trained model's.
        largest: the largest logit.
        rows: that both were compared on.
        code: the text of its `load.py`.
    """

    form: forms.Form
    with_base: bool
    difference: float
    largest: float
    rows: int
    code: str


def write(opened: Opened, target: Path, merged: bool = False, with_base: bool = False) -> Written:
    """Write an export into an empty folder, load it by its own code, and compare.

    Args:
        merged: the whole model without an adapter.
        with_base: the base beside an adapter.

    Raises:
        Unsupported: no form gives the trained model, or what was written is another one.
    """
    form = forms.form_of(opened, merged, with_base)
    with_base = with_base and form != "model"
    _WRITERS[form](opened, target)
    if with_base:
        forms.write_base(opened, target / code.BASE)
    text = code.loading_code(opened, form, with_base)
    (target / code.FILE).write_text(text, encoding="utf-8")
    apart, largest = difference(opened, target, with_base, form == "model")
    return Written(form, with_base, apart, largest, ROWS, text)
