"""A wheel's modules, here with a library for this machine: dropped, forked and shared networks, and numbers that do not fit."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guest_libraries import STEM, write_guest
from small_networks import HOST

from tvmmobile.kernels.reference import network_error
from tvmmobile.packaging.python import check
from tvmmobile.packaging.python.check import _error
from tvmmobile.packaging.python.network import Network, Port
from tvmmobile.packaging.wheel import _MODULES, write_wheel
from tvmmobile.running.library import find_libraries


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `mynet`, whose library has four threads."""
    folder = tmp_path_factory.mktemp("site")
    write_guest(folder / "out", HOST)
    (library,) = find_libraries([folder / "out" / f"{STEM}.so"])
    with zipfile.ZipFile(write_wheel(library, folder, "mynet")) as wheel:
        wheel.extractall(folder)
    return folder


BEGIN = """
import gc, multiprocessing, os, signal, sys, threading, time
import numpy as np
import mynet
signal.alarm(40)
image = np.load(mynet.LIBRARY.with_name("library.reference.npz"))["input"]
def tasks():
    return len(os.listdir("/proc/self/task"))
"""


def output_of(site: Path, program: str) -> str:
    """Return the output of a program that has `mynet`, an image for it and its number of threads; assert that it does not fail."""
    command = [sys.executable, "-c", BEGIN + program]
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dropped_network_ends_its_threads(site: Path) -> None:
    """Otherwise they would continue in memory that another network gets, and join its runs."""
    program = """
before, expected = tasks(), mynet.run(image)
own = tasks()
for _ in range(20):
    dropped = mynet.Network(mynet.LIBRARY)
    dropped.run(image)
    assert tasks() == own + 3
    time.sleep(0.02)
    assert (dropped.run(image) == expected).all()
    del dropped
    gc.collect()
    assert tasks() == own
mynet.network().close()
assert tasks() == before == own - 3
assert (mynet.run(image) == expected).all() and tasks() == own
print("done")
"""
    assert output_of(site, program) == "done\n"


def test_python_ends_while_a_thread_computes(site: Path) -> None:
    program = """
def compute():
    while True:
        mynet.run(image)
mynet.run(image)
threading.Thread(target=compute, daemon=True).start()
time.sleep(0.1)
print("done")
"""
    assert output_of(site, program) == "done\n"


def test_a_forked_child_computes_although_a_thread_did(site: Path) -> None:
    """Another thread has the network's lock nearly always, which the child inherits without that thread."""
    program = """
expected, going = mynet.run(image), True
def compute():
    while going:
        mynet.run(image)
thread = threading.Thread(target=compute)
thread.start()
for _ in range(5):
    child = os.fork()
    if not child:
        signal.alarm(20)
        same = (mynet.run(image) == expected).all() and tasks() == 4
        mynet.network().close()
        os._exit(0 if same and tasks() == 1 else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
going = False
thread.join()
process = multiprocessing.get_context("fork").Process(target=mynet.run, args=(image,))
process.start()
process.join()
print(process.exitcode)
"""
    assert output_of(site, program) == 6 * "0\n"


def test_threads_that_come_first_together_load_one_network(site: Path) -> None:
    program = """
load, made = mynet.Network, []
def slowly(path):
    time.sleep(0.2)
    made.append(load(path))
    return made[-1]
mynet.Network = slowly
threads = [threading.Thread(target=mynet.run, args=(image,)) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(len(made))
"""
    assert output_of(site, program) == "1\n"


def test_its_own_check(site: Path) -> None:
    assert (
        output_of(site, "import runpy\ntry: runpy.run_module('mynet')\nexcept SystemExit as end: print(end.code)").splitlines()[-1] == "0"
    )


def run_of(given: Any, dtype: str) -> list[int]:
    """Return what a network gets that takes three numbers of a type."""
    network, seen = Network.__new__(Network), np.zeros(3, dtype)
    network.inputs, network._arrays, network._takes_pictures = (Port("input", (3,), dtype, ""),), [seen], False
    network._workspace, network._instance = seen, None
    network._call = lambda *_: None  # type: ignore[method-assign]
    network._run([np.asarray(given)], [])
    return [int(number) for number in seen]


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("given", [[3, 5, 7], np.array([3, 5, 7], np.uint8), [3.0, 5.0, 7.0], np.array([3, 5, 7], np.uint64)])
def test_integers_that_fit_are_taken(given: Any, dtype: str) -> None:
    assert run_of(given, dtype) == [3, 5, 7]


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.array([3, 5, 200], np.uint8), "int8"),
        ([3, 5, -7], "uint8"),
        ([0, 1, 2**40], "int32"),
        ([3, 5, 7.5], "int32"),
        ([3, 5, float("nan")], "int64"),
    ],
)
def test_integers_that_do_not_fit_are_refused(given: Any, dtype: str) -> None:
    """They would become other numbers."""
    with pytest.raises(ValueError, match=f"input holds numbers that are not {dtype}"):
        run_of(given, dtype)


@pytest.mark.parametrize("given", [[1j, 2, 3], ["a", "b", "c"], [None, None, None]])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_what_is_no_number_is_refused(given: Any, dtype: str) -> None:
    with pytest.raises(TypeError, match=f"input is {dtype}, not "):
        run_of(given, dtype)


BYTES = np.arange(-3, 3, dtype=np.int8)
CLASSES = np.arange(50_000) % 21


def changed(array: np.ndarray, place: int, number: float) -> np.ndarray:
    """Return an array with another number in one place."""
    other = array.copy()
    other[place] = number
    return other


@pytest.mark.parametrize(
    ("output", "expected", "quantised", "error"),
    [
        (changed(CLASSES, 3, 15), CLASSES, False, 2e-5),  # a class that came out otherwise, of many
        (BYTES + np.int8(1), BYTES, True, 0.0),  # a step each
        (BYTES + np.int8(1), BYTES, False, 1.0),
        (changed(BYTES, 0, -1), BYTES, True, 1 / 6),
        (np.full(2, 0, np.uint8), np.full(2, 255, np.uint8), True, 1.0),
        (np.array([1.0, 4.0], np.float32), np.array([2.0, 4.0], np.float32), False, 0.25),
        (np.array([np.nan, 4.0], np.float32), np.array([2.0, 4.0], np.float32), False, float("inf")),
    ],
)
def test_errors_are_those_of_compile(output: np.ndarray, expected: np.ndarray, quantised: bool, error: float) -> None:
    assert _error(output, expected, quantised) == pytest.approx(error) == network_error([output], [expected], quantised)


def test_a_detectors_boxes_may_come_in_another_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scores of half precision that nearly tie; but no other box may come instead of one of the first."""
    scores = np.linspace(0.9, 0.5, 12, dtype=np.float32)
    scores[4] = scores[3] - np.float32(1e-5)
    boxes = np.random.default_rng(1).uniform(0, 100, (1, 12, 4)).astype(np.float32)
    np.savez(tmp_path / "library.reference.npz", input=scores, output0=boxes, output1=scores[None])
    order = [0, 1, 2, 4, 3, *range(5, 12)]
    for found, status in ((boxes[:, order], 0), (boxes + 50 * (boxes == boxes[0, 2, 0]), 1)):
        outputs = found, scores[None]

        class Stand:
            threads = 1
            run, close = (lambda *_, outputs=outputs: outputs), (lambda _: None)

        monkeypatch.setattr(check, "Network", lambda _, stand=Stand: stand())
        assert check.main(tmp_path, 0.05, quantised=False) == status


def nodes_without_types(tree: ast.AST) -> Iterator[ast.AST]:
    """Return what Python runs of a module: all but what is there for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes_without_types(node)


@pytest.mark.parametrize("path", _MODULES, ids=[path.stem for path in _MODULES])
def test_python_39_and_its_numpy_can_run_it(path: Path) -> None:
    """Wheels say that they need no newer one: Debian 11 has Python 3.9 and NumPy 1.19, without `zip(strict=True)` and `numpy.typing`."""
    for node in nodes_without_types(ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "zip":
            assert not node.keywords, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "numpy.typing" not in ast.unparse(node), f"{path.name}:{node.lineno}"
