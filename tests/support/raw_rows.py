"""Rows of a task in every form that files have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from peftmark.catalog.task import Task

TEXTS = ("null", "NA", 'a "quote', "nan", "café and ï¿½", "one\u2028line", "#1, not", "plain")


def tiny(task: Task, train: int, evaluation: int) -> Task:
    return replace(task, fingerprint=None, train_rows=train, eval_rows=evaluation)


def raw_rows(task: Task, texts: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """(text, [pair,] [label]) as published: class numbers in turn, or scores."""
    scores = (0.0, 3.8, 5.0, 1.333)
    rows: list[tuple[Any, ...]] = []
    for i, text in enumerate(texts):
        row = tuple(f"{text} {n}" if n else text for n in range(len(task.fields)))
        label = scores[i % 4] if task.bounds else i % max(1, len(task.labels))
        rows.append((*row, label) if task.label_field else row)
    return rows


def write_form(path: Path, task: Task, rows: list[tuple[Any, ...]]) -> None:
    """One split in GLUE's TSV form, or as the hub's columns in Parquet or JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [*(task.hub_fields or task.fields), *(["label"] if task.label_field else [])]
    if path.suffix == ".tsv":
        own = (*task.fields, task.label_field) if task.label_field else task.fields
        names = task.header or ("index", *own)
        lines = [] if task.header else ["\t".join(names)]
        for i, row in enumerate(rows):
            cells = dict(zip(own, row, strict=True))
            lines.append("\t".join(str(cells.get(name, i)) for name in names))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        path.write_text("".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")
    else:
        frame = pd.DataFrame(rows, columns=columns)
        if task.bounds:
            frame["label"] = frame["label"].astype("float32")  # as on the hub
        frame.to_parquet(path)
