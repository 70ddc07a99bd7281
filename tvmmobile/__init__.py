"""tvmmobile: fast schedules for MobileNets on the ARM board that will run them.

    import tvmmobile as tm

    net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
    library = tm.compile(net, device="pi4")
    print(library.bench(device="pi4").latency_ms)

docs/api.md shows the rest. What is listed here is imported when it is first used: importing the package takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from tvmmobile.accuracy.evaluate import Evaluation as Evaluation
    from tvmmobile.accuracy.evaluate import evaluate as evaluate
    from tvmmobile.accuracy.preprocess import Preprocessing as Preprocessing
    from tvmmobile.devices.registry import device_names as device_names
    from tvmmobile.devices.registry import find_device as find_device
    from tvmmobile.gate.baselines import Baseline as Baseline
    from tvmmobile.gate.baselines import load_baselines as load_baselines
    from tvmmobile.gate.baselines import save_baselines as save_baselines
    from tvmmobile.gate.comparison import Comparison as Comparison
    from tvmmobile.gate.comparison import compare as compare
    from tvmmobile.networks.model import Model as Model
    from tvmmobile.networks.model import load as load
    from tvmmobile.networks.model import variants as variants
    from tvmmobile.pipeline.bench import bench as bench
    from tvmmobile.pipeline.compile import compile_models as compile  # noqa: A004, F401
    from tvmmobile.pipeline.library import CompiledLibrary as CompiledLibrary
    from tvmmobile.pipeline.library import open_libraries as open_libraries
    from tvmmobile.pipeline.listener import Listener as Listener
    from tvmmobile.pipeline.regression import regress as regress
    from tvmmobile.pipeline.run import LibraryRun as LibraryRun
    from tvmmobile.pipeline.run import run as run
    from tvmmobile.pipeline.run import start as start
    from tvmmobile.pipeline.tune import TuningPlan as TuningPlan
    from tvmmobile.pipeline.tune import plan_tuning as plan_tuning
    from tvmmobile.pipeline.tune import tune as tune
    from tvmmobile.results.file import Results as Results
    from tvmmobile.results.file import VariantResult as VariantResult
    from tvmmobile.results.file import read_results as read_results
    from tvmmobile.results.report.render import report as report
    from tvmmobile.system.doctor import diagnose as diagnose
    from tvmmobile.system.errors import DeviceUnavailable as DeviceUnavailable
    from tvmmobile.system.errors import Disagreement as Disagreement
    from tvmmobile.system.errors import UserError as UserError
    from tvmmobile.virtual.board import load_board as load_board
    from tvmmobile.virtual.program import run_program as run_program

#: Where each name comes from; the imports above say the same to type checkers, and a test compares them.
_PLACES = {
    "accuracy.evaluate": "Evaluation evaluate",
    "accuracy.preprocess": "Preprocessing",
    "devices.registry": "device_names find_device",
    "gate.baselines": "Baseline load_baselines save_baselines",
    "gate.comparison": "Comparison compare",
    "networks.model": "Model load variants",
    "pipeline.bench": "bench",
    "pipeline.library": "CompiledLibrary open_libraries",
    "pipeline.listener": "Listener",
    "pipeline.regression": "regress",
    "pipeline.run": "LibraryRun run start",
    "pipeline.tune": "TuningPlan plan_tuning tune",
    "results.file": "Results VariantResult read_results",
    "results.report.render": "report",
    "system.doctor": "diagnose",
    "system.errors": "DeviceUnavailable Disagreement UserError",
    "virtual.board": "load_board",
    "virtual.program": "run_program",
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name == "compile":  # a module's function of that name would hide Python's own
        found = import_module(f"{__name__}.pipeline.compile").compile_models
    elif name in _MODULES:
        found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, "compile"})
