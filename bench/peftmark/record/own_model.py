"""What a job says of a model of the user's own, which is in no catalogue."""

from __future__ import annotations

from dataclasses import dataclass, field

from peftmark.catalog.models import Model
from peftmark.record.identity import LATER


@dataclass(frozen=True)
class OwnModel:
    """A model of the user's own as its jobs carry it; its files are known by their hash.

    Attributes: as of `peftmark.catalog.models.Model`.
    """

    causal: bool
    parameters: int
    title: str
    stored_as: str = field(default="", metadata=LATER)
    stored_double: bool = field(default=False, metadata=LATER)


def carried_model(model: Model) -> OwnModel | None:
    """What a job carries of its model; None for one of the catalogue."""
    if not model.own:
        return None
    return OwnModel(
        model.causal, model.parameters, model.title, model.stored_as, model.stored_double
    )


def model_from(own: OwnModel, key: str, identity: str) -> Model:
    """The model that `carried_model` was made of."""
    return Model(
        key=key,
        title=own.title,
        weights_sha256="",
        hub=None,
        packages=(),
        parameters=own.parameters,
        licence="the user's own",
        summary=own.title,
        files=(),
        causal=own.causal,
        own=True,
        files_sha256=identity,
        stored_as=own.stored_as,
        stored_double=own.stored_double,
    )
