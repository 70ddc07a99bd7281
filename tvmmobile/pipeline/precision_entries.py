"""The manifest's entries on layers in integers, and on layers that stay in float32 although others do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tvmmobile.graph.integers import SEVEN_BITS
from tvmmobile.graph.network import Float32Layer
from tvmmobile.graph.precision import INT8
from tvmmobile.quantisation.calibration import CalibrationSamples
from tvmmobile.quantisation.integers import IntegerStep
from tvmmobile.quantisation.lowering import LoweredNetwork
from tvmmobile.quantisation.mixed import FoundAssignment, decibels_below
from tvmmobile.quantisation.prepare import CalibratedNetwork
from tvmmobile.quantisation.scales import Scale

#: Calibration data on which signal-to-noise ratios are measured.
_RATIO_IMAGES = 8


def float32_entry(layers: Sequence[Float32Layer]) -> dict[str, Any]:
    """Return the entry on layers in float32; none if there are none."""
    return {"float32_layers": [asdict(layer) for layer in layers]} if layers else {}


def given_entry(found: LoweredNetwork | None) -> dict[str, Any]:
    """Return the entry on a network that its file has quantised; `None` stands for one without a layer in integers."""
    return {"calibration": None, "layers": [] if found is None else list(_layer_entries(found).values())}


def calibrated_entry(found: CalibratedNetwork, data: str, samples: CalibrationSamples, limit: str | None) -> dict[str, Any]:
    """Return the entry on a network that calibration data have quantised.

    Args:
        data: value of `--calibrate`.
        limit: value of `--max-drop`.
    """
    integers, method = found.integers, found.decision.method
    ratios = integers.signal_to_noise_db(samples.some(_RATIO_IMAGES).batches(), integers.flow)
    return {
        "calibration": data,
        "inputs": samples.count,
        "ranges": method.ranges,
        "equalised": method.equalise,
        "corrected": method.correct,
        "labelled": bool(samples.labels),
        **({} if found.decision.found is None else {"max_drop": _drop_entry(str(limit), found.decision.found)}),
        "layers": [
            {**entry, "narrow": number in method.seven_bit_steps, **_quality(ratios[number])}
            for number, entry in _layer_entries(found).items()
        ],
    }


def _drop_entry(limit: str, found: FoundAssignment) -> dict[str, Any]:
    """Return the entry on the layers that `--max-drop` keeps in float32: predicted latencies, and noise below the output."""
    predicted = found.predicted
    return {
        "limit": limit,
        "latency_us": round(predicted.latency_us, 1),
        "no_other_below_us": round(predicted.bound_us, 1),
        "estimated_us": round(predicted.estimated_us, 1),
        "int8_us": round(found.plain_us, 1),
        "predicted_db": decibels_below(found.predicted_noise),
        "measured_db": decibels_below(found.noise),
        "bound_db": decibels_below(found.most_noise),
        "tried": found.rounds,
    }


def _quality(ratio: float) -> dict[str, Any]:
    """Return the signal-to-noise ratio of a layer's output, with the error of all layers before it."""
    return {"signal_to_noise_db": round(ratio, 1) if math.isfinite(ratio) else None}


def _layer_entries(found: LoweredNetwork) -> Mapping[int, dict[str, Any]]:
    """Return the entry of each integer layer, by its number in float32."""
    return {number: _layer_entry(step, found.nodes[number], found) for number, step in found.integers.steps.items()}


def _layer_entry(step: IntegerStep, node: int, found: LoweredNetwork) -> dict[str, Any]:
    """Return the entry for an integer layer: its node here and its number in float32, the scales and zero points of what it reads and
    writes, and its weights' scales and bits.
    """
    weight, layer = step.parameters.weight, found.network.nodes[node].layer
    return {
        "node": node,
        "number": step.step.number,
        "layer": layer.name,
        "kind": layer.kind,
        "channels": layer.output_shape[-1],
        "dtype": INT8.name,
        "reads": _scale(step.read),
        **({} if step.side is None else {"adds": _scale(step.side)}),
        "writes": None if step.written is None else _scale(step.written),
        "weight_scales": [float(step.weight_scale.min()), float(step.weight_scale.max())],
        **({"weight_bits": 7 if max(weight.max(), -int(weight.min())) <= SEVEN_BITS else 8} if weight.size else {}),
    }


def _scale(scale: Scale) -> dict[str, float | int]:
    return {"scale": scale.step, "zero": scale.zero}
