"""A network that is defined here, tuned for the virtual Raspberry Pi 4 with two trials a kernel; its records stay in ./logs.

.venv/bin/python examples/python/tune_own_module.py
"""

from torch import nn, zeros

import tvmmobile as tm


class Gray(nn.Sequential):
    """Ten classes of gray images."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU6()),
            *(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6()),
            *(nn.Conv2d(16, 32, 1), nn.ReLU6()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        )


class Progress(tm.Listener):
    """Prints a line for each kernel."""

    def kernel_finished(self, assignment, best):
        """Print the best of a kernel."""
        print(f"{assignment.title}: {best.latency_us:.1f} us modelled, {best.schedule}")


net = tm.load(Gray(), zeros(1, 1, 32, 32))
before = tm.compile(net, device="pi4").bench(device="pi4")
after = tm.tune(net, device="pi4", trials=2, logs="logs", listener=Progress())
for one in tm.compare(before, after).variants:
    print(f"{one.label}: {one.base_us:.0f} us before, {one.new_us:.0f} us now: {one.verdict}")
