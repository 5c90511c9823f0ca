"""bitsandbytes' code books, which are made of values, where tensors have none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from peftmark.lab.errors import Unsupported
from peftmark.lab.memory.insides import fake_tensor

_unset: Any = fake_tensor.unset_fake_temporarily


@contextmanager
def code_books() -> Iterator[None]:
    """Code books have values inside, and none of them stays: bitsandbytes keeps its own for the
    process.

    Raises:
        Unsupported: if it can't be loaded.
    """
    try:
        import bitsandbytes.functional as functional
    except Exception as error:  # its native library can fail in many ways
        raise Unsupported(f"bitsandbytes can't be loaded: {error}") from error
    make: Any = functional.create_dynamic_map

    def with_values(*arguments: Any, **named: Any) -> Any:
        with _unset():
            return make(*arguments, **named)

    with (
        mock.patch.dict(functional.name2qmap),
        mock.patch.object(functional, "create_dynamic_map", with_values),
    ):
        yield
