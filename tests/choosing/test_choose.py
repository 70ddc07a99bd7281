"""The best network within a budget, on the shipped logs of a virtual board."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import CommandLine
from evaluations import CONTEXT, result
from labelled_images import write_image

from tvmmobile.accuracy.evaluation_file import evaluation_of, write_evaluation
from tvmmobile.choosing import networks, pricing
from tvmmobile.choosing.answer import NetworkChoice
from tvmmobile.choosing.candidates import candidates_of
from tvmmobile.choosing.choose import choose
from tvmmobile.choosing.networks import networks_of
from tvmmobile.choosing.pricing import Prices, tasks_of_all
from tvmmobile.choosing.report.entries import json_of
from tvmmobile.choosing.report.sentences import left_out, origins, verdict
from tvmmobile.cli.choose import print_choice
from tvmmobile.cli.options import names_of
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.network import Wiring
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.costs import count
from tvmmobile.networks.models.published import figures
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.own.files import OwnFile
from tvmmobile.networks.preprocessing import HALVES, Normalisation
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.known_tasks import _file, keep_tasks, read_tasks
from tvmmobile.pipeline.load import variants
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.planning import plan_variant, tasks_of
from tvmmobile.pipeline.request import jobs_of
from tvmmobile.pipeline.variant import import_model
from tvmmobile.results.report.measured import MeasuredAccuracy
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.logs.directories import LogDirs
from tvmmobile.tuning.plan import Plan
from tvmmobile.tuning.regions import VariantTasks

#: α 0.25: the smallest two of the paper's grid, which are planned within seconds.
SMALL = Model(ModelSpec("mobilenet_v1", 0.25, 128)), Model(ModelSpec("mobilenet_v1", 0.25, 160))


def names(choice: NetworkChoice) -> list[str]:
    return [one.candidate.model.spec.variant for one in choice.front]


@pytest.fixture(scope="module")
def whole_front() -> NetworkChoice:
    """Return the front without a bound; later calls are answered from the cache."""
    return choose(SMALL, "pi4")


def test_without_a_bound_there_is_a_front(whole_front: NetworkChoice) -> None:
    assert whole_front.best is None and names(whole_front) == ["mobilenet_v1_0.25_128", "mobilenet_v1_0.25_160"]
    assert whole_front.front[0].worst_us < whole_front.front[1].worst_us
    assert {one.candidate.accuracy.source for one in whole_front.front} <= {figure.source for figure in figures("mobilenet_v1", 0.25, 128)}


def test_the_most_accurate_network_within_a_latency(whole_front: NetworkChoice) -> None:
    fast, accurate = whole_front.front
    between = f"{(fast.worst_us + accurate.worst_us) / 2:.0f}us"
    assert choose(SMALL, "pi4", under=between).best == fast
    assert choose(SMALL, "pi4", under="1s").best == accurate
    none = choose(SMALL, "pi4", under="1us")
    assert none.best is None and none.skipped == len(SMALL)


def test_the_fastest_network_above_an_accuracy(whole_front: NetworkChoice) -> None:
    fast, accurate = whole_front.front
    assert choose(SMALL, "pi4", at_least="1%").best == fast
    assert choose(SMALL, "pi4", at_least=f"{accurate.candidate.accuracy.top1}%").best == accurate
    assert choose(SMALL, "pi4", at_least="99%").best is None


def test_the_slowest_of_several_boards_counts(whole_front: NetworkChoice) -> None:
    both = choose(SMALL[:1], ["pi4", "pi3bplus"])
    (one,) = both.front
    latencies = {name: latency.latency_us for name, latency in one.latencies.items()}
    assert list(latencies) == ["pi4-virtual", "pi3bplus-virtual"] and one.worst_us == max(latencies.values())
    assert latencies["pi4-virtual"] == whole_front.front[0].worst_us < latencies["pi3bplus-virtual"]


def test_kernels_without_records_have_no_latency(tmp_path: Path) -> None:
    choice = choose(SMALL[:1], "pi4", under="1s", logs=tmp_path)
    assert choice.best is None and not choice.front
    (one,) = choice.untuned
    assert one.latencies["pi4-virtual"].unmeasured == one.latencies["pi4-virtual"].kernels > 0


def test_kernels_without_a_record_are_estimated_and_said_to_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """MobileNet v1 of 144 pixels was never tuned: its kernels are priced by those of other sides."""
    small, between, large = (Model(ModelSpec("mobilenet_v1", 0.25, side)) for side in (128, 144, 160))
    accuracies = tmp_path / "accuracies.json"
    accuracies.write_text(json.dumps([{"library": "mobilenet_v1_0.25_144_float32", "top1_percent": 44.0, "images": "500 images of val"}]))
    choice = choose([small, between, large], "pi4", accuracy=[accuracies])
    fast, estimated, slow = sorted((*choice.front, *choice.beaten), key=lambda one: one.worst_us)
    latency = estimated.latencies["pi4-virtual"]
    assert fast.worst_us < estimated.worst_us < slow.worst_us and estimated.candidate.model == between
    assert latency.unmeasured and latency.latency_us is not None and 0 < latency.estimated_us <= latency.latency_us
    assert fast.estimated == slow.estimated == 0 < estimated.estimated <= 1 and not choice.untuned
    assert estimated.worst_us == pytest.approx((fast.worst_us + slow.worst_us) / 2, rel=0.2)  # in kernels of one layer each
    print_choice(choice)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"~{estimated.worst_us / 1e3:.2f}" in printed and "of a latency is estimated: kernels without a record" in printed
    assert "measured on 500 images of val" in printed


def test_two_accuracies_of_one_library_are_refused(tmp_path: Path) -> None:
    """The one that was named last would decide."""
    accuracies = tmp_path / "accuracies.json"
    entries = [{"library": "mobilenet_v1_0.25_128_float32", "top1_percent": top1, "images": "val"} for top1 in (41.5, 51.5)]
    accuracies.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"two accuracies of mobilenet_v1_0\.25_128_float32 are given: 41\.5 % on val and 51\.5 % on val"):
        choose(SMALL, "pi4", accuracy=accuracies)


def test_an_accuracy_stated_by_hand_must_be_one(tmp_path: Path) -> None:
    file = tmp_path / "accuracies.json"
    file.write_text('[{"library": "net_1.0_224_float32", "top1_percent": 144, "images": "val"}]')
    with pytest.raises(UserError, match="top1_percent"):
        choose(SMALL, "pi4", accuracy=[file])
    with pytest.raises(UserError, match="top1_percent"):
        choose(SMALL[0], "pi4", accuracy=str(file))


def test_a_number_of_threads_is_not_found_by_timing() -> None:
    with pytest.raises(UserError, match="`threads` best needs latencies"):
        choose(SMALL, "pi4", threads="best")  # type: ignore[arg-type]


def test_a_network_from_a_file_is_imported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "net.pt2"
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(network.eval(), (torch.zeros(1, 3, 8, 12),)), file)
    first = networks_of(str(file), (), ())
    with monkeypatch.context() as patch:
        patch.setattr(networks, "variants", lambda *_: pytest.fail("it was imported before"))
        assert networks_of(str(file), (), ()) == first and first[0].spec.input_shape == (1, 3, 8, 12)
    file.write_bytes(b"another")
    with pytest.raises(UserError):
        networks_of(str(file), (), ())
    assert [str(one) for one in networks_of("mobilenet_v1", [0.25], [128])] == ["mobilenet_v1_0.25_128"]


def test_what_is_printed(whole_front: NetworkChoice, capsys: pytest.CaptureFixture[str]) -> None:
    print_choice(choose(SMALL, "pi4", under="1s"))
    text = capsys.readouterr().out
    assert "The most accurate network within 1000 ms on pi4-virtual: mobilenet_v1_0.25_160 in float32." in " ".join(text.split())
    assert "→" in text and "modelled latencies, Cortex-A72 at 1.8 GHz" in text and "published, in float32" in text
    assert max(map(len, text.splitlines())) <= 80


def test_measured_accuracies_take_the_place_of_published_ones(tmp_path: Path) -> None:
    measured = [MeasuredAccuracy("mobilenet_v1_0.25_128_int8_t1.so", "", 40.0, "500 images of val")]
    options = [LibraryOptions.of({"dtype": "int8", "threads": 4, "calibrate": "noise:8"}), LibraryOptions.of({})]
    found, unknown = candidates_of(SMALL, options, measured)
    assert unknown == ["mobilenet_v1_0.25_160_int8_t4"]
    assert [(one.precision.name, one.accuracy.measured) for one in found] == [("int8", True), ("float32", False), ("float32", False)]
    assert (found[0].accuracy.top1, found[0].accuracy.source) == (40.0, "500 images of val")
    wrong, _ = write_evaluation(evaluation_of(replace(CONTEXT, folder="noise:8"), [result("noise/0.npy", 0.0)]), tmp_path)
    with pytest.raises(UserError, match="has no accuracy"):
        choose(SMALL, "pi4", accuracy=[wrong])


def test_accuracies_of_libraries_that_are_not_compared_are_refused(tmp_path: Path) -> None:
    """The published accuracy of the network that was meant would decide."""
    file = tmp_path / "measured.json"
    file.write_text('[{"library": "mobilenet_v1_0.25_128_int8", "top1_percent": 39, "images": "500 images"}]')
    with pytest.raises(UserError, match=r"no accuracy of a network to choose from: it is of mobilenet_v1_0\.25_128_int8\."):
        choose(SMALL, "pi4", accuracy=file)


def test_calibration_images_are_normalised_as_the_network_wants_them(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options are called as in `tune`, in calls and on the command line; the requested library is not planned."""
    accuracies, photos, jobs = tmp_path / "accuracies.json", tmp_path / "photos", list[VariantJob]()
    accuracies.write_text(json.dumps([{"library": "mobilenet_v1_0.25_128_int8", "top1_percent": 40.0, "images": "500 images of val"}]))
    write_image(photos / "one.png", 0)
    words = ("--model", "mobilenet_v1", "--alpha", "0.25", "--resolution", "128", "--dtype", "int8", "--accuracy", str(accuracies))
    normalisation = Normalisation((0.485, 0.456, 0.406), (0.25, 0.25, 0.25))

    def known(job: VariantJob) -> VariantTasks:
        jobs.append(replace(job, out=tmp_path))
        return VariantTasks(0, (), {})

    with monkeypatch.context() as patch:
        patch.setattr("tvmmobile.choosing.choose.read_tasks", known)
        for image, numbers in ((None, ()), (normalisation, ("--image", "--mean", "0.485,0.456,0.406", "--std", "0.25"))):
            assert cli("choose", *words, "--calibrate", str(photos), *numbers).code == 0
            choose(SMALL[:1], "pi4", dtypes="int8", accuracy=[accuracies], calibrate=photos, image=image)
    plain, given = jobs[0], jobs[2]
    assert [plain, plain, given, given] == jobs
    found = [(job.calibration.preprocessing.mean, job.calibration.preprocessing.std) for job in (plain, given) if job.calibration]
    assert found == [(HALVES, HALVES), (normalisation.mean, normalisation.std)]
    # Its scales decide a library's kernels; floats have none, and are not planned again.
    assert _file(plain) != _file(given)
    floats = [replace(job, options=LibraryOptions.of({"image": job.options.image}), calibration=None) for job in (plain, given)]
    assert floats[0] != floats[1] and _file(floats[0]) == _file(floats[1])


def test_memory_and_weights_are_bounded(whole_front: NetworkChoice) -> None:
    """Both networks have the same weights; the larger image needs more memory."""
    small, large = (one.latencies["pi4-virtual"] for one in whole_front.front)
    cost = count(SMALL[0].spec)  # batch norms are folded
    assert small.weight_bytes == large.weight_bytes and cost.weights < small.weight_bytes / 4 < cost.parameters
    assert 0.9 < large.memory_bytes / small.memory_bytes / (160 / 128) ** 2 < 1.1
    found = choose(SMALL, "pi4", under="1s", memory=f"{(small.memory_bytes + large.memory_bytes) / 2e3:.3f}kB")
    assert found.best == whole_front.front[0] and found.oversized == whole_front.front[1:] and not found.untuned
    assert verdict(found).startswith("The most accurate network within 1000 ms, ") and " MB of memory on pi4-virtual: " in verdict(found)
    assert any("1 library larger than" in sentence for sentence in left_out(found))
    assert any(sentence.startswith("Sizes are the plan's") for sentence in origins(found))
    assert [one["variant"] for one in json_of(found)["oversized"]] == ["mobilenet_v1_0.25_160"]
    none = choose(SMALL, "pi4", size="1MB")
    assert not none.front and len(none.oversized) == 2 and none.best is None
    assert verdict(none) == "There is no network within 1 MB of weights on pi4-virtual."


def test_a_network_from_a_file_is_planned_once(tmp_path: Path) -> None:
    """Its kernels are kept by the file's content; a Python file may read others, so they are not."""
    file = tmp_path / "net.onnx"
    file.write_bytes(b"one")
    job = variant_job(replace(SMALL[0], checkpoint=file), find_device("pi4").profile, (), tmp_path, LibraryOptions.of({}))
    tasks = VariantTasks(1, (), {}, wiring=Wiring(((-1,),), (0,)))
    keep_tasks(job, tasks)
    assert read_tasks(job) == tasks
    file.write_bytes(b"another")
    assert read_tasks(job) is None
    assert read_tasks(replace(job, model=replace(SMALL[0], own=OwnFile(tmp_path / "net.py", "net")))) is None


def test_libraries_of_one_network_share_its_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In several precisions; their latencies are those of a network that was imported for each."""
    imported: list[Model] = []
    monkeypatch.setattr(pricing, "import_model", lambda model: (imported.append(model), import_model(model))[1])
    profile = find_device("pi5").profile
    jobs = [
        variant_job(SMALL[0], profile, (SHIPPED_LOGS,), tmp_path, LibraryOptions.of({"dtype": name})) for name in ("float32", "float16")
    ]
    first, second = (Prices().latency(job, tasks) for job, tasks in zip(jobs, tasks_of_all(jobs), strict=True))
    assert imported == [SMALL[0]] and first.latency_us and second.latency_us and second.latency_us < first.latency_us
    assert Prices().latency(jobs[1], tasks_of_all(jobs[1:])[0]) == second and len(imported) == 2


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_prices_are_those_of_the_plan_that_is_compiled(precision: str, tmp_path: Path) -> None:
    """Cached kernels, as `tune` leaves them, have the same prices; the network also has layers other than convolutions."""
    profile, model = find_device("pi5").profile, Model(ModelSpec("mobilenet_v3_small", 1.0, 224))
    options = LibraryOptions.of({"dtype": precision, **({"calibrate": "noise:2"} if precision == "int8" else {})})
    (job,) = jobs_of(model, profile, options, tmp_path, LogDirs((SHIPPED_LOGS,), tmp_path), None)
    planned = plan_variant(job)
    tasks = tasks_of(job, planned.network)
    keep_tasks(job, tasks)
    kept = read_tasks(job)
    assert kept == replace(tasks, sources={}, macs={}, float32_layers=()) and kept.regions[0].task.machine == profile.machine
    latency = Prices().latency(job, kept)
    assert latency.kernels == len(planned.steps) and latency.memory_bytes > 0
    assert latency.latency_us == pytest.approx(Plan(planned.steps).latency_us) and not latency.unmeasured


def test_kernels_that_cannot_be_kept_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(tmp_path))
    (tmp_path / "kernels").write_text("in the way")
    job = variant_job(SMALL[0], find_device("pi4").profile, (), tmp_path, LibraryOptions.of({}))
    keep_tasks(job, VariantTasks(0, (), {}))
    assert read_tasks(job) is None


def test_new_records_count_at_once(tmp_path: Path) -> None:
    """Kernels are kept between questions, their latencies are not: a log is read anew for each."""
    logs = tmp_path / "logs"
    assert choose(SMALL[:1], "pi4", under="1s", logs=logs).untuned
    shutil.copytree(SHIPPED_LOGS, logs)
    assert choose(SMALL[:1], "pi4", under="1s", logs=logs).best is not None


def test_devices_are_split_at_commas() -> None:
    assert names_of(["pi4,pi5", "pi3bplus"]) == ["pi4", "pi5", "pi3bplus"] and names_of(None) == ["pi4"]


def test_few_sources_are_compared() -> None:
    """If a network has figures from several sources, the source that most candidates have is used."""
    found, _ = candidates_of(variants("mobilenet_v1"), [LibraryOptions.of({})], [])
    assert len({one.accuracy.source for one in found}) == 1


def test_no_library_is_faster_than_its_bound(whole_front: NetworkChoice) -> None:
    profile = find_device("pi4").profile
    assert all(0 < one.candidate.least_us(profile) < one.worst_us for one in whole_front.front)


def test_bad_arguments() -> None:
    with pytest.raises(UserError, match=r"no accuracy is known for mobilenet_v1_0\.25_144_float32_t1"):
        choose([Model(ModelSpec("mobilenet_v1", 0.25, 144))], "pi4")
    with pytest.raises(UserError, match="names pi4-virtual twice"):
        choose(SMALL, ["pi4", "pi4-virtual"])
    with pytest.raises(UserError, match="float16 needs arithmetic"):
        choose(SMALL, "pi4", dtypes=["float16"])
    with pytest.raises(UserError, match="is for int8, which is not compared"):
        choose(SMALL, "pi4", calibrate="noise:8")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--mean", "0.4"), "--mean is for libraries that take images"),
        (("--image", "--std", "0"), "cannot normalise pixels"),
        (("--image", "--mean", "1,2"), "--mean 1,2 is not one number or three"),
    ],
)
def test_bad_numbers_of_images(cli: CommandLine, words: tuple[str, ...], complaint: str) -> None:
    outcome = cli("choose", "--model", "mobilenet_v1", *words)
    assert outcome.code == 1 and complaint in outcome.err and outcome.out == ""


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--under", "12"), "--under 12 is not a latency"),
        (("--device", "pi9"), "pi9"),
        (("--dtype", "float16"), "float16 needs arithmetic"),
        (("--accuracy", "missing.json"), "missing.json"),
    ],
)
def test_wrong_options_are_refused_before_a_network_is_loaded(
    words: tuple[str, ...], complaint: str, cli: CommandLine, tmp_path: Path
) -> None:
    """Importing a network takes a while, and a Python file is executed."""
    network, mark = tmp_path / "network.py", tmp_path / "executed"
    network.write_text(f"open({str(mark)!r}, 'w')\n")
    outcome = cli("choose", "--model", f"{network}:make", *words)
    assert outcome.code == 1 and complaint in outcome.err and not mark.exists()


def test_no_networks_are_refused() -> None:
    with pytest.raises(UserError, match="no network was given"):
        choose([], "pi4")


def test_as_json(whole_front: NetworkChoice) -> None:
    content = json.loads(json.dumps(json_of(whole_front)))
    assert content["devices"] == ["pi4-virtual"] and [one["variant"] for one in content["front"]] == names(whole_front)


def test_files_of_an_answer(whole_front: NetworkChoice, tmp_path: Path) -> None:
    """All candidates are in them, although the answer needs one alone; what is chosen, and the bound, are marked."""
    fast, accurate = whole_front.front
    choice = choose(SMALL, "pi4", under=f"{fast.worst_us + 1:.0f}us", out=tmp_path)
    assert choice.best == fast and choice.front == whole_front.front and not choice.skipped
    assert json.loads((tmp_path / "choice.json").read_text()) == json_of(choice)
    lines = list(csv.DictReader((tmp_path / "choice.csv").read_text().splitlines()))
    assert [line["place"] for line in lines] == ["best", "front"]
    assert [float(line["latency_us_modelled_pi4-virtual"]) for line in lines] == [fast.worst_us, accurate.worst_us]
    summary = (tmp_path / "choice.md").read_text()
    assert "**mobilenet_v1_0.25_128**" in summary and "pi4-virtual, ms (modelled)" in summary
    page = (tmp_path / "choice.html").read_text()
    assert page.count("<tr data-variant=") == 2 and page.count('class="line budget"') == 2 and page.count('filled best"') == 1
    assert "http://" not in page and "https://" not in page


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is not a directory"):
        choose(SMALL, "pi4", out=tmp_path / "file" / "out")
