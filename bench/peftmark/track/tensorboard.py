"""TensorBoard: event files, a folder for each attempt of a job, which is there whole or not at all.

    <place>/<suite>/<profile>/<cell>-seed<n>-<job>.<attempt>/events.out.tfevents...
    <place>/<suite>/<profile>/report/events.out.tfevents...

Scalars are written as doubles, where TensorBoard's own writers round to single precision.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.compat.proto import (
    event_pb2,
    summary_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    types_pb2,
)
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.scalar import metadata as scalar
from tensorboard.plugins.text import metadata as text
from tensorboard.summary.writer.record_writer import RecordWriter

from peftmark.core.files import sync
from peftmark.record.fields import FIELDS
from peftmark.storage.adapters import slug
from peftmark.track.entry import Entry
from peftmark.track.seam import Ending

PLACE = "runs"
"""Where TensorBoard's users have event files, where nobody names a folder."""
UNFINISHED = ".unfinished"


class TensorBoard:
    """A folder of event files.

    Args:
        place: the folder; None for `PLACE`.
    """

    def __init__(self, place: str | None) -> None:
        self._folder = Path(place or PLACE)
        self.where = str(self._folder)

    def job(self, entry: Entry) -> bool:
        """Write a job's events; False if they are there already."""
        folder = self._place(entry)
        if folder.is_dir():
            return False
        _write(folder, _events(entry), entry.finished)
        return True

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Write where the adapter is: event files hold no others."""
        place = self._place(entry).with_name(f"{self._place(entry).name}.adapter")
        if place.is_dir():
            return False
        _write(place, [_text(0, entry.finished, "adapter", _as_it_is(str(folder)))], entry.finished)
        return True

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Write the report's Markdown; a later one takes its place."""
        for file in files:
            if file.suffix == ".md":
                place = self._folder / suite / profile / "report"
                words = file.read_text(encoding="utf-8")
                time = file.stat().st_mtime
                _write(place, [_text(0, time, "report", words)], time)

    def end(self, ending: Ending) -> None:
        """Nothing: what is written is there."""

    def _place(self, entry: Entry) -> Path:
        seed = entry.parameters["seed"]
        name = f"{slug(entry.cell)}-seed{seed}-{entry.name}"
        return self._folder / entry.suite / entry.profile / name


def _write(folder: Path, events: Iterable[Any], time: float) -> None:
    """Write a folder with one event file, in place of one that is there.

    Raises:
        OSError: it can't be written; nothing of it is in its place then.
    """
    made = folder.with_name(f".{folder.name}{UNFINISHED}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    try:
        path = made / f"events.out.tfevents.{int(time)}.peftmark"
        with path.open("wb") as file:
            writer = RecordWriter(file)
            writer.write(
                event_pb2.Event(wall_time=time, file_version="brain.Event:2").SerializeToString()
            )
            for event in events:
                writer.write(event.SerializeToString())
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
        sync(folder.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(made, ignore_errors=True)


def _events(entry: Entry) -> Iterator[Any]:
    """The events of a job, in their order."""
    yield _parameters(entry)
    for point in entry.curve:
        for name, value in point.values.items():
            yield _scalar(point.step, point.time, f"curve/{name}", value, "")
    last = entry.curve[-1].step if entry.curve else 0
    for name, value in entry.figures.items():
        field = FIELDS.get(name)
        words = "" if field is None else f"{field.title} ({field.unit or 'no unit'})"
        yield _scalar(last, entry.finished, f"final/{name}", value, words)
    yield _text(last, entry.finished, "figures", _as_it_is(entry.sheet))
    for name, words in entry.facts.items():
        yield _text(last, entry.finished, f"facts/{name}", _as_it_is(words))
    status = api_pb2.STATUS_SUCCESS if entry.ok else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=entry.finished)
    data = plugin_data_pb2.HParamsPluginData(session_end_info=end)
    yield _of_session(hparams.SESSION_END_INFO_TAG, entry.finished, data)


def _parameters(entry: Entry) -> Any:
    """The start of a session with its settings."""
    start = plugin_data_pb2.SessionStartInfo(group_name=entry.name, start_time_secs=entry.started)
    for name, value in entry.parameters.items():
        start.hparams[name].string_value = value
    data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
    return _of_session(hparams.SESSION_START_INFO_TAG, entry.started, data)


def _of_session(tag: str, time: float, data: Any) -> Any:
    nothing = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_FLOAT, tensor_shape=tensor_shape_pb2.TensorShapeProto()
    )
    nothing.float_val.append(0.0)
    return _event(0, time, tag, nothing, hparams.create_summary_metadata(data))


def _scalar(step: int, time: float, tag: str, value: float, words: str) -> Any:
    number = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_DOUBLE, tensor_shape=tensor_shape_pb2.TensorShapeProto()
    )
    number.double_val.append(value)
    return _event(step, time, tag, number, scalar.create_summary_metadata("", words))


def _text(step: int, time: float, tag: str, words: str) -> Any:
    tensor = tensor_pb2.TensorProto(
        dtype=types_pb2.DT_STRING, tensor_shape=tensor_shape_pb2.TensorShapeProto()
    )
    tensor.string_val.append(words.encode())
    return _event(step, time, tag, tensor, text.create_summary_metadata("", ""))


def _as_it_is(words: str) -> str:
    """Lines that TensorBoard's Markdown shows as they are."""
    return "".join(f"    {line}\n" for line in words.splitlines())


def _event(step: int, time: float, tag: str, tensor: Any, metadata: Any) -> Any:
    value = summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
    summary = summary_pb2.Summary(value=[value])
    return event_pb2.Event(wall_time=time, step=step, summary=summary)


def open_tracker(place: str | None) -> TensorBoard:
    """Open a folder of event files."""
    return TensorBoard(place)
