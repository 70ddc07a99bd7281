"""Turns dynamic dimensions of a `.pt2` into numbers before PyTorch sees the file: its reader would evaluate their text as Python code.

`torch.export` writes extents that depend on inputs as SymPy expressions, `Add(Mul(Integer(2), Symbol('s7')), Integer(1))`, and operators
that compute with them. Here a few functions of numbers are known, and nothing else is called.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from tvmmobile.networks.own.files import FileTensor, OwnFile, RequestedShape, height_and_width, refuse_dynamic
from tvmmobile.system.errors import UserError

_FIX = "Give --batch for the first dimension, --resolution for an image's height and width, or --shape for a whole input."
#: Operators whose result is a number.
ITEMS = frozenset({"torch.ops.aten.item.default", "torch.ops.aten._local_scalar_dense.default"})
_Number = Fraction | bool
#: Functions of SymPy and of PyTorch's extensions (torch.utils._sympy.functions), as far as extents have them.
_FUNCTIONS: Mapping[str, Callable[..., _Number]] = {
    "Integer": Fraction,
    "Rational": Fraction,
    "Float": lambda text: Fraction(float(text)),
    "Add": lambda *terms: sum(terms, Fraction()),
    "Mul": lambda *factors: math.prod(factors, start=Fraction(1)),
    "Pow": lambda base, exponent: _power(base, exponent),
    "Max": lambda *values: max(values),
    "Min": lambda *values: min(values),
    **dict.fromkeys(("FloorDiv", "CleanDiv"), operator.floordiv),
    **dict.fromkeys(("Mod", "PythonMod"), operator.mod),
    **dict.fromkeys(("IntTrueDiv", "FloatTrueDiv"), operator.truediv),
    **dict.fromkeys(("FloorToInt", "floor"), lambda value: Fraction(math.floor(value))),
    **dict.fromkeys(("CeilToInt", "ceiling"), lambda value: Fraction(math.ceil(value))),
    "TruncToInt": lambda value: Fraction(math.trunc(value)),
    "ToFloat": Fraction,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "GreaterThan": operator.ge,
    "LessThan": operator.le,
    "StrictGreaterThan": operator.gt,
    "StrictLessThan": operator.lt,
    "And": lambda *tests: all(tests),
    "Or": lambda *tests: any(tests),
    "Not": operator.not_,
}
_OPERATORS: Mapping[type[ast.AST], Callable[..., _Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
}
#: Extents and counts of elements are below that, and so is what they are computed from.
_LARGEST, _LONGEST = 2**63, 20_000
#: In the text of a condition that the exporter relied on.
_EXTENT = re.compile(r"L\['(\w+)'\]\.size\(\)\[(\d+)\]")
#: Checks of computed numbers, which are made here, and hints for the compiler.
_CHECKS = {"torch.ops.aten._assert_scalar.default", "torch.ops.aten.sym_constrain_range.default"}
_CHECKS |= {"torch.ops.aten.sym_constrain_range_for_size.default", "torch._check", "torch.sym_constrain_range_for_size"}
#: Kinds of an argument that is a symbolic number, or several, and those of plain ones.
_PLAIN = {f"as_sym_{kind}{s}": f"as_{kind}{s}" for kind in ("int", "float", "bool") for s in ("", "s")}


class UnknownExtentError(Exception):
    """An expression that is not understood, or whose symbols have no values."""


def is_dynamic(program: Any) -> bool:
    """Return whether extents of a serialised program are expressions, or it computes numbers, if only to check them."""
    return any(name == "expr_str" or name in _PLAIN for name, _ in entries(program))


def known_symbols(file: OwnFile, program: Any, wanted: RequestedShape, numbers: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Return the values of a serialised program's symbols that `wanted` and a batch of 1 determine.

    Args:
        numbers: values of symbols that do not depend on extents.

    Raises:
        UserError: the program does not take these, or other dimensions are dynamic.
        AttributeError, LookupError, TypeError, ValueError: it is none.
    """
    values = {**_symbols(file, program, wanted), **numbers}
    for tensor in input_tensors(program):
        refuse_dynamic(file, replace(tensor, shape=tuple(_known(extent, values) for extent in tensor.shape or ())), "input", _FIX)
    return values


def with_fixed_dimensions(file: OwnFile, program: Any, values: Mapping[str, Fraction]) -> Any:
    """Return a serialised program whose extents are numbers, for values of all symbols; raise errors as `known_symbols` does."""
    try:
        fixed = _DimensionFixer(values, program["graph_module"]["graph"]).fixed(program)
    except UnknownExtentError as error:
        raise unknown_extent(file, program, error) from error
    graph = fixed["graph_module"]["graph"]
    for kind in ("sym_int_values", "sym_float_values", "sym_bool_values"):
        graph[kind] = {}
    shapes = {tensor.name: tensor.shape for tensor in input_tensors(fixed)}
    guards = [guard for guard in fixed.get("guards_code") or () if not _holds(file, str(guard), shapes)]
    return {**fixed, "range_constraints": {}, "guards_code": guards}


def unknown_extent(file: OwnFile, program: Any, error: UnknownExtentError) -> UserError:
    """Return the error for an extent inside the network that has no value."""
    if any(node["target"] in ITEMS for node in program["graph_module"]["graph"]["nodes"]):
        what = f"{file}: the network takes a number out of a tensor that it computes, with .item() or by a condition."
        return UserError(what, "Have it compute with the tensor, or with a number that does not depend on the input.")
    return UserError(f"{file}: a dimension inside the network is dynamic ({str(error)[:80]}), and must be a number.", _FIX)


def input_tensors(program: Any) -> Iterator[FileTensor]:
    """Yield a serialised program's inputs with their shapes; types are left to PyTorch."""
    graph, signature = (program["graph_module"][part] for part in ("graph", "signature"))
    for spec in signature["input_specs"]:
        for tensor in (value["name"] for name, value in entries(spec.get("user_input")) if name == "as_tensor"):
            sizes = graph["tensor_values"][tensor]["sizes"]
            yield FileTensor(tensor, tuple(size["as_int"] if "as_int" in size else _text(size) for size in sizes), "float32")


def entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield all entries of nested objects, at any depth."""
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, dict):
            yield from inner.items()
            waiting += reversed(inner.values())
        elif isinstance(inner, list):
            waiting += reversed(inner)


def mapped(value: Any, change: Callable[[dict[str, Any]], Any]) -> Any:
    """Return nested objects with each dictionary replaced by the result of `change`, unless that is `None`; itself if none changes."""
    if isinstance(value, list):
        parts = [mapped(part, change) for part in value]
        return value if all(map(operator.is_, parts, value)) else parts
    if not isinstance(value, dict):
        return value
    if (found := change(value)) is not None:
        return found
    inside = {name: mapped(part, change) for name, part in value.items()}
    return value if all(map(operator.is_, inside.values(), value.values())) else inside


def tensors_in(value: Any) -> list[str]:
    """Name the tensors in serialised arguments or results, in order."""
    found: list[Any] = []
    for kind, part in entries(value):
        found += [part] if kind == "as_tensor" else part if kind == "as_tensors" else []
    return [str(tensor["name"]) for tensor in found]


def _shown(text: str) -> str:
    """Return an expression as messages show it: `s31` for `Symbol('s31', positive=True, integer=True)`."""
    return re.sub(r"Symbol\('(\w+)'[^)]*\)", r"\1", text)


def _known(extent: int | str, values: Mapping[str, Fraction]) -> int | str:
    """Return an extent as a number, or its shortened text if it is unknown."""
    try:
        return extent if isinstance(extent, int) else int(evaluated(extent, values))
    except UnknownExtentError:
        return _shown(str(extent))[:80]


def _text(size: Any) -> str:
    return next((str(value) for name, value in entries(size) if name == "expr_str"), "")


def _symbols(file: OwnFile, program: Any, wanted: RequestedShape) -> dict[str, Fraction]:
    """Return the values of symbols in the extents of inputs."""
    values: dict[str, Fraction] = {}
    shapes = dict(file.shapes)
    for tensor in sorted(input_tensors(program), key=lambda tensor: tensor.name not in shapes):
        shape = tensor.shape or ()
        size = (None, None) if wanted.side is None or len(shape) != 4 else height_and_width(wanted.side)
        extents: tuple[int | None, ...] = shapes.get(tensor.name) or (wanted.batch or 1, None, *size)
        for place, (given, extent) in enumerate(zip(shape, extents, strict=False)):
            if extent is None or isinstance(given, int):
                continue
            if reason := _solve(given, Fraction(extent), values):
                what = f"{file}: dimension {place} of the input {tensor.name!r} cannot be {extent}: it is {reason}."
                raise UserError(what, "Give --batch, --resolution or --shape accordingly.")
    for name, value in values.items():
        limits = program.get("range_constraints", {}).get(name) or {}
        # Exporters write 2 for dimensions that may be 1: they trace with 2.
        low, high = limits.get("min_val") or 0, limits.get("max_val")
        if (low > 2 and value < low) or (high is not None and value > high):
            raise UserError(f"{file} does not take {name} = {value}.", f"It was exported for {low} to {high or 'any number'}.")
    return values


def _solve(text: str, extent: Fraction, values: dict[str, Fraction]) -> str:
    """Solve a linear expression of one symbol, as `torch.export.Dim` makes them, for a number; return "" or the mismatch in words."""
    names = set(re.findall(r"Symbol\('(\w+)'", text))
    try:
        if len(names) == 1 and not names <= values.keys():
            [name] = names
            at_zero, at_one = (evaluated(text, {name: Fraction(number)}) for number in (0, 1))
            values[name] = (extent - at_zero) / (at_one - at_zero)
        found = evaluated(text, values)
    except (UnknownExtentError, ZeroDivisionError):
        return ""  # it stays dynamic
    if found == extent and all(values[name].denominator == 1 for name in names):
        return ""
    return f"{_shown(text)} with {', '.join(f'{name} = {values[name]}' for name in sorted(names))}"


def evaluated(text: str, values: Mapping[str, Fraction]) -> Fraction:
    """Return the value of an expression in SymPy's or Python's notation.

    Raises:
        UnknownExtentError: it has no value, or is more than numbers, symbols and known functions; the message shows it.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError("too long")
        return Fraction(_value(ast.parse(text, mode="eval").body, values))
    except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError) as error:
        raise UnknownExtentError(_shown(text)) from error


def _value(node: ast.expr, values: Mapping[str, Fraction]) -> _Number:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Symbol":
        return values[ast.literal_eval(node.args[0])]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        value = _FUNCTIONS[node.func.id](*(_value(part, values) for part in node.args))
    elif isinstance(node, ast.BinOp):
        value = _OPERATORS[type(node.op)](_value(node.left, values), _value(node.right, values))
    elif isinstance(node, ast.UnaryOp):
        value = _OPERATORS[type(node.op)](_value(node.operand, values))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
        value = _OPERATORS[type(node.ops[0])](_value(node.left, values), _value(node.comparators[0], values))
    else:
        value = Fraction(float(text)) if isinstance(text := ast.literal_eval(node), str) else Fraction(text)
    if abs(Fraction(value)) >= _LARGEST:
        raise ValueError("too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > 64:
        raise ValueError("not a small whole power")
    return Fraction(base ** int(exponent))


def _holds(file: OwnFile, guard: str, shapes: Mapping[str, Any]) -> bool:
    """Return whether a condition that the exporter relied on is met; false unless it is only about extents.

    Raises:
        UserError: it is not met.
    """
    try:
        met = evaluated(_EXTENT.sub(lambda found: str(int(shapes[found[1]][int(found[2])])), guard), {})
    except (UnknownExtentError, LookupError, ValueError):
        return False
    if not met:
        raise UserError(f"{file} does not take inputs of this size: it was exported for {guard}.", "Give another --resolution or --batch.")
    return True


@dataclass
class _DimensionFixer:
    """A serialised program while its expressions become numbers.

    Attributes:
        values: values of symbols.
        graph: graph of the program.
    """

    values: Mapping[str, Fraction]
    graph: Any

    def fixed(self, value: Any) -> Any:
        """Replace expressions by numbers, and leave out the operators that compute them."""
        if isinstance(value, list):
            return [self.fixed(part) for part in value if not self._only_numbers(part)]
        if not isinstance(value, dict):
            return value
        if "expr_str" in (expression := value.get("as_expr") or {}):
            return {"as_int": self._whole(expression["expr_str"])}
        if len(value) == 1 and (kind := next(iter(value))) in _PLAIN:
            parts = value[kind] if kind.endswith("s") else [value[kind]]
            numbers = [self._number(kind.removesuffix("s"), part) for part in parts]
            return {_PLAIN[kind]: numbers if kind.endswith("s") else numbers[0]}
        return {name: part if name in _COMPUTED else self.fixed(part) for name, part in value.items()}

    def _only_numbers(self, part: Any) -> bool:
        """Return whether a part is an operator that only computes or checks numbers."""
        if not isinstance(part, dict) or "target" not in part:
            return False
        outputs = part.get("outputs") or []
        return part["target"] in _CHECKS or (bool(outputs) and all(kind in _PLAIN for output in outputs for kind in output))

    def _number(self, kind: str, part: Any) -> int | float | bool:
        """Return the number of an argument, or the one recorded under its name."""
        given = next((part[name] for name in ("as_int", "as_float", "as_bool") if name in part), None)
        if given is not None:
            return given  # type: ignore[no-any-return]
        recorded = self.graph[kind.removeprefix("as_") + "_values"].get(part.get("as_name"))
        if recorded is None:
            raise UnknownExtentError(str(part))
        text = _text(recorded)
        if not text:
            return next(iter(recorded.values()))  # type: ignore[no-any-return]
        if kind == "as_sym_int":
            return self._whole(text)
        value = evaluated(text, self.values)
        return float(value) if kind == "as_sym_float" else bool(value)

    def _whole(self, text: str) -> int:
        value = evaluated(text, self.values)
        if value.denominator != 1:
            raise UnknownExtentError(_shown(text))
        return int(value)


#: Entries for the numbers that operators compute.
_COMPUTED = {"sym_int_values", "sym_float_values", "sym_bool_values"}
