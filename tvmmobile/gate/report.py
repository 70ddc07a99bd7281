"""A comparison for people and for CI: a table for the terminal, Markdown, JSON, and JUnit XML."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path

from tvmmobile.gate.comparison import Compared, Comparison
from tvmmobile.gate.kernel_changes import KernelChange
from tvmmobile.gate.statistics import Verdict
from tvmmobile.results.report.wording import UNKNOWN, clean, latency_ms, microseconds, origin_caption, plural, signed
from tvmmobile.system.files import write_bytes, write_text

#: Most changed kernels that are listed; JSON has them all.
_MOST_KERNELS = 5
#: Most characters of a schedule on a line.
_MOST_SCHEDULE = 100
#: Characters that Markdown interprets within a line.
_SPECIAL = re.compile(r"([\\`*_|<>&~\[\]])")


def print_comparison(comparison: Comparison) -> None:
    """Print the table, 80 columns wide, what changed in the variants that are not as fast as before, and the verdict."""
    from tvmmobile.system.console import output, table_of

    console = output()
    kind = comparison.new.kind
    table = table_of(("variant", "verdict"), (f"old, ms\n{kind}", f"new, ms\n{kind}", "change", "noticed\nfrom"))
    for variant in comparison.variants:
        table.add_row(clean(_label(variant, comparison)), _short(variant), *_cells(variant))
    console.print(table)
    for line in _remarks(comparison):
        console.print(line, soft_wrap=True)
    console.print(clean(f"Latency {origin_caption(comparison.new)}."), soft_wrap=True)
    console.print(clean(comparison.summary), soft_wrap=True)


def write_comparison(comparison: Comparison, markdown: Path | None, json_file: Path | None, junit: Path | None) -> None:
    """Write the requested forms, each atomically."""
    if markdown is not None:
        write_text(markdown, comparison_markdown(comparison))
    if json_file is not None:
        write_text(json_file, comparison_json(comparison))
    if junit is not None:
        write_bytes(junit, comparison_junit(comparison))


def comparison_markdown(comparison: Comparison) -> str:
    """Format the comparison for a pull request (GitHub's dialect)."""
    kind = _escape(comparison.new.kind)
    lines = [
        f"### Latency on {_escape(comparison.new.device)}: {_escape(comparison.summary)}",
        "",
        f"| variant | verdict | old, ms {kind} | new, ms {kind} | change | noticed from |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for variant in comparison.variants:
        verdict = f"**{variant.verdict}**" if variant.verdict is Verdict.SLOWER else _escape(_short(variant))
        lines.append(f"| {_escape(_label(variant, comparison))} | {verdict} | {' | '.join(_cells(variant))} |")
    lines += ["", *(f"- {_escape(line)}" for line in [*_remarks(comparison), f"Latency {origin_caption(comparison.new)}."])]
    return "\n".join(lines) + "\n"


def comparison_json(comparison: Comparison) -> str:
    """Format everything, unrounded; `null` in place of numbers that are not finite."""
    return json.dumps(asdict(comparison), indent=1, allow_nan=False) + "\n"


def comparison_junit(comparison: Comparison) -> bytes:
    """Format JUnit XML: a slower variant is a failure, an undecided one an error, one that was not compared is skipped."""
    context = comparison.new
    cases = comparison.variants
    counts = {
        "tests": len(cases),
        "failures": sum(one.verdict is Verdict.SLOWER for one in cases),
        "errors": sum(one.verdict in (Verdict.TOO_NOISY, Verdict.NOT_COMPARABLE) for one in cases),
        "skipped": sum(one.verdict is Verdict.SKIPPED for one in cases),
    }
    name = clean(f"tvmmobile latency on {context.device}, {context.kind}")
    suite = ET.Element("testsuite", {"name": name, "timestamp": clean(context.date), **{key: str(count) for key, count in counts.items()}})
    for one in cases:
        seconds = f"{one.new_us / 1e6:.9f}" if one.new_us else "0"
        case = ET.SubElement(suite, "testcase", classname=clean(f"latency.{context.device}"), name=clean(one.name), time=seconds)
        message = clean(_sentence(one, comparison))
        if one.verdict is Verdict.SLOWER:
            failure = ET.SubElement(case, "failure", message=message, type="regression")
            failure.text = "\n".join(map(clean, _kernel_lines(one, context.kind))) or None
        elif one.verdict in (Verdict.TOO_NOISY, Verdict.NOT_COMPARABLE):
            ET.SubElement(case, "error", message=message, type=one.verdict.replace(" ", "-"))
        elif one.verdict is Verdict.SKIPPED:
            ET.SubElement(case, "skipped", message=message)
        else:
            ET.SubElement(case, "system-out").text = message
    suites = ET.Element("testsuites", {"name": "tvmmobile", **{key: str(count) for key, count in counts.items()}})
    suites.append(suite)
    ET.indent(suites)
    text: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _label(one: Compared, comparison: Comparison) -> str:
    """Return a variant's label, with its precision if others have the same label, or its name if the precision does not distinguish
    them.
    """
    alike = [other.dtype for other in comparison.variants if other.label == one.label]
    if len(alike) == 1:
        return one.label
    return f"{one.label} {one.dtype}" if len(set(alike)) == len(alike) else one.name


def _short(one: Compared) -> str:
    """Return the verdict for a table cell."""
    return "same library" if one.verdict is Verdict.SKIPPED and one.base_us and one.new_us else str(one.verdict)


def _cells(one: Compared) -> list[str]:
    change = UNKNOWN if one.change is None else signed(one.change)
    detects = UNKNOWN if one.detects is None else f"{one.detects:.1%}"
    return [latency_ms(one.base_us), latency_ms(one.new_us), change, detects]


def _remarks(comparison: Comparison) -> list[str]:
    """Return remarks on single variants and on the two results."""
    lines = []
    for variant in comparison.variants:
        if variant.verdict not in (Verdict.SAME, Verdict.FASTER) and _short(variant) != "same library":
            lines.append(clean(f"{_label(variant, comparison)}: {_sentence(variant, comparison)}"))
            lines += [f"  {clean(line)}" for line in _kernel_lines(variant, comparison.new.kind)]
    return [*lines, *map(clean, comparison.notes)]


def _sentence(one: Compared, comparison: Comparison) -> str:
    """Return the verdict with its evidence."""
    if one.change is None:
        return f"{one.verdict}: {one.note}."
    kind = comparison.new.kind
    text = f"{one.verdict}: {latency_ms(one.base_us)} to {latency_ms(one.new_us)} ms {kind}, {signed(one.change)}"
    if kind != "modelled":
        text += f", {plural(one.pairs, 'run')} a side"
        text += f", p {one.p:.2g}" if one.p is not None else ""
    return f"{text}{'; ' + one.note if one.note else ''}."


def _kernel_lines(one: Compared, kind: str) -> list[str]:
    if one.verdict not in (Verdict.SLOWER, Verdict.TOO_NOISY):
        return []
    if not one.kernels:
        return ["no kernel has another schedule or latency: look at versions, weights and compiler"]
    lines = [kernel_line(kernel, kind) for kernel in one.kernels[:_MOST_KERNELS]]
    more = len(one.kernels) - _MOST_KERNELS
    return lines + ([f"and {plural(more, 'more kernel')} that changed"] if more > 0 else [])


def kernel_line(kernel: KernelChange, kind: str) -> str:
    """Return how a kernel's time and schedule changed, on one line."""
    times = f"{microseconds(kernel.base_us)} to {microseconds(kernel.new_us)} us {kind}"
    if kernel.base_schedule == kernel.new_schedule:
        return f"kernel {kernel.name}: {times}"
    return f"kernel {kernel.name}: {times}; {_schedule(kernel.base_schedule)} became {_schedule(kernel.new_schedule)}"


def _schedule(text: str | None) -> str:
    if text is None:
        return "(none)"
    return text if len(text) <= _MOST_SCHEDULE else f"{text[:_MOST_SCHEDULE]}…"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", clean(text))
