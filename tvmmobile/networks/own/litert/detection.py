"""Translates LiteRT's `TFLite_Detection_PostProcess`, which decodes boxes and selects some of them, to ONNX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from flatbuffers import flexbuffers
from onnx import helper

from tvmmobile.graph.layers import Array
from tvmmobile.networks.budget import check_elements
from tvmmobile.networks.own.litert.reader import LiteRtNetwork, LiteRtOperator
from tvmmobile.networks.own.litert.translation import SIMPLER, Translation
from tvmmobile.system.errors import UserError

#: The operator's name in files.
POSTPROCESS = "TFLite_Detection_PostProcess"
#: Number of boxes selected per class if the file does not specify it.
_OF_A_CLASS = 100


@dataclass(frozen=True)
class DetectionOptions:
    """The operator's options in the file.

    Attributes:
        most: boxes to select.
        labels: classes to return per box; one if boxes are selected by class (`regular`).
        of_a_class: boxes to select per class, in regular selection.
        score, overlap: thresholds.
        classes: number of classes without the background.
        scales: divisors of the encoded centre and size: y, x, height, width.
    """

    most: int
    labels: int
    of_a_class: int
    regular: bool
    score: float
    overlap: float
    classes: int
    scales: tuple[float, float, float, float]

    @classmethod
    def of(cls, content: bytes) -> DetectionOptions:
        """Read the options of an operator; raise exceptions of any kind for damaged ones."""
        entries = flexbuffers.GetRoot(content).AsMap
        keys = {key.AsKey for key in entries.Keys}
        y, x, height, width = (float(entries[f"{side}_scale"].AsFloat) for side in "yxhw")
        return cls(
            entries["max_detections"].AsInt,
            entries["max_classes_per_detection"].AsInt,
            entries["detections_per_class"].AsInt if "detections_per_class" in keys else _OF_A_CLASS,
            bool(entries["use_regular_nms"].AsBool) if "use_regular_nms" in keys else False,
            float(entries["nms_score_threshold"].AsFloat),
            float(entries["nms_iou_threshold"].AsFloat),
            entries["num_classes"].AsInt,
            (y, x, height, width),
        )


def detections(into: Translation, operator: LiteRtOperator) -> None:
    """Translate the operator: boxes, classes, scores and their number, with zeros behind the last one."""
    options = DetectionOptions.of(operator.options)
    encoded, predicted, anchors = operator.inputs
    boxes, kinds = into.tensor(encoded).shape[1], into.tensor(predicted).shape[2]
    rows = options.most * options.labels
    check_elements(f"the result of {POSTPROCESS}", (rows, 4, options.classes))
    if min(rows, options.classes, options.of_a_class, boxes) < 1 or kinds - options.classes not in (0, 1):
        raise UserError(f"the network has {POSTPROCESS} with options that contradict each other.", SIMPLER)
    decoded = _decoded(into, encoded, anchors, options)
    scores = _from(into, into.read(predicted, False), 2, kinds - options.classes, kinds)
    select = _by_class if options.regular else _by_box
    found, labels, values, count = select(into, options, decoded, scores)
    shapes = (1, rows, 4), (1, rows), (1, rows), (1,)
    for number, name, shape in zip(operator.outputs, (found, labels, values, count), shapes, strict=True):
        into.known[number] = replace(into.tensor(number), shape=shape, open=False)
        into.write(number, into.emit("Reshape", [name, into.integers(*shape)]), False)


def without_leftovers(network: LiteRtNetwork, found: dict[int, Array], tensor: Callable[[int], Array]) -> None:
    """Zero what LiteRT leaves in the boxes, classes and scores that it did not select.

    Args:
        found: values of outputs, by tensor.
        tensor: returns the value of any tensor.
    """
    for operator in network.operators:
        if operator.kind != POSTPROCESS:
            continue
        options = DetectionOptions.of(operator.options)
        places, columns = np.arange(options.most * options.labels), 1 if options.regular else options.labels
        present = (places // columns < tensor(operator.outputs[3])[0]) & (places % columns < options.classes)
        for number in operator.outputs[:3]:
            if number in found:
                found[number] = np.where(present.reshape(1, -1, *[1] * (found[number].ndim - 2)), found[number], np.float32(0))


def _decoded(into: Translation, encoded: int, anchors: int, options: DetectionOptions) -> str:
    """Return corners `[1, boxes, 4]`, from centres and sizes relative to anchors."""
    given = _from(into, into.read(encoded, False), 2, 0, 4)
    centre, size = (_from(into, given, 2, place, place + 2) for place in (0, 2))
    centre_of, size_of = (_from(into, into.read(anchors, False), 1, place, place + 2) for place in (0, 2))
    scales = [into.constant(np.array(pair, np.float32)) for pair in (options.scales[:2], options.scales[2:])]
    middle = into.emit("Add", [into.emit("Mul", [into.emit("Div", [centre, scales[0]]), size_of]), centre_of])
    half = into.emit("Mul", [into.emit("Exp", [into.emit("Div", [size, scales[1]])]), into.emit("Mul", [size_of, into.real(0.5)])])
    return into.emit("Concat", [into.emit("Sub", [middle, half]), into.emit("Add", [middle, half])], axis=2)


def _by_box(into: Translation, options: DetectionOptions, boxes: str, scores: str) -> tuple[str, str, str, str]:
    """Return boxes in order of their best class, each with its best classes."""
    labels = min(options.labels, options.classes)
    best = into.emit("Transpose", [into.emit("ReduceMax", [scores], axes=[2], keepdims=1)], perm=[0, 2, 1])
    selected, present = _selected(into, options, boxes, best, options.most, options.most)
    places = _column(into, selected, 2)
    found = _chosen(into, into.emit("Gather", [boxes, places], axis=1), present, 1)  # [1, most, 4]
    values, kinds = _top(into, into.emit("Gather", [scores, places], axis=1), labels)  # [1, most, labels]
    repeated = into.emit("Expand", [into.emit("Unsqueeze", [found, into.integers(2)]), into.integers(1, options.most, labels, 4)])
    kinds, values = (_chosen(into, one, present, 1) for one in (into.cast(kinds, np.float32), values))
    if more := options.labels - labels:
        repeated = into.emit("Pad", [repeated, into.integers(0, 0, 0, 0, 0, 0, more, 0)])
        kinds, values = (into.emit("Pad", [one, into.integers(0, 0, 0, 0, 0, more)]) for one in (kinds, values))
    return repeated, kinds, values, _total(into, present)


def _by_class(into: Translation, options: DetectionOptions, boxes: str, scores: str) -> tuple[str, str, str, str]:
    """Return the best boxes of all classes, selected separately in each."""
    each = min(options.of_a_class, options.most)
    transposed, rows = into.emit("Transpose", [scores], perm=[0, 2, 1]), each * options.classes
    selected, present = _selected(into, options, boxes, transposed, each, rows)
    lowest = into.real(-np.inf)
    values = into.emit("Where", [present, into.emit("GatherND", [transposed, selected]), lowest])
    padding = into.constant(np.full(max(0, options.most - rows), -np.inf, np.float32))
    best, which = _top(into, into.emit("Concat", [values, padding], axis=0), options.most)
    found = into.emit("Greater", [best, lowest])
    rows_of = into.emit("Gather", [selected, into.emit("Min", [which, into.integers(rows - 1)])], axis=0)
    chosen = _chosen(into, into.emit("Gather", [boxes, _column(into, rows_of, 2)], axis=1), found, 1)
    labels = _chosen(into, into.cast(_column(into, rows_of, 1), np.float32), found, 0)
    scored, more = _chosen(into, best, found, 0), options.most * (options.labels - 1)
    if more:
        chosen = into.emit("Pad", [chosen, into.integers(0, 0, 0, 0, more, 0)])
        labels, scored = (into.emit("Pad", [one, into.integers(0, more)]) for one in (labels, scored))
    return chosen, labels, scored, _total(into, found)


def _selected(into: Translation, options: DetectionOptions, boxes: str, scores: str, most: int, rows: int) -> tuple[str, str]:
    """Return indices `[rows, 3]` that non-maximum suppression selects, and which rows are present; the others are zeros.

    LiteRT also selects boxes whose score equals the threshold, so the threshold is lowered by one bit; the result is not so small that
    processors might flush it to 0.
    """
    tiny = float(np.finfo(np.float32).tiny)
    below = float(np.nextafter(np.float32(options.score), np.float32(-np.inf)))
    thresholds = [into.real(options.overlap), into.real(-tiny if abs(below) < tiny else below)]
    found = into.emit("NonMaxSuppression", [boxes, scores, into.integers(most), *thresholds])
    shifted = into.emit("Add", [found, into.integers(1)])  # so that 0 means no box
    filled = into.emit("Concat", [shifted, into.constant(np.zeros((rows, 3), np.int64))], axis=0)
    whole = into.emit("Reshape", [_from(into, filled, 0, 0, rows), into.integers(rows, 3)])
    present = into.emit("Greater", [_column(into, whole, 0), into.integers(0)])
    return into.emit("Max", [into.emit("Sub", [whole, into.integers(1)]), into.integers(0)]), present


def _from(into: Translation, name: str, axis: int, start: int, end: int) -> str:
    return into.emit("Slice", [name, into.integers(start), into.integers(end), into.integers(axis)])


def _column(into: Translation, name: str, number: int) -> str:
    return into.emit("Gather", [name, into.constant(np.array(number))], axis=1)


def _top(into: Translation, name: str, count: int) -> tuple[str, str]:
    """Return the largest numbers along the last axis, and their places."""
    names = [f"{name}/top", f"{name}/places"]
    into.nodes.append(helper.make_node("TopK", [name, into.integers(count)], names, axis=-1))
    return names[0], names[1]


def _chosen(into: Translation, name: str, present: str, axis: int) -> str:
    """Return a tensor with zeros in absent rows along an axis; the mask has extent 1 along the axes after it."""
    mask = into.emit("Reshape", [present, into.integers(1, -1, 1)]) if axis else present
    return into.emit("Where", [mask, name, into.real(0)])


def _total(into: Translation, present: str) -> str:
    return into.emit("ReduceSum", [into.cast(present, np.float32)], keepdims=1)
