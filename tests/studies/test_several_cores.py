"""The study several_cores: which boards it compares in a precision, and its table."""

from __future__ import annotations

from studies.networks import several_cores


def test_boards_without_a_precision_are_left_out() -> None:
    assert several_cores.boards_with("float16", several_cores.BOARDS) == ["rk3566", "pi5", "exynos1330-a78", "cobalt100"]
    assert several_cores.boards_with("int8", several_cores.BOARDS) == list(several_cores.BOARDS)


def test_the_table_sets_a_library_for_all_beside_each_boards_own() -> None:
    def entry(precision: str, board: str, cpu: str, shared_us: float) -> dict[str, object]:
        figures = {"shared_latency_us": shared_us, "shared_memory_bytes": 33 << 20, "shared_file_bytes": 13_100_000}
        figures |= {"own_latency_us": 16000.0, "own_memory_bytes": 32 << 20, "own_file_bytes": 8_600_000}
        return {"network": "mobilenet_v1 1.0-224", "precision": precision, "board": board, "cpu": cpu, **figures}

    entries = [entry("int8", "pi4", "Cortex-A72", 16000.0), entry("float16", "pi5", "Cortex-A76", 15920.0)]
    first, second = several_cores.table(entries).splitlines()[2:]
    assert first == "| float16 | Raspberry Pi 5 (Cortex-A76) | 15.92 | 16.00 | \N{MINUS SIGN}0.50 % | +1.00 | 13.1 | 8.6 |"
    assert second.startswith("| int8 | Raspberry Pi 4 Model B (Cortex-A72) | 16.00 | 16.00 | +0.00 % |")
