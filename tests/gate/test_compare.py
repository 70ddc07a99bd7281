"""`tvmmobile compare` and `baseline`: what is refused, skipped and said, the four shapes of the answer, and the exit codes."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine, Outcome
from report_samples import HIDDEN_STATE, sample_results

from tvmmobile.gate.baselines import baseline_name, devices_in, load_baselines, results_of, save_baselines
from tvmmobile.gate.comparison import compare_results
from tvmmobile.gate.kernel_changes import changed_kernels
from tvmmobile.gate.pairing import Pairing
from tvmmobile.gate.statistics import Pair, Verdict
from tvmmobile.results.file import Results, VariantResult, write_results
from tvmmobile.system.errors import UserError


def scaled(variant: VariantResult, factor: float, **changes: Any) -> VariantResult:
    """Another library of the variant, that takes `factor` of the time."""
    return replace(variant, samples_us=tuple(value * factor for value in variant.samples_us), library_sha256="1" * 64, **changes)


def rebuilt(results: Results, *factors: float) -> Results:
    """Other libraries; the first ones take these shares of the time."""
    shares = [*factors, *[1.0] * (len(results.variants) - len(factors))]
    return replace(results, variants=tuple(map(scaled, results.variants, shares)))


def measured(variants: int = 3, noise: float = 0.002, seed: int = 0) -> Results:
    """Return a quiet board's results, 30 samples each."""
    random = np.random.default_rng(seed)
    results = sample_results(variants, measured=True)
    timed = tuple(
        replace(variant, samples_us=tuple(variant.latency_us * np.exp(random.normal(0, noise, 30)))) for variant in results.variants
    )
    return replace(results, variants=timed)


class Files:
    """Runs `compare` on two results."""

    def __init__(self, cli: CommandLine, folder: Path) -> None:
        self.cli, self.folder = cli, folder

    def __call__(self, base: Results, new: Results, *options: str) -> Outcome:
        write_results(base, self.folder / "base.json")
        write_results(new, self.folder / "new.json")
        return self.cli("compare", str(self.folder / "base.json"), str(self.folder / "new.json"), *options)


@pytest.fixture
def compare(cli: CommandLine, tmp_path: Path) -> Files:
    return Files(cli, tmp_path)


@pytest.mark.parametrize(
    ("factors", "options", "code", "verdicts"),
    [
        ([1.0], [], 0, "1 same"),
        ([1.029], [], 0, "1 same"),
        ([1.031], [], 2, "1 slower"),
        ([1.031], ["--threshold", "5"], 0, "1 same"),
        ([1.001], ["--threshold", "0"], 2, "1 slower"),
        ([0.9], [], 0, "1 faster"),
        ([0.5, 1.1], [], 2, "1 slower, 1 faster"),
    ],
)
def test_modelled_latencies_need_only_the_threshold(
    compare: Files, factors: list[float], options: list[str], code: int, verdicts: str
) -> None:
    base = sample_results(len(factors))
    outcome = compare(base, rebuilt(base, *factors), *options)
    assert outcome.code == code and outcome.err == "" and f"variant{'s' * (len(factors) > 1)}: {verdicts} (" in outcome.out
    assert "modelled" in outcome.out


def test_measured_latencies_need_more(compare: Files) -> None:
    base, new = measured(seed=1), measured(seed=2)
    # Equal medians of one run a side do not exclude a slowdown of 3 %. A wider threshold or a slightly faster library does.
    alike = compare(base, rebuilt(new))
    assert alike.code == 4 and "3 too noisy" in alike.out
    assert compare(base, rebuilt(new), "--threshold", "6").code == 0 and compare(base, rebuilt(new, 0.97, 0.97, 0.97)).code == 0
    slow = compare(base, rebuilt(new, 1.2))
    assert slow.code == 2 and "1 slower" in slow.out and "1 run a side" in slow.out and "modelled" not in slow.out
    # Beyond the threshold, though one run a side cannot tell it from what runs differ by.
    unclear = compare(base, rebuilt(new, 1.045, 0.97, 0.97))
    assert unclear.code == 4 and "1 too noisy" in unclear.out and "cannot be told from noise" in unclear.out
    # A regression outranks what is too noisy.
    assert compare(base, rebuilt(new, 1.2, 1.045)).code == 2


def test_the_same_library_is_not_compared(compare: Files) -> None:
    base = measured()
    noisy = replace(
        base, variants=tuple(replace(variant, samples_us=tuple(2 * value for value in variant.samples_us)) for variant in base.variants)
    )
    outcome = compare(base, noisy)
    assert outcome.code == 0 and outcome.out.count("same library") == 3 and "3 skipped" in outcome.out


def test_variants_of_one_file_alone_are_said(compare: Files) -> None:
    base = sample_results(3)
    fewer, others = replace(base, variants=base.variants[:2]), replace(base, variants=base.variants[1:])
    outcome = compare(fewer, rebuilt(others))
    assert outcome.code == 0 and "1 same, 2 skipped" in outcome.out
    assert "1.0-160: skipped: only in the new results" in outcome.out and "1.0-224: skipped: only in the old results" in outcome.out
    alone = compare(replace(base, variants=base.variants[:1]), replace(base, variants=base.variants[1:]))
    assert alone.code == 1 and "no variant in common" in alone.err


def test_variants_that_differ_in_precision_or_format_can_be_told_apart(compare: Files) -> None:
    base = sample_results(1)
    (floats,) = base.variants
    base = replace(base, variants=(floats, replace(floats, name="integers", dtype="int8")))
    outcome = compare(base, rebuilt(base, 1.0, 1.5))
    assert "mobilenet_v1 1.0-224 int8: slower" in outcome.out and "mobilenet_v1 1.0-224 float32" in outcome.out
    base = replace(base, variants=(floats, replace(floats, name="in_c", format="c")))
    assert "in_c: slower" in compare(base, rebuilt(base, 1.0, 1.5)).out


def test_a_spoiled_run_is_not_compared(compare: Files) -> None:
    base = measured()
    new = rebuilt(base, 1.5)
    spoiled = replace(new, variants=(replace(new.variants[0], invalid="its clocks were held down: throttled"), *new.variants[1:]))
    for pair in ((base, spoiled), (replace(base, variants=spoiled.variants), _other(spoiled))):
        outcome = compare(*pair)
        assert outcome.code == 4 and "1 not comparable" in outcome.out and "held down: throttled" in outcome.out


def _other(results: Results) -> Results:
    """Valid runs of further libraries."""
    return replace(results, variants=tuple(replace(variant, invalid="", library_sha256="2" * 64) for variant in results.variants))


def _context(**changes: Any) -> Any:
    return lambda results: replace(results, context=replace(results.context, **changes))


def _variants(**changes: Any) -> Any:
    return lambda results: replace(results, variants=tuple(replace(variant, **changes) for variant in results.variants))


def _governed(governor: str) -> Any:
    return _variants(conditions={"before": [{"governor": governor}], "after": [{"governor": governor}], "steady": True})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_context(device="pi5"), "the devices differ, 'pi4-virtual' and 'pi5'"),
        (_context(board="Pi 5"), "the boards differ"),
        (_context(kind="measured", timing_model=None), "the kinds of latency differ, 'modelled' and 'measured'"),
        (_context(clock_hz=1.5e9), "the clocks differ, '1.8 GHz' and '1.5 GHz'"),
        (_context(threads=4), "the thread counts differ, 1 and 4"),
        (_context(timing_model="ffff"), "the timing models differ, '3f1c9a7e2b40' and 'ffff'"),
        (_variants(dtype="int8"), "the dtypes of mobilenet_v1 1.0-224 differ, float32 and int8"),
        (_variants(threads=4), "the thread counts of mobilenet_v1 1.0-224 differ, 1 and 4"),
        (_variants(format="c"), "the formats of mobilenet_v1 1.0-224 differ, vm and c"),
        (lambda results: replace(results, variants=results.variants * 2), "appears twice"),
    ],
)
def test_what_does_not_compare_is_refused(compare: Files, tmp_path: Path, change: Any, message: str) -> None:
    base = sample_results(2)
    outcome = compare(base, change(rebuilt(base)), "--json", str(tmp_path / "out.json"))
    assert outcome.code == 1 and outcome.out == "" and message in outcome.err and len(outcome.err.splitlines()) == 2
    assert not (tmp_path / "out.json").exists()


def test_clocks_must_be_governed_alike(compare: Files) -> None:
    base = measured()
    new = rebuilt(base)
    outcome = compare(_governed("ondemand")(base), _governed("performance")(new))
    assert outcome.code == 1 and "governed by 'ondemand' and 'performance'" in outcome.err
    wide = ("--threshold", "6")
    assert compare(_governed("performance")(base), _governed("performance")(new), *wide).code == 0
    assert compare(base, _governed("performance")(new), *wide).code == 0  # one board does not tell


@pytest.mark.parametrize("wrong", [math.nan, 0.0, -1.0, math.inf])
def test_samples_that_are_no_latency_are_refused(cli: CommandLine, tmp_path: Path, wrong: float) -> None:
    base = measured(1)
    broken = replace(base, variants=(replace(base.variants[0], samples_us=(*base.variants[0].samples_us, wrong)),))
    with pytest.raises(UserError, match="not a latency"):
        compare_results(base, broken)
    write_results(base, tmp_path / "base.json")
    content = json.loads((tmp_path / "base.json").read_text())
    content["benchmarks"][0]["samples_us"][3] = wrong
    (tmp_path / "new.json").write_text(json.dumps(content))
    outcome = cli("compare", str(tmp_path / "base.json"), str(tmp_path / "new.json"))
    assert outcome.code == 1 and "new.json" in outcome.err and len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 99}', '{"context": {}, "benchmarks": []}', "<html>"])
def test_files_that_are_no_results(cli: CommandLine, tmp_path: Path, content: str) -> None:
    write_results(sample_results(1), tmp_path / "base.json")
    (tmp_path / "new.json").write_text(content)
    for pair in (("base.json", "new.json"), ("new.json", "base.json")):
        outcome = cli("compare", *(str(tmp_path / name) for name in pair))
        assert outcome.code == 1 and "new.json" in outcome.err and "Traceback" not in outcome.err and len(outcome.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "-1"], "Invalid value for '--threshold'"),
        (["--threshold", "nan"], "Invalid value for '--threshold'"),
        (["--threshold", "5000"], "threshold of 5000"),
        (["--markdown", "/proc/x.md"], "--markdown /proc"),
    ],
)
def test_bad_options(compare: Files, options: list[str], message: str) -> None:
    outcome = compare(sample_results(1), rebuilt(sample_results(1)), *options)
    assert outcome.code == 1 and message in outcome.err and outcome.out == "" and len(outcome.err.splitlines()) == 2


def test_the_kernel_that_changed_is_named(compare: Files) -> None:
    base = sample_results(2)
    variant = base.variants[0]
    often, once = variant.kernels[14], variant.kernels[3]
    assert [sum(kernel.name == one.name for kernel in variant.kernels) for one in (often, once)] == [5, 1]
    slow = replace(often, schedule="pointwise@2(rows=1)", network_us=2 * (often.network_us or 0))
    little = replace(once, network_us=1.5 * (once.network_us or 0))
    kernels = tuple({once.name: little, often.name: slow}.get(kernel.name, kernel) for kernel in variant.kernels)
    new = rebuilt(base, 1.1)
    new = replace(new, variants=(replace(new.variants[0], kernels=kernels), new.variants[1]))
    first, second = changed_kernels(variant, new.variants[0])
    assert (first.name, second.name) == (slow.name, little.name) and first.added_us == pytest.approx(5 * (often.network_us or 0))
    assert changed_kernels(base.variants[1], new.variants[1]) == ()
    outcome = compare(base, new)
    assert outcome.code == 2 and re.search(rf"kernel {slow.name}: .*; .*order=1, panel=16\) became pointwise@2\(rows=1\)", outcome.out)
    assert re.search(rf"kernel {re.escape(little.name)}: [0-9.]+ to [0-9.]+ us modelled$", outcome.out, re.M)


def test_a_fused_kernel_takes_the_place_of_others() -> None:
    (variant,) = sample_results(1).variants
    fused = replace(variant.kernels[1], name="fused", network_us=1.0)
    changes = {
        kernel.name: kernel
        for kernel in changed_kernels(variant, replace(variant, kernels=(variant.kernels[0], fused, *variant.kernels[3:])))
    }
    assert changes["fused"].base_schedule is None and changes["fused"].added_us == 1.0
    gone = changes[variant.kernels[1].name]
    assert gone.new_schedule is None and gone.added_us == -(gone.base_us or 0)


def _hostile(results: Results) -> Results:
    name = "<b>|`x`\u202e ]]> & \ud800 [a](b)"
    kernels = (replace(results.variants[0].kernels[0], name=name, schedule=name), *results.variants[0].kernels[1:])
    changed = replace(results.variants[0], model=name, name=name, kernels=kernels)
    return replace(results, context=replace(results.context, device=name), variants=(changed, *results.variants[1:]))


@pytest.mark.parametrize("kind", ["plain", "hostile"])
def test_the_four_shapes_say_the_same(compare: Files, tmp_path: Path, kind: str) -> None:
    base = sample_results(4)
    new = rebuilt(base, 1.1, 0.8)
    new = replace(new, variants=(*new.variants[:3], base.variants[3]))
    if kind == "hostile":
        base, new = _hostile(base), _hostile(new)
        other = replace(new.variants[0].kernels[0], schedule="other")
        new = replace(new, variants=(replace(new.variants[0], kernels=(other, *new.variants[0].kernels[1:])), *new.variants[1:]))
    paths = {name: tmp_path / "made" / f"gate.{name}" for name in ("markdown", "json", "junit")}
    outcome = compare(base, new, *(word for name, path in paths.items() for word in (f"--{name}", str(path))))
    assert outcome.code == 2 and "\u202e" not in outcome.out
    if kind == "plain":
        assert max(map(len, outcome.out.splitlines()[:8])) <= 80
    content = json.loads(paths["json"].read_text())
    assert content["exit_code"] == 2 and content["threshold"] == 0.03
    assert [one["verdict"] for one in content["variants"]] == ["slower", "faster", "same", "skipped"]
    assert content["variants"][0]["change"] == pytest.approx(0.1) and content["new"]["kind"] == "modelled"
    suite = ET.parse(paths["junit"]).getroot()[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4",
        "failures": "1",
        "errors": "0",
        "skipped": "1",
    }
    assert [[child.tag for child in case] for case in suite] == [["failure"], ["system-out"], ["system-out"], ["skipped"]]
    assert all(case.get("name") and case.get("classname") and float(case.get("time") or "x") >= 0 for case in suite)
    assert "modelled" in (suite[0][0].get("message") or "")
    text = paths["markdown"].read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 6 and {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {7}
    assert "**slower**" in rows[2] and "modelled" in rows[0] and not re.search(r"(?<!\\)<", text)


def test_too_noisy_is_an_error_in_junit(compare: Files, tmp_path: Path) -> None:
    base = measured(2, seed=1)
    outcome = compare(base, rebuilt(measured(2, seed=2), 1.045, 0.97), "--junit", str(tmp_path / "junit.xml"))
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert outcome.code == 4 and suite.get("errors") == "1" and suite[0][0].get("type") == "too-noisy"


def test_interleaved_runs_decide_where_they_can_be_had() -> None:
    base = measured(2, seed=1)
    new = rebuilt(measured(2, seed=2), 1.045, 1.045)
    asked = []

    def measure(pairing: Pairing, base_first: bool) -> Pair:
        assert pairing.base is not None and pairing.new is not None
        asked.append(pairing.new.name)
        old = measured(2, seed=100 + len(asked)).variants[base.variants.index(pairing.base)]
        really = 1.045 if pairing.base is base.variants[0] else 1.0
        return Pair(old.samples_us, tuple(value * really for value in old.samples_us[::-1]))

    comparison = compare_results(base, new, measure=measure)
    assert [variant.verdict for variant in comparison.variants] == [Verdict.SLOWER, Verdict.SAME] and comparison.exit_code == 2
    assert comparison.variants[0].change == pytest.approx(0.045, abs=0.01) and comparison.variants[0].pairs > 5
    assert asked.count(base.variants[1].name) < asked.count(base.variants[0].name)


def test_a_change_too_close_to_the_threshold_is_left_open() -> None:
    """A slowdown below the threshold that is certain, but may exceed it."""
    base = measured(1)

    def measure(pairing: Pairing, base_first: bool) -> Pair:
        return Pair([100.0] * 30, [103.5 if base_first else 101.5] * 30)

    comparison = compare_results(base, rebuilt(base), measure=measure)
    (variant,) = comparison.variants
    assert comparison.exit_code == 4 and variant.verdict is Verdict.TOO_NOISY and variant.pairs == 14
    assert variant.change == pytest.approx(0.025, abs=1e-4)
    assert variant.note == "slower, but perhaps by no more than the threshold"


def test_versions_that_differ_are_said(compare: Files) -> None:
    base = sample_results(1)
    outcome = compare(base, _context(versions={"tvmmobile": "0.1.0", "tvm": "0.28"})(rebuilt(base)))
    assert outcome.code == 0 and "The version of tvm was 0.27.0.post1, now 0.28." in outcome.out


def test_no_output_replaces_an_input_or_another_output(compare: Files, tmp_path: Path) -> None:
    base, link = sample_results(1), tmp_path / "link.json"
    link.symlink_to("base.json")
    outcome = compare(base, rebuilt(base), "--json", str(link))
    assert outcome.code == 1 and f"--json {link} would replace {tmp_path / 'base.json'}, which is compared." in outcome.err
    assert json.loads((tmp_path / "base.json").read_text())["benchmarks"]
    outcome = compare(base, rebuilt(base), "--markdown", str(tmp_path / "out"), "--junit", str(tmp_path / "." / "out"))
    assert outcome.code == 1 and "would replace what --markdown writes." in outcome.err and not (tmp_path / "out").exists()
    assert compare(base, rebuilt(base), "--markdown", "/dev/null", "--junit", "/dev/null").code == 0


def test_baselines_of_several_versions_are_said(tmp_path: Path) -> None:
    results = sample_results(2)
    old = replace(results, context=replace(results.context, versions={"tvmmobile": "0.0.9"}), variants=results.variants[1:])
    save_baselines(replace(results, variants=results.variants[:1]), tmp_path, tmp_path)
    save_baselines(old, tmp_path, tmp_path)
    base = results_of(load_baselines(tmp_path, "pi4-virtual"))
    assert [variant.name for variant in base.variants] == sorted(variant.name for variant in results.variants)
    (note,) = compare_results(base, rebuilt(results)).notes
    now = results.context.versions["tvmmobile"]
    assert set(note.removeprefix("The version of tvmmobile was ").removesuffix(f", now {now}.").split(", ")) == {"0.0.9", now}


def test_baselines_are_kept_listed_and_shown(cli: CommandLine, tmp_path: Path) -> None:
    results = sample_results(2)
    write_results(results, tmp_path / "report.json")
    kept = tmp_path / "kept"
    saved = cli("baseline", "save", str(tmp_path / "report.json"), "--dir", str(kept))
    assert saved.code == 0 and "2 of 2 were kept without their library" in saved.err
    path = kept / "pi4-virtual" / "mobilenet_v1_1.0_224_float32_t1.result.json"
    assert saved.out.splitlines()[0] == str(path) and path.is_file()
    listed = cli("baseline", "list", "--dir", str(kept))
    assert listed.code == 0 and "pi4-virtual" in listed.out and "modelled" in listed.out and "not kept" in listed.out
    shown = cli("baseline", "show", "mobilenet_v1_1.0_192", "--dir", str(kept))
    assert shown.code == 0 and "ms modelled" in shown.out and results.variants[1].kernels[0].name in shown.out
    assert cli("baseline", "list", "--dir", str(kept), "--device", "pi4").out == listed.out  # as `bench --device pi4` timed it
    assert cli("baseline", "list", "--dir", str(kept), "--device", "pi5").code == 1
    # A baseline is a result file: the gate reads it as it is.
    assert cli("compare", str(path), str(tmp_path / "report.json")).code == 0
    assert load_baselines(kept, "pi4-virtual")[1].variant == results.variants[0] and load_baselines(kept, "pi4") == []
    save_baselines(rebuilt(results, 2.0), tmp_path, kept)
    assert load_baselines(kept, "pi4-virtual")[1].variant.latency_us == pytest.approx(2 * results.variants[0].latency_us)


@pytest.mark.parametrize("name", ["../../etc", "/etc/x", "a/b", "", ".", "..", ".hidden", "a\0b", "x" * 300, "a\nb"])
def test_names_in_a_file_do_not_lead_out_of_the_directory(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "deep" / "kept"
    results = sample_results(1)
    for changed in (_context(device=name)(results), _variants(model=f"{name}/" if name == "" else name)(results)):
        if changed.variants[0].model == name and re.fullmatch(r"[A-Za-z0-9][\w.-]{0,199}", baseline_name(changed.variants[0])):
            continue
        with pytest.raises(UserError, match="cannot be the file name"):
            save_baselines(changed, tmp_path, kept)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list"], "has no baseline"),
        (["list", "--device", "../x"], "cannot be the file name"),
        (["show", "mobilenet"], "has no baseline"),
        (["save", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_baselines_that_are_not_there(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = cli("baseline", *arguments)
    assert outcome.code == 1 and message in outcome.err and len(outcome.err.splitlines()) == 2 and list(tmp_path.iterdir()) == []


def test_a_library_with_small_weights_has_a_baseline_of_its_own(compare: Files, tmp_path: Path) -> None:
    results = sample_results(1)
    small = replace(results.variants[0], name="small", weights_dtype="int8", library_sha256="3" * 64)
    both = replace(results, variants=(*results.variants, small))
    assert compare(both, rebuilt(both, 1.0)).code == 0
    save_baselines(both, tmp_path, tmp_path / "kept")
    names = [one.name for one in load_baselines(tmp_path / "kept", both.context.device)]
    assert names == ["mobilenet_v1_1.0_224_float32_int8weights_t1", "mobilenet_v1_1.0_224_float32_t1"]
    refused = compare(replace(results, variants=(small,)), results)
    assert refused.code == 1 and "the dtypes of mobilenet_v1 1.0-224 differ, float32_int8weights and float32" in refused.err


def test_a_spoiled_run_is_no_baseline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not valid: throttled"):
        save_baselines(_variants(invalid="throttled")(measured()), tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("conditions", [{"before": None, "after": 3}, {"before": "warm"}, {"before": [{"clocks_hz": 1.8e9}, 7]}])
def test_states_of_the_board_may_be_anything(compare: Files, conditions: dict[str, object]) -> None:
    """A result file's format leaves them open."""
    base = _variants(conditions=conditions)(measured())
    assert compare(base, rebuilt(base, 1.5)).code in (2, 4)


def test_two_variants_do_not_share_a_baseline(tmp_path: Path) -> None:
    """The second would silently replace the first."""
    results = sample_results(1)
    (one,) = results.variants
    with pytest.raises(UserError, match=f"{one.name} and in_c would be the same baseline"):
        save_baselines(replace(results, variants=(one, replace(one, name="in_c", format="c"))), tmp_path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_commands_in_messages_can_be_copied(cli: CommandLine, tmp_path: Path) -> None:
    outcome = cli("baseline", "list", "--dir", str(tmp_path / "my baselines"))
    assert outcome.code == 1 and f"--baselines '{tmp_path / 'my baselines'}'" in outcome.err


def test_a_baseline_in_another_ones_place_is_noticed(tmp_path: Path) -> None:
    first, second = save_baselines(sample_results(2), tmp_path, tmp_path)
    second.path.write_bytes(first.path.read_bytes())
    with pytest.raises(UserError, match="not a baseline of its device and variant"):
        load_baselines(tmp_path, "pi4-virtual")
    assert devices_in(tmp_path) == ["pi4-virtual"]


def test_a_machine_that_hides_its_clocks_needs_repeats(compare: Files) -> None:
    """Two single runs decide nothing; pairs of runs do, more of them than on a board whose spread is known."""
    shown = measured(1)
    base = replace(
        shown,
        context=replace(shown.context, clock_hz=0.0),
        variants=tuple(
            replace(one, conditions={"before": [HIDDEN_STATE], "after": [HIDDEN_STATE], "steady": True}) for one in shown.variants
        ),
    )
    outcome = compare(base, rebuilt(base, 1.0))
    assert outcome.code == 4 and "tells neither clocks nor governor" in " ".join(outcome.out.split()), outcome.out
    assert compare(shown, rebuilt(shown, 1.5)).code == 2 and compare(base, rebuilt(base, 1.5)).code == 4
    random = np.random.default_rng(1)

    def pair_of(factor: float) -> Pair:
        return Pair(*(tuple(1000 * share * np.exp(random.normal(0, 0.002, 30))) for share in (1.0, factor)))

    for factor, verdict in ((1.0, Verdict.SAME), (1.5, Verdict.SLOWER)):
        judged = compare_results(base, rebuilt(base, factor), 0.03, lambda _pairing, _first, factor=factor: pair_of(factor))  # type: ignore[misc]
        (variant,) = judged.variants
        assert variant.verdict is verdict and variant.pairs >= 5
    with pytest.raises(UserError, match=r"the clocks differ, '1\.8 GHz' and 'an unknown clock'"):
        compare_results(shown, base)
