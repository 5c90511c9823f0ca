"""Rows as a Parquet file that carries the SHA-256 of its own bytes.

Page checksums leave the footer alone, and a bit that flips there can be read back as another value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from peftmark.record.columns import COLUMNS, to_row
from peftmark.record.job import SCHEMA_VERSION, Record

ROW_GROUP = 500

SEAL = b"peftmark_sha256"
"""Key in the footer whose value is the SHA-256 of the file with zeros in the digest's place."""
UNSEALED = b"0" * 64
_GAP = 2  # between key and value in the footer's encoding: the kind of the field and the length


def _schema() -> Any:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "json": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float32()),
        "curve": pa.list_(
            pa.struct(
                [
                    ("step", pa.int64()),
                    ("loss", pa.float64()),
                    ("metric", pa.float64()),
                    ("seconds", pa.float64()),
                    ("selection_metric", pa.float64()),
                    ("penalty", pa.float64()),
                    ("gradient_norm", pa.float64()),
                ]
            )
        ),
    }
    fields = [pa.field(name, types[kind]) for name, kind in COLUMNS.items()]
    return pa.schema(fields, metadata={b"peftmark_schema": str(SCHEMA_VERSION).encode()})


def row_groups(records: Sequence[Record]) -> Iterator[list[dict[str, Any]]]:
    """Rows, a few at a time: as Python values they take many times the memory of a file."""
    for start in range(0, len(records), ROW_GROUP):
        yield [_as_unicode(to_row(record)) for record in records[start : start + ROW_GROUP]]


def _as_unicode(row: dict[str, Any]) -> dict[str, Any]:
    """The row with "?" for each byte that Python could only keep as half a character.

    Such halves come from file names and messages that are not UTF-8, and no Parquet file takes
    them: a failed job with one in its reason would end the run.
    """

    def mended(value: Any) -> Any:
        if isinstance(value, str):
            return value if value.isascii() else value.encode("utf-8", "replace").decode()
        if isinstance(value, list) and value and isinstance(value[0], str):
            return [mended(text) for text in value]
        return value

    return {name: mended(value) for name, value in row.items()}


def parquet_bytes(
    groups: Iterable[list[dict[str, Any]]], facts: Mapping[bytes, bytes] | None = None
) -> bytes:
    """Rows as a sealed Parquet file; the same rows give the same bytes.

    Args:
        facts: metadata besides the schema's version and the seal.
    """
    return table_bytes(_schema(), groups, facts)


def table_bytes(
    schema: Any, groups: Iterable[list[dict[str, Any]]], facts: Mapping[bytes, bytes] | None = None
) -> bytes:
    """Rows of any schema as a sealed Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, schema, write_page_checksum=True) as writer:
        writer.add_key_value_metadata({**(facts or {}), SEAL: UNSEALED})
        for rows in groups:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return sealed(buffer.getvalue().to_pybytes())


def read_table(content: bytes) -> Any:
    """The table of a sealed Parquet file.

    Raises:
        ValueError: the bytes are not the ones that were sealed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_seal(content)
    # Not pyarrow's own `read_table`, whose threads can outlive the interpreter and abort it at its
    # end.
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    return file.read(use_threads=False)


def sealed(content: bytes) -> bytes:
    """A file's bytes with the digest in its place."""
    start = _digest_at(content)
    if content[start : start + 64] != UNSEALED:
        raise RuntimeError("pyarrow writes the footer of a Parquet file in an unknown way")
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:start] + digest + content[start + 64 :]


def check_seal(content: bytes) -> None:
    """Raise ValueError if the bytes are not the ones that were sealed.

    Files without a seal, as peftmark wrote them before it had one, rest on their page checksums.
    """
    start = _digest_at(content)
    if start < 0:
        return
    digest = hashlib.sha256(content[:start])
    digest.update(UNSEALED + content[start + 64 :])
    if content[start : start + 64] != digest.hexdigest().encode():
        raise ValueError("the file's SHA-256 is not the one it was written with")


def _digest_at(content: bytes) -> int:
    # The last one: text of a row may hold the same word, and rows come before the footer's keys.
    found = content.rfind(SEAL)
    return -1 if found < 0 else found + len(SEAL) + _GAP
