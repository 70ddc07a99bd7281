"""Sets of kernels for different cores in one library, and the tables by which `choose.h` takes one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tvmmobile.native.expanding import distinct
from tvmmobile.native.instructions import CPUID, Feature
from tvmmobile.native.text import c_string

if TYPE_CHECKING:
    from tvmmobile.native.layout import Layout
    from tvmmobile.native.parts import CutKernel
    from tvmmobile.native.program import Program
    from tvmmobile.schedules.emit.expansion import Expansion


@dataclass(frozen=True, eq=False)
class LoweredSet:
    """A network that `graph.lowering.lower` returned, for one core.

    Attributes:
        module: the network.
        target: the core's target.
        separate: kernels whose parts write different outputs, and need not wait for each other.
        device: device whose records chose its kernels.
        fastest_threads: number of threads with which it is fastest; `None` for all that it was compiled for.
        expansions: ways in which `init` makes constants, see `native.program.read_program`.
    """

    module: Any
    target: Mapping[str, Any]
    separate: frozenset[str] = frozenset()
    device: str = ""
    fastest_threads: int | None = None
    expansions: Mapping[bytes, Expansion] = field(default_factory=dict)


@dataclass(frozen=True)
class CompiledSet:
    """A set of kernels as the library's C file lists it.

    Attributes:
        lowered: the lowered network that it was compiled from.
        program, kernels, layout: its calls, their functions, and the places of their tensors.
        needs: CPU features beyond Armv8.0 that the kernels need.
    """

    lowered: LoweredSet
    program: Program
    kernels: Mapping[str, CutKernel]
    layout: Layout
    needs: tuple[Feature, ...]

    @property
    def core(self) -> str:
        """LLVM's name of the core."""
        return str(self.lowered.target.get("mcpu", "host"))


@dataclass(frozen=True)
class SuitedCore:
    """A core by the fields `implementer << 12 | part` of its main ID register, and the places of the sets that suit it, best first.

    The first `tuned` of them were tuned for this core.
    """

    core: int
    tuned: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Suitability:
    """Suitability of a library's sets for cores.

    Attributes:
        cores: all known cores, from small to large.
        by_features: indices of the sets, those for the newest and largest cores first.
        typical: features beyond Armv8.0 that CPUs with the core of each set have.
    """

    cores: tuple[SuitedCore, ...]
    by_features: tuple[int, ...]
    typical: tuple[tuple[Feature, ...], ...]


def need_lines(sets: Sequence[CompiledSet], suitability: Suitability | None) -> Iterator[str]:
    """Yield the definitions that cpu.h reads."""
    features = {feature for kernel_set in sets for feature in kernel_set.needs}
    if suitability is not None:
        features |= {CPUID, *(feature for each in suitability.typical for feature in each)}
    if not features:
        return
    for name, bits in zip(("NEEDED_HWCAP", "NEEDED_HWCAP2"), _bits(sorted(features)), strict=True):
        yield f"#define {name} UINT64_C({bits:#x})"
    yield f"#define NEEDED_NAMES {c_string(_names(sorted(features)))}"
    if suitability is not None:
        shown = [f"{_names(kernel_set.needs) or 'nothing'} for {kernel_set.core}" for kernel_set in sets]
        yield f"#define NEEDED_SHOWN {c_string(', '.join(shown))}"


def set_lines(sets: Sequence[CompiledSet], suitability: Suitability) -> Iterator[str]:
    """Yield the tables that choose.h reads."""
    expanded = any(each.layout.expanded for each in sets)
    yield "static const KernelSet kernel_sets[] = {"
    for place, each in enumerate(sets):
        name, needs, typical = prefix_of_set(place, sets), *(_initialiser(found) for found in (each.needs, suitability.typical[place]))
        rest = f", {name}expansions, {len(distinct(each.layout))}" if expanded else ""
        yield f"    {{{name}steps, {name}kernels, sizeof {name}steps / sizeof *{name}steps, {needs}, {typical}{rest}}},"
    yield "};"
    yield f"static const uint8_t by_features[] = {{{_listed(suitability.by_features)}}};"
    yield "static const Core cores[] = {"
    for core in suitability.cores:
        yield f"    {{{core.core:#07x}, {core.tuned}, {{{_listed(core.order)}}}}},"
    yield "};"


def shown_lines(sets: Sequence[CompiledSet], threads: int) -> Iterator[str]:
    """Yield the sets as the description lists them; `threads` are those of the library."""
    yield "static const tvmmobile_set sets[] = {"
    for kernel_set in sets:
        words = ", ".join(map(c_string, (kernel_set.lowered.device, kernel_set.core, _names(kernel_set.needs))))
        yield f"    {{{words}, {kernel_set.layout.workspace_bytes}, {len(kernel_set.layout.weights)}}},"
    yield "};"
    fastest = [kernel_set.lowered.fastest_threads or threads for kernel_set in sets]
    yield f"static const uint32_t fastest_threads[] = {{{_listed(fastest)}}};"
    yield "static const char *const reasons[] = {REASONS};"


def prefix_of_set(place: int, sets: Sequence[object]) -> str:
    """Return the prefix of the names of a set's kernels and steps; "" for a single set."""
    return f"set{place}_" if len(sets) > 1 else ""


def _names(features: Sequence[Feature]) -> str:
    return " ".join(feature.name for feature in features)


def _bits(features: Sequence[Feature]) -> tuple[int, int]:
    """Return the bits of AT_HWCAP and AT_HWCAP2."""
    low, high = (sum(1 << feature.bit for feature in features if feature.word == word) for word in (0, 1))
    return low, high


def _initialiser(features: Sequence[Feature]) -> str:
    return "{" + ", ".join(f"{bits:#x}" for bits in _bits(features)) + "}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
