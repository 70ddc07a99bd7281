"""A run's request is checked before any work."""

from __future__ import annotations

import pytest

from tvmmobile.pipeline.request import devices_of
from tvmmobile.system.errors import UserError


def test_devices_are_named_once() -> None:
    assert [device.profile.name for device in devices_of(["pi4", "pi5"])] == ["pi4-virtual", "pi5-virtual"]
    with pytest.raises(UserError, match="no device was given") as caught:
        devices_of([])
    assert caught.value.remedy.startswith("Name one of: ") and "pi4" in caught.value.remedy
    with pytest.raises(UserError, match="names pi5-virtual twice") as caught:
        devices_of(["pi4", "pi5", "pi5-virtual"])
    assert caught.value.remedy == "Name each board once."
