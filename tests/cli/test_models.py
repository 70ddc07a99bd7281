"""`tvmmobile models`: golden texts, JSON, latencies from result files.

After a change that is meant, write the texts anew and read the difference:
`TVMMOBILE_UPDATE_GOLDEN=1 ./scripts/test tests/cli/test_models.py; git diff tests/golden`
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CommandLine
from report_samples import sample_results, sample_variant

from tvmmobile.networks.models.registry import FAMILIES
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.results.file import Results, write_results

GOLDEN = Path(__file__).parents[1] / "golden" / "models"
UPDATE = bool(os.environ.get("TVMMOBILE_UPDATE_GOLDEN"))
COMMANDS = {
    "help": "--help",
    "list_help": "list --help",
    "show_help": "show --help",
    "cost_help": "cost --help",
    "comparison": "",
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v3_small": "--model mobilenet_v3_small",
    "shufflenet_v2": "list shufflenet_v2",
    "alexnet": "alexnet",
    "show_mobilenet_v1": "show mobilenet_v1",
    "show_mobilenet_v3_small": "show mobilenet_v3_small --alpha 0.75 --resolution 160",
    "show_squeezenet1_1": "show squeezenet1_1",
    "cost": "cost --kernel 3 --in 512 --out 512 --side 14",
    "cost_groups": "cost --kernel 5 --in 240 --out 480 --side 28 --alpha 0.5 --rho 0.714 --groups 3",
}


def fits(text: str) -> bool:
    """Return whether nothing is wider than 80 columns or cut off."""
    return max(map(len, text.splitlines())) <= 80 and "…" not in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_text(cli: CommandLine, name: str) -> None:
    outcome = cli("models", *COMMANDS[name].split())
    assert outcome.code == 0 and outcome.err == "" and fits(outcome.out)
    text = "".join(f"{line.rstrip()}\n" for line in outcome.out.splitlines())
    path = GOLDEN / f"{name}.txt"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_table_of_every_family_fits(cli: CommandLine, tmp_path: Path, name: str) -> None:
    path = tmp_path / "report.json"
    spec = ModelSpec(name)
    write_results(Results(sample_results(1).context, (sample_variant(spec),)), path)
    for arguments in ([name], ["show", name], [name, "--results", str(path)]):
        assert fits(cli("models", *arguments).out)


def test_sixteen_variants_beside_the_paper(cli: CommandLine) -> None:
    rows = [line.split() for line in cli("models", "mobilenet_v1").out.splitlines()]
    assert ["1.0", "224", "568.7", "569", "569", "4.23", "4.2", "4.24", "70.6", "70.9"] in rows
    assert ["0.25", "128", "13.6", "–", "14", "0.47", "–", "0.47", "–", "41.5"] in rows
    assert sum(row[:1] in (["1.0"], ["0.75"], ["0.5"], ["0.25"]) for row in rows) == 16


def test_alpha_or_side_alone_are_about_mobilenet_v1(cli: CommandLine) -> None:
    assert cli("models", "--alpha", "0.5") == cli("models", "mobilenet_v1", "--alpha", "0.5")
    assert cli("models", "--resolution", "96").out.startswith("mobilenet_v1\n")


@pytest.mark.parametrize(("alpha", "resolution"), [("0.33", "512"), ("0.25", "33")])
def test_any_variant_without_the_papers_shares(cli: CommandLine, alpha: str, resolution: str) -> None:
    outcome = cli("models", "show", "mobilenet_v1", "--alpha", alpha, "--resolution", resolution)
    assert outcome.code == 0 and "1.19" not in outcome.out and fits(outcome.out)


def test_latencies_are_never_without_where_they_come_from(cli: CommandLine, tmp_path: Path) -> None:
    files = {measured: tmp_path / f"{measured}.json" for measured in (False, True)}
    for measured, path in files.items():
        write_results(sample_results(measured=measured), path)
    modelled = cli("models", "--results", str(files[False])).out
    row = next(line for line in modelled.splitlines() if line.split()[:2] == ["mobilenet_v1", "0.75-224"])
    assert row.split()[-1] == f"{sample_results().variants[4].latency_us / 1000:.2f}"
    assert "modelled\n" in "".join(f"{line.rstrip()}\n" for line in modelled.splitlines()[:3])
    assert "Latency modelled: Cortex-A72 at 1.8 GHz" in modelled and "measured" not in modelled
    assert "0.25-128" in modelled, "what is in the file is shown, even if it is not compared otherwise"
    measured_text = cli("models", "mobilenet_v1", "--results", str(files[True])).out
    assert "Latency measured on Raspberry Pi 4" in measured_text and "modelled" not in measured_text
    assert fits(modelled) and fits(measured_text)


def test_latencies_of_several_files_stand_together_if_they_were_got_alike(cli: CommandLine, tmp_path: Path) -> None:
    context = sample_results(1).context
    specs = (ModelSpec("mobilenet_v2"), ModelSpec("mobilenet_v1_full"))
    paths = [tmp_path / f"{spec.name}.json" for spec in specs]
    for spec, path in zip(specs, paths, strict=True):
        write_results(Results(context, (sample_variant(spec),)), path)
    both = json.loads(cli("models", "--json", *(word for path in paths for word in ("--results", str(path)))).out)
    assert {entry["model"] for entry in both if entry["latencies"]} == {spec.name for spec in specs}
    assert {one["kind"] for entry in both for one in entry["latencies"]} == {"modelled"}


def test_the_latest_latency_of_a_variant_counts(cli: CommandLine, tmp_path: Path) -> None:
    """The same rule as in report --join, whichever file is named first."""
    (floats,) = sample_results(1).variants
    words: list[str] = []
    for date, factor in (("2026-11-22T08:00:00+00:00", 2), ("2026-11-21T08:00:00+00:00", 3)):
        samples = (floats.latency_us * factor,)
        context = replace(sample_results(1).context, date=date)
        write_results(Results(context, (replace(floats, samples_us=samples),)), tmp_path / f"{factor}.json")
        words += ["--results", str(tmp_path / f"{factor}.json")]
    (entry,) = json.loads(cli("models", "--alpha", "1", "--resolution", "224", *words, "--json").out)
    assert [one["latency_us"] for one in entry["latencies"]] == [floats.latency_us * 2]


def test_each_way_to_get_latencies_has_its_column(cli: CommandLine, tmp_path: Path) -> None:
    """Modelled and measured ones never stand in one column; a folder stands for the report.json in it."""
    words: list[str] = []
    for measured, name in ((False, "virtual"), (True, "board")):
        (tmp_path / name).mkdir()
        write_results(sample_results(measured=measured), tmp_path / name / "report.json")
        words += ["--results", str(tmp_path / name)]
    for arguments in ((), ("mobilenet_v1",)):
        text = cli("models", *arguments, *words).out
        lines = [line.split() for line in text.splitlines()]
        assert ["ms", "[a]", "ms", "[b]"] in [line[-4:] for line in lines] and ["modelled", "measured"] in [line[-2:] for line in lines]
        expected = [f"{sample_results(measured=measured).variants[0].latency_us / 1000:.2f}" for measured in (False, True)]
        assert any(line[-2:] == expected for line in lines)
        one_line = " ".join(text.split())
        assert "Latency [a] modelled: Cortex-A72" in one_line and "; pi4-virtual, float32, 1 thread, VM library." in one_line
        assert "Latency [b] measured on Raspberry Pi 4 Model B (pi4)" in one_line and fits(text)
    first = json.loads(cli("models", *words, "--json").out)[0]
    assert [(one["device"], one["kind"], one["threads"]) for one in first["latencies"]] == [
        ("pi4-virtual", "modelled", 1),
        ("pi4", "measured", 1),
    ]

    results = sample_results(1)
    write_results(replace(results, context=replace(results.context, threads=4)), tmp_path / "four.json")
    outcome = cli("models", *words, "--results", str(tmp_path / "four.json"))
    assert outcome.code == 1 and outcome.out == "" and "in 3 ways" in outcome.err and len(outcome.err.splitlines()) == 2


def test_precisions_and_formats_have_columns_of_their_own(cli: CommandLine, tmp_path: Path) -> None:
    """Also if one file has the same network in several."""
    results = sample_results(1)
    (floats,) = results.variants
    integers = replace(floats, name="integers", dtype="int8", format="c", samples_us=(floats.latency_us / 4,))
    write_results(replace(results, variants=(floats, integers)), tmp_path / "report.json")
    text = cli("models", "mobilenet_v1", "--results", str(tmp_path)).out
    expected = [f"{variant.latency_us / 1000:.2f}" for variant in (floats, integers)]
    assert any(line.split()[-2:] == expected for line in text.splitlines()) and fits(text)
    one_line = " ".join(text.split())
    assert "pi4-virtual, float32, 1 thread, VM library. Latency [b]" in one_line and "pi4-virtual, int8, 1 thread." in one_line
    (entry,) = json.loads(cli("models", "--alpha", "1", "--resolution", "224", "--results", str(tmp_path), "--json").out)
    assert [(one["dtype"], one["format"]) for one in entry["latencies"]] == [("float32", "vm"), ("int8", "c")]


def test_a_latency_that_does_not_count_is_left_out(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    results = sample_results(1, measured=True)
    write_results(replace(results, variants=(replace(results.variants[0], invalid="throttled"),)), path)
    (entry,) = json.loads(cli("models", "--alpha", "1", "--resolution", "224", "--results", str(path), "--json").out)
    assert entry["latencies"] == []


def test_a_network_of_the_users_own_in_a_result_file_does_no_harm(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    results = sample_results(1)
    write_results(replace(results, variants=(replace(results.variants[0], model="mine"),)), path)
    assert cli("models", "--results", str(path)).code == 0


def test_json(cli: CommandLine) -> None:
    both = json.loads(cli("models", "--alpha", "1", "--alpha", "0.5", "--resolution", "224", "--json").out)
    assert [(entry["alpha"], entry["macs"]) for entry in both] == [(1.0, 568740352), (0.5, 149497088)]
    assert [figures["source"][:5] for figures in both[0]["published"]] == ["arXiv", "tenso"]
    assert both[0]["by_type"][2]["paper_percent"] == {"macs": 1.19, "params": 0.02}
    assert len(json.loads(cli("models", "--json").out)) == 16
    (detailed,) = json.loads(cli("models", "show", "mobilenet_v1", "--json").out)
    assert sum(layer["macs"] for layer in detailed["layers"]) == detailed["macs"]
    (xception,) = json.loads(cli("models", "show", "xception", "--json").out)
    assert xception["resolution"] == 299
    cost = json.loads(cli("models", "cost", "--kernel", "3", "--in", "8", "--out", "4", "--side", "2", "--json").out)
    assert cost["reduction"] == pytest.approx(1 / 4 + 1 / 9) and cost["ways"][0]["macs"] == 9 * 8 * 4 * 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mobilenet_v2", "--model", "vgg16"], "mobilenet_v2 and --model vgg16 are two families"),
        (["show"], "Missing argument 'NAME'"),
        (["show", "resnet"], "model 'resnet' is not known"),
        (["cost", "--kernel", "3"], "Missing option '--in'"),
        (["cost", "--kernel", "3", "--in", "0", "--out", "1", "--side", "1"], "--in 0 is not a positive number"),
        (["--results", "nowhere.json"], "nowhere.json cannot be read"),
    ],
)
def test_what_is_refused(cli: CommandLine, arguments: list[str], complaint: str) -> None:
    outcome = cli("models", *arguments)
    assert outcome.code == 1 and outcome.out == "" and complaint in outcome.err and len(outcome.err.splitlines()) == 2
