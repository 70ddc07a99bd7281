"""Questions about processes, any of which may end while it is asked about."""

import contextlib
import time

import psutil


def runs(process: psutil.Process) -> bool:
    """Return whether a process has not ended; one that nobody has waited for has."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def emulated(process: psutil.Process) -> list[psutil.Process]:
    """Programs that a process has QEMU run: agents and their sessions."""
    found = []
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "qemu" in child.name():
                found.append(child)
    return found


def busy(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that are using a processor right now."""
    for process in processes:
        _processor_percent(process)
    time.sleep(0.3)
    return [process for process in processes if _processor_percent(process) > 30]


def _processor_percent(process: psutil.Process) -> float:
    """Use of a processor since the last call; 0 of a process that has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cpu_percent()
    return 0
