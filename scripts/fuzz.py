"""Feeds mutated samples to the readers of files and of boards' answers; each must return, or refuse its input in one sentence.

    ./scripts/fuzz --inputs 1000000
    ./scripts/fuzz --reader manifest --reader results --inputs 50000 --seed 7
    ./scripts/fuzz --reader "onnx parts" --reader "litert parts" --reader "pt2 parts" --reader "pt2-gate parts" --reader folder

Readers whose names end in "parts" get networks in which an element type, extent, window, argument, device or function was changed.

Prints how many inputs each reader had, how many a second, and how many it accepted; then every fault once, with the input that shows it
cut down to what matters. A fault is another exception than the reader documents, a message that is not one printable line, more than
seconds of processor time, more than 1 GiB of memory, or the end of the process. Ends with 1 if there is one.

A million inputs take 7 to 14 minutes, on one core. The agent's C++ has tests of its own: tests/hostile/test_agent_sessions.py.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tvmmobile.system.entry_points import progress, reporting_errors
from tvmmobile.system.errors import ExitCode, UserError, some_of

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "support")]  # the table of readers is the tests' too

from hostile.campaign import campaign  # noqa: E402
from hostile.fuzzing import Finding, Reader, share  # noqa: E402
from hostile.readers import READERS  # noqa: E402

#: Bytes of an input that are printed.
_MOST_SHOWN = 400


def chosen(names: Sequence[str]) -> list[Reader]:
    """Return the readers of these names, or all if none is given."""
    known = [reader.name for reader in READERS]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"there is no reader {some_of(unknown)}.", f"Readers: {', '.join(known)}")
    return [reader for reader in READERS if not names or reader.name in names]


def description(finding: Finding, seed: int) -> str:
    """Describe a finding, and how to reproduce it."""
    content = finding.content
    more = f" and {len(content) - _MOST_SHOWN} bytes more" if len(content) > _MOST_SHOWN else ""
    again = f"./scripts/fuzz --reader {shlex.quote(finding.reader)} --seed {seed} --first {finding.number} --inputs 1"
    where = f" ({finding.where})" if finding.where else ""
    return f"\n{finding.reader}: {finding.fault}{where}\n    {content[:_MOST_SHOWN]!r}{more}\n    {again}"


@reporting_errors
def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, metavar="N", help="inputs of all readers together; slow ones get fewer")
    parser.add_argument("--reader", action="append", default=[], metavar="NAME", help="fuzz this reader only; may be repeated")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same inputs")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="number of the first input of each reader")
    arguments = parser.parse_args()
    readers = chosen(arguments.reader)
    start, inputs = time.monotonic(), 0
    findings: list[Finding] = []
    counts = {reader.name: share(reader, readers, arguments.inputs) for reader in readers}
    print(f"{'reader':<16} {'inputs':>9} {'a second':>9} {'accepted':>9} {'faults':>7}", flush=True)
    for reader, tally in campaign(readers, arguments.seed, lambda one: range(arguments.first, arguments.first + counts[one.name])):
        rate, accepted = tally.inputs / max(tally.seconds, 1e-9), tally.accepted / max(tally.inputs, 1)
        print(f"{reader.name:<16} {tally.inputs:>9,} {rate:>9,.0f} {accepted:>9.1%} {len(tally.findings):>7}", flush=True)
        inputs += tally.inputs
        findings += tally.findings
    progress("\n".join(description(finding, arguments.seed) for finding in findings))
    minutes = (time.monotonic() - start) / 60
    print(f"{inputs:,} inputs over {len(readers)} readers in {minutes:.1f} minutes: {len(findings)} faults")
    return ExitCode.USAGE if findings else ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
