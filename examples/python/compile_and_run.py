"""MobileNet v1 0.25-128 for the virtual Raspberry Pi 4: compiled from the shipped tuning logs, run on an image, timed.

.venv/bin/python examples/python/compile_and_run.py
"""

import numpy as np

import tvmmobile as tm

net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
library = tm.compile(net, device="pi4")

image = np.random.default_rng(0).normal(size=(1, 3, 128, 128))
logits = library.run(image, device="pi4")
print(f"{library.path.name}: class {logits.argmax()} of {logits.size}")

results = library.bench(device="pi4")
print(f"{results.latency_ms:.2f} ms {results.context.kind} on {results.context.board}")

slowest = max(results.variants[0].kernels, key=lambda kernel: kernel.network_us)
print(f"slowest of {len(library.kernels)} kernels: {slowest.name}, {slowest.network_us:.0f} us {results.context.kind}")
