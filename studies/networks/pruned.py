"""Measures what zeros among the weights of a network's 1×1 layers gain, beside the same network without zeros.

    ./studies/run pruned                                         # from the shipped logs: studies/results/pruned.json and its page
    ./studies/run pruned --trials 16 --logs DIR --out FILE.json  # tunes; what is in the file is not measured again
    ./studies/run pruned --boards pi4:float32 pi5:float16:4 --alpha 0.25 --side 128  # on one thread, and on four

Zeros are in random places of all 1×1 convolutions but the first, as many in each; in pairs, two adjacent output channels have them in the
same places. The weights left are larger, so that activations keep their size. Every library is checked against PyTorch, and run on the
virtual board. What zeros cost in accuracy is another question: see docs/pruning.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from studies.harness import RESULTS, Entry, Options, Wanted, completed, option, study, title
from tvmmobile.devices.registry import find_device
from tvmmobile.networks.models.registry import build_torch_model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.load import load
from tvmmobile.pipeline.tune import tune
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table

#: Percent of zeros, and how many adjacent output channels have them in the same places.
PATTERNS = ((0, 1), (50, 1), (80, 1), (90, 1), (80, 2), (90, 2))
BOARDS = ("pi4:float32", "pi5:float16")
#: Layers with fewer inputs are squeeze-and-excite's and the like.
_FEWEST_INPUTS = 8
INTRODUCTION = """# What zeros among weights gain

MobileNets whose 1×1 convolutions, all but the first, have zeros in random places, the same share in each, or in pairs: two adjacent output
channels have them in the same places. Everything else is dense. C libraries, for one thread unless a row names more, checked against
PyTorch; latencies are modelled.
[docs/pruning.md](../../docs/pruning.md) says how to get such weights, and what they cost in accuracy.
"""


def pruned_weights(spec: ModelSpec, percent: int, together: int, file: Path) -> None:
    """Write a state dict of a network with zeros in its 1×1 layers; the other weights are generated ones of seed 0."""
    module, generator = build_torch_model(spec).module, np.random.default_rng(0)
    layers = [part for part in module.modules() if isinstance(part, torch.nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1]
    for layer in [one for one in layers if one.in_channels >= _FEWEST_INPUTS][1:]:
        outputs, inputs = layer.weight.shape[:2]
        groups = outputs // together
        kept = generator.permuted(np.arange(groups * inputs) < round(groups * inputs * (1 - percent / 100))).reshape(groups, inputs)
        mask = torch.from_numpy(kept.repeat(together, 0))[:, :, None, None]
        layer.weight.data *= mask / (1 - percent / 100) ** 0.5
    torch.save(module.state_dict(), file)


def entry_of(spec: ModelSpec, board: str, percent: int, together: int, trials: int, logs: Path | None) -> Entry:
    """Tune a network with such zeros, and time its library."""
    device, dtype, threads = _parts(board)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        pruned_weights(spec, percent, together, weights)
        model = load(spec.name, alpha=spec.alpha, resolution=spec.resolution, checkpoint=weights)
        results = tune(model, device, dtype=dtype, threads=threads, trials=trials, logs=logs, out=folder)
    (variant,) = results.variants
    return {
        **dict(zip(NAMES, (title(spec), board, str(percent), str(together)), strict=True)),
        "latency_us": round(variant.latency_us, 1),
        "sparse_kernels": sum(kernel.zeros is not None for kernel in variant.kernels),
        "kernels": len(variant.kernels),
        "timing_model": results.context.timing_model,
        "cpu": results.context.cpu,
        "clock_hz": results.context.clock_hz,
        "date": results.context.date,
    }


def _parts(board: str) -> tuple[str, str, int]:
    """Return the device, precision and number of threads of `pi4:float32` or `pi4:float32:4`."""
    device, dtype, *threads = board.split(":")
    return device, dtype, int(threads[0]) if threads else 1


#: Fields that tell entries apart.
NAMES = ("network", "board", "percent", "together")


def tables(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the lines of a table for each network."""
    found: dict[str, list[str]] = {}
    for network in dict.fromkeys(entry["network"] for entry in entries):
        rows = []
        for entry in (one for one in entries if one["network"] == network):
            dense = next((one for one in entries if [one[name] for name in NAMES] == [network, entry["board"], "0", "1"]), None)
            pattern = "none" if entry["percent"] == "0" else f"{entry['percent']} %" + ", pairs" * (entry["together"] == "2")
            ratio = f"{entry['latency_us'] / dense['latency_us']:.2f}" if dense else ""
            device, dtype, threads = _parts(entry["board"])
            where = f"{find_device(device).profile.board}, {dtype}" + f", {threads} threads" * (threads > 1)
            rows.append([where, pattern, latency_ms(entry["latency_us"]), ratio, f"{entry['sparse_kernels']} of {entry['kernels']}"])
        found[network] = markdown_table(("board", "zeros", "ms", "of dense", "kernels that leave zeros out"), rows, texts=2)
    return found


def page(entries: Sequence[Entry]) -> str:
    """Return the page of a file's entries."""
    return "\n".join([INTRODUCTION, *(line for network, table in tables(entries).items() for line in (f"## {network}", "", *table, ""))])


@study(
    option("--model", "mobilenet_v1"),
    option("--alpha", 1.0),
    option("--side", 224),
    option("--boards", list(BOARDS), nargs="+", metavar="BOARD:DTYPE[:THREADS]"),
    option("--trials", 0, "per kernel"),
    option("--logs", None, "the only records that count (default: the shipped ones, and your own)", type=Path, metavar="DIR"),
    option("--out", RESULTS / "pruned.json", metavar="FILE"),
)
def main(options: Options) -> None:
    """Measure what is missing."""
    spec = ModelSpec(options.model, options.alpha, options.side)
    wanted: Wanted = {
        (title(spec), board, str(percent), str(together)): partial(entry_of, spec, board, percent, together, options.trials, options.logs)
        for board in options.boards
        for percent, together in PATTERNS
    }
    completed(options.out, wanted, NAMES, page)
    progress(f"written to {options.out}")
