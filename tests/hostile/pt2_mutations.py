"""Mutations of a `.pt2`'s program and of the description of its weights: kinds of arguments, integers, devices, types, operators.

Each keeps the file well-formed, so that it comes as far as the importer; bytes and JSON values at random rarely do.
"""

from __future__ import annotations

import io
import json
import zipfile
from random import Random
from typing import Any

from hostile.extremes import EXTREMES, REALS
from hostile.mutations import mutate_bytes, packed

_DEVICES = ("cpu", "cuda", "meta", "mps", "xpu", "hip", "privateuseone", "xla", "", "cpu:1", "x" * 300)
_ATEN = """
    relu.default add.Tensor mul.Tensor div.Tensor conv2d.default convolution.default max_pool2d.default mean.dim linear.default
    matmul.default view.default reshape.default permute.default cat.default expand.default pad.default avg_pool2d.default
    upsample_nearest2d.vec upsample_bilinear2d.vec softmax.int arange.default full.default zeros.default repeat.default tile.default
    index.Tensor slice.Tensor select.int split.Tensor chunk.default unsqueeze.default to.device to.dtype _to_copy.default
    clone.default empty.memory_format rand.default nonzero.default item.default add_.Tensor set_.source_Tensor resize_.default
    as_strided.default from_file.default hardtanh.default addmm.default __class__.__init__ conv2d.__call__ conv2d._schema
    no_such.default conv2d.no_such cumsum.default sort.default
"""


_KINDS = """
    as_none as_int as_ints as_float as_floats as_bool as_bools as_string as_strings as_tensor as_tensors as_optional_tensor
    as_optional_tensors as_scalar_type as_layout as_memory_format as_device as_sym_int as_sym_ints as_sym_float as_sym_bool as_complex
    as_custom_obj as_operator as_graph as_nested_tensors as_no_such
"""


def mutate_pt2(content: bytes, random: Random) -> bytes:
    """Change one value of the program or of the description of its weights; return plain bytes if the result is no longer an archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        programs, configs = ([member for member in members if member.endswith(end)] for end in ("model.json", "_config.json"))
        name = random.choice(programs * 6 + configs)
        value = json.loads(members[name])
        for _ in range(random.choice((1, 1, 1, 2))):
            if not _pt2_change(value, random):
                return mutate_bytes(content, random)
        members[name] = json.dumps(value).encode()
        return packed(list(members.items()))
    except Exception:
        return mutate_bytes(content, random)


def _pt2_change(value: Any, random: Random) -> bool:
    arguments, integers, reals, devices, types, targets = [], [], [], [], [], []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        inner = part.items() if isinstance(part, dict) else enumerate(part)
        for key, one in inner:
            if key == "arg" and isinstance(one, dict):
                arguments.append(one)
            if isinstance(one, dict | list):
                waiting.append(one)
            elif key in ("dtype", "layout", "as_scalar_type", "as_memory_format", "as_layout", "kind"):
                types.append((part, key))
            elif key == "type" and "index" in part:
                devices.append((part, key))
            elif key == "target" and isinstance(one, str):
                targets.append((part, key))
            elif isinstance(one, int) and not isinstance(one, bool):
                integers.append((part, key))
            elif isinstance(one, float):
                reals.append((part, key))
    choices: list[tuple[list[Any], Any]] = [
        (arguments, None),
        (arguments, None),
        (integers, EXTREMES),
        (integers, EXTREMES),
        (reals, REALS),
        (devices, _DEVICES),
        (types, (*range(-1, 40), 99, 2**31, "x", None)),
        (targets, [f"torch.ops.aten.{one}" for one in _ATEN.split()]),
    ]
    places, values = random.choice([choice for choice in choices if choice[0]])
    if values is None:
        place = random.choice(places)
        place.clear()
        place.update(random.choice((_kind, _kind, lambda _: {}))(random))
        return True
    part, key = random.choice(places)
    part[key] = random.choice(values)
    return True


def _kind(random: Random) -> dict[str, Any]:
    """Return an argument of some kind, with a value that may be of another one."""
    number = random.choice(EXTREMES)
    values = (
        *(None, True, "x", "bilinear", number, 7, 99, 1.5, "Infinity", [], [number], [number, number], ["x"], [True], [0.5], [[]], {}),
        *({"name": "input"}, {"name": "nobody"}, [{"name": "input"}], [{"as_none": True}], {"as_int": number}, [{"as_int": number}]),
        *({"type": random.choice(_DEVICES), "index": None}, {"real": 0.0, "imag": 1.0}, "torch.ops.aten.relu.default"),
    )
    return {random.choice(_KINDS.split()): random.choice(values) for _ in range(random.choice((0, 1, 1, 1, 1, 1, 1, 2)))}
