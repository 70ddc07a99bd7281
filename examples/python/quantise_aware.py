"""Quantisation-aware training with torchao, from a module to a library in int8 for the virtual Raspberry Pi 5.

.venv/bin/python examples/python/quantise_aware.py
"""

import contextlib
import io
import logging
import warnings

import torch
from torch import nn

import tvmmobile as tm

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")
with contextlib.redirect_stderr(io.StringIO()):  # torchao names each of its CUDA kernels that it cannot load
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

BATCH = 32


def layer(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution, batch norm and ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def batch(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy images of a bright square in one of four corners, and which corner it is."""
    corner = torch.randint(4, (BATCH,), generator=generator)
    images = 0.5 * torch.randn(BATCH, 3, 32, 32, generator=generator)
    for image, place in zip(images, corner, strict=True):
        top, left = (16 * int(bit) for bit in (place // 2, place % 2))
        image[:, top : top + 16, left : left + 16] += 1
    return images, corner


def train(network: nn.Module, steps: int, rate: float, generator: torch.Generator) -> None:
    """Train for some batches."""
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    for _ in range(steps):
        images, corner = batch(generator)
        nn.functional.cross_entropy(network(images), corner).backward()
        optimizer.step()
        optimizer.zero_grad()


torch.manual_seed(0)
generator = torch.Generator().manual_seed(0)
body = [*layer(3, 16, 3, 2), *layer(16, 16, 3, groups=16), *layer(16, 32), nn.AvgPool2d(4), nn.Flatten(1), nn.Linear(32 * 16, 4)]
network = nn.Sequential(*body).train()
train(network, 30, 0.02, generator)

# Guards would hold batches to the size of the example.
exported = torch.export.export(network, (batch(generator)[0],)).module(check_guards=False)
config = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
prepared = prepare_qat_pt2e(exported, XNNPACKQuantizer().set_global(config))
train(prepared, 20, 0.005, generator)
quantised = convert_pt2e(prepared)
program = torch.export.export(quantised, (torch.zeros(1, 3, 32, 32),))

net = tm.load(program, name="corners")
library = tm.compile(net, device="pi5", dtype="int8")  # the scales are in the program
images, corner = batch(generator)
classes = torch.tensor([int(library.run(image[None].numpy(), device="pi5").argmax()) for image in images[:8]])
layers = library.manifest()["quantisation"]["layers"]
print(f"{len(layers)} layers in int8; {int((classes == corner[:8]).sum())} of 8 images right")
