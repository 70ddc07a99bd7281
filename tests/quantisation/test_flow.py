"""Networks as steps: what they compute of a batch is what PyTorch computes of each image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from quantised import flow_from
from torch import nn
from torch.nn import functional


class Between(nn.Module):
    """A function of a convolution's tokens and of a constant for each, or of its image; then a linear layer."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.function = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), function
        self.places = nn.Parameter(torch.randn(12, 4))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.first(image).flatten(2).transpose(1, 2)
        return self.last(self.function(tokens, self.places))


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x, _: x + functional.scaled_dot_product_attention(x, x, x), id="attention"),
        pytest.param(lambda x, places: x.atan() * places, id="a constant for each token"),
        pytest.param(lambda x, places: x.atan() * places[:5].sum(0), id="a constant for each channel"),
        pytest.param(lambda x, _: x.reshape(-1).softmax(0).reshape(1, 12, 4), id="softmax of all"),
        pytest.param(lambda x, _: x @ (x.transpose(1, 2) @ x), id="products"),
        pytest.param(lambda x, _: x.reshape(12, 4).max(0, keepdim=True).values - x.reshape(12, 4), id="without a batch in front"),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_a_batch_is_its_images(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: int) -> None:
    network = Between(function).eval()
    flow = flow_from(network, (1, 3, 5, 6))
    batch = np.random.default_rng(3).normal(0.0, 1.0, (images, 3, 5, 6)).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat([network(torch.from_numpy(image[None])).reshape(1, -1) for image in batch]).numpy()
    output = flow.outputs(batch)
    assert output.size == expected.size
    np.testing.assert_allclose(output.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
