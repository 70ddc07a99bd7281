"""Boards: each file is read, figures that no board has are refused by file and field, and only calibrated boards can be tuned for."""

from __future__ import annotations

import errno
import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from own_boards import own_board, uncalibrated_board

from tvmmobile.devices.registry import find_device
from tvmmobile.pipeline.outcome import context_of
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError
from tvmmobile.virtual import sysroot
from tvmmobile.virtual.board import BOARDS, CORES, board_names, core_values, is_board, load_board, read_board
from tvmmobile.virtual.calibration.fit import run_hash
from tvmmobile.virtual.own_board import write_own_board
from tvmmobile.virtual.summary import trust
from tvmmobile.virtual.sysroot import core_files, cpuinfo


def test_all_boards_can_be_read() -> None:
    assert board_names() == [
        *("a311d-a53", "a311d-a73", "cobalt100", "d9300-a720", "d9300-x4", "exynos1330-a55", "exynos1330-a78"),
        *("helio-g99-a55", "helio-g99-a76", "orin-nano", "orion-o6"),
        *("pi3bplus", "pi4", "pi4-1500", "pi5", "pizero2w", "rk3399-a53", "rk3399-a72"),
        *("rk3566", "rk3568", "rk3588-a55", "rk3588-a76", "sd7c-a55", "sd7c-a76"),
    ]
    boards = [load_board(name) for name in board_names()]
    assert len({board.digest for board in boards}) == len(boards)
    for board in boards:
        assert cpuinfo(board).count("processor\t: ") == board.cores


def test_every_figure_names_its_source() -> None:
    for path in (*BOARDS.glob("*.toml"), *CORES.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        if path.stem == "pi4-1500":
            continue
        sources = set(re.findall(r"(?m)^#   \[(\w+)\]", text))
        for line in re.findall(r"(?m)^[\w.]+ = [-0-9t].*$", text):
            named = set(re.findall(r"\[(\w+)\]", line))
            assert (named and named <= sources) or "# assumed" in line, f"{path.name}: {line}"
        assert ("# assumed" in text) <= ("assumed = " in text), f"{path.name} does not print what it assumes"


def test_what_the_shipped_logs_rest_on() -> None:
    """A change of the pi4's values makes all shipped logs worthless: not without new ones. Nor may calibrated boards change by the way."""
    digests = {"pi4": "9ef44f885175308b", "pi3bplus": "7e015aa6f0bac143", "pi5": "91241e5f45304981", "rk3399-a72": "76595dfcb1d480c1"}
    assert {name: load_board(name).digest[:16] for name in digests} == digests


@pytest.mark.parametrize("path", sorted(CORES.glob("*.toml")), ids=lambda path: path.stem)
def test_what_a_cores_file_says_no_boards_file_repeats(path: Path) -> None:
    def figures(table: dict[str, object], prefix: str = "") -> dict[str, object]:
        nested = (figures(value, f"{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value} for key, value in table.items())
        return dict(item for one in nested for item in one.items())

    given = figures(core_values(path.stem))
    boards = [board for board in BOARDS.glob("*.toml") if f'mcpu = "{path.stem}"' in board.read_text(encoding="utf-8")]
    assert boards and {"cpu", "qemu_cpu", "midr", "features", "core.dispatch_width"} <= given.keys()
    for board in boards:
        values = tomllib.loads(board.read_text(encoding="utf-8"))
        for own in (values, *(table for table in values.pop("clusters", {}).values() if table["mcpu"] == path.stem)):
            repeated = dict(figures(own).items() & given.items()).keys() - {"caches.l2_private"}  # a figure of all of its kinds of cores
            assert not repeated, f"{board.name} repeats {repeated}"


def test_a_cores_file_serves_every_board() -> None:
    assert core_values("cortex-x9") == {}
    zero, three = load_board("pizero2w"), load_board("pi3bplus")
    assert zero.core == three.core and (zero.cpu, zero.qemu_cpu, zero.midr) == ("Cortex-A53", "cortex-a53", 0x410FD033)
    assert zero.clock_hz != three.clock_hz and zero.digest != three.digest


def test_the_boards_own_figure_wins(tmp_path: Path) -> None:
    path = Path(own_board(tmp_path))
    path.write_text(path.read_text(encoding="utf-8").replace("[memory]", "[core]\nload_ports = 2\n\n[memory]"), encoding="utf-8")
    assert read_board(path).core == load_board("pi4").core.model_copy(update={"load_ports": 2})


def test_a_file_with_all_figures_needs_no_file_of_its_core(tmp_path: Path) -> None:
    """Users' files had all figures before there were files of cores."""
    values = load_board("pi4").model_dump() | {"mcpu": "cortex-a57"}
    tables = {name: values.pop(name) for name in ("caches", "memory", "core")}
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += [line for name, table in tables.items() for line in (f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items()))]
    (tmp_path / "pi4.toml").write_text("\n".join(lines), encoding="utf-8")
    board = read_board(tmp_path / "pi4.toml")
    assert board.mcpu == "cortex-a57" and board.model_copy(update={"mcpu": "cortex-a72"}).digest == load_board("pi4").digest


def test_kinds_of_cores() -> None:
    """A file with several kinds makes a board of each; its own name is that of the first, the fastest."""
    kinds = {"rk3399": "a72", "rk3588": "a76", "a311d": "a73", "sd7c": "a76", "helio-g99": "a76", "exynos1330": "a78", "d9300": "x4"}
    for name, first in kinds.items():
        little = {"a76": "a55", "a78": "a55", "x4": "a720"}.get(first, "a53")
        big, small = load_board(name), load_board(f"{name}-{little}")
        assert big == load_board(f"{name}-{first}") and big.name == f"{name}-{first}" and is_board(name) and name not in board_names()
        assert small.name == f"{name}-{little}" and small.memory.peak_bytes_per_s == big.memory.peak_bytes_per_s
        assert big.clock_hz * big.fma_lanes_per_cycle > small.clock_hz * small.fma_lanes_per_cycle
    with pytest.raises(UserError, match="there is no virtual board 'rk3588-a72'"):
        load_board("rk3588-a72")


def test_a_users_file_with_kinds_of_cores(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (BOARDS / "rk3588.toml").read_text(encoding="utf-8").replace('name = "rk3588"', 'name = "mine"')
    path.write_text(text, encoding="utf-8")
    assert load_board(str(path)).name == "mine-a76" and read_board(path, "a55").caches.l2_bytes == 1 << 17
    path.write_text('name = "mine"\nclusters = 3\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.toml does not describe a board: clusters is not a set of tables"):
        read_board(path)


def test_what_programs_are_told_of_the_core(tmp_path: Path) -> None:
    text = cpuinfo(load_board("rk3566"))
    assert "CPU variant\t: 0x2\nCPU part\t: 0xd05\nCPU revision\t: 0\n" in text and " asimddp" in text  # variant 0 has no dot products
    assert "CPU part\t: 0xd09\n" in cpuinfo(load_board("a311d")) and " asimdhp" not in cpuinfo(load_board("a311d"))
    unknown = load_board("pi4").model_copy(update={"midr": 0})
    with pytest.raises(UserError, match="pi4 has no midr"):
        cpuinfo(unknown)


def test_what_programs_are_told_of_cores_caches_and_clocks() -> None:
    """Every file that ncnn, MNN and cpuinfo (XNNPACK, ONNX Runtime) look for under /sys, as Linux writes it."""
    pi3, pi5, big = (core_files(load_board(name)) for name in ("pi3bplus", "pi5", "sd7c"))
    cpus = "sys/devices/system/cpu"
    assert pi3[f"{cpus}/cpu3/regs/identification/midr_el1"] == "0x00000000410fd033\n"
    assert pi3[f"{cpus}/cpu2/topology/thread_siblings"] == "4\n" and pi3[f"{cpus}/cpu2/topology/core_cpus_list"] == "2\n"
    assert pi3[f"{cpus}/cpu0/topology/cluster_cpus_list"] == pi3[f"{cpus}/online"] == "0-3\n"
    assert pi3[f"{cpus}/cpu1/cpufreq/cpuinfo_max_freq"] == pi3[f"{cpus}/cpufreq/policy0/cpuinfo_max_freq"] == "1400000\n"
    assert big[f"{cpus}/cpufreq/policy0/affected_cpus"] == "0 1\n" and f"{cpus}/cpu2/topology/core_id" not in big
    caches = [[pi3[f"{cpus}/cpu1/cache/index{index}/{name}"] for name in ("level", "type", "size", "shared_cpu_map")] for index in range(4)]
    assert caches[0] == ["1\n", "Data\n", "32K\n", "2\n"] and caches[1] == ["1\n", "Instruction\n", "", "2\n"]
    assert caches[2] == ["2\n", "Unified\n", "512K\n", "f\n"] and caches[3] == [""] * 4  # this machine's third level must not show
    assert pi5[f"{cpus}/cpu1/cache/index2/shared_cpu_list"] == "1\n" and pi5[f"{cpus}/cpu1/cache/index3/size"] == "2048K\n"


def test_what_programs_are_told_of_cores_at_two_clocks() -> None:
    """Linux on a phone shows a policy for the cores of each clock, and the capacity of each core."""
    board = load_board("d9300")
    files, cpus = core_files(board), "sys/devices/system/cpu"
    assert [files[f"{cpus}/cpu{core}/cpufreq/cpuinfo_max_freq"] for core in range(4)] == ["3250000\n"] + ["2850000\n"] * 3
    assert [files[f"{cpus}/cpu{core}/cpu_capacity"] for core in range(4)] == ["1024\n"] + ["897\n"] * 3
    assert [files[f"{cpus}/cpufreq/policy{core}/affected_cpus"] for core in (0, 1)] == ["0\n", "1 2 3\n"]
    alike = core_files(board.model_copy(update={"clocks_hz": ()}))
    assert not any("policy1" in name or "cpu_capacity" in name for name in alike)


def test_clocks_of_cores_are_part_of_what_several_threads_take_alone(tmp_path: Path) -> None:
    board = load_board("d9300")
    alike = board.model_copy(update={"clocks_hz": ()})
    assert board.clocks_hz == (3.25e9, 2.85e9, 2.85e9, 2.85e9) and board.clock_hz == 3.25e9
    assert board.digest == alike.digest and run_hash(board) == run_hash(alike) == run_hash(alike, 4) != run_hash(board, 4)
    slower = board.clocked_at(3.0e9)
    assert slower.clock_hz == slower.clocks_hz[0] == 3.0e9 and slower.clocks_hz[3] == pytest.approx(3.0e9 * 2.85 / 3.25)
    assert board.clocked_at(board.clock_hz) == board and load_board("pi4").clocked_at(1.5e9).clocks_hz == ()
    assert write_own_board(board, tmp_path / "mine.toml").clocks_hz == board.clocks_hz
    assert find_device("d9300").profile.cpus == 0b1111 << 59 and find_device("pi4").profile.cpus == 0


def test_sysroots_of_boards_share_what_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(_scratch: Path, root: Path, *_requirements: object) -> None:
        (root / "usr/bin").mkdir(parents=True, exist_ok=True)
        (root / "usr/bin/python3").write_bytes(b"ELF")
        calls.append(root)

    calls: list[Path] = []
    monkeypatch.setattr(sysroot, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(sysroot, "_unpack_debian", unpack)
    monkeypatch.setattr(sysroot, "_unpack_wheels", unpack)
    progress: list[str] = []
    pi4, again, pi5 = (sysroot.python_sysroot(load_board(name), ("numpy==1",), progress.append) for name in ("pi4", "pi4", "pi5"))
    assert pi4 == again != pi5 and len(calls) == 2 and len(progress) == 1
    assert (pi4 / "usr/bin/python3").samefile(pi5 / "usr/bin/python3")
    assert (pi5 / "proc/cpuinfo").read_text(encoding="ascii") == cpuinfo(load_board("pi5")) != cpuinfo(load_board("pi4"))
    assert (pi4 / "proc/cpuinfo").read_text(encoding="ascii") == cpuinfo(load_board("pi4"))
    sysroot.python_sysroot(load_board("pi4"), ())
    assert len(calls) == 4

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    copied = sysroot.python_sysroot(load_board("pi3bplus"), ())
    assert (copied / "usr/bin/python3").read_bytes() == b"ELF" and len(calls) == 4


def test_boards_that_differ_in_their_clock() -> None:
    def rest(board: str) -> dict[str, object]:
        return load_board(board).model_dump(exclude={"name", "board", "clock_hz"})

    assert rest("pi4") == rest("pi4-1500") and load_board("pi4").clock_hz != load_board("pi4-1500").clock_hz


@pytest.mark.parametrize(
    ("figure", "instead", "complaint"),
    [
        ("clock_hz = 1.8e9", "", "clock_hz: field required"),
        ("clock_hz = 1.8e9", "clock_hz = 1800", "clock_hz: input should be greater than or equal to 100000000 (it is 1800"),
        ("clock_hz = 1.8e9", "clock_hz = -1.8e9", "clock_hz: input should be greater"),
        ("clock_hz = 1.8e9", "clock_hz = nan", "clock_hz: input should be"),
        ("clock_hz = 1.8e9", "clock_hz = inf", "clock_hz: input should be less"),
        ("clock_hz = 1.8e9", 'clock_hz = "fast"', "clock_hz: input should be a valid number (it is 'fast')"),
        *(
            ("clock_hz = 1.8e9", f"clock_hz = 1.8e9\nclocks_hz = {clocks}", complaint)
            for clocks, complaint in (
                ("[1.8e9, 1.5e9]", "clocks_hz has 2 clocks for 4 cores"),
                ("[2.0e9, 1.8e9, 1.5e9, 1.5e9]", "clocks_hz does not begin with clock_hz = 1.8e+09, the fastest"),
                ("[1.8e9, 1.5e9, 1.6e9, 1.5e9]", "clocks_hz does not begin with clock_hz = 1.8e+09, the fastest, and fall from there"),
                ("[1.8e9, 1.5e9, 1500, 1500]", "clocks_hz[2]: input should be greater than or equal to 100000000 (it is 1500)"),
                ('"1.8e9, 1.5e9"', "clocks_hz: input should be a valid tuple"),
            )
        ),
        ("cores = 4", "cores = 0", "cores: input should be greater than 0 (it is 0)"),
        ("cores = 4", "cores = true", "cores: input should be a valid integer"),
        ("cores = 4", "cores = 4.5", "cores: input should be a valid integer (it is 4.5)"),
        ("[memory]", "[core]\nload_ports = -1\n[memory]", "core.load_ports: input should be greater than 0 (it is -1)"),
        ("[memory]", "[core]\nload_ports = 100\n[memory]", "core.load_ports: input should be less than or equal to 16 (it is 100)"),
        ("[caches]", "[caches]\nl1d_bytes = 32000", "caches: l1d_bytes = 32000 do not give a power of two of sets"),
        (
            "l2_bytes = 1048576",
            "l2_kib = 1024",
            "caches.l2_bytes: field required; caches.l2_kib: extra inputs are not permitted (it is 1024)",
        ),
        ("copy_bytes_per_s = 2570.6e6", "copy_bytes_per_s = 2570.6", "memory.copy_bytes_per_s: input should be greater than or equal to 1"),
        ("copy_bytes_per_s = 2570.6e6", "copy_bytes_per_s = 25e9", "memory: copy_bytes_per_s = 2.5e+10 is more than half of peak"),
        ("latency_ns = 126.6", "latency_ns = 0.1266e-6", "memory.latency_ns: input should be greater than or equal to 1 (it is 1.266e-07"),
        ("l2_cycles = 16 ", "l3_bytes = 2097152\nl2_cycles = 16 ", "caches: a third level needs l3_bytes, l3_ways and l3_cycles"),
        ('mcpu = "cortex-a72"', 'mcpu = ""', "mcpu: string should have at least 1 character"),
        ('mcpu = "cortex-a72"', 'mcpu = "cortex-x9"', "core: field required"),  # no file of the core: all of its figures are missing
        ('mcpu = "cortex-a72"', "mcpu = 72", "mcpu: input should be a valid string (it is 72)"),
        ('name = "pi4"', 'name = "pi5"', "name is 'pi5'"),
        ("[caches]", "[caches", "is not a TOML file"),
        ("cores = 4", f"cores = {'9' * 5000}", "is not a TOML file: Exceeds the limit"),
        ("cores = 4", f"cores = {'[' * 5000}{']' * 5000}", "is not a TOML file"),
        ("cores = 4", f"{'a' * 5000} = 4", "cores: field required; 'aaa"),
        ('mcpu = "cortex-a72"', f"mcpu = {['x' * 5000]}", "mcpu: input should be a valid string"),
    ],
)
def test_an_absurd_figure_is_refused_by_file_and_field(tmp_path: Path, figure: str, instead: str, complaint: str) -> None:
    pi4 = (BOARDS / "pi4.toml").read_text(encoding="utf-8")
    assert figure in pi4
    path = tmp_path / "pi4.toml"
    path.write_text(pi4.replace(figure, instead, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_board(path)
    assert caught.value.message.startswith("pi4.toml ") and complaint in caught.value.message and caught.value.remedy
    assert "\n" not in caught.value.message or "TOML" in caught.value.message


def test_uncalibrated_boards_are_no_devices(tmp_path: Path) -> None:
    path = uncalibrated_board(tmp_path)
    with pytest.raises(DeviceUnavailable, match="mine is not calibrated") as caught:
        find_device(path)
    assert "mine is uncalibrated" in trust(load_board(path), 1)
    assert caught.value.exit_code is ExitCode.DEVICE_UNAVAILABLE and "virtual run --board" in caught.value.remedy


@pytest.mark.parametrize(("name", "networks"), [("pi4", 10), ("rk3399-a53", 10), ("rk3566", 10), ("a311d", 10), ("orin-nano", 10)])
def test_measured_boards_say_how_far_off_they_are(name: str, networks: int) -> None:
    assert trust(load_board(name), 1).startswith(f"Calibrated on {networks} networks: left out of the fit, one was modelled ")
    several = trust(load_board(name), 4)
    unmeasured = f"Calibrated on {networks} networks in one thread; no measurement has confirmed it here for several."
    assert several == unmeasured if name in ("rk3399-a53", "rk3566", "orin-nano") else several.startswith("Calibrated on 3 networks: ")


@pytest.mark.parametrize("name", ["pizero2w", "rk3588", "sd7c", "sd7c-a55", "rk3568", "a311d-a53"])
def test_new_boards_say_where_their_core_was_measured(name: str) -> None:
    profile = find_device(name).profile
    assert load_board(profile.board_file).name == load_board(name).name and profile.name == f"{load_board(name).name}-virtual"
    assert re.search(r"which (has|have) the same core; no measurement has confirmed it here\.$", trust(load_board(name), 1))
    confirmed = context_of(find_device("pi4").profile, 1).modelled_terms
    assert context_of(profile, 1).modelled_terms == confirmed + "; no measurement has confirmed this board" * (name != "rk3588")


def test_boards_print_the_figures_that_they_assume() -> None:
    phone = load_board("helio-g99")
    assert trust(phone, 1).endswith("confirmed it here. Assumed: all figures of caches and memory, as of a Snapdragon 7c.")
    assert phone.model_copy(update={"assumed": ""}).digest == phone.digest


def test_devices_that_are_offered() -> None:
    assert find_device("pi4-1500").profile.clock_hz == 1.5e9
    names = ", ".join(f"{name}, {name}-virtual" for name in board_names())
    with pytest.raises(UserError, match=rf"Known devices: {names}$"):
        find_device("pi44")


def test_a_board_of_the_users_own_is_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_board(tmp_path, clock_hz="2.0e9")
    monkeypatch.chdir(tmp_path)
    profile = find_device("mine.toml").profile
    assert profile.name == "mine-virtual" and profile.clock_hz == 2.0e9
    assert load_board(profile.board_file).clock_hz == 2.0e9 and Path(profile.board_file).is_absolute()
    assert profile.origin.model not in (None, find_device("pi4").profile.origin.model)
    with pytest.raises(UserError, match=r"there is no board file other\.toml"):
        find_device("other.toml")
