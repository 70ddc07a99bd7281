"""Every reader of what others wrote returns or refuses in one sentence, in time and in little memory, whatever it is given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hostile import fuzzing
from hostile.campaign import campaign
from hostile.fuzzing import Judge, Reader, fuzz, judging
from hostile.mutations import Shape, mutated, packed
from hostile.readers import READERS, SLOW
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tvmmobile.system.errors import UserError

#: Of a quick reader; others get fewer.
SHORT, LONG = 120, 1_000_000
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON: Any = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4))
_ANYTHING = st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode), _JSON.map(lambda value: json.dumps(value).encode()))


@pytest.fixture(scope="module", params=[pytest.param(one, id=one.name, marks=[pytest.mark.long] * (one in SLOW)) for one in READERS])
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    """A reader whose samples were accepted."""
    with judging(request.param) as ready:
        yield ready


def test_mutated_samples(judge: Judge) -> None:
    found = fuzz(judge, 1, range(max(8, SHORT // judge.reader.cost)))
    assert found.inputs and not [(finding.number, finding.fault, finding.where) for finding in found.findings]


@pytest.mark.parametrize("name", ["onnx parts", "litert parts", "pt2-gate parts"])
def test_networks_with_one_thing_changed(name: str) -> None:
    with judging(next(one for one in READERS if one.name == name)) as ready:
        found = fuzz(ready, 2, range(30))
    assert found.accepted and not [(finding.number, finding.fault, finding.where) for finding in found.findings]


@settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(content=_ANYTHING)
def test_anything_at_all(judge: Judge, content: bytes) -> None:
    fault, where = judge.verdict(content)
    assert fault in ("accepted", "refused"), f"{fault} ({where})"


def test_an_image_that_announces_more_than_there_is_memory() -> None:
    """A chunk of a PNG with a length of 3.6 GB; where memory is short, Pillow fails as it makes room for it."""
    chunk = bytes.fromhex("0000000d49484452 00000014 00000018 0802000000 7529 4a21") + bytes.fromhex("d7005c49") + b"IDATd\xa0"
    with judging(next(one for one in READERS if one.name == "image")) as judge:
        assert judge.verdict(b"\x89PNG\r\n\x1a\n" + chunk) == ("refused", "")


@pytest.mark.long
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_mutations_that_hypothesis_chooses(judge: Judge, random: Random) -> None:
    content = judge.drawn(random)
    fault, where = judge.verdict(content)
    assert fault in ("accepted", "refused"), f"{fault} ({where}): {content[:500]!r}"


@pytest.mark.long
def test_a_million_inputs(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/fuzz.py", "--inputs", str(LONG), "--seed", str(int(time.time()))],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[-1].split()[0].replace(",", "")) >= LONG


def _faulty(fault: Any, allowed: tuple[type[Exception], ...] = (UserError,), shape: Shape = "bytes") -> Reader:
    """Return a reader that does this with what is not its sample."""
    return Reader("faulty", shape, lambda _folder: ([b"sample"], lambda content: content == b"sample" or fault(content)), allowed)


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (lambda _: _raise(ValueError("why")), "ValueError: why"),
        (lambda _: _raise(UserError("")), "a message of 0 characters"),
        (lambda _: bytearray(2 << 30), "MemoryError"),
        (lambda _: [None for _ in iter(int, 1)], "no end in time"),
        (lambda _: time.sleep(9), "no end in time"),
        (lambda _: _raise(UserError("it is damaged.")), "refused"),
        (lambda _: None, "accepted"),
    ],
    ids=["exception", "message", "memory", "loop", "wait", "refused", "accepted"],
)
def test_the_judge_sees(fault: Any, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "DEADLINE_S", 0.1)
    monkeypatch.setattr(fuzzing, "WAIT_S", 0.2)
    with judging(_faulty(fault)) as judge:
        assert judge.verdict(b"other")[0].startswith(verdict)


def test_a_finding_is_cut_down_to_what_matters() -> None:
    with judging(_faulty(lambda content: b"\xff" in content and _raise(KeyError("x")))) as judge:
        tally = fuzz(judge, 0, range(400))
        (finding,) = tally.findings
        assert judge.minimised(finding).content == b"\xff"
        assert judge.input(0, finding.number) == finding.content


@pytest.mark.parametrize(
    ("end", "verdict"),
    [(lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"), (lambda: os._exit(3), "the process ended with 3")],
    ids=["crash", "exit"],
)
def test_a_reader_that_ends_its_process_is_found(end: Any, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "_MEMORY_DISK", tmp_path)
    ((_, tally),) = campaign([_faulty(lambda content: len(content) > 100 and end())], 0, lambda _: range(400))
    (finding,) = tally.findings
    assert finding.fault == verdict and len(finding.content) > 100
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", ["bytes", "text", "json", "lines", "zip"])
def test_mutations_change_most_samples_and_can_be_made_again(shape: Shape) -> None:
    text = json.dumps({"a": [1, 2.5, "x"], "b": {"c": None, "d": True}}).encode()
    sample = packed([("a.json", text), ("b", b"\0" * 40)]) if shape == "zip" else text + b"\n" + text if shape == "lines" else text
    made = [mutated(sample, shape, Random(number)) for number in range(300)]
    assert made == [mutated(sample, shape, Random(number)) for number in range(300)]
    assert len(set(made)) > 200 and sum(one == sample for one in made) < 30
