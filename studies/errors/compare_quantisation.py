"""Compares what int8 costs a trained network by each method of quantisation, before and after its channels are rescaled.

    ./studies/run compare_quantisation                                   # some minutes; prints the table of docs/quantisation-accuracy.md
    ./studies/run compare_quantisation --images 500
    ./studies/run compare_quantisation --out studies/results/quantisation.json      # the figures that the document is checked against

The network is the tests' MobileNet v1 0.25-32, trained on drawn digits; calibration and test images are drawn with other seeds. Integers
are computed exactly on this machine, as int8 kernels compute them. The rescale divides each channel between two layers by a factor of its
own, log-uniform over 2^±3, and multiplies what reads it: in float32 the network stays what it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from studies.errors.losses import answer_loss
from studies.harness import ROOT, Options, option, study, write_json
from studies.trained.digits import digits
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table

sys.path[:0] = [str(ROOT / "tests/support")]  # the trained network is the tests'

from tvmmobile.quantisation.calibration import Method, quantise  # noqa: E402
from tvmmobile.quantisation.flow import Flow  # noqa: E402
from tvmmobile.quantisation.histogram import RANGES  # noqa: E402

CALIBRATION, CALIBRATION_SEED, TEST_SEED, RESCALE_SEED = 256, 2, 1, 0
_BATCH = 100


def methods() -> Iterator[Method]:
    """Return the methods in the order of the table."""
    for ranges in RANGES:
        for equalise in (False, True):
            for correct in (False, True):
                yield Method(ranges, equalise, correct)
    for equalise in (False, True):
        yield Method(next(iter(RANGES)), equalise, True, per_channel=False)


def figures(images: int) -> dict[str, Any]:
    """Try every method on both networks."""
    from quantised import decibels, digit_inputs, rescaled, samples_of, trained_flow

    flow, inputs, labels = trained_flow(), digit_inputs(images, TEST_SEED), digits(images, TEST_SEED)[1]
    data = samples_of(digit_inputs(CALIBRATION, CALIBRATION_SEED))

    def outputs(network: Any) -> npt.NDArray[np.float32]:
        return np.concatenate([network.outputs(inputs[first : first + _BATCH]) for first in range(0, images, _BATCH)])

    exact = outputs(flow)
    rows = []
    networks: dict[str, Flow] = {"as trained": flow, "rescaled": rescaled(flow, RESCALE_SEED)}
    for name, given in networks.items():
        progress(f"{name}: float32 differs by {np.abs(outputs(given) - exact).max():.2g}")
        for method in methods():
            found = outputs(quantise(given, data, method))
            loss = answer_loss(labels, exact.argmax(1), found.argmax(1))
            row = {"network": name, "ranges": method.ranges, "equalised": method.equalise, "corrected": method.correct}
            row |= {"per_channel": method.per_channel, "top1": loss.right, "lost": loss.lost, "interval": loss.margin, "same": loss.same}
            rows.append(row | {"signal_to_noise_db": decibels(found, exact)})
            progress(str(rows[-1]))
    top1 = 100 * float((exact.argmax(1) == labels).mean())
    return {"context": {"images": images, "calibration": CALIBRATION, "float32_top1": top1}, "rows": rows}


def table(found: Mapping[str, Any]) -> str:
    """Return the figures of a file as Markdown: a row for each method, with both networks side by side."""
    headings = ["ranges", "weights' scales", "equalised", "biases corrected"]
    for network in ("as trained", "rescaled"):
        headings += [f"{network}: top-1 lost", "same class %", "dB"]
    by_method: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in found["rows"]:
        by_method.setdefault((row["ranges"], row["per_channel"], row["equalised"], row["corrected"]), []).append(row)
    lines = []
    for (ranges, per_channel, equalised, corrected), rows in by_method.items():
        words = [ranges, "per channel" if per_channel else "per tensor", *("yes" if flag else "no" for flag in (equalised, corrected))]
        for row in rows:
            words += [f"{row['lost']:.2f} ± {row['interval']:.2f}", f"{row['same']:.2f}", f"{row['signal_to_noise_db']:.1f}"]
        lines.append(words)
    return "\n".join(markdown_table(headings, lines, texts=4))


@study(
    option("--images", 5000, "digits to test on", metavar="N"),
    option("--out", None, "write the figures as JSON", type=Path, metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute the figures, print the table and write the file."""
    found = figures(options.images)
    print(table(found))
    write_json(options.out, found)
