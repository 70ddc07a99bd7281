"""The networks that stand beside each other in one table, as in the MobileNets paper's tables 4, 5, 8 and 9, and those that came later."""

from __future__ import annotations

from tvmmobile.networks.models.spec import ModelSpec

#: MobileNet v1 at 0.75 is set against the shallow network, at 0.5-160 against SqueezeNet and AlexNet.
COMPARED = (
    ModelSpec("mobilenet_v1", 1.0, 224),
    ModelSpec("mobilenet_v1_full", 1.0, 224),
    ModelSpec("mobilenet_v1", 0.75, 224),
    ModelSpec("mobilenet_v1_shallow", 1.0, 224),
    ModelSpec("mobilenet_v1", 0.5, 160),
    ModelSpec("mobilenet_v2", 1.0, 224),
    ModelSpec("mobilenet_v3_large", 1.0, 224),
    ModelSpec("mobilenet_v3_small", 1.0, 224),
    ModelSpec("squeezenet1_0", 1.0, 224),
    ModelSpec("squeezenet1_1", 1.0, 224),
    ModelSpec("shufflenet_v1", 1.0, 224),
    ModelSpec("shufflenet_v2", 1.0, 224),
    ModelSpec("xception", 1.0, 299),
    ModelSpec("googlenet", 1.0, 224),
    ModelSpec("vgg16", 1.0, 224),
    ModelSpec("alexnet", 1.0, 224),
)
