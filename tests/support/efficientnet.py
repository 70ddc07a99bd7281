"""EfficientNet-B0 as torchvision builds it (arXiv 1905.11946, table 1), for inference, with weights that keep activations alive."""

from __future__ import annotations

import torch
from torch import nn

#: Expansion, kernel, stride, output channels, blocks.
_STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))


def _unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, *, activation: bool = True) -> nn.Sequential:
    """torchvision's `Conv2dNormActivation`."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *([nn.SiLU(inplace=True)] if activation else []))


class SqueezeExcitation(nn.Module):
    """torchvision's `ops.SqueezeExcitation` with SiLU and a sigmoid."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = nn.SiLU(inplace=True), nn.Sigmoid()

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return the input, each channel times its gate."""
        gate = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(data)))))
        return torch.mul(gate, data)


class MBConv(nn.Module):
    """torchvision's block of the same name, without its stochastic depth, which inference leaves out."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.block = nn.Sequential(
            *([_unit(inputs, hidden)] if expansion > 1 else []),
            _unit(hidden, hidden, kernel, stride, hidden),
            SqueezeExcitation(hidden, max(1, inputs // 4)),
            _unit(hidden, outputs, activation=False),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Return one block."""
        result: torch.Tensor = self.block(data)
        return result + data if self.residual else result


class EfficientNetB0(nn.Module):
    """For images of 224 × 224 pixels; 1000 classes."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_unit(3, 32, 3, 2)]
        channels = 32
        for expansion, kernel, stride, outputs, count in _STAGES:
            stage = []
            for number in range(count):
                stage.append(MBConv(channels, outputs, expansion, kernel, 1 if number else stride))
                channels = outputs
            blocks.append(nn.Sequential(*stage))
        self.features = nn.Sequential(*blocks, _unit(channels, 1280))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2, inplace=True), nn.Linear(1280, 1000))

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        """Logits."""
        result: torch.Tensor = self.classifier(torch.flatten(self.avgpool(self.features(data)), 1))
        return result


def efficientnet_b0() -> EfficientNetB0:
    """Return the network in evaluation mode, with Kaiming weights and batch-norm statistics that are not trivial; the same every time."""
    generator = torch.Generator().manual_seed(0)
    network = EfficientNetB0().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-0.5, 0.5, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.5, 0.5, generator=generator)
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)  # type: ignore[union-attr, operator]
                module.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr, operator]
    return network
