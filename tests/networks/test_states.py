"""Tests of the tensors that `--stateful` may name, and of those that are left for callers."""

from __future__ import annotations

import pytest

from tvmmobile.networks.models.spec import OwnSpec
from tvmmobile.networks.signature import Port
from tvmmobile.networks.states import states_of, without_states
from tvmmobile.system.errors import UserError

TAKES = Port("h", (1, 4)), Port("sound", (1, 80)), Port("k", (1, 4), "int64")
RETURNS = Port("h/next", (1, 4)), Port("score", (1, 1)), Port("kN", (1, 4), "int64"), Port("other", (1, 4))
NET = OwnSpec.of("net", "0" * 64, TAKES, RETURNS)


def test_what_is_kept_and_what_is_left() -> None:
    states = states_of(NET, ["h", "k=kN"])
    assert [(state.input, state.output) for state in states] == [(0, 0), (2, 2)]
    seen = without_states(NET, states)
    assert seen.takes == (Port("input", (1, 80)),) and [port.name for port in seen.returns] == ["score", "other"]
    assert (seen.variant, NET.variant) == ("net_1.0_80", "net_1.0_4") and without_states(NET, ()) is NET


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["x=kN"], "no input 'x' for"),
        (["k"], "no output 'k/next' for"),
        (["h=score"], r"pairs h: float32 \[1, 4\] with score: float32 \[1, 1\]"),
        (["h=kN"], r"pairs h: float32 \[1, 4\] with kN: int64 \[1, 4\]"),
        (["h", "h=other"], "the input 'h' twice"),
        (["h", "k=kN", "sound=sound/next"], "no output 'sound/next'"),
    ],
)
def test_what_it_may_not_name(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        states_of(NET, given)


def test_something_is_left() -> None:
    net = OwnSpec.of("net", "0" * 64, TAKES[:1], RETURNS[:2])
    with pytest.raises(UserError, match=r"leaves net_1\.0_4 without an input"):
        states_of(net, ["h"])
