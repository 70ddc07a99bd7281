"""Makes a model that a runtime executes in half precision: `half_models.py PACKAGES MODEL OUTPUT`, in a process of its own.

PACKAGES is the folder with the packages of converters.lock.
"""

from __future__ import annotations

import sys
from typing import Any

#: Tells LiteRT's XNNPACK that half precision is wanted for tensors and sums alike (`reduced_precision_metadata.h`).
KEY, VALUE = "reduced_precision_support", b"fp16accfp16"


def onnx_in_half(model: Any) -> Any:
    """An ONNX model with all its floats in half precision, but for its input and output, which are converted where they enter and leave."""
    import numpy as np
    from onnx import AttributeProto, TensorProto, checker, helper, numpy_helper

    def convert(tensor: Any) -> None:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))

    graph = model.graph
    for tensor in graph.initializer:
        convert(tensor)
    image, logits = graph.input[0].name, graph.output[0].name
    renamed = {image: f"{image}_half", logits: f"{logits}_half"}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                convert(attribute.t)
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    graph.node.insert(0, helper.make_node("Cast", [image], [renamed[image]], to=TensorProto.FLOAT16))
    graph.node.append(helper.make_node("Cast", [renamed[logits]], [logits], to=TensorProto.FLOAT))
    del graph.value_info[:]
    checker.check_model(model, full_check=True)
    return model


def mark_litert(model: str, output: str) -> None:
    """Copy a LiteRT model with the word that allows half precision; weights stay float32, and XNNPACK converts them as it loads them."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    found = flatbuffer_utils.read_model(model)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(VALUE)
    found.buffers.append(buffer)
    entry.name, entry.buffer = KEY, len(found.buffers) - 1
    found.metadata = [*(found.metadata or []), entry]
    flatbuffer_utils.write_model(found, output)


if __name__ == "__main__":
    _, packages, source, goal = sys.argv
    sys.path.append(packages)
    if goal.endswith(".onnx"):
        import onnx

        onnx.save(onnx_in_half(onnx.load(source)), goal)
    else:
        mark_litert(source, goal)
