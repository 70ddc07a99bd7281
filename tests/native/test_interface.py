"""Tests of the promises of the C interface's version 1 (docs/compatibility.md): places of fields, and sizes that programs allocate."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tvmmobile.native.source import INTERFACE, interface_version

_DESCRIPTION = (
    "interface 0, threads 4, name 8, version 16, core 24, inputs 32, outputs 40, input_count 48, output_count 52, workspace_bytes 56, "
    "weight_bytes 64, alignment 72, sets 80, reasons 88, set_count 96, fastest_threads 104"
)
#: By structure, its fields with their offsets, and its size where programs allocate it or count by it.
LAYOUT: dict[str, tuple[str, int | None]] = {
    "tvmmobile_tensor": (
        "name 0, type 8, layout 16, shape 24, rank 32, scale_count 36, bytes 40, scales 48, zero_points 56, axis 64",
        72,
    ),
    "tvmmobile_set": ("device 0, core 8, needs 16, workspace_bytes 24, weight_bytes 32", 40),
    "tvmmobile_description": (_DESCRIPTION, None),  # it may grow
    "tvmmobile_options": ("threads 0, spins 4, flags 8, reserved 12, cpus 16, parallel 24, pool 32, create 40, join 48", 56),
    "tvmmobile_instance": ("state 0", 1024),
}
CODES = ("OK", "VERSION", "NULL", "ALIGNMENT", "WORKSPACE", "UNREADY", "IN_USE", "THREADS", "NO_THREADS")


def test_programs_compiled_with_an_older_header_go_on_working(tmp_path: Path) -> None:
    """These figures may change only together with TVMMOBILE_INTERFACE."""
    assert interface_version() == 1
    checks = [f"TVMMOBILE_{name} == {number}" for number, name in enumerate(CODES)]
    checks += ["TVMMOBILE_CPU == 13", "TVMMOBILE_BIG_CORES == 1", "TVMMOBILE_ANY_CPU == 2", "TVMMOBILE_ALWAYS_SPIN == 0xffffffff"]
    checks += ["TVMMOBILE_SET(3) == 0x3000000", "TVMMOBILE_FASTEST_THREADS == 4"]
    for structure, (fields, size) in LAYOUT.items():
        checks += ["offsetof({}, {}) == {}".format(structure, *field.split()) for field in fields.split(",")]
        checks += [f"sizeof({structure}) == {size}"] if size else []
    source = tmp_path / "promises.c"
    source.write_text(f'#include "{INTERFACE}"\n' + "".join(f'_Static_assert({check}, "");\n' for check in checks), encoding="utf-8")
    subprocess.run(["gcc", "-std=c11", "-fsyntax-only", source], check=True)
