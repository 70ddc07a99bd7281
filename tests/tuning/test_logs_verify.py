"""`tvmmobile logs show` and `verify`: every line that does not belong is found, and repairing loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CommandLine
from hypothesis import given, settings
from hypothesis import strategies as st
from log_samples import APPENDER, BOARD, PI, append_meanwhile, content, read_log, read_only, some_records, unprivileged, write_log

from tvmmobile.devices.protocol import EMULATED, Origin
from tvmmobile.schedules import KnobSchedule
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.directories import present_identity
from tvmmobile.tuning.logs.files import append_whole, locked
from tvmmobile.tuning.logs.inspection import inspect, logs_in
from tvmmobile.tuning.logs.verify import cut_file, repair

UNFINISHED = "the last line is unfinished"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A log without fault."""
    return write_log(tmp_path_factory.mktemp("good")).read_bytes()


def placed(folder: Path, text: bytes) -> Path:
    path = folder / PI.device / "float32_t1.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    return path


def faults(path: Path) -> list[tuple[int, str]]:
    return [(line.number, line.fault) for line in inspect(path, PI).faults]


@settings(max_examples=120, derandomize=True, database=None, deadline=None)
@given(data=st.data())
def test_a_log_cut_anywhere_has_one_torn_line(tmp_path_factory: pytest.TempPathFactory, good: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(good)))
    path = placed(tmp_path_factory.mktemp("cut"), good[:at])
    lines, tail = good.splitlines(), good[:at].split(b"\n")[-1]
    whole = lines[: good[:at].count(b"\n")]
    if tail in (b"", lines[len(whole) - len(lines)]):  # cut between lines, or all but the end of a line is there
        kept = [*whole, tail] if tail else whole
        assert faults(path) == [] and repair(path, PI).faults == []
        assert path.read_bytes() == good[:at] and not cut_file(path).exists()
    else:
        kept = whole
        assert faults(path) == [(len(whole) + 1, UNFINISHED)]
        repair(path, PI)
        assert cut_file(path).read_bytes() == tail + b"\n"
        assert faults(path) == []
    assert path.read_bytes().splitlines() == kept
    assert len(read_log(path.parents[1])) == len(kept)


JUNK = [b"", b"{}", b"null", b"12", b"<<<<<<< HEAD", b"\xff\xfe\x00", b'{"v":1,"device":"pi4-virtual"', b"\xc3\xa9 \r", b"[" * 100_000]


@settings(max_examples=60, derandomize=True, database=None, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 8), st.sampled_from(JUNK)), max_size=6))
def test_junk_between_records_is_cut_and_kept(
    tmp_path_factory: pytest.TempPathFactory, good: bytes, places: list[tuple[int, bytes]]
) -> None:
    lines = good.splitlines()
    for place, junk in places:
        lines.insert(place, junk)
    path = placed(tmp_path_factory.mktemp("junk"), b"".join(line + b"\n" for line in lines))
    wrong = [(number, line) for number, line in enumerate(lines, 1) if line in JUNK]
    assert [line.number for line in inspect(path, PI).faults] == [number for number, _ in wrong]
    repair(path, PI)
    assert path.read_bytes() == good and faults(path) == []
    cut = cut_file(path).read_bytes() if wrong else b""
    assert cut == b"".join(line + b"\n" for _, line in wrong)


def _set(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda entry: entry.update({name: value})


def _threads(count: int) -> Callable[[dict[str, Any]], object]:
    def change(entry: dict[str, Any]) -> None:
        entry["task"]["threads"], entry["name"] = count, entry["name"].replace("_t1", f"_t{count}")

    return change


def _knob(entry: dict[str, Any]) -> None:
    entry["schedule"]["knobs"] = dict.fromkeys(entry["schedule"]["knobs"], 12345)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (_set("device", "pi5"), "a record of pi5, in the folder of pi4-virtual"),
        (_set("device", ["pi4"]), "not a record: its device, timing model or TVM version is not text"),
        (_set("model", []), "not a record: its device, timing model or TVM version is not text"),
        (_threads(4), "a record for float32_t4.jsonl, in float32_t1.jsonl"),
        (_set("name", "dense_1"), "not a record: dense_1 is not the name of "),
        (_set("v", 2), "not a record: 'kept' is missing, or not known"),
        (_set("v", "3"), "not a record: '3' is not a format"),
        (_set("v", 0), "not a record: 0 is not a format"),
        (_set("latency_us", -1), "not a record: latency_us is -1, not a number of microseconds from 0.001 to 1e+09"),
        (_set("schedule", {"template": {}}), "not a record: 'knobs' is missing, or not known"),
        (_set("task", {"region": [{"kind": "lstm"}]}), "not a record: 'lstm' is missing, or not known"),
        (_set("task", {"region": [{"kind": "dense", "in_features": {}}], "dtype": "float32", "threads": 1}), "not a record: "),
        (_knob, "dense@1 does not take such a schedule for the kernel"),
        (lambda entry: entry.pop("tvm"), "not a record: 'tvm' is missing, or not known"),
    ],
)
def test_records_that_do_not_belong_there(tmp_path: Path, good: bytes, change: Callable[[dict[str, Any]], object], fault: str) -> None:
    lines = good.splitlines()
    entry = json.loads(lines[2])
    change(entry)
    path = placed(tmp_path, b"\n".join([*lines[:2], json.dumps(entry).encode(), *lines[3:], b""]))
    ((number, sentence),) = faults(path)
    assert number == 3 and sentence.startswith(fault)
    repair(path, PI)
    assert path.read_bytes().splitlines() == [*lines[:2], *lines[3:]]
    assert json.loads(cut_file(path).read_bytes()) == entry


def test_the_second_of_a_schedule_is_cut(tmp_path: Path, good: bytes) -> None:
    lines = good.splitlines()
    again = lines[1].replace(b'"latency_us":2.0', b'"latency_us":7.0')
    old = lines[1].replace(str(PI.origin.model).encode(), b"0" * 16)  # another model's is another record
    path = placed(tmp_path, b"\n".join([*lines, again, old, b""]))
    assert again != lines[1] and faults(path) == [(9, "an earlier line has the same schedule")]
    repair(path, PI)
    assert path.read_bytes().splitlines() == [*lines, old]


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        (_set("tvm", "0.26.0"), "TVM 0.26.0; this is "),
        (_set("model", "0" * 16), f"timing model {'0' * 16}; now it is timing model {PI.origin.model}"),
        (_set("model", None), f"no timing model; now it is timing model {PI.origin.model}"),
        (lambda entry: entry["schedule"].update(version=999), "dense@999 is a template that this version does not have"),
    ],
)
def test_outdated_records_are_mentioned_and_stay(
    tmp_path: Path, cli: CommandLine, good: bytes, change: Callable[[dict[str, Any]], object], remark: str
) -> None:
    lines = good.splitlines()
    entry = json.loads(lines[2])
    change(entry)
    path = placed(tmp_path, b"\n".join([*lines[:2], json.dumps(entry).encode(), *lines[3:], b""]))
    before = path.read_bytes()
    for option in ([], ["--repair"]):
        outcome = cli("logs", "verify", "--logs", str(tmp_path), *option)
        assert outcome.code == 0, outcome.err
        assert f"{path}: kept, but not used\n  line 3: {remark}" in outcome.out
        assert outcome.out.endswith("1 log, 8 records: all is well; 1 not used\n")
    assert path.read_bytes() == before and list(content(tmp_path)) == ["pi4-virtual/float32_t1.jsonl"]


def test_lines_of_a_later_version_are_mentioned_and_stay(tmp_path: Path, cli: CommandLine, good: bytes) -> None:
    """A repair, or a smaller log, must not take away what the version that wrote it can use."""
    lines = good.splitlines()
    later = lines[2].replace(b'"v":1', b'"v":3')
    path = placed(tmp_path, b"\n".join([*lines[:2], later, *lines[3:], b""]))
    remark = "format 3, of a later version of tvmmobile"
    for option in ([], ["--repair"]):
        outcome = cli("logs", "verify", "--logs", str(tmp_path), *option)
        assert outcome.code == 0 and f"{path}: kept, but not used\n  line 3: {remark}\n" in outcome.out, outcome.err
        assert outcome.out.endswith("1 log, 7 records: all is well; 1 not used\n")
    assert path.read_bytes().splitlines()[2] == later and not cut_file(path).exists()
    assert "1 line not counted here: see tvmmobile logs verify" in cli("logs", "show", "--logs", str(tmp_path)).out
    merged = cli("logs", "merge", str(tmp_path), "--into", str(tmp_path / "merged"))
    assert merged.code == 0 and f"{path}: left out\n  line 3: {remark}\n" in merged.out and "7 new" in merged.out
    for _ in range(2):
        assert cli("logs", "compact", str(path)).code == 0
        assert path.read_bytes().splitlines()[-1] == later and not cut_file(path).exists()


def test_a_byte_order_mark_belongs_to_no_line(tmp_path: Path, good: bytes) -> None:
    path = placed(tmp_path, b"\xef\xbb\xbf" + good)
    assert faults(path) == [] and len(read_log(path.parents[1])) == len(good.splitlines())


def test_the_timing_model_of_an_unknown_board_is_not_compared(tmp_path: Path, cli: CommandLine) -> None:
    path = write_log(tmp_path, identity=replace(BOARD, origin=Origin("modelled", "feedbeef")))
    outcome = cli("logs", "verify", "--logs", str(tmp_path))
    assert outcome.code == 0
    assert (
        outcome.out == f"{path}: shelf is not known on this machine, so its timing model was not checked\n1 log, 8 records: all is well\n"
    )
    assert present_identity("shelf") is None and present_identity("pi4") is None  # pi4 would be the virtual one
    assert present_identity("pi4-virtual") == PI


def test_what_verify_says(tmp_path: Path, cli: CommandLine, good: bytes) -> None:
    lines = good.splitlines()
    odd = [line for record in lines for line in (b"[]", record)]
    path = placed(tmp_path, b"\n".join([*odd, b"[]", b"[]", b"[]", b"\x1b[31m{}", lines[0][:40]]))
    outcome = cli("logs", "verify", "--logs", str(tmp_path))
    assert outcome.code == 1
    assert outcome.out == (
        f"{path}\n"
        "  lines 1, 3, 5, 7, 9, 11, 13, 15 and 3 more: not a record: it is not a JSON object\n"
        "  line 20: not a record: it is not JSON\n"
        "  line 21: the last line is unfinished\n"
    )
    assert outcome.err == (
        f"tvmmobile: error: 13 lines in 1 log are bad. The first: {path}, line 1: not a record: it is not a JSON object.\n"
        f"Run: tvmmobile logs verify --repair --logs {tmp_path}\n"
    )
    repaired = cli("logs", "verify", "--repair", "--logs", str(tmp_path), "--device", "pi4")
    assert repaired.code == 0 and repaired.err == ""
    assert repaired.out.startswith(f"{path}: 13 lines cut, kept in float32_t1.jsonl.cut\n  lines 1, 3")
    assert repaired.out.endswith("\n1 log, 8 records: 13 lines cut\n")
    assert cli("logs", "verify", "--logs", str(tmp_path)).out == "1 log, 8 records: all is well\n"
    assert path.read_bytes() == good


def test_what_is_cut_later_is_kept_too(tmp_path: Path, good: bytes) -> None:
    path = placed(tmp_path, good + b"first")
    repair(path, PI)
    path.open("ab").write(b"second\nthird")
    repair(path, PI)
    assert cut_file(path).read_bytes() == b"first\nsecond\nthird\n" and path.read_bytes() == good


def test_a_device_is_its_folder_or_what_it_is_found_as(tmp_path: Path, cli: CommandLine) -> None:
    write_log(tmp_path)
    path = write_log(tmp_path, identity=replace(BOARD, device="pi4"))
    path.write_bytes(b"junk")
    assert cli("logs", "verify", "--logs", str(tmp_path), "--device", "pi4-virtual").code == 0
    assert str(path) in cli("logs", "verify", "--logs", str(tmp_path), "--device", "pi4").err
    missing = cli("logs", "verify", "--logs", str(tmp_path), "--device", "toaster")
    assert missing.code == 1 and "no device 'toaster'" in missing.err


def test_places_without_logs(tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / "empty" / "pi4-virtual").mkdir(parents=True)
    (tmp_path / "stray.jsonl").write_text("{}")
    for place in ("empty", "missing", "."):
        for verb in ("verify", "show"):
            outcome = cli("logs", verb, "--logs", str(tmp_path / place))
            assert outcome.code == 1 and outcome.out == ""
            assert outcome.err.startswith(f"tvmmobile: error: {tmp_path / place} has no tuning logs.\n")
    assert cli("logs", "verify").code == 1  # nothing of one's own yet
    assert list(content(tmp_path)) == ["stray.jsonl"]


def test_foreign_files_are_left_alone(tmp_path: Path, cli: CommandLine, good: bytes) -> None:
    path = placed(tmp_path, good)
    path.with_name("notes.txt").write_text("milk")
    path.with_name("float32_t1.jsonl.bak").write_text("old")
    path.with_name(".float32_t1.jsonl.x.tmp.jsonl").write_bytes(good[:100])  # left by a crash
    assert cli("logs", "verify", "--logs", str(tmp_path), "--repair").code == 0
    path.with_name("measurements.jsonl").write_text("{}")
    before = content(tmp_path)
    outcome = cli("logs", "verify", "--logs", str(tmp_path), "--repair")
    assert outcome.code == 1 and "measurements.jsonl is not a tuning log: its name is not that of a log" in outcome.err
    assert content(tmp_path) == before


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / PI.device / "float32_t1.jsonl").mkdir(parents=True)
    outcome = cli("logs", "verify", "--logs", str(tmp_path))
    assert outcome.code == 1 and "float32_t1.jsonl cannot be read: Is a directory.\nGive yourself access, or move it away." in outcome.err


VERIFY = ("-c", "import sys; from tvmmobile.cli import run; sys.exit(run(sys.argv[1:]))", "logs", "verify", "--logs")


def test_a_read_only_directory_can_be_verified_but_not_repaired(tmp_path: Path, repository: Path, good: bytes) -> None:
    path = placed(tmp_path / "logs", good + b"torn")
    with locked(path):
        pass  # its lock is there, and cannot be opened for writing
    path.with_suffix(".lock").chmod(0o444)
    before = content(tmp_path)
    with read_only(tmp_path / "logs"):
        for option, fault in (
            ([], f"line 9: {UNFINISHED}.\n"),
            (["--repair"], f"error: {path} cannot be repaired: Permission denied.\n"),
        ):
            words = unprivileged([*VERIFY, str(tmp_path / "logs"), *option])
            done = subprocess.run(words, capture_output=True, text=True, cwd=repository, check=False)
            assert done.returncode == 1 and fault in done.stderr, done.stderr
    assert content(tmp_path) == before


# Repairs with files that may not grow beyond a limit: what a full disk does to a write, half of it included.
REPAIR = """
import resource, sys
from pathlib import Path
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.verify import repair
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    repair(Path(sys.argv[1]), None)
except UserError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.parametrize("room", [10, 1000])
def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path, repository: Path, good: bytes, room: int) -> None:
    """With room for neither, or for what is cut alone."""
    path = placed(tmp_path, b"junk that is longer than the room\n" + good)
    cut_file(path).write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", REPAIR, str(path), str(room)], capture_output=True, text=True, cwd=repository, check=True)
    assert done.stderr.startswith(f"{path} cannot be repaired: File too large.\nThe log is as it was")
    assert path.read_bytes().endswith(good) and len(faults(path)) == 1
    assert cut_file(path).read_bytes() == b"before" + (b"\njunk that is longer than the room\n" if room == 1000 else b"")
    assert [found.name for found in path.parent.iterdir() if found.name.startswith(".")] == []
    repair(path, PI)
    assert path.read_bytes() == good


def test_a_full_disk_under_the_output(tmp_path: Path, repository: Path, good: bytes) -> None:
    placed(tmp_path, good)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, *VERIFY, str(tmp_path)], stdout=full, stderr=subprocess.PIPE, text=True, cwd=repository)
    assert done.returncode == 1 and done.stderr.startswith("tvmmobile: error: No space left on device")


def test_repairing_beside_a_writer_loses_nothing(tmp_path: Path, repository: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", APPENDER, str(tmp_path), "100"], cwd=repository)
    path = tmp_path / PI.device / "float32_t1.jsonl"
    rounds = 0
    while process.poll() is None:
        if path.exists():
            with locked(path):
                append_whole(path, b"junk\n")
            repair(path, None)
            rounds += 1
    assert process.returncode == 0 and rounds > 0
    repair(path, None)
    assert len(inspect(path, None).lines) == 60 and faults(path) == []
    assert cut_file(path).read_bytes() == rounds * b"junk\n"


def test_what_is_appended_just_before_a_repair_stays(tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = good.splitlines(keepends=True)
    path = placed(tmp_path, b"junk\n" + b"".join(lines[:-1]))
    append_meanwhile(monkeypatch, "tvmmobile.tuning.logs.verify.inspect", path, lines[-1], lambda: repair(path, PI))
    assert path.read_bytes() == good


def test_show(tmp_path: Path, cli: CommandLine) -> None:
    write_log(tmp_path)
    write_log(tmp_path, some_records(4, threads=4))
    old = write_log(tmp_path, some_records(2), replace(PI, origin=Origin("modelled", "0" * 16)))
    write_log(tmp_path, some_records(3), BOARD)
    write_log(tmp_path, some_records(1), replace(BOARD, device="lab", origin=EMULATED))
    old.open("ab").write(b"torn")
    outcome = cli("logs", "show", "--logs", str(tmp_path))
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= max(80, len(str(tmp_path)))
    words = " ".join(outcome.out.split())
    assert (
        f"pi4-virtual: modelled, timing model {PI.origin.model}, TVM {PI.tvm} fastest, us log threads kernels records failed modelled"
        in words
    )
    assert " float32 1 2 8 1 1.00 float32 4 2 4 0 1.00 " in words
    assert f"timing model {'0' * 16}, TVM {PI.tvm} These do not count: now it is timing model {PI.origin.model} " in words
    assert f"shelf: measured, no timing model, TVM {PI.tvm} fastest, us log threads kernels records failed measured" in words
    assert "lab: emulated, timing model emulated" in words and "failed emulated" in words
    assert "float32_t1.jsonl: 1 line not counted here: see tvmmobile logs verify" in words
    one = cli("logs", "show", "--logs", str(tmp_path), "--device", "shelf")
    assert one.code == 0 and "measured" in one.out and "modelled" not in one.out


def test_show_has_the_shipped_logs_without_any_of_ones_own(cli: CommandLine) -> None:
    outcome = cli("logs", "show")
    assert outcome.code == 0 and "tvmmobile/tuning_logs" in outcome.out and "pi4-virtual: modelled" in outcome.out


@pytest.mark.parametrize("verb", ["show", "verify", "merge", "compact", "rescore"])
def test_help_fits_80_columns(cli: CommandLine, verb: str) -> None:
    outcome = cli("logs", verb, "--help")
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= 80


def test_no_logs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no tuning logs of pi4-virtual"):
        logs_in(tmp_path, PI.device)


def test_a_template_of_this_version_is_told_from_one_that_is_gone(tmp_path: Path) -> None:
    record = some_records(1)[0]
    assert isinstance(record.schedule, KnobSchedule)
    path = write_log(tmp_path, [record, replace(record, schedule=replace(record.schedule, template="gone"))])
    log = inspect(path, PI)
    assert log.faults == [] and [bool(line.remark) for line in log.lines] == [False, True]
