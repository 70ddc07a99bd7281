"""Kernels as plain C functions of raw pointers, cut at the loops that threads share.

TVM lowers a kernel to a function of boxed arguments that checks them, calls a thread pool for each parallel loop and allocates memory where
it needs some. Here the same lowered loops become functions `void part(const void *argument0, …, void *shared, void *own, int32_t begin,
int32_t end)`: iterations `begin` to `end` of one parallel loop, or everything between two of them. `shared` and `own` are memory for all
threads and for one thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import PointerType, PrimType
from tvm.tirx.buffer import buffer_data_pointer_type
from tvm.tirx.script import builder as T  # noqa: N812

from tvmmobile.graph.precision import BFLOAT16
from tvmmobile.kernels.codegen import make_target
from tvmmobile.kernels.lowering import PIPELINE
from tvmmobile.native.memory import ALIGNMENT, aligned

#: Smaller buffers stay on the stack, as in TVM's own lowering (`runtime::kMaxStackAlloca`).
_STACK_BYTES = 1024
#: Marks a template's accumulators, see `Kernel.accumulators`.
_REGISTERS = "disable_lower_builtin"


@dataclass(frozen=True)
class Part:
    """A function of the object file: `extent` iterations that threads share, or 0 for one thread's work."""

    symbol: str
    extent: int


@dataclass(frozen=True)
class CutKernel:
    """A kernel's functions, in the order in which they run.

    Attributes:
        shared_bytes: memory that all threads use together, beside the arguments.
        own_bytes: memory that each thread uses by itself.
    """

    parts: tuple[Part, ...]
    shared_bytes: int
    own_bytes: int


def cut_parts(functions: Mapping[str, Any], target: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, CutKernel], Any]:
    """Lower TIR functions in a pass context; return each symbol's parts, and a module of all of them for `objects.write_objects`.

    The names of parts begin with `prefix`.
    """
    bound = make_target(target)
    module = tvm.tirx.transform.BindTarget(bound.with_host(bound))(tvm.IRModule(dict(functions)))
    pipeline, _, _ = tvm.tirx.get_tir_pipeline(PIPELINE)
    lowered = pipeline(module)
    kernels, parts = {}, {}
    for symbol, function in functions.items():
        cut = _KernelCutter(f"{prefix}{symbol}", function.params, lowered[symbol])
        kernels[symbol] = CutKernel(tuple(cut.parts), cut.shared.bytes, cut.own.bytes)
        parts.update(cut.functions)
    return kernels, tvm.IRModule(parts)


class _Memory:
    """Buffers of a part, one after another in the memory that it is given."""

    def __init__(self, name: str) -> None:
        self.pointer = _pointer(name)
        self.bytes = 0
        self.buffers: list[Any] = []

    def declared(self, buffer: Any) -> Any:
        """Place the buffer in this memory and return its declaration, instead of its allocation."""
        offset, self.bytes = self.bytes, self.bytes + aligned(_bytes_of(buffer))
        self.buffers.append(buffer)
        return tirx.DeclBuffer(buffer, data=_at(self.pointer, offset, buffer))


class _KernelCutter:
    """Cuts one lowered function, as `MakePackedAPI` left it, into `parts` and their `functions`."""

    def __init__(self, symbol: str, parameters: Sequence[Any], packed: Any) -> None:
        self.parts: list[Part] = []
        self.functions: dict[str, Any] = {}
        self.shared, self.own = _Memory("shared"), _Memory("own")
        self._symbol, self._parameters, self._packed = symbol, _as_read(parameters, packed.body), packed
        wrappers, statements = _unwrapped(_compute_body(packed.body))
        own = _own_names(statements) if any(map(_is_parallel, statements)) else None
        if own is not None:
            self._cut(wrappers, statements, own)
        else:
            body = _sequence([_replaced(statement, self.shared.declared) for statement in statements])
            self._add(wrappers, [], body, 0)

    def _cut(self, wrappers: Sequence[Any], statements: Sequence[Any], own: set[Any]) -> None:
        """Make a part of every parallel loop, and of all between two of them; each repeats the declarations before it but its `own`."""
        declared: list[Any] = []
        serial: list[Any] = []
        for statement in [*statements, None]:
            if statement is not None and not _is_parallel(statement):
                serial.append(self._outside(statement))
                continue
            names = [each for each in serial if isinstance(each, tirx.DeclBuffer) or (isinstance(each, tirx.Bind) and each.var not in own)]
            if any(not isinstance(each, tirx.DeclBuffer | tirx.Bind | tirx.AllocBuffer) for each in serial):
                self._add(wrappers, declared, _sequence(serial), 0)
            declared += names
            serial = []
            if statement is not None:
                self._add_loop(wrappers, declared, statement)

    def _outside(self, statement: Any) -> Any:
        """Rewrite a statement between loops; any later part may read a buffer there, unless it represents registers."""
        if isinstance(statement, tirx.AllocBuffer) and _REGISTERS not in statement.annotations:
            return self.shared.declared(statement.buffer)
        return _replaced(statement, self.shared.declared)

    def _add_loop(self, wrappers: Sequence[Any], declared: Sequence[Any], loop: Any) -> None:
        begin, end, index = (tirx.Var(name, "int32") for name in ("begin", "end", "index"))
        inner = _sequence([tirx.Bind(loop.loop_var, loop.min + begin + index), _replaced(loop.body, self.own.declared)])
        body = tirx.For(index, 0, end - begin, tirx.ForKind.SERIAL, inner)
        self._add(wrappers, declared, body, int(loop.extent), (begin, end))

    def _add(self, wrappers: Sequence[Any], declared: Sequence[Any], body: Any, extent: int, span: Sequence[Any] = ()) -> None:
        """Add a function with this body."""
        symbol = f"{self._symbol}_part{len(self.parts)}"
        pointers = [_pointer(parameter.name) for parameter in self._parameters]
        arguments = [tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(self._parameters, pointers, strict=True)]
        for wrapper in reversed(wrappers):
            body = tirx.AttrStmt(wrapper.node, wrapper.attr_key, wrapper.value, body)
        # The buffers of operators that TVM writes as loops, such as a scatter, begin at any element of an argument: here its first.
        starts = [buffer.ty.elem_offset for buffer in self._parameters if isinstance(buffer.ty.elem_offset, tirx.Var)]
        whole = _sequence([*(tirx.Bind(start, tirx.IntImm(str(start.ty.dtype), 0)) for start in starts), *arguments, *declared, body])
        # Arguments may begin at any element: they may be placed in another tensor.
        for buffer in (*self.shared.buffers, *self.own.buffers):
            whole = tirx.AttrStmt(buffer, "storage_alignment", tirx.IntImm("int32", ALIGNMENT), whole)
        bounds = span or [tirx.Var(name, "int32") for name in ("begin", "end")]
        function = tirx.PrimFunc([*pointers, self.shared.pointer, self.own.pointer, *bounds], whole)
        attributes = {"global_symbol": symbol, "target": self._packed.attrs["target"], "tirx.noalias": True, "calling_conv": 0}
        self.functions[symbol] = function.with_attr(attributes)
        self.parts.append(Part(symbol, extent))


def _as_read(parameters: Sequence[Any], statement: Any) -> list[Any]:
    """Return a function's arguments as its lowered body reads them: those in bfloat16 as integers of their bits."""
    from tvm import tirx

    narrow = {parameter.name for parameter in parameters if str(parameter.ty.dtype) == BFLOAT16.name}
    found: dict[str, Any] = {}
    for each in _walk(statement) if narrow else ():
        if isinstance(each, tirx.DeclBuffer) and each.buffer.name in narrow:
            found.setdefault(each.buffer.name, each.buffer)
    return [found.get(parameter.name, parameter) for parameter in parameters]


def _compute_body(statement: Any) -> Any:
    """Return the body of the kernel after the checks of its arguments."""
    found = next((node for node in _walk(statement) if getattr(node, "attr_key", "") == "compute_scope"), None)
    assert found is not None, "MakePackedAPI has left no compute_scope"
    return found.body


def _walk(statement: Any) -> Iterator[Any]:
    yield statement
    for inner in getattr(statement, "seq", [statement.body] if hasattr(statement, "body") else []):
        yield from _walk(inner)


def _unwrapped(body: Any) -> tuple[list[Any], list[Any]]:
    """Split a body into the attributes around it and its statements."""
    wrappers = []
    while isinstance(body, tirx.AttrStmt):
        wrappers.append(body)
        body = body.body
    return wrappers, list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def _is_parallel(statement: Any) -> bool:
    return isinstance(statement, tirx.For) and statement.kind == tirx.ForKind.PARALLEL


def _own_names(statements: Sequence[Any]) -> set[Any] | None:
    """Return the names of values that depend on buffers: another part cannot repeat them, because a part may have written there. `None`
    if a part uses such a name of an earlier one: the kernel cannot be cut.
    """
    part, places = 0, dict[Any, int]()
    for statement in statements:
        loop = _is_parallel(statement)
        part += loop
        used = [places[name] for name in tirx.analysis.undefined_vars(statement) if name in places] if places else []
        if any(place != part for place in used):
            return None
        if isinstance(statement, tirx.Bind) and (used or "[" in str(statement.value)):
            places[statement.var] = part
        part += loop
    return set(places)


def _replaced(statement: Any, declared: Callable[[Any], Any]) -> Any:
    """Replace allocations in a statement by given memory, and parallel loops by serial ones."""
    if isinstance(statement, tirx.AllocBuffer):
        local = _REGISTERS in statement.annotations or _bytes_of(statement.buffer) < _STACK_BYTES
        return statement if local else declared(statement.buffer)
    if isinstance(statement, tirx.SeqStmt):
        return _sequence([_replaced(each, declared) for each in statement.seq])
    if isinstance(statement, tirx.For):
        kind = tirx.ForKind.SERIAL if _is_parallel(statement) else statement.kind
        body = _replaced(statement.body, declared)
        return tirx.For(statement.loop_var, statement.min, statement.extent, kind, body, annotations=statement.annotations)
    if isinstance(statement, tirx.AttrStmt):
        return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, _replaced(statement.body, declared))
    if isinstance(statement, tirx.IfThenElse):
        otherwise = statement.else_case and _replaced(statement.else_case, declared)
        return tirx.IfThenElse(statement.condition, _replaced(statement.then_case, declared), otherwise)
    return statement


def _sequence(statements: Sequence[Any]) -> Any:
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def _pointer(name: str) -> Any:
    return tvm.tirx.Var(name, PointerType(PrimType("float32")))


def _at(pointer: Any, offset: int, buffer: Any) -> Any:
    """Return a pointer to a buffer's elements, `offset` bytes after another pointer."""
    return T.reinterpret(buffer_data_pointer_type(buffer), T.handle_add_byte_offset(pointer, offset))


def _bytes_of(buffer: Any) -> int:
    return math.prod(int(extent) for extent in buffer.shape) * np.dtype(str(buffer.dtype)).itemsize
