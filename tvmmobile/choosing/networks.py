"""Loads the networks to choose from; networks from files are cached by the file's content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.files import OwnFile, Side, own_file
from tvmmobile.networks.signature import Port
from tvmmobile.pipeline.known_tasks import digests_of
from tvmmobile.pipeline.load import variants
from tvmmobile.system.files import write_text
from tvmmobile.system.package import cached_file


def networks_of(name: str, alphas: Sequence[float], sides: Sequence[Side]) -> list[Model]:
    """Return the variants of a family, or the network in a file, which is imported only if its content is new; see `variants`."""
    file = own_file(name)
    digests = None if file is None or alphas else digests_of(file)
    if file is None or digests is None:
        return variants(name, alphas, sides)
    path = cached_file("imported", (str(file), digests, tuple(sides)), ".json")
    try:
        return [_model(file, entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError, KeyError):
        models = variants(name, alphas, sides)
    if all(model == Model(model.spec, own=file, quantised=model.quantised) for model in models):
        with suppress(OSError):  # where the disk is full, a later command imports again
            write_text(path, json.dumps([{"spec": asdict(model.spec), "quantised": model.quantised} for model in models]))
    return models


def _model(file: OwnFile, entry: dict[str, Any]) -> Model:
    inputs, outputs = (tuple(_port(fields) for fields in entry["spec"][ports]) for ports in ("inputs", "outputs"))
    return Model(OwnSpec.of(entry["spec"]["name"], entry["spec"]["contents"], inputs, outputs), own=file, quantised=entry["quantised"])


def _port(fields: dict[str, Any]) -> Port:
    return Port(**fields | {"shape": tuple(fields["shape"])})
