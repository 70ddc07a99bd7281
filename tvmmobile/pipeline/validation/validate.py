"""Measures kernels and networks on a registered board and models them here; writes one file that grows point by point."""

from __future__ import annotations

import socket
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.registered import AdbAddress, SshAddress, load_device
from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.pipeline.job import variant_job
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.load import load
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.registration import registered
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.pipeline.stages.jobs import succeeded
from tvmmobile.pipeline.stages.timing import undisturbed
from tvmmobile.pipeline.validation.model import ComparedModel, model_for
from tvmmobile.pipeline.validation.record import point_of, started_validation, with_point
from tvmmobile.pipeline.validation.refit import Refit, check_refit, determines, refit_board
from tvmmobile.pipeline.validation.suite import SUITE, Suite
from tvmmobile.pipeline.validation.timing import KernelSource, TimingJob, build_kernel, kernel_source, time_point
from tvmmobile.results.report.wording import plural
from tvmmobile.results.shared_validation import shareable
from tvmmobile.results.validation import Validation, write_validation
from tvmmobile.running.bench import started_agents, started_bench
from tvmmobile.running.formats import VM
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Latency, MeasureError
from tvmmobile.system.environment import user_name
from tvmmobile.system.errors import DeviceUnavailable, Disagreement, UserError
from tvmmobile.system.files import check_file_writable, sha256_of
from tvmmobile.system.scratch import scratch
from tvmmobile.system.workers import WorkerPool, Workers, worker_count
from tvmmobile.tuning.logs.directories import log_dirs
from tvmmobile.virtual.board import VIRTUAL_SUFFIX, is_board

_BUILD_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Validated:
    """The result of a validation.

    Attributes:
        validation: validation as the file has it.
        model: model that the board was compared with.
        refit: the refitted model, if requested.
    """

    validation: Validation
    model: ComparedModel
    refit: Refit | None


def validate_device(
    name: str,
    out: str | Path,
    *,
    board: str | None = None,
    refit: str | Path | None = None,
    share: str | Path | None = None,
    pin: bool = False,
    listener: Listener = QUIET,
    suite: Suite | None = None,
) -> Validated:
    """Measure the suite on a registered device and model it on the virtual board with the same core.

    Every point is in the file before the next one is measured; the same call continues where an interrupted one stopped, and measures
    invalid points again. A complete file is shared and fitted as it is, unless too few of its points are valid for a fit.

    Args:
        name: name of the device.
        out: the file.
        board: the virtual board, or a board's file; without it, the same board if there is one, else one with the same core.
        refit: a new board's file, for the model with parameters fitted to what was measured.
        share: a second file, fit for publication: without names of users, hosts and devices, serial numbers, addresses and paths, and with
            only the day as date.
        pin: hold the board's clocks at their highest.
        listener: is told of progress.
        suite: suite to measure; default: kernels that span the terms of the model, and networks.

    Returns:
        The validation as `out` has it, the model that it was compared with, and the refitted one.

    Raises:
        UserError: the device is not registered, its core is not calibrated, `out` holds something else, or nothing can be fitted.
        DeviceUnavailable: the device cannot be reached, or went away and did not come back; finished points are kept.
        Disagreement: the board computes wrong values.
    """
    suite = suite or SUITE
    device = _registered_device(name, pin)
    compared, file = model_for(device.profile, board), Path(out)
    validation = started_validation(device, compared, suite, file)
    check_file_writable(file, "--out")
    if share is not None:
        if Path(share).resolve() == file.resolve():
            raise UserError(f"--share {share} is the file that --out names.", "Give the file to share another name.")
        check_file_writable(Path(share), "--share")
    if refit is not None:
        check_refit(Path(refit), device.profile)
    origin = device.profile.origin.kind
    tell(listener, f"{name}: {device.profile.board} ({origin}), beside the virtual {compared.board.board} (modelled)")
    if not device.profile.clock_hz:
        hidden = f"note: {name} does not tell its clock; its model is computed at {compared.clocked.clock_hz / 1e9:g} GHz, as a guess."
        tell(listener, hidden)
    only_used = validation.complete and (share is not None or refit is not None) and (refit is None or determines(validation))
    kept = validation.points if only_used else validation.valid()
    validation = _completed(validation, {point.name for point in kept}, file, suite, device, compared, listener)
    if share is not None:
        write_validation(shareable(validation, _private_words(device)), Path(share))
    fitted = None if refit is None else refit_board(validation, compared, Path(refit))
    return Validated(validation, compared, fitted)


def _completed(
    validation: Validation,
    known: Collection[str],
    file: Path,
    suite: Suite,
    device: HardwareDevice,
    compared: ComparedModel,
    listener: Listener,
) -> Validation:
    """Measure and model the points of the suite that are not known, each of which is in its file before the next one is measured."""
    missing = [name for name in suite.names if name not in known]
    tell(listener, f"{plural(len(suite.kernels), 'kernel')} and {plural(len(suite.networks), 'network')}, {len(missing)} to measure")
    if not missing:
        return validation
    with scratch("validate") as folder, Workers(worker_count(len(missing))) as workers:
        built = _built(missing, suite, device.profile, folder, workers, listener)
        with (
            started_bench(device, workers) as bench,
            started_agents(compared.device) as virtual,
            listener.stage("measuring", len(built)) as done,
        ):
            for each, what in built.items():
                kind = "kernel" if isinstance(what, KernelSource) else "network"
                measured, invalid, _ = undisturbed(bench.watch, partial(_timed, TimingJob(each, what, bench.agents), workers))
                modelled = _timed(TimingJob(each, what, virtual), workers)
                point = point_of(each, kind, measured, invalid, modelled, sha256_of(what.path), compared)
                validation = with_point(validation, point, suite, compared)
                write_validation(validation, file)
                done(each)
    return validation


def _private_words(device: HardwareDevice) -> set[str]:
    """Return words that identify the board's owner: names of device, users, hosts and folders on both sides, and serial numbers."""
    folders = [Path.home(), *(Path(board.directory) for board in device.file.boards)]
    found = {device.file.name, user_name(), socket.gethostname(), *map(str, folders), *(folder.name for folder in folders)}
    for board in device.file.boards:
        address = board.address
        if isinstance(address, SshAddress):
            user, _, host = address.destination.rpartition("@")
            found |= {user, host, host.split(".")[0]}
        elif isinstance(address, AdbAddress):
            found.add(address.serial)
    return found - {"", "/"}


def _registered_device(name: str, pin: bool) -> HardwareDevice:
    if load_device(name) is None and (name.endswith((VIRTUAL_SUFFIX, ".toml")) or is_board(name)):
        raise UserError(
            f"{name} is a virtual board: it is the model itself.", "Register a real one: tvmmobile device add NAME --ssh USER@HOST"
        )
    return HardwareDevice(registered(name), pin)


def _built(
    names: Sequence[str], suite: Suite, profile: DeviceProfile, folder: Path, workers: WorkerPool, listener: Listener
) -> dict[str, KernelSource | Library]:
    """Build the libraries of some of the suite's points; return them by name."""
    sources = [kernel_source(name, layer, profile, folder) for name, layer in suite.kernels.items() if name in names]
    networks = [network for network in suite.networks if network.name in names]
    models = [load("mobilenet_v1", alpha=net.alpha, resolution=net.resolution, classes=net.classes) for net in networks]
    with listener.stage("compiling", len(names)) as done:
        for source, built in workers.run(partial(build_kernel, target=profile.target), sources, _BUILD_TIMEOUT_S):
            succeeded(built, f"building {source.name}")
            done(source.name)
        jobs = [variant_job(model, profile, log_dirs(None).all, folder, LibraryOptions(format=VM)) for model in models]
        libraries = build_libraries(workers, jobs, done, partial(tell, listener))
    return {source.name: source for source in sources} | {net.name: found for net, found in zip(networks, libraries, strict=True)}


def _timed(job: TimingJob, workers: WorkerPool) -> Latency:
    try:
        ((_, answer),) = workers.run(time_point, [job], job.agents.endpoint.stretch * 2 * job.timeout_s)
    except MeasureError as error:
        device = job.agents.profile.name
        if error.kind in ("link", "host"):
            raise DeviceUnavailable(
                f"the device {device} went away: {error.reason}.", "Finished measurements are kept; run the same command again.", again=True
            ) from error
        raise Disagreement(f"{job.name} does not run on {device}: {error.reason}.", "Run: tvmmobile device check NAME") from error
    latency: Latency = succeeded(answer, f"running {job.name}")
    return latency
