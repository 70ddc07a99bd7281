"""tvmmobile: fast schedules for MobileNets on the ARM board that will run them.

    import tvmmobile as tm

    net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
    library = tm.compile(net, device="pi4")
    print(library.bench(device="pi4").latency_ms)

docs/api.md shows the rest. `__init__.pyi` lists what there is. Each name is imported when it is first used: importing the package takes no
time.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = Path(__file__).with_name("__init__.pyi").read_text(encoding="utf-8")
#: The module that each name comes from, and what it is called there.
_PLACES = {known: (module, name) for module, name, known in re.findall(r"^from (\S+) import (\w+) as (\w+)", _STUB, re.MULTILINE)}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
