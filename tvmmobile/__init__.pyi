# What `import tvmmobile as tm` offers: read by type checkers, and by __init__.py, which imports each name when it is first used.
from tvmmobile.accuracy.evaluate import Evaluation as Evaluation
from tvmmobile.accuracy.evaluate import evaluate as evaluate
from tvmmobile.choosing.answer import NetworkChoice as NetworkChoice
from tvmmobile.choosing.choose import choose as choose
from tvmmobile.devices.board.manage import add_device as add_device
from tvmmobile.devices.board.manage import remove_device as remove_device
from tvmmobile.devices.registry import device_names as device_names
from tvmmobile.devices.registry import find_device as find_device
from tvmmobile.gate.baselines import Baseline as Baseline
from tvmmobile.gate.baselines import load_baselines as load_baselines
from tvmmobile.gate.baselines import save_baselines as save_baselines
from tvmmobile.gate.comparison import Comparison as Comparison
from tvmmobile.gate.comparison import compare as compare
from tvmmobile.networks.model import Model as Model
from tvmmobile.networks.preprocessing import Normalisation as Normalisation
from tvmmobile.networks.preprocessing import Preprocessing as Preprocessing
from tvmmobile.packaging.aar import write_aar as write_aar
from tvmmobile.packaging.wheel import write_wheel as write_wheel
from tvmmobile.pipeline.bench import bench as bench
from tvmmobile.pipeline.compile import compile_models as compile  # noqa: A004
from tvmmobile.pipeline.compiled_library import CompiledLibrary as CompiledLibrary
from tvmmobile.pipeline.compiled_library import open_libraries as open_libraries
from tvmmobile.pipeline.deploy import Deployment as Deployment
from tvmmobile.pipeline.deploy import deploy as deploy
from tvmmobile.pipeline.listener import Listener as Listener
from tvmmobile.pipeline.listener import TuningPlan as TuningPlan
from tvmmobile.pipeline.load import load as load
from tvmmobile.pipeline.load import variants as variants
from tvmmobile.pipeline.regression import regress as regress
from tvmmobile.pipeline.rescore import rescore_logs as rescore_logs
from tvmmobile.pipeline.run import LibraryRun as LibraryRun
from tvmmobile.pipeline.run import run as run
from tvmmobile.pipeline.run import start as start
from tvmmobile.pipeline.selftest import check_device as check_device
from tvmmobile.pipeline.tune import plan_tuning as plan_tuning
from tvmmobile.pipeline.tune import tune as tune
from tvmmobile.pipeline.tune_together import tune_together as tune_together
from tvmmobile.pipeline.tuned import TunedResults as TunedResults
from tvmmobile.pipeline.tuned import TunedTogether as TunedTogether
from tvmmobile.pipeline.validation.validate import validate_device as validate_device
from tvmmobile.results.file import Results as Results
from tvmmobile.results.file import VariantResult as VariantResult
from tvmmobile.results.file import read_results as read_results
from tvmmobile.results.report.render import report as report
from tvmmobile.results.validation import read_validation as read_validation
from tvmmobile.system.doctor import diagnose as diagnose
from tvmmobile.system.errors import DeviceUnavailable as DeviceUnavailable
from tvmmobile.system.errors import Disagreement as Disagreement
from tvmmobile.system.errors import UserError as UserError
from tvmmobile.tuning.logs.compact import compact_logs as compact_logs
from tvmmobile.tuning.logs.merge import merge_logs as merge_logs
from tvmmobile.tuning.logs.verify import verify_logs as verify_logs
from tvmmobile.virtual.board import load_board as load_board
from tvmmobile.virtual.program import run_program as run_program

__all__ = ["compile"]  # the others are exported by their aliases
__version__: str
