"""Networks from a LiteRT file, in float or quantised, translated to ONNX and compared with LiteRT's own interpreter."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial

from tvmmobile.networks.frontend import Imported, not_imported
from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.own.files import OwnFile, Wanted, read_whole
from tvmmobile.networks.own.litert.operators import onnx_of
from tvmmobile.networks.own.litert.reader import read_litert
from tvmmobile.networks.own.litert.runtime import start_litert
from tvmmobile.networks.own.litert.states import without_variables
from tvmmobile.networks.own.onnx.file import imported_onnx
from tvmmobile.networks.own.onnx.limits import check_onnx
from tvmmobile.system.errors import UserError

_FIX = "Convert it with the shapes that it is to run with."


def load_litert(file: OwnFile, wanted: Wanted) -> Imported:
    """The network in a LiteRT file, with the shapes that it was converted with.

    Raises:
        UserError: it is damaged or of another kind, has another side, or cannot be compiled.
    """
    content = read_whole(file.path)
    try:
        network = without_variables(read_litert(file, content))
        model = onnx_of(network)
    except UserError:
        raise
    except Exception as error:  # a file whose tensors and options contradict each other
        raise not_imported(error) from error
    check_onnx(file, model)
    programs = [("LiteRT", partial(start_litert, content, network))]
    imported = imported_onnx(file, model, hashlib.sha256(content).hexdigest(), wanted, _FIX, programs)
    grids = [network.tensors[number].grid for number in network.inputs]
    zeros = [0 if grid is None else int(grid.zeros[0]) for grid in grids]
    takes = tuple(replace(port, zero=zero) for port, zero in zip(imported.spec.takes, zeros, strict=True))
    assert isinstance(imported.spec, OwnSpec)
    return replace(imported, spec=replace(imported.spec, inputs=takes))
