"""Readers of files that tvmmobile writes, and of those that a user writes for it."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hostile.fuzzing import Read, Reader

Prepared = tuple[Sequence[bytes], Read]


def at(path: Path, use: Callable[[], object]) -> Read:
    """Reads an input as the content of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return use()

    return read


def _log_lines() -> list[bytes]:
    """A shipped record of each template, a failed one, a MetaSchedule trace and a kernel of a compacted log: the shortest of each kind."""
    from tvmmobile.system.environment import SHIPPED_LOGS
    from tvmmobile.tuning.records import encoded, read_line

    shortest: dict[object, bytes] = {}
    for path in sorted(SHIPPED_LOGS.glob("*/*_t[14].jsonl")):
        for text in path.read_bytes().splitlines():
            value = json.loads(text)
            kinds = [(group.get("template"), group.get("version")) for group in value.get("kept", ())]  # none: measured again
            key = "kernel", len(kinds), "dropped" in value
            if len(text) < len(shortest.get(key, b"x" * 4000)):
                shortest[key] = text
            for kind in kinds:
                if (*kind, len(value["task"]["region"]) > 1) not in shortest:
                    line = read_line(text)
                    record = next(one for one in line.records if getattr(one.schedule, "template", None) == kind[0])
                    failed = replace(record, latency_us=None, cycles=None, error="did not finish within 20 s")
                    shortest[(*kind, len(value["task"]["region"]) > 1)] = encoded(line.identity, record).strip().encode()
                    shortest["failed"] = encoded(line.identity, failed).strip().encode()
    return sorted(shortest.values(), key=len)[:24]


def _record(_folder: Path) -> Prepared:
    from tvmmobile.tuning.records import read_line

    return _log_lines(), read_line


def _log(folder: Path) -> Prepared:
    from log_samples import PI, some_records, write_log

    from tvmmobile.tuning.database import Database
    from tvmmobile.tuning.logs.inspection import inspect, shares

    own = write_log(folder / "own", some_records(6)).read_bytes()
    path = folder / "logs" / PI.device / "float32_t1.jsonl"

    def use() -> object:
        database = Database(PI, (), folder / "logs")
        for task in database.tasks():
            database.best(task), database.trials(task).course()
        return shares(inspect(path, PI))

    return [own, b"\n".join([*own.splitlines()[:2], *_log_lines()[:2], b""])], at(path, use)


def _merge(folder: Path) -> Prepared:
    from log_samples import PI, some_records, write_log

    from tvmmobile.tuning.logs.merge import merge

    own = write_log(folder / "own", some_records(3)).read_bytes()
    into = folder / "into"

    def use() -> object:
        for path in into.glob("*/*.jsonl"):
            path.unlink()
        return merge([folder / "given.jsonl"], into, lambda device: PI if device == PI.device else None)

    return [own], at(folder / "given.jsonl", use)


def small_results() -> Any:
    """Two variants with a few kernels each."""
    from report_samples import sample_results

    results = sample_results(2)
    return replace(results, variants=tuple(replace(variant, kernels=variant.kernels[:3]) for variant in results.variants))


def _result_texts(folder: Path) -> list[bytes]:
    from report_samples import MEASURED, sample_results

    from tvmmobile.results.file import write_results

    modelled = small_results()
    measured = sample_results(1, measured=True)
    short = replace(measured.variants[0], kernels=measured.variants[0].kernels[:1])
    write_results(modelled, folder / "a.json")
    write_results(replace(measured, context=MEASURED, variants=(short,)), folder / "b.json")
    return [(folder / name).read_bytes() for name in ("a.json", "b.json")]


def _results(folder: Path) -> Prepared:
    from tvmmobile.results.file import read_results

    path = folder / "report.json"
    return _result_texts(folder), at(path, lambda: read_results(path))


def _evaluation(folder: Path) -> Prepared:
    from evaluations import CONTEXT, result

    from tvmmobile.accuracy.evaluation_file import evaluation_of, write_evaluation
    from tvmmobile.accuracy.measured import read_accuracy

    path, _ = write_evaluation(evaluation_of(CONTEXT, [result("0/a.png", 0.04), result("1/b.png", 0.02)]), folder)
    return [path.read_bytes()], at(path, lambda: read_accuracy(path))


def _reports(folder: Path) -> Prepared:
    """Results are read, shown in every shape, also beside another result, and joined with themselves."""
    from tvmmobile.results.file import read_results
    from tvmmobile.results.report.beside import join, side_by_side
    from tvmmobile.results.report.markdown import markdown
    from tvmmobile.results.report.page import page
    from tvmmobile.results.report.spreadsheet import kernel_spreadsheet, spreadsheet
    from tvmmobile.results.report.view import view_of
    from tvmmobile.system.errors import UserError

    path, other = folder / "report.json", small_results()

    def use() -> object:
        results = join([read_results(path)] * 2).results
        if not results.variants:
            raise UserError("there is no variant to show.")
        view = view_of(results)
        beside = side_by_side(view_of(other), view)
        texts = [markdown(view, beside), page(view, beside), spreadsheet([results]), kernel_spreadsheet([results])]
        return [text.encode() for text in texts]

    return _result_texts(folder), at(path, use)


def _history(folder: Path) -> Prepared:
    """A history is read and shown in every shape."""
    from histories import stepped

    from tvmmobile.history.file import open_history
    from tvmmobile.history.page import history_page
    from tvmmobile.history.series import SeriesFilter, over_commits
    from tvmmobile.history.tables import history_csv, history_json

    path = folder / "history.sqlite"
    stepped(path, commits=6, at=3, kernels=2)

    def use() -> object:
        with open_history(path, add=False) as history:
            over = over_commits(history, SeriesFilter(), 0.01)
        return [text.encode() for text in (history_page(over, 2), history_json(over), history_csv(over))]

    return [path.read_bytes()], at(path, use)


def _comparison(folder: Path) -> Prepared:
    from tvmmobile.gate.comparison import compare
    from tvmmobile.gate.report import comparison_json, comparison_junit, comparison_markdown

    texts = _result_texts(folder)
    path, base = folder / "new.json", folder / "a.json"

    def use() -> object:
        found = compare(base, path)
        return comparison_json(found).encode(), comparison_junit(found), comparison_markdown(found).encode()

    return texts[:1], at(path, use)


def _baselines(folder: Path) -> Prepared:
    from tvmmobile.gate.baselines import find_baselines, save_baselines
    from tvmmobile.results.file import Results

    results = small_results()
    (saved,) = save_baselines(Results(results.context, results.variants[:1]), folder / "nothing", folder / "kept")

    def use() -> object:
        return [baseline.library() for baseline in find_baselines(folder / "kept")]

    return [saved.path.read_bytes()], at(saved.path, use)


def _library(folder: Path) -> Path:
    from deployed import make_library

    kernel = {"name": "k", "kind": "conv 1x1", "macs": 1000, "latency_us": 2.5}
    knobs = {"template": "pointwise", "version": 1, "knobs": {"rows": 4}}
    return make_library(folder / "made", kernels=[kernel | {"schedule": knobs}, kernel | {"schedule": {"trace": "[]"}}])


def _manifest(folder: Path) -> Prepared:
    from tvmmobile.pipeline.outcome import kernel_results
    from tvmmobile.running.library import find_libraries

    library = _library(folder)
    path = library.with_suffix(".json")
    shipped = path.read_bytes()
    own = json.loads(shipped)
    own["model"] |= {"name": "own", "contents": "0" * 64}
    own |= {"input": {"shape": [1, 3, 32, 32]}, "output": {"shape": [1, 10]}, "macs": 1, "parameters": 1}

    def use() -> object:
        (found,) = find_libraries([library])
        return found.weights, found.reference(), kernel_results(found.facts.kernels, ())

    return [shipped, json.dumps(own).encode()], at(path, use)


def _reference(folder: Path) -> Prepared:
    import numpy as np

    from tvmmobile.running.library import find_libraries

    library = _library(folder)
    (found,) = find_libraries([library])
    stored = found.reference_path.read_bytes()
    stream = io.BytesIO()
    np.savez_compressed(stream, input=found.reference().inputs[0], output=found.reference().outputs[0])
    return [stored, stream.getvalue()], at(found.reference_path, found.reference)


def _calibration(folder: Path) -> Prepared:
    from tvmmobile.virtual.calibration.fit import CALIBRATED, read_fit

    value = json.loads((CALIBRATED / "cortex-a72.json").read_text(encoding="utf-8"))
    for name in ("observations", "modelled_ms", "left_out_ms", "board_left_out_ms", "checks"):
        value[name] = value[name][:2]
    path = folder / "cortex-a72.json"

    def use() -> object:
        fit = read_fit(path)
        return fit.digest, fit.errors, fit.left_out_errors, fit.all_errors(), [parameter.on_bound for parameter in fit.parameters]

    return [json.dumps(value).encode()], at(path, use)


def _board(folder: Path) -> Prepared:
    from own_boards import calibrated_board

    from tvmmobile.virtual.board import BOARDS, read_board
    from tvmmobile.virtual.calibration.fit import calibration_of, run_hash

    path = folder / "pi4.toml"
    fifth = (BOARDS / "pi5.toml").read_text(encoding="utf-8").replace('"pi5"', '"pi4"')

    def use() -> object:
        board = read_board(path)
        fit = calibration_of(board) if board.calibration else None
        return board.digest, board.line_copy_ns, fit and (fit.digest, run_hash(board))

    kinds = (BOARDS / "rk3588.toml").read_text(encoding="utf-8").replace('"rk3588"', '"pi4"')
    own = calibrated_board(path, stores=0.5).read_bytes()
    return [(BOARDS / "pi4.toml").read_bytes(), fifth.encode(), kinds.encode(), own], at(path, use)


def _validation(folder: Path) -> Prepared:
    """A validation is read and fitted to."""
    from validation_samples import compared, observed, validated

    from tvmmobile.pipeline.validation.refit import refit_board
    from tvmmobile.results.validation import read_validation, write_validation

    path, fitted = folder / "validation.json", folder / "fitted.toml"
    write_validation(validated(observed(9, 0.02)), path)
    return [path.read_bytes()], at(path, lambda: refit_board(read_validation(path), compared(), fitted))


def device_text() -> bytes:
    """A device's file: a board behind SSH and one behind adb."""
    from tvmmobile.devices.board.registered import AdbAddress, DeviceFile, Facts, LinuxCore, RegisteredBoard, SshAddress

    facts = Facts(
        architecture="aarch64",
        model="Raspberry Pi 4 Model B",
        cores=tuple(LinuxCore(implementer=0x41, part=0xD08, max_hz=1.8e9) for _ in range(2)),
        memory_bytes=1 << 32,
        system="Debian GNU/Linux 12",
        kernel="6.6.31",
        libc="glibc 2.36",
        temperature_c=45.0,
    )
    addresses = SshAddress(destination="pi@desk", port=2222, host_key="ssh-ed25519 AAAA"), AdbAddress(serial="192.168.1.7:5555")
    boards = tuple(RegisteredBoard(address=address, directory="/home/pi/x", facts=facts, added="2026-01-02") for address in addresses)
    return DeviceFile(name="desk", boards=boards).model_dump_json(indent=1).encode()


def _device(folder: Path) -> Prepared:
    from tvmmobile.devices.board.hardware import profile_of
    from tvmmobile.devices.board.registered import devices_dir, load_device

    os.environ["TVMMOBILE_DATA"] = str(folder)

    def use() -> object:
        device = load_device("desk")
        return device and [profile_of(device.name, board) for board in device.boards]

    return [device_text()], at(devices_dir() / "desk.json", use)


def _calibration_data(folder: Path, inputs: int = 1) -> Prepared:
    import numpy as np

    from tvmmobile.networks.preprocessing import Preprocessing
    from tvmmobile.networks.signature import Port
    from tvmmobile.quantisation.data import calibration_data

    takes = [Port(f"input{number}", (1, 3, 8, 8)) for number in range(inputs)]
    samples = []
    for save in (np.savez, np.savez_compressed):
        stream, generator = io.BytesIO(), np.random.default_rng(0)
        save(stream, **{port.name: generator.normal(size=(2, *port.shape[1:])).astype(np.float32) for port in takes})
        samples.append(stream.getvalue())
    path = folder / "inputs.npz"

    def read() -> object:
        found = calibration_data(str(path), Preprocessing(8), generated=True, takes=takes).samples()
        return found.read(range(min(found.count, 4)))

    return samples, at(path, read)


def _labels(folder: Path) -> Prepared:
    from tvmmobile.accuracy.classes import read_labels

    path = folder / "labels.txt"
    return ["n01440764 tench\nn01443537 goldfish\nn01484850 größer\n".encode()], at(path, lambda: read_labels(path, 3))


def _image(folder: Path) -> Prepared:
    import numpy as np
    from PIL import Image

    from tvmmobile.networks.images import read_input
    from tvmmobile.networks.preprocessing import Preprocessing

    samples = []
    pixels = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        samples.append(stream.getvalue())
    path = folder / "image.png"
    return samples, at(path, lambda: read_input(path, Preprocessing(16)))


def _array(folder: Path) -> Prepared:
    import numpy as np

    from tvmmobile.networks.images import read_input
    from tvmmobile.networks.preprocessing import Preprocessing

    samples = []
    for array in (np.zeros((1, 3, 16, 16), np.float32), np.zeros((20, 24, 3), np.uint8)):
        stream = io.BytesIO()
        np.save(stream, array)
        samples.append(stream.getvalue())
    path = folder / "input.npy"
    return samples, at(path, lambda: read_input(path, Preprocessing(16)))


def _environment(_folder: Path) -> Prepared:
    from tvmmobile.system.environment import adb_server_port, debug_level

    def read(content: bytes) -> object:
        text = os.fsdecode(content.replace(b"\0", b""))[:100_000]
        os.environ["ANDROID_ADB_SERVER_PORT"] = os.environ["TVMMOBILE_DEBUG"] = text
        try:
            return debug_level(), adb_server_port()
        finally:
            del os.environ["ANDROID_ADB_SERVER_PORT"], os.environ["TVMMOBILE_DEBUG"]

    return [b"5037", b"4"], read


def _malformed() -> type[Exception]:
    from tvmmobile.tuning.records import MalformedRecord

    return MalformedRecord


READERS = (
    Reader("record", "json", _record, (_malformed(),)),
    Reader("log", "lines", _log, cost=10),
    Reader("merge", "lines", _merge, cost=20),
    Reader("results", "json", _results, cost=4),
    Reader("reports", "json", _reports, cost=80),
    Reader("evaluation", "json", _evaluation, cost=4),
    Reader("history", "bytes", _history, cost=30),
    Reader("comparison", "json", _comparison, cost=12),
    Reader("baselines", "json", _baselines, cost=6),
    Reader("manifest", "json", _manifest, cost=5),
    Reader("reference", "zip", _reference, cost=8),
    Reader("calibration", "json", _calibration, cost=4),
    Reader("board", "text", _board, cost=3),
    Reader("validation", "json", _validation, cost=20),
    Reader("device", "json", _device, cost=2),
    Reader("labels", "text", _labels),
    Reader("image", "bytes", _image, cost=6),
    Reader("array", "bytes", _array, cost=4),
    Reader("calibration data", "zip", _calibration_data, cost=8),
    Reader("calibration data of two inputs", "zip", partial(_calibration_data, inputs=2), cost=8),
    Reader("environment", "text", _environment),
)
