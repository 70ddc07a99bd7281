"""A gate: ends with 2 where a library has become slower. Here the new one is made slow on purpose: compiled without tuning logs.

.venv/bin/python examples/python/gate.py
"""

import sys
import tempfile

import tvmmobile as tm

net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
before = tm.compile(net, device="pi4").bench(device="pi4")
with tempfile.TemporaryDirectory() as nothing:
    after = tm.compile(net, device="pi4", logs=nothing).bench(device="pi4")

comparison = tm.compare(before, after)
print(comparison.summary)
for variant in comparison.slower:
    print(f"{variant.label}: {variant.base_us / 1e3:.2f} ms, now {variant.new_us / 1e3:.2f} ms {after.context.kind}")
    for kernel in variant.kernels[:3]:  # a library may have a kernel that the other lacks
        print(f"  {kernel.name}: {kernel.base_us or 0:.0f} us, now {kernel.new_us or 0:.0f} us")
sys.exit(comparison.exit_code)
