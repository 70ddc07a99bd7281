"""tvmmobile is a compiler for vision networks on ARM CPUs, MobileNets first.

    import tvmmobile as tm

    net = tm.load("mobilenet_v1", alpha=0.25, resolution=128)
    library = tm.compile(net, device="pi4")
    print(library.bench(device="pi4").latency_ms)

docs/api.md shows the rest. `__init__.pyi` lists what there is. Each name is imported when it is first used: importing the package takes no
time.
"""

from tvmmobile.system.lazy import lazy_names

__version__ = "0.1.0"
__getattr__, __dir__ = lazy_names(__name__)
