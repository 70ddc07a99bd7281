"""Packs a C library into a Python wheel for AArch64 Linux, which needs NumPy alone."""

from __future__ import annotations

import base64
import hashlib
import keyword
import re
import sys
from pathlib import Path

from tvmmobile.kernels import ranked
from tvmmobile.packaging import python
from tvmmobile.packaging.archives import fastest_sentence, title_of, zipped
from tvmmobile.running.library import Library, checked_library
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_bytes

#: C libraries need nothing of the system's, so that the oldest glibc for AArch64 will do, and musl.
_TAGS = ("manylinux_2_17_aarch64", "manylinux2014_aarch64", "musllinux_1_1_aarch64")
_MODULES = (*(Path(python.__file__).with_name(f"{name}.py") for name in ("network", "check")), Path(ranked.__file__))
#: Of a module; pip installs no package whose name ends with an underscore.
_NAME = re.compile(r"[a-z]([a-z0-9_]{0,98}[a-z0-9])?")
#: The usual forms of PEP 440.
_RELEASE = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?")

_INIT = '''\
"""{title}: `run` computes it for arrays, `network()` is the object behind it."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from typing import Any

from .network import Network, Port

__all__ = ["Network", "Port", "network", "run"]
__version__ = "{release}"
LIBRARY = Path(__file__).with_name("library.so")
_loading = threading.Lock()
os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)


@functools.cache
def _network() -> Network:
    return Network(LIBRARY)


def network() -> Network:
    """Return the network that `run` uses; it is loaded at the first call."""
    with _loading:
        return _network()


def run(*inputs: Any) -> Any:
    """Compute the network's outputs: one array, or a tuple where there are several. See `Network.run`."""
    return network().run(*inputs)
'''
_MAIN = '''\
"""Compares the network with its reference output, and times it."""

import sys
from pathlib import Path

from .check import main

sys.exit(main(Path(__file__).parent, {tolerance!r}, {quantised!r}))
'''
_DESCRIPTION = """\
{title}, compiled for {core} by tvmmobile {version}.

```python
import {name}

{name}.network().inputs   # names, shapes and types
{name}.run(image)
```
{threads}
`python -m {name}` compares it with its reference output and times it.
"""


def write_wheel(library: Library, out: str | Path, name: str | None = None, release: str = "1.0") -> Path:
    """Write a wheel of a library.

    Args:
        library: a C library.
        out: folder of the wheel.
        name: name of the module; default: what the library's functions begin with.
        release: the wheel's version.

    Returns:
        The path of the wheel.

    Raises:
        UserError: the library is not a C library, a name or version cannot be used, or a file is missing.
    """
    if not checked_library(library).is_c:
        raise UserError(f"{library.path} is not a C library.", "Compile one: tvmmobile compile --format c")
    facts = library.facts
    name = facts.program.prefix.lower() if name is None else name
    if _NAME.fullmatch(name) is None or keyword.iskeyword(name):
        raise UserError(f"{name} cannot be the name of a Python module.", "Give --name lower-case letters, digits and underscores.")
    if name in {*sys.stdlib_module_names, "numpy"}:
        raise UserError(f"{name} is a module that Python or NumPy brings, and one would hide the other.", "Give --name another name.")
    if _RELEASE.fullmatch(release) is None:
        raise UserError(f"{release} is not a version of a Python package.", "Give --release numbers such as 1.0 or 2.1.3.")
    title = title_of(library)
    about = {
        "title": title,
        "name": name,
        "release": release,
        "core": ", ".join(facts.cores),
        "threads": f"\n{threads}\n" if (threads := fastest_sentence(facts)) else "",
        "version": facts.versions.get("tvmmobile", ""),
    }
    library.reference()  # raises for a damaged one
    files = {
        f"{name}/__init__.py": _INIT.format(**about).encode(),
        f"{name}/__main__.py": _MAIN.format(tolerance=library.tolerance, quantised=facts.quantised).encode(),
        f"{name}/py.typed": b"",
        **{f"{name}/{path.name}": path.read_text(encoding="utf-8").replace(ranked.__name__, ".ranked").encode() for path in _MODULES},
        f"{name}/library.so": library.path.read_bytes(),
        f"{name}/library.json": library.manifest_path.read_bytes(),
        f"{name}/library.reference.npz": library.reference_path.read_bytes(),
    }
    folder, tag = f"{name}-{release}.dist-info", f"py3-none-{'.'.join(_TAGS)}"
    header = {"Metadata-Version": "2.1", "Name": name.replace("_", "-"), "Version": release, "Summary": title}
    header |= {"Requires-Python": ">=3.9", "Requires-Dist": "numpy", "Description-Content-Type": "text/markdown"}
    files[f"{folder}/METADATA"] = f"{_lines(header)}\n{_DESCRIPTION.format(**about)}".encode()
    wheel = [("Wheel-Version", "1.0"), ("Generator", "tvmmobile"), ("Root-Is-Purelib", "false")]
    files[f"{folder}/WHEEL"] = "".join(
        f"{key}: {value}\n" for key, value in [*wheel, *(("Tag", f"py3-none-{each}") for each in _TAGS)]
    ).encode()
    files[f"{folder}/RECORD"] = _record(files, f"{folder}/RECORD").encode()
    path = Path(out) / f"{name}-{release}-{tag}.whl"
    write_bytes(path, zipped(files))
    return path


def _lines(header: dict[str, str]) -> str:
    return "".join(f"{key}: {value}\n" for key, value in header.items())


def _record(files: dict[str, bytes], own: str) -> str:
    """Return the digests and sizes of all files, as pip compares them."""
    lines = []
    for path, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"])
