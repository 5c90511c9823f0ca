"""A stand-in for an object store: keys without folders, in this process, that can refuse and break.

Registered as `flat://`. It is no more of fsspec than a store like S3 gives: there is nothing to
make a folder with, a put replaces a whole object or does nothing, and listings are by prefix.
"""

from __future__ import annotations

import io
from typing import Any, ClassVar

from fsspec import register_implementation
from fsspec.spec import AbstractFileSystem


class FlatStore(AbstractFileSystem):
    """Objects by key.

    Attributes:
        objects: key -> bytes, of every instance.
        puts: keys in the order they were written.
        left: puts that succeed before the connection breaks; None for all.
        refused: what a put raises in place of writing; None for nothing.
    """

    protocol = "flat"
    cachable = False
    objects: ClassVar[dict[str, bytes]] = {}
    puts: ClassVar[list[str]] = []
    left: ClassVar[int | None] = None
    refused: ClassVar[Exception | None] = None

    @classmethod
    def reset(cls) -> None:
        """An empty store that works."""
        cls.objects.clear()
        cls.puts.clear()
        cls.left, cls.refused = None, None

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        if FlatStore.refused is not None:
            raise FlatStore.refused
        if FlatStore.left == 0:
            raise ConnectionError("https://bucket.example/?X-Amz-Signature=SECRET broke")
        if FlatStore.left is not None:
            FlatStore.left -= 1
        self.objects[path] = bytes(value)
        self.puts.append(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return io.BytesIO(self.objects[path])

    def find(self, path: str, detail: bool = False, **_: Any) -> Any:
        found = {k: {"name": k, "size": len(v)} for k, v in self.objects.items()}
        mine = {k: f for k, f in found.items() if k.startswith(path.rstrip("/") + "/")}
        return mine if detail else sorted(mine)

    def rm_file(self, path: str) -> None:
        if path not in self.objects:
            raise FileNotFoundError(path)
        del self.objects[path]

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise AssertionError("an object store has no folders to make")


register_implementation("flat", FlatStore, clobber=True)
