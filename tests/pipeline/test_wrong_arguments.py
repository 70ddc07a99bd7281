"""Arguments of a wrong type: each call says what it was given and what it takes, before any work."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from deployed import make_library
from torch import nn

import tvmmobile as tm
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.options.network import NetworkOptions
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.run import _inputs
from tvmmobile.running.library import find_libraries

NET = tm.Model(ModelSpec(alpha=0.25, resolution=32))


@pytest.mark.parametrize("call", [tm.compile, tm.tune, tm.plan_tuning, tm.tune_together, tm.choose])
@pytest.mark.parametrize(
    ("given", "called"),
    [
        ("mobilenet_v1", "'mobilenet_v1'"),
        ([NET, None], "NoneType"),
        (nn.Sequential(nn.ReLU()), "Sequential"),  # can be called and iterated over
        (nn.ReLU(), "ReLU"),
    ],
    ids=["name", "none", "modules", "module"],
)
def test_networks_are_loaded(call: Callable[..., Any], given: Any, called: str) -> None:
    options = {"under": "5ms"} if call is tm.choose else {}
    with pytest.raises(tm.UserError, match=f"^{called} is not a loaded network") as caught:
        call(given, "pi4-virtual", **options)
    assert "tvmmobile.load" in caught.value.remedy


@pytest.mark.parametrize("given", [None, 3, ["pi4"], Path("pi4.toml"), SimpleNamespace(profile=None, endpoint=None)])
def test_a_device_is_a_name_or_a_device(given: Any) -> None:
    """A started device, which has a profile too, is for `run` alone."""
    calls = (device_of, lambda device: tm.tune(NET, device), lambda device: tm.start(device).__enter__())
    for call in calls:
        with pytest.raises(tm.UserError, match=f"^{type(given).__name__} is not a device here") as caught:
            call(given)
        assert "tvmmobile.find_device" in caught.value.remedy


@pytest.mark.parametrize(
    "call",
    [
        tm.bench,
        tm.regress,
        lambda library: tm.run(library, np.zeros((1, 3, 32, 32))),
        lambda library: tm.evaluate(library, "noise:1"),
        lambda library: tm.write_wheel(library, "out"),
        lambda library: tm.write_aar(library, "out"),
    ],
)
@pytest.mark.parametrize(("given", "called"), [("net.so", "'net.so'"), (Path("net.so"), "'net.so'"), (None, "NoneType")])
def test_a_library_is_opened(call: Callable[[Any], Any], given: Any, called: str) -> None:
    with pytest.raises(tm.UserError, match=f"^{called} is not a library") as caught:
        call(given)
    assert "tvmmobile.open_libraries" in caught.value.remedy


def test_no_library_is_named() -> None:
    with pytest.raises(tm.UserError, match=r"^no library was named"):
        tm.open_libraries([])


@pytest.mark.parametrize(
    ("call", "option", "wanted"),
    [
        (lambda **options: tm.tune(NET, **options), {"trials": "3"}, "a whole number, not '3'"),
        (lambda **options: tm.tune(NET, **options), {"trials": 1.5}, "a whole number, not 1.5"),
        (lambda **options: tm.tune(NET, **options), {"seed": "x"}, "a whole number, not 'x'"),
        (lambda **options: tm.compile(NET, **options), {"max_error": "1%"}, "a number, not '1%'"),
        (lambda **options: tm.compile(NET, **options), {"share_weights": "1"}, "a number, not '1'"),
        (lambda **options: tm.load("mobilenet_v1", **options), {"classes": "10"}, "a whole number, not '10'"),
        (lambda **options: tm.load("mobilenet_v1", **options), {"alpha": "x"}, "a number, not 'x'"),
        (lambda **options: tm.variants("mobilenet_v1", **options), {"alphas": ["x"]}, "a number, not 'x'"),
        (lambda **options: tm.load("mobilenet_v1", **options), {"resolution": 64.5}, "a side in pixels, or height and width, not 64.5"),
        (lambda **options: tm.load("mobilenet_v1", **options), {"resolution": (1, 2, 3)}, "a side in pixels, .*"),
        (lambda **options: tm.bench([], **options), {"repeat": 2.5}, "a whole number, not 2.5"),
    ],
)
def test_a_number_is_a_number(call: Callable[..., Any], option: dict[str, Any], wanted: str) -> None:
    with pytest.raises(tm.UserError, match=f"^`{next(iter(option))}` takes {wanted}"):
        call(**option)


def test_numpy_has_numbers_too() -> None:
    """They become Python's, which can be written to a manifest."""
    net = tm.load("mobilenet_v1", alpha=np.float32(0.25), resolution=np.int64(64), seed=np.int32(3))
    assert net == tm.load("mobilenet_v1", alpha=0.25, resolution=64, seed=3)
    assert type(net.spec.resolution) is type(net.seed) is int and type(net.spec.alpha) is float
    assert NetworkOptions.of({"batch": None}).batch is None


@pytest.mark.parametrize("side", [(64, 64), [64, 64], "64x64", np.array([64, 64])])
def test_a_square_may_be_given_as_two_numbers(side: Any) -> None:
    assert tm.load("mobilenet_v1", resolution=side) == tm.load("mobilenet_v1", resolution=64)
    with pytest.raises(tm.UserError, match="takes square images"):
        tm.load("mobilenet_v1", resolution=(64, 96))


def test_a_network_of_variants_may_be_a_path() -> None:
    assert tm.variants(Path("mobilenet_v1"), 0.5, 64) == tm.variants("mobilenet_v1", 0.5, 64)
    with pytest.raises(tm.UserError, match=r"^Model is not a name or a file") as caught:
        tm.variants(NET)  # type: ignore[arg-type]
    assert caught.value.remedy == "Give `network='mobilenet_v1'`, for example."


@pytest.mark.parametrize(("given", "called"), [(None, "NoneType"), (tm.Listener, "the class Listener")])
def test_a_listener_is_an_instance(given: Any, called: str) -> None:
    with pytest.raises(tm.UserError, match=f"^{called} is not a listener"):
        tm.tune(NET, listener=given)


def test_signatures_show_no_addresses() -> None:
    """Those of listeners nobody gave would differ from run to run."""
    assert re.search(r"listener: 'Listener' = Listener\(\)", str(inspect.signature(tm.tune)))


@pytest.mark.parametrize(("given", "why"), [(None, "it is None"), ("text", "could not convert .*[^.]"), ([[1], [1, 2]], "setting .*[^.]")])
def test_an_input_is_an_array(tmp_path: Path, given: Any, why: str) -> None:
    (library,) = find_libraries([make_library(tmp_path)])
    with pytest.raises(tm.UserError) as caught:
        _inputs(library, given)
    assert re.fullmatch(rf"the input is not an array of numbers: {why}\.", caught.value.message)
