"""Mutations of ONNX models that know what they say: element types, extents, windows, operators, functions, data in other files.

Each keeps the file well-formed, so that it comes as far as the importer; bytes and JSON values at random rarely do.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from hostile.extremes import EXTREMES, NAMES, REALS
from hostile.mutations import mutate_bytes

#: Of `TensorProto.DataType`, and some that it does not have.
_ONNX_TYPES = (*range(25), 99, 1000, -1, 2**31 - 1, -(2**31))
_ONNX_OPERATORS = """
    Relu Conv ConvTranspose MaxPool AveragePool LpPool GlobalAveragePool Gemm MatMul Add Mul Div Pow Reshape Transpose Concat Split
    Slice Pad Resize Upsample Tile Expand Gather GatherND Squeeze Unsqueeze Flatten Softmax ReduceMean ReduceSum ArgMax TopK Clip Cast
    CastLike Shape Size Range ConstantOfShape OneHot Where CumSum Einsum LSTM GRU InstanceNormalization LayerNormalization LRN
    BatchNormalization DepthToSpace SpaceToDepth QuantizeLinear DequantizeLinear NonZero If Loop Identity GridSample ScatterND EyeLike
    Trilu Mod BitShift NonMaxSuppression RandomNormal Dropout Constant
"""

_ATTRIBUTES = """
    strides dilations pads kernel_shape group axis axes output_padding output_shape to ceil_mode auto_pad perm blocksize num_outputs
    keepdims count_include_pad hidden_size
"""


def mutate_onnx(content: bytes, random: Random) -> bytes:
    """Change one thing of an ONNX model; bytes where it is none any more."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        change = random.choice(_ONNX_CHANGES)
        if not model.graph.node or not change(model, random):
            return mutate_bytes(content, random)
        return model.SerializeToString()
    except Exception:  # protobuf's own classes, for values that do not fit
        return mutate_bytes(content, random)


def _onnx_values(model: Any) -> list[Any]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _onnx_tensors(model: Any) -> list[Any]:
    sparse = [tensor for one in _sparse_tensors(model) for tensor in (one.values, one.indices)]
    return [
        *model.graph.initializer,
        *(attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")),
        *sparse,
    ]


def _sparse_tensors(model: Any) -> list[Any]:
    attributes = (attribute for node in model.graph.node for attribute in node.attribute if attribute.HasField("sparse_tensor"))
    return [*model.graph.sparse_initializer, *(attribute.sparse_tensor for attribute in attributes)]


def _element_type(model: Any, random: Random) -> bool:
    kind = random.choice(_ONNX_TYPES)
    targets = [attribute for node in model.graph.node for attribute in node.attribute if attribute.name in ("to", "dtype", "output_dtype")]
    if targets and random.randrange(3) == 0:
        random.choice(targets).i = kind
    elif random.randrange(2):
        random.choice(_onnx_values(model)).type.tensor_type.elem_type = kind
    elif tensors := _onnx_tensors(model):
        random.choice(tensors).data_type = kind
    return True


def _attribute(model: Any, random: Random) -> bool:
    found = [attribute for node in model.graph.node for attribute in node.attribute]
    if not found:
        return False
    one = random.choice(found)
    for places, choices in ((one.ints, EXTREMES), (one.floats, REALS)):
        if places:
            place = random.randrange(len(places))
            kind = random.randrange(8)
            if kind == 0:
                del places[place]
            elif kind == 1:
                places.append(random.choice(choices))
            elif kind == 2:
                places[:] = [random.choice(choices)] * len(places)
            else:
                places[place] = random.choice(choices)
            return True
    if one.HasField("i"):
        one.i = random.choice(EXTREMES)
    elif one.HasField("f"):
        one.f = random.choice(REALS)
    elif one.HasField("s"):
        one.s = random.choice(NAMES).encode("utf-8", "surrogateescape")
    return True


def _attribute_kind(model: Any, random: Random) -> bool:
    node = random.choice(model.graph.node)
    if not node.attribute:
        return False
    one = random.choice(node.attribute)
    name = one.name
    kind = random.randrange(6)
    one.Clear()
    one.name = name
    if kind == 0:
        one.i, one.type = random.choice(EXTREMES), one.INT
    elif kind == 1:
        one.ints[:], one.type = random.choices(EXTREMES, k=random.randrange(5)), one.INTS
    elif kind == 2:
        one.f, one.type = random.choice(REALS), one.FLOAT
    elif kind == 3:
        one.s, one.type = random.choice(NAMES).encode("utf-8", "surrogateescape"), one.STRING
    elif kind == 4:
        one.strings[:], one.type = [b"a", b"b"], one.STRINGS
    else:
        one.t.data_type, one.type = random.choice(_ONNX_TYPES), one.TENSOR
    return True


def _new_attribute(model: Any, random: Random) -> bool:
    node = random.choice(model.graph.node)
    one = node.attribute.add()
    one.name = random.choice(_ATTRIBUTES.split())
    if random.randrange(2):
        one.i, one.type = random.choice(EXTREMES), one.INT
    else:
        one.ints[:], one.type = random.choices(EXTREMES, k=random.randrange(1, 5)), one.INTS
    return True


def _extent(model: Any, random: Random) -> bool:
    tensors = _onnx_tensors(model)
    if tensors and random.randrange(3) == 0:
        dims = random.choice([*tensors, *_sparse_tensors(model)]).dims
        if dims:
            dims[random.randrange(len(dims))] = random.choice(EXTREMES)
        else:
            dims.append(random.choice(EXTREMES))
        return True
    shape = random.choice(_onnx_values(model)).type.tensor_type.shape
    kind = random.randrange(6)
    if not shape.dim or kind == 0:
        shape.dim.add().dim_value = random.choice(EXTREMES)
    elif kind == 1:
        del shape.dim[random.randrange(len(shape.dim)) :]
    elif kind == 2:
        for dim in shape.dim:
            dim.dim_value = random.choice(EXTREMES)
    elif kind == 3:
        shape.dim[random.randrange(len(shape.dim))].dim_param = random.choice(("N", "", "batch", "\x1b[2J", "a" * 3000))
    else:
        shape.dim[random.randrange(len(shape.dim))].dim_value = random.choice(EXTREMES)
    return True


def _constant_numbers(model: Any, random: Random) -> bool:
    """Shapes, pads, axes and sizes are constants of integers."""
    import numpy as np
    from onnx import TensorProto, numpy_helper

    whole = [one for one in _onnx_tensors(model) if one.data_type in (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT)]
    if not whole:
        return False
    tensor = random.choice(whole)
    array = numpy_helper.to_array(tensor).copy()
    if not array.size:
        return False
    place = random.randrange(array.size)
    with np.errstate(all="ignore"):
        real = array.dtype.kind == "f"
        array.reshape(-1)[place] = random.choice(REALS) if real else np.int64(random.choice(EXTREMES)).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return True


def _operator(model: Any, random: Random) -> bool:
    node = random.choice(model.graph.node)
    node.op_type = random.choice(_ONNX_OPERATORS.split())
    if random.randrange(10) == 0:
        node.domain = random.choice(("com.microsoft", "ai.onnx", "ai.onnx.ml", "x" * 200))
    return True


def _wiring(model: Any, random: Random) -> bool:
    node = random.choice(model.graph.node)
    names = [name for one in model.graph.node for name in (*one.input, *one.output)] + [one.name for one in model.graph.initializer] + [""]
    kind = random.randrange(6)
    if kind == 0 and node.input:
        del node.input[random.randrange(len(node.input))]
    elif kind == 1:
        node.input.append(random.choice(names))
    elif kind == 2:
        node.output.append(random.choice(("", "more", *names)))
    elif kind == 3 and node.output:
        del node.output[random.randrange(len(node.output))]
    elif node.input:
        node.input[random.randrange(len(node.input))] = random.choice(names)
    return True


def _order(model: Any, random: Random) -> bool:
    nodes = list(model.graph.node)
    kind = random.randrange(3)
    place = random.randrange(len(nodes))
    if kind == 0:
        random.shuffle(nodes)
    elif kind == 1:
        del nodes[place]
    else:
        nodes.insert(place, copy.deepcopy(nodes[place]))
    kept = [copy.deepcopy(node) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return True


def _versions(model: Any, random: Random) -> bool:
    if random.randrange(4):
        random.choice(model.opset_import).version = random.choice((*range(1, 30), *EXTREMES))
    else:
        model.ir_version = random.choice((*range(1, 15), *EXTREMES))
    return True


def _functions(model: Any, random: Random) -> bool:
    """Functions that call one another several times, so that inlining makes powers of nodes; now and then one that calls itself."""
    from onnx import helper

    depth, times, loop = random.randrange(1, 40), random.randrange(1, 5), random.randrange(8) == 0
    for number in range(depth):
        inner = f"f{0 if loop and number == depth - 1 else number + 1}"
        called = ("made.up", inner) if loop or number + 1 < depth else ("", "Relu")
        names = ["a", *(f"t{place}" for place in range(times - 1)), "b"]
        nodes = [helper.make_node(called[1], [one], [other], domain=called[0]) for one, other in itertools.pairwise(names)]
        opsets = [helper.make_opsetid("", model.opset_import[0].version), helper.make_opsetid("made.up", 1)]
        model.functions.append(helper.make_function("made.up", f"f{number}", ["a"], ["b"], nodes, opsets))
    model.opset_import.append(helper.make_opsetid("made.up", 1))
    node = random.choice([one for one in model.graph.node if one.output])
    output = node.output[0]
    node.output[0] = "before_f"
    model.graph.node.append(helper.make_node("f0", ["before_f"], [output], domain="made.up"))
    nodes = sorted((copy.deepcopy(one) for one in model.graph.node), key=lambda one: one.op_type == "f0")
    if random.randrange(2):  # in the right order
        place = next(number for number, one in enumerate(nodes) if "before_f" in one.output)
        nodes.insert(place + 1, nodes.pop())
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return True


def _data_beside(model: Any, random: Random) -> bool:
    if not model.graph.initializer:
        return False
    tensor = random.choice(model.graph.initializer)
    tensor.data_location = tensor.EXTERNAL
    location = random.choice(("w.bin", "../w.bin", "/etc/passwd", "/dev/zero", "", ".", "net.onnx", "a\0b", "x" * 5000))
    entries = (("location", location), ("offset", str(random.choice(EXTREMES))), ("length", str(random.choice(EXTREMES))))
    for key, value in random.sample(entries, random.randrange(1, 4)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return True


_ONNX_CHANGES: tuple[Callable[[Any, Random], bool], ...] = (
    *(_element_type, _element_type, _attribute, _attribute, _attribute, _attribute_kind, _new_attribute, _extent, _extent),
    *(_constant_numbers, _constant_numbers, _operator, _wiring, _order, _versions, _functions, _data_beside),
)
