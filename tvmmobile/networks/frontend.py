"""Imports PyTorch networks into Relax: one function `main` from the inputs to a tensor or a tuple. Also counts multiply-adds."""

from __future__ import annotations

import io
import logging
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.bindings import bindings_of, readers_of
from tvmmobile.graph.expressions import TO_FIRST, operator_of, permutation_source, shape_of
from tvmmobile.graph.operators import Trait, operators_with
from tvmmobile.networks.models.spec import ModelSpec, OwnSpec
from tvmmobile.networks.quantised import WeightScales
from tvmmobile.networks.signature import CHANNELS_LAST, Port
from tvmmobile.system.environment import keep_torch_cache
from tvmmobile.system.errors import UserError

if TYPE_CHECKING:
    import torch

keep_torch_cache()  # before PyTorch is imported, which creates its folder
Array = npt.NDArray[Any]
#: A network on the host.
Compute = Callable[[Sequence[Array]], tuple[Array, ...]]
#: Operators on an image that may come before its channels are moved: a conversion, a factor, a rounding.
_BEFORE_LAYOUT = operators_with(Trait.ARITHMETIC) | {"relax.astype", "relax.round", "relax.clip"}
#: PyTorch operators that Relax does not import one by one.
_NOT_STRAIGHT = {"cond", "_assert_async.default", "_assert_async.msg"}


@dataclass(frozen=True, eq=False)
class Traced:
    """A network imported again, with the value of every operator for some inputs, in the order in which its program computes them.

    Attributes:
        operators: operator of the source that computes each value, for messages, such as `Resize "up1/Resize"`.
        values: the values, as the judge computes them.
        module: the imported Relax module, which returns them.
    """

    operators: tuple[str, ...]
    values: tuple[Array, ...]
    module: Any


_EXPORT = "Check that torch.export.export works on it with a fixed input shape."
#: Traces a network for its inputs.
Trace = Callable[[Sequence[Array]], Traced]


@dataclass(frozen=True)
class Imported:
    """A network in Relax, and the reference for its library.

    Attributes:
        spec: the variant.
        module: a Relax IRModule, with the weights as constants.
        weights: origin of the weights, for the manifest.
        macs: multiply-adds of one run; `None` for a built-in network, whose table of layers gives them.
        parameters: all trainable values; `None` for a built-in network.
        compute: computes the reference outputs from the inputs, both in order.
        name_reference_program: returns `reference_program`.
        scales: scales of the weights, where they are integers in the file; `None` for a network in float32.
        trace: returns intermediate values, for messages about a wrong library.
    """

    spec: ModelSpec
    module: Any
    weights: str
    macs: int | None
    parameters: int | None
    compute: Compute
    name_reference_program: Callable[[], str]
    scales: WeightScales | None = None
    trace: Trace | None = None

    @property
    def reference_program(self) -> str:
        """The program that computes the output to compare with, and its version, e.g. `PyTorch 2.13.0`."""
        return self.name_reference_program()


def imported_torch(spec: ModelSpec, module: torch.nn.Module, weights: str) -> Imported:
    """Return a built-in network, imported."""
    return Imported(spec, import_torch(module, spec.input_shape), weights, None, None, by_torch(module), torch_program)


def torch_program() -> str:
    """Name and version of the framework that `by_torch` computes with."""
    import torch

    return f"PyTorch {torch.__version__}"


def by_torch(module: Callable[..., Any]) -> Compute:
    """Return a function that runs a PyTorch module on copies of arrays, which it may change, and returns all tensors among its
    results.
    """
    import torch

    def compute(inputs: Sequence[Array]) -> tuple[Array, ...]:
        with torch.no_grad():
            outputs = torch.utils._pytree.tree_leaves(module(*(torch.from_numpy(array.copy()) for array in inputs)))
        return tuple(output.detach().numpy() for output in outputs if isinstance(output, torch.Tensor))

    return compute


def returned_as(ports: Sequence[Port], outputs: Sequence[Array]) -> tuple[Array, ...]:
    """Return a program's outputs as a library returns them: in the types of the ports, with at least one dimension."""
    return tuple(np.atleast_1d(array.astype(port.dtype, copy=False)) for array, port in zip(outputs, ports, strict=True))


def import_torch(module: torch.nn.Module, input_shape: tuple[int, ...]) -> Any:
    """Export an eval-mode module for a static NCHW shape, batch 1, and import it as a Relax IRModule with its weights as constants.

    Raises:
        UserError: PyTorch cannot export the network, or Relax cannot import it.
    """
    import torch

    return import_program(decomposed(export_torch(module, [torch.zeros(input_shape)])))


def export_torch(module: torch.nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any] | None = None) -> torch.export.ExportedProgram:
    """Export an eval-mode module for inputs like these; raise `UserError` if it cannot be traced."""
    import torch

    with refusing("the network cannot be exported", _EXPORT), quiet(), torch.no_grad():
        return torch.export.export(module, tuple(inputs), dict(keywords or {}))


def decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program in PyTorch's core operators, none of which works in place."""
    from tvmmobile.networks.torch_operators import decompositions
    from tvmmobile.networks.torch_recurrent import recurrent_operators
    from tvmmobile.networks.torch_resizes import keep_resizes
    from tvmmobile.networks.torch_types import with_conversions

    keep_resizes(program)
    table = dict(decompositions())
    for operator in recurrent_operators(program):
        table.pop(operator, None)
    with quiet():
        return with_conversions(without_assertions(program.run_decompositions(table)))


def without_assertions(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return the program without checks of values, which change nothing, and without computations that nothing else reads."""
    for node in list(program.graph.nodes):
        if getattr(node.target, "__name__", "").startswith("_assert_"):
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    return program


def import_program(program: torch.export.ExportedProgram) -> Any:
    """Return a decomposed program as a Relax IRModule, with its weights as constants; raise `UserError` if Relax cannot import it."""
    from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

    from tvmmobile.networks.sorting import without_sorting
    from tvmmobile.networks.torch_operators import converters

    importer, ours = ExportedProgramImporter(), converters()
    known = (importer.convert_map.keys() | ours.keys()) - _NOT_STRAIGHT
    nodes = [node for node in program.graph.nodes if node.op == "call_function"]
    refuse_operators(f"{node.target}{place_of(node)}" for node in nodes if getattr(node.target, "__name__", "") not in known)
    importer.convert_map, ours = ({name: _naming(one) for name, one in each.items()} for each in (importer.convert_map, ours))
    with importing(), quiet():
        return without_sorting(importer.from_exported_program(program, False, False, False, ours))


def _naming(convert: Callable[..., Any]) -> Callable[..., Any]:
    """Return a converter whose errors name the node."""

    def converted(node: Any, *importer: Any) -> Any:
        with importing(f"{node.target} (node {node.name!r}){place_of(node)}"):
            return convert(node, *importer)

    return converted


def place_of(node: Any) -> str:
    """Return the user's source line of a node, as ` (net.py, line 12)`; "" if that was not recorded."""
    lines = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    return f" ({PurePath(lines[-1][0]).name}, line {lines[-1][1]})" if lines else ""


def refuse_operators(unknown: Iterable[str]) -> None:
    """Raise `UserError` naming the network's operators that Relax's importer lacks, if there are any."""
    names = sorted(set(unknown))
    if names:
        fourier = any("_fft_" in name for name in names)
        raise UserError(
            f"the network has {'an operator' if len(names) == 1 else 'operators'} that cannot be imported: {', '.join(names)}.",
            "Export it with torch.onnx.export(…, dynamo=True): Fourier transforms are read from ONNX files."
            if fourier
            else "Express it with others, or leave that part out.",
        )


@contextmanager
def refusing(what: str, fix: str) -> Iterator[None]:
    """Raise `UserError` for whatever goes wrong: frameworks, and a user's own code, raise errors of any kind."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{what}: {first_line(error)}", fix) from error


def importing(operator: str = "") -> AbstractContextManager[None]:
    """Refuse an operator that Relax's importer supports, or the graph around operators, if its import fails."""
    if operator:
        return refusing(f"the operator {operator} cannot be imported into Relax", "Express it with others, or leave that part out.")
    return refusing("the network cannot be imported into Relax", "Set TVMMOBILE_DEBUG=1 and run it again to see where.")


#: Held while a framework reads a network: torch.export is not thread-safe, and `quiet` redirects the streams of the whole process.
FRAMEWORK_LOCK = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, prints and logs of frameworks while they read a network; problems with it are raised as errors."""
    with FRAMEWORK_LOCK:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(before)


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def with_layouts(spec: OwnSpec, module: Any) -> OwnSpec:
    """Return the identity of an imported network whose inputs may have channels last: their readers move these to the front."""
    from tvm import relax

    main = module["main"]
    readers, values = readers_of(main), {binding.var: binding.value for binding in bindings_of(main)}

    def is_last(variable: Any) -> bool:
        found: list[Any] = [values.get(reader) for reader in readers[variable]]
        return bool(found) and all(permutation_source(value, TO_FIRST) is not None for value in found)

    def axes_of(variable: Any) -> str:
        while len(readers[variable]) == 1:  # a conversion or a factor in front
            value = values.get(readers[variable][0])
            if not isinstance(value, relax.Call) or value.op.name not in _BEFORE_LAYOUT:
                break
            variable = readers[variable][0]
        return CHANNELS_LAST if is_last(variable) else ""

    inputs = tuple(replace(port, axes=axes_of(variable)) for port, variable in zip(spec.inputs, main.params, strict=True))
    return OwnSpec.of(spec.name, spec.contents, inputs, spec.outputs)


def count_macs(module: Any) -> int:
    """Return the multiply-adds of convolutions and matrix products for one image, as `models.costs` counts them.

    The module is as an importer returns it: NCHW, weights OIHW, or IOHW for transposed convolutions; Fourier transforms have HWIO.
    """
    return sum(_macs(binding.value) for binding in bindings_of(module["main"]) if operator_of(binding.value))


def _macs(call: Any) -> int:
    from tvmmobile.graph.passes.recurrent_layers import recurrent_macs

    name = operator_of(call)
    if name == "relax.matmul":
        return math.prod(shape_of(call)) * int(call.args[0].ty.shape[-1])
    if not name.startswith("relax.nn.conv"):
        return recurrent_macs(call)
    transposed, weight = name.endswith("_transpose"), shape_of(call.args[1])
    each = math.prod(weight) // max(weight[str(call.attrs.kernel_layout).index("I" if transposed else "O")], 1)
    return math.prod(shape_of(call.args[0] if transposed else call)) * each
