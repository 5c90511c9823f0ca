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
from typing import Any, BinaryIO

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
        self._folder, self._form = Path(place or PLACE), Events()
        self.where = str(self._folder)

    def job(self, entry: Entry) -> bool:
        """Write a job's events; False if they are there already."""
        folder = self._place(entry)
        if folder.is_dir():
            return False
        _write(folder, self._form, self._form.events(entry), entry.finished)
        return True

    def adapter(self, entry: Entry, folder: Path) -> bool:
        """Write where the adapter is: event files hold no others."""
        place = self._place(entry).with_name(f"{self._place(entry).name}.adapter")
        if place.is_dir():
            return False
        event = self._form.text(0, entry.finished, "adapter", _as_it_is(str(folder)))
        _write(place, self._form, [event], entry.finished)
        return True

    def report(self, suite: str, profile: str, files: Sequence[Path]) -> None:
        """Write the report's Markdown; a later one takes its place."""
        for file in files:
            if file.suffix == ".md":
                place = self._folder / suite / profile / "report"
                words = file.read_text(encoding="utf-8")
                time = file.stat().st_mtime
                _write(place, self._form, [self._form.text(0, time, "report", words)], time)

    def end(self, ending: Ending) -> None:
        """Nothing: what is written is there."""

    def _place(self, entry: Entry) -> Path:
        seed = entry.parameters["seed"]
        name = f"{slug(entry.cell)}-seed{seed}-{entry.name}"
        return self._folder / entry.suite / entry.profile / name


def _write(folder: Path, form: Events, events: Iterable[Any], time: float) -> None:
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
            form.write(file, events, time)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(made, folder)
        sync(folder.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(made, ignore_errors=True)


class Events:
    """The events of TensorBoard's library, which is loaded with the first of these."""

    def __init__(self) -> None:
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

        self._event_proto, self._summary_proto, self._tensor = event_pb2, summary_pb2, tensor_pb2
        self._shape, self._types = tensor_shape_pb2, types_pb2
        self._api, self._plugin_data = api_pb2, plugin_data_pb2
        self._hparams_plugin, self._scalar_plugin, self._text_plugin = hparams, scalar, text
        self._writer = RecordWriter

    def write(self, file: BinaryIO, events: Iterable[Any], time: float) -> None:
        """Write an event file."""
        writer = self._writer(file)
        version = self._event_proto.Event(wall_time=time, file_version="brain.Event:2")
        for event in (version, *events):
            writer.write(event.SerializeToString())

    def events(self, entry: Entry) -> Iterator[Any]:
        """The events of a job, in their order."""
        yield self._parameters(entry)
        for point in entry.curve:
            for name, value in point.values.items():
                yield self._scalar(point.step, point.time, f"curve/{name}", value, "")
        last = entry.curve[-1].step if entry.curve else 0
        for name, value in entry.figures.items():
            field = FIELDS.get(name)
            words = "" if field is None else f"{field.title} ({field.unit or 'no unit'})"
            yield self._scalar(last, entry.finished, f"final/{name}", value, words)
        yield self.text(last, entry.finished, "figures", _as_it_is(entry.sheet))
        for name, words in entry.facts.items():
            yield self.text(last, entry.finished, f"facts/{name}", _as_it_is(words))
        status = self._api.STATUS_SUCCESS if entry.ok else self._api.STATUS_FAILURE
        end = self._plugin_data.SessionEndInfo(status=status, end_time_secs=entry.finished)
        data = self._plugin_data.HParamsPluginData(session_end_info=end)
        yield self._of_session(self._hparams_plugin.SESSION_END_INFO_TAG, entry.finished, data)

    def _parameters(self, entry: Entry) -> Any:
        """The start of a session with its settings."""
        start = self._plugin_data.SessionStartInfo(
            group_name=entry.name, start_time_secs=entry.started
        )
        for name, value in entry.parameters.items():
            start.hparams[name].string_value = value
        data = self._plugin_data.HParamsPluginData(session_start_info=start)
        return self._of_session(self._hparams_plugin.SESSION_START_INFO_TAG, entry.started, data)

    def _of_session(self, tag: str, time: float, data: Any) -> Any:
        nothing = self._tensor.TensorProto(
            dtype=self._types.DT_FLOAT, tensor_shape=self._shape.TensorShapeProto()
        )
        nothing.float_val.append(0.0)
        return self._event(
            0, time, tag, nothing, self._hparams_plugin.create_summary_metadata(data)
        )

    def _scalar(self, step: int, time: float, tag: str, value: float, words: str) -> Any:
        number = self._tensor.TensorProto(
            dtype=self._types.DT_DOUBLE, tensor_shape=self._shape.TensorShapeProto()
        )
        number.double_val.append(value)
        return self._event(
            step, time, tag, number, self._scalar_plugin.create_summary_metadata("", words)
        )

    def text(self, step: int, time: float, tag: str, words: str) -> Any:
        """A text."""
        tensor = self._tensor.TensorProto(
            dtype=self._types.DT_STRING, tensor_shape=self._shape.TensorShapeProto()
        )
        tensor.string_val.append(words.encode())
        return self._event(
            step, time, tag, tensor, self._text_plugin.create_summary_metadata("", "")
        )

    def _event(self, step: int, time: float, tag: str, tensor: Any, metadata: Any) -> Any:
        value = self._summary_proto.Summary.Value(tag=tag, tensor=tensor, metadata=metadata)
        summary = self._summary_proto.Summary(value=[value])
        return self._event_proto.Event(wall_time=time, step=step, summary=summary)


def _as_it_is(words: str) -> str:
    """Lines that TensorBoard's Markdown shows as they are."""
    return "".join(f"    {line}\n" for line in words.splitlines())


def open_tracker(place: str | None) -> TensorBoard:
    """Open a folder of event files."""
    return TensorBoard(place)
