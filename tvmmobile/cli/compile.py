"""`tvmmobile compile`: libraries from the tuning logs alone; no device is needed."""

from __future__ import annotations

from typing import Any

from tvmmobile.cli import options
from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.network import Variants
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.options.network import NetworkOptions
from tvmmobile.pipeline.options.run import CompileOptions


@with_cli_options(LibraryOptions, CompileOptions, variants=Variants, network=NetworkOptions)
def compile_libraries(
    target: options.Target = "arm", device: options.Devices = None, *, variants: Variants, network: NetworkOptions, **chosen: Any
) -> None:
    """Compile libraries from the tuning logs; no device needed.

    Each library is checked to compute what its network does. Without --alpha and --resolution: the published variants (MobileNet v1: the
    paper's 16). Kernels without records use the nearest shape's schedule.
    """
    from tvmmobile.cli.progress import Shown, errors
    from tvmmobile.pipeline.compile import compile_models
    from tvmmobile.pipeline.sentences import check_lines
    from tvmmobile.results.report.fallback import UsedKernel, fallback_lines
    from tvmmobile.system.console import output

    options.check_target(target)
    libraries = compile_models(variants.models(network), options.names_of(device), **chosen, listener=Shown())
    for library in libraries:
        output().print(str(library.path), soft_wrap=True)
    for line in check_lines([library.facts for library in libraries]):
        errors().print(line, soft_wrap=True)
    sets = [(device, listed) for library in libraries for device, listed in library.kernels_by_device.items()]
    kernels = {(device, kernel.name): kernel for device, listed in sets for kernel in listed}
    used = [UsedKernel(each.name, each.fallback, each.macs, each.latency_us) for _, listed in sets for each in listed]
    for line in fallback_lines(used):
        errors().print(line, soft_wrap=True)
    untuned = sum(kernel.latency_us is None for kernel in kernels.values())
    if untuned:
        errors().print(
            f"{untuned} of {len(kernels)} kernels have no record and were compiled with the nearest shape's schedule: see `record` in the "
            "manifests. `tvmmobile tune` measures them.",
            soft_wrap=True,
        )
