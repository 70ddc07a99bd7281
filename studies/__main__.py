"""Runs a study by its name: `./studies/run NAME …`; without a name it lists the studies."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

#: Each study's module below `studies`; its last part is the study's name.
MODULES = (
    "peers.bench_peers",
    "formats.export_models",
    "start_up.start_up",
    "networks.compare_networks",
    "networks.survey_networks",
    "networks.zoo",
    "networks.detectors",
    "networks.pruned",
    "errors.half_errors",
    "errors.int8_losses",
    "errors.float32_layers",
    "errors.photographs",
    "errors.rendered_text",
    "errors.compare_quantisation",
    "kernels.ablation",
    "kernels.compare_search",
    "kernels.count_cycles",
    "checks.network_digests",
    "checks.simulate_gate",
    "checks.simulate_history",
    "checks.verify_in_python",
)
QUOTE = '"'
STUDIES = {module.rpartition(".")[2]: f"studies.{module}" for module in MODULES}


def listing() -> str:
    """Return each study with the first sentence about it."""
    root = Path(__file__).resolve().parents[1]
    sentences = {name: (root / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8") for name, module in STUDIES.items()}
    lines = [f"  {name:<22}{text.splitlines()[0].strip(QUOTE)}" for name, text in sentences.items()]
    return "\n".join(["usage: ./studies/run NAME …, --help for its options", "", *lines])


def main() -> int:
    """Run from the command line; return the exit code."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(listing())
        return 0
    if name not in STUDIES:
        print(f"studies: error: there is no study {name!r}.\nRun ./studies/run for their names.", file=sys.stderr)
        return 1
    sys.argv = [name, *arguments]
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    return int(importlib.import_module(STUDIES[name]).main() or 0)


if __name__ == "__main__":
    sys.exit(main())
