"""`import tvmmobile`: what there is, what it costs to import, and that scripts and studies use it and not the command line."""

from __future__ import annotations

import ast
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from report_samples import sample_results

import tvmmobile
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.lazy import places

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path.relative_to(REPOSITORY).as_posix() for name in ("scripts", "studies") for path in (REPOSITORY / name).rglob("*.py"))
HEAVY = {"tvm", "torch", "numpy", "scipy", "xgboost", "onnx", "paramiko", "pydantic", "typer", "rich"}


def declared() -> dict[str, str]:
    """Return the names that type checkers see, each with its module."""
    tree = ast.parse(Path(tvmmobile.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {str(alias.asname): str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_type_checkers_see_what_there_is() -> None:
    assert set(declared()) == set(places("tvmmobile")) <= set(dir(tvmmobile))


@pytest.mark.parametrize("name", sorted(declared()))
def test_every_name_is_there(name: str) -> None:
    found = getattr(tvmmobile, name)
    assert found is getattr(importlib.import_module(declared()[name]), "compile_models" if name == "compile" else name)
    assert found.__doc__


def test_no_name_hides_a_room() -> None:
    rooms = {path.name for path in (REPOSITORY / "tvmmobile").iterdir() if path.is_dir()}
    assert not rooms & declared().keys()


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tvmmobile' has no attribute 'tuna'"):
        _ = tvmmobile.tuna


def test_importing_it_imports_nothing_heavy() -> None:
    code = f"import sys, tvmmobile; dir(tvmmobile); print('|'.join({HEAVY!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_do_without_the_command_line(script: str) -> None:
    for node in ast.walk(ast.parse((REPOSITORY / script).read_text(encoding="utf-8"))):
        names = (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
            if isinstance(node, ast.Import)
            else []
        )
        assert not any(name.startswith("tvmmobile.cli") for name in names)
        assert not (names == ["tvmmobile"] and isinstance(node, ast.ImportFrom) and "cli" in {alias.name for alias in node.names})


def test_a_path_may_be_text(tmp_path: Path) -> None:
    """Wherever a call takes the place of a file or folder."""
    results = sample_results(2)
    tvmmobile.report(results, str(tmp_path / "out"))
    read = tvmmobile.read_results(str(tmp_path / "out" / "report.json"))
    assert read == results and not tvmmobile.compare(str(tmp_path / "out" / "report.json"), read).slower
    saved = tvmmobile.save_baselines(read, str(tmp_path), str(tmp_path / "kept"))
    assert [baseline.name for baseline in tvmmobile.load_baselines(str(tmp_path / "kept"), read.context.device)] == sorted(
        one.name for one in saved
    )


CALLS = {name: call for name in sorted(declared()) if inspect.isfunction(call := getattr(tvmmobile, name))}
METHODS = {
    f"{name}.{method}": call
    for name in sorted(declared())
    if inspect.isclass(kind := getattr(tvmmobile, name))
    for method, call in inspect.getmembers(kind, inspect.isfunction)
    if not method.startswith("_")
}


@pytest.mark.parametrize("name", CALLS)
def test_a_path_may_be_text_by_its_type(name: str) -> None:
    for parameter in inspect.signature(CALLS[name]).parameters.values():
        words = re.findall(r"\w+", str(parameter.annotation))
        assert "Path" not in words or "str" in words, parameter


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_name_that_users_type(name: str) -> None:
    assert CALLS[name].__name__ == name and pickle.loads(pickle.dumps(CALLS[name])) is CALLS[name]


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"run_program"}))
def test_one_may_be_given_without_a_list_by_its_type(name: str) -> None:
    """The one other call takes the words of a command."""
    for parameter in inspect.signature(CALLS[name]).parameters.values():
        assert not re.fullmatch(r"([\w.]+\.)?Sequence\[.*\]( \| None)?", str(parameter.annotation)), parameter


@pytest.mark.parametrize("name", [*CALLS, *METHODS])
def test_a_device_may_be_a_name_or_what_find_device_returns_by_its_type(name: str) -> None:
    for parameter in inspect.signature((CALLS | METHODS)[name]).parameters.values():
        if parameter.name in ("device", "devices"):
            assert re.search(r"\bDevice(s|Like)?\b", str(parameter.annotation)), parameter


def test_one_may_be_given_without_a_list(tmp_path: Path) -> None:
    assert tvmmobile.variants("mobilenet_v1", 0.25, 128) == tvmmobile.variants("mobilenet_v1", [0.25], [128])
    nowhere = str(tmp_path / "nowhere")
    for call in (tvmmobile.compact_logs, partial(tvmmobile.merge_logs, into=tmp_path)):
        with pytest.raises(tvmmobile.UserError, match=f"^{re.escape(nowhere)} does not exist"):
            call(nowhere)


def test_baselines_and_logs_are_of_a_device_or_its_name(tmp_path: Path) -> None:
    device, results = tvmmobile.find_device("pi4-virtual"), sample_results(1)
    tvmmobile.save_baselines(replace(results, context=replace(results.context, device=device.profile.name)), tmp_path, tmp_path)
    (one,) = tvmmobile.load_baselines(tmp_path, device)
    assert tvmmobile.load_baselines(tmp_path, "pi4-virtual") == [one]
    logs = [tvmmobile.verify_logs(SHIPPED_LOGS, each) for each in ("cobalt100-virtual", tvmmobile.find_device("cobalt100-virtual"))]
    assert [log.path for log in logs[0]] == [log.path for log in logs[1]] and logs[0]


@pytest.mark.parametrize("name", [*CALLS, *METHODS])
def test_documentation_says_what_the_default_device_is(name: str) -> None:
    call = (CALLS | METHODS)[name]
    if "pi4" in {parameter.default for parameter in inspect.signature(call).parameters.values()}:
        assert "the virtual Raspberry Pi 4" in (inspect.getdoc(call) or "")


@pytest.mark.parametrize("name", [*CALLS, *METHODS])
def test_documentation_sends_readers_to_names_that_there_are(name: str) -> None:
    """The notebook of someone who reads it has `tm`, and not our modules."""
    text = " ".join((inspect.getdoc((CALLS | METHODS)[name]) or "").split())
    known = inspect.signature((CALLS | METHODS)[name]).parameters.keys() | declared().keys()
    for other in re.findall(r"[Ss]ee `([\w.]+)`|`([\w.]+)`,? (?:does|gives|listed|made|returns|says|takes|wrote|would|yields)\b", text):
        assert "".join(other).removeprefix("tm.") in known


@pytest.mark.parametrize("name", [*CALLS, *METHODS])
def test_documentation_names_every_argument(name: str) -> None:
    call = (CALLS | METHODS)[name]
    text = inspect.getdoc(call) or ""
    for argument in inspect.signature(call).parameters.keys() - {"self"}:
        assert re.search(rf"^ *(?:\w+, )*{argument}(?:, \w+)*: |`{argument}`", text, re.MULTILINE), argument


@pytest.mark.parametrize("name", [*CALLS, *METHODS])
def test_documentation_says_what_is_returned(name: str) -> None:
    call = (CALLS | METHODS)[name]
    if inspect.signature(call).return_annotation != "None":
        assert re.search(r"^Return |^Yield |\breturn |^Returns:", inspect.getdoc(call) or "", re.MULTILINE)


def test_the_document_lists_the_listeners_methods() -> None:
    rows = re.findall(r"^\| `(\w+)\((.*)\)` \|", (REPOSITORY / "docs/api.md").read_text(encoding="utf-8"), re.MULTILINE)
    found = inspect.getmembers(tvmmobile.Listener, inspect.isfunction)
    assert {name: words.split(", ") for name, words in rows} == {
        name: [*inspect.signature(method).parameters][1:] for name, method in found
    }


def test_the_document_lists_the_types_of_results() -> None:
    text = (REPOSITORY / "docs/api.md").read_text(encoding="utf-8").split("## Types you get back")[1].split("##")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", text, re.MULTILINE)
    for name, calls, attributes in rows:
        kind = getattr(tvmmobile, name)
        members = {*dir(kind), *(each for base in kind.__mro__ for each in getattr(base, "__annotations__", ()))}
        assert set(re.findall(r"`(\w+)`", attributes)) - declared().keys() <= members
        for call in re.findall(r"(?:^|, )`tm\.(\w+)`", calls):
            assert re.search(rf"\b{name}\b", str(inspect.signature(CALLS[call]).return_annotation)), call
    assert len(rows) > 10


@pytest.mark.parametrize("name", CALLS)
def test_a_result_of_several_parts_has_names_for_them(name: str) -> None:
    assert not re.match(r"tuple\[(?!.*, \.\.\.\])", str(inspect.signature(CALLS[name]).return_annotation))


def test_a_latency_is_of_one_variant() -> None:
    results = sample_results(2)
    with pytest.raises(tvmmobile.UserError, match="these results have 2 variants"):
        _ = results.latency_ms
    one = tvmmobile.Results(results.context, results.variants[:1])
    assert one.latency_ms == one.variants[0].latency_us / 1e3
