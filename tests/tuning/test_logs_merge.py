"""`tvmmobile logs merge`: each schedule once, what is not comparable left out, and nothing half written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandLine
from hypothesis import given, settings
from hypothesis import strategies as st
from log_samples import BOARD, PI, content, read_log, read_only, some_records, unprivileged, write_log

from tvmmobile.devices.protocol import EMULATED, Origin
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import task_to_json
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.files import log_paths
from tvmmobile.tuning.logs.inspection import inspect
from tvmmobile.tuning.logs.merge import Merged, merge
from tvmmobile.tuning.records import Identity, Record

RECORDS = some_records(10) + some_records(4, threads=4)


def merged(sources: Sequence[Path], into: Path) -> Merged:
    return merge(sources, into, lambda device: PI if device == PI.device else None)


def keys(directory: Path, identity: Identity = PI) -> set[tuple[object, object]]:
    return {(record.task, record.schedule) for record in read_log(directory, identity)}


@settings(max_examples=40, derandomize=True, database=None, deadline=None)
@given(data=st.data())
def test_merging_is_idempotent_and_the_order_does_not_matter(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("merge")
    sources, have = [], set()
    for name in ("a", "b", "c"):
        parts = data.draw(st.lists(st.sampled_from(range(len(RECORDS))), unique=True))
        sources.append(folder / name)
        for part in parts:
            # Each source has latencies of its own.
            write_log(folder / name, [replace(RECORDS[part], latency_us=100.0 + part + len(sources), cycles=7)])
            have.add((RECORDS[part].task, RECORDS[part].schedule))
    sources = [source for source in sources if source.exists()]
    before = [content(source) for source in sources]
    for order in data.draw(st.lists(st.permutations(sources), min_size=1, max_size=2)):
        into = folder / f"into{data.draw(st.integers(0, 1))}"
        if not order:
            continue
        known = keys(into)
        first = merged(order, into)
        assert first.refused == () and keys(into) == have
        assert sum(joined.new for joined in first.joined) == len(have - known)
        after = content(into)
        again = merged([*reversed(order), into, *order], into)
        assert sum(joined.new for joined in again.joined) == 0 and content(into) == after
        assert [inspect(path, PI).faults for path in log_paths(into, PI.device)] == [[] for _ in log_paths(into, PI.device)]
    assert [content(source) for source in sources] == before


def test_what_is_there_counts_then_the_first_named(tmp_path: Path) -> None:
    here, one, other = tmp_path / "here", tmp_path / "one", tmp_path / "other"
    records = some_records(4)

    def timed(latency_us: float, *places: int) -> list[Record]:
        return [replace(records[place], latency_us=latency_us) for place in places]

    write_log(here, timed(1.0, 0), BOARD)
    write_log(one, timed(2.0, 0, 1), BOARD)
    write_log(other, timed(3.0, 2, 1, 0, 3), BOARD)
    found = merged([one, other], here)
    assert [record.latency_us for record in read_log(here, BOARD)] == [1.0, 2.0, 3.0, 3.0]
    assert [record.schedule for record in read_log(here, BOARD)] == [records[place].schedule for place in (0, 1, 2, 3)]
    ((path, new, known),) = [(joined.path, joined.new, joined.known) for joined in found.joined]
    assert (path, new, known) == (here / "shelf" / "float32_t1.jsonl", 3, 3)
    elsewhere = tmp_path / "elsewhere"
    merged([other, one], elsewhere)
    assert {record.latency_us for record in read_log(elsewhere, BOARD)} == {3.0}


def test_directories_folders_of_one_device_and_files(tmp_path: Path) -> None:
    """A record says itself where it belongs, whatever its file is called."""
    records = some_records(6)
    write_log(tmp_path / "a", records[:2])
    write_log(tmp_path / "b", records[2:4])
    file = write_log(tmp_path / "c", records[4:]).rename(tmp_path / "what came by mail.txt")
    write_log(tmp_path / "d", some_records(3, threads=4), BOARD)
    merged([tmp_path / "a", tmp_path / "b" / PI.device, file, tmp_path / "d"], tmp_path / "into")
    assert list(content(tmp_path / "into")) == ["pi4-virtual/float32_t1.jsonl", "shelf/float32_t4.jsonl"]
    assert keys(tmp_path / "into") == {(record.task, record.schedule) for record in records}
    assert len(read_log(tmp_path / "into", BOARD)) == 3


def test_what_is_refused_is_named(tmp_path: Path, cli: CommandLine) -> None:
    lines = write_log(tmp_path / "from").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    entries[1]["tvm"] = "0.26.0"
    entries[2]["model"] = "0" * 16
    entries[3]["device"] = "../../elsewhere"
    entries[4]["task"]["dtype"] = "../up"
    entries[4]["name"] = entries[4]["name"].replace("float32", "../up")
    entries[5]["schedule"]["knobs"] = dict.fromkeys(entries[5]["schedule"]["knobs"], 12345)
    path = tmp_path / "from" / PI.device / "float32_t1.jsonl"
    path.write_text("\n".join([*map(json.dumps, entries), "[]", lines[7][:50]]))
    outcome = cli("logs", "merge", str(tmp_path / "from"), "--into", str(tmp_path / "into"))
    assert outcome.code == 0 and outcome.err == ""
    assert outcome.out == (
        f"{tmp_path}/into/pi4-virtual/float32_t1.jsonl: 3 new, 0 known\n"
        f"{path}: left out\n"
        f"  line 2: TVM 0.26.0; this is {PI.tvm}\n"
        f"  line 3: timing model {'0' * 16}; what counts is timing model {PI.origin.model}\n"
        "  line 4: '../../elsewhere' cannot be a device's name\n"
        "  lines 5-6: dense@1 does not take such a schedule for the kernel\n"
        "  line 9: not a record: it is not a JSON object\n"
        "  line 10: the last line is unfinished\n"
    )
    assert list(content(tmp_path / "into")) == ["pi4-virtual/float32_t1.jsonl"] and not (tmp_path / "elsewhere").exists()
    verified = cli("logs", "verify", "--logs", str(tmp_path / "into"))
    assert (verified.code, verified.out) == (0, "1 log, 3 records: all is well\n")


def test_a_dtype_that_is_no_name_of_a_file(tmp_path: Path) -> None:
    path = write_log(tmp_path / "from", some_records(1))
    entry = json.loads(path.read_text())
    task = Task((Opaque("mean", "0123456789ab", ((1, 7, 7, 64),), (1, 1, 1, 64)),), "a/b")
    entry.update(name=task.name, task=task_to_json(task), schedule={"trace": "[]"})
    path.write_text(json.dumps(entry) + "\n")
    found = merged([tmp_path / "from"], tmp_path / "into")
    assert [refused.why for refused in found.refused] == ["'a/b_t1.jsonl' cannot be a log's name"]
    assert not (tmp_path / "into").exists()


def test_nothing_that_could_be_taken_is_an_error(tmp_path: Path, cli: CommandLine) -> None:
    path = write_log(tmp_path / "old", identity=replace(PI, origin=Origin("modelled", "0" * 16)))
    outcome = cli("logs", "merge", str(tmp_path / "old"), "--into", str(tmp_path / "into"))
    assert outcome.code == 1 and f"{path}, line 1: timing model {'0' * 16}; what counts is" in outcome.err
    assert "lines 1-8: timing model" in outcome.out and not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--into", "x"], "Missing argument 'FROM...'"),
        (["logs"], "Missing option '--into'"),
        (["missing", "--into", "x"], "missing does not exist"),
        (["empty", "--into", "x"], "empty has no tuning logs"),
        (["logs", "--into", "logs/pi4-virtual/float32_t1.jsonl"], "is a file"),
        (["logs", "--into", "/proc/x"], "tuning records cannot be written to /proc/x"),
    ],
)
def test_refusals(cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], complaint: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "logs")
    (tmp_path / "empty").mkdir()
    before = content(tmp_path)
    outcome = cli("logs", "merge", *arguments)
    assert outcome.code == 1 and outcome.out == "" and complaint in outcome.err and len(outcome.err.splitlines()) == 2
    assert content(tmp_path) == before and not (tmp_path / "x").exists()


def test_the_timing_model_of_an_unknown_board(tmp_path: Path) -> None:
    """The logs there decide; where there are none, several are refused."""
    real, emulated = tmp_path / "real", tmp_path / "emulated"
    write_log(real, identity=BOARD)
    write_log(emulated, identity=replace(BOARD, origin=EMULATED))
    for order in ([real, emulated], [emulated, real]):
        with pytest.raises(UserError, match="the records of shelf are not comparable: ") as caught:
            merged(order, tmp_path / "into")
        assert str(real) in caught.value.message and str(emulated) in caught.value.message
    assert not (tmp_path / "into").exists()
    assert sum(joined.new for joined in merged([real], tmp_path / "into").joined) == 8
    found = merged([emulated, real], tmp_path / "into")
    assert [joined.known for joined in found.joined] == [8]
    assert {refused.why for refused in found.refused} == {"timing model emulated; what counts is no timing model"}


def test_what_was_there_stays_as_it_is(tmp_path: Path) -> None:
    """Outdated records, junk and a torn line included: putting that right is for `verify --repair`."""
    path = write_log(tmp_path / "into", some_records(2), replace(PI, origin=Origin("modelled", "0" * 16)))
    path.open("ab").write(b"junk\n[torn")
    before = path.read_bytes()
    write_log(tmp_path / "from", some_records(3))
    merged([tmp_path / "from"], tmp_path / "into")
    assert path.read_bytes().startswith(before + b"\n") and len(read_log(tmp_path / "into")) == 3


def test_a_record_in_another_file_of_the_device_is_known(tmp_path: Path) -> None:
    path = write_log(tmp_path / "into")
    path.rename(path.with_name("float32_t2.jsonl"))
    write_log(tmp_path / "from")
    assert [joined.new for joined in merged([tmp_path / "from"], tmp_path / "into").joined] == [0]


# Merges and meets its end: a limit on the size of files, which a full disk resembles, or a kill before the first or second rename.
MERGE = """
import os, resource, signal, sys
from pathlib import Path
from tvmmobile.cli import run
how, number = sys.argv[1], int(sys.argv[2])
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, resource.RLIM_INFINITY))
if how == "killed":
    rename, renamed = Path.replace, []
    def replace(self, target):
        renamed.append(target)
        if len(renamed) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return rename(self, target)
    Path.replace = replace
sys.exit(run(["logs", "merge", *sys.argv[3:]]))
"""


def run_merge(fate: str, number: int, tmp_path: Path, repository: Path) -> subprocess.CompletedProcess[str]:
    words = ["-c", MERGE, fate, str(number), str(tmp_path / "from"), "--into", str(tmp_path / "into")]
    command = unprivileged(words) if fate == "read-only" else [sys.executable, *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)


@pytest.fixture
def before(tmp_path: Path) -> dict[str, bytes]:
    """Two logs to merge into, each to get two records more."""
    for threads in (1, 4):
        write_log(tmp_path / "into", some_records(4, threads))
        write_log(tmp_path / "from", some_records(6, threads)[2:])
    return content(tmp_path / "into")


def test_a_full_disk_leaves_the_logs_as_they_were(tmp_path: Path, repository: Path, before: dict[str, bytes]) -> None:
    done = run_merge("full", max(map(len, before.values())) + 100, tmp_path, repository)
    path = tmp_path / "into" / PI.device / "float32_t1.jsonl"
    assert done.returncode == 1
    assert done.stderr == (
        f"tvmmobile: error: nothing can be merged into {path}: File too large.\nIt is as it was; name another directory with --into DIR.\n"
    )
    assert content(tmp_path / "into") == before


def test_a_read_only_directory(tmp_path: Path, repository: Path, before: dict[str, bytes]) -> None:
    with read_only(tmp_path / "into"):
        done = run_merge("read-only", 0, tmp_path, repository)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tvmmobile: error: tuning records cannot be written to {tmp_path / 'into'}: Permission denied.\n")
    assert content(tmp_path / "into") == before


@pytest.mark.parametrize("rename", [1, 2])
def test_a_kill_leaves_whole_logs(tmp_path: Path, repository: Path, before: dict[str, bytes], rename: int) -> None:
    done = run_merge("killed", rename, tmp_path, repository)
    assert done.returncode == -signal.SIGKILL
    after = {name: text for name, text in content(tmp_path / "into").items() if not Path(name).name.startswith(".")}
    changed = [name for name in before if after[name] != before[name]]
    assert changed == ["pi4-virtual/float32_t1.jsonl"][: rename - 1]
    assert len(read_log(tmp_path / "into")) == 8 + 2 * len(changed)
    assert run_merge("well", 0, tmp_path, repository).returncode == 0
    assert len(read_log(tmp_path / "into")) == 12
