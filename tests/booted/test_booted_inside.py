"""tvmmobile itself on a board that boots, as its ordinary user's program: the machine is its own device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from booted_image import Image
from booted_machine import Machine, machine
from booted_programs import own_wheel, packages_disk

pytestmark = pytest.mark.long
#: PyTorch's and TVM's import alone takes minutes under emulation.
LONG_S = 3600.0
BEFORE = 'export PYTHONPATH=/mnt:/home/plain/tvm COLUMNS=80; cd /home/plain; tvmmobile() { python3 -m tvmmobile "$@"; }; '
NETWORK = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6())
"""


@pytest.fixture(scope="module")
def inside(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(debian, tmp_path_factory.mktemp("machine"), drives=[packages_disk()], memory="4G") as made:
        made.root("mount -o ro /dev/vdb /mnt")
        wheel = own_wheel(tmp_path_factory.mktemp("wheel"))
        made.send(wheel, "plain", "cat >wheel.zip; python3 -m zipfile -e wheel.zip tvm")
        yield made


def test_tuning_on_the_board_itself(inside: Machine, tmp_path: Path) -> None:
    def done(command: str) -> str:
        said = inside.user("plain", BEFORE + command, LONG_S)
        assert said.code == 0 and "Traceback" not in said.err, said
        return said.out + said.err

    assert "latencies are emulated" in done("tvmmobile device add here --local")
    assert "here is ready." in done("tvmmobile device check here")
    (tmp_path / "network.py").write_text(NETWORK)
    inside.send(tmp_path / "network.py", "plain", "cat >network.py")
    words = "tvmmobile tune --device here --model network.py:small --resolution 16 --trials 1 --logs logs --out out --require-hardware"
    tuned = done(words)
    assert "emulated on" in tuned and "measured on" not in tuned
    assert ", 0 trials to run" in done(words)
    assert inside.leftovers() == []
    done("tvmmobile device remove here")
