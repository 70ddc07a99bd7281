"""Reads a board's description: cores, clocks, caches, memory, system. It needs only `sh` and `cat` there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tvmmobile.devices.board.registered import MOST_HZ, Facts, LinuxCore
from tvmmobile.devices.board.remote import Remote
from tvmmobile.native.instructions import MACHINE_FEATURES
from tvmmobile.system.emulators import DESCRIBING, emulator_described
from tvmmobile.system.errors import DeviceUnavailable

#: Number of cores, caches and sensors that are queried first, and most caches and sensors.
_MOST_CORES, _MOST_CACHES, _MOST_ZONES = 16, 5, 16
#: Linux supports at most 4096 cores on AArch64.
_MOST_NUMBER = 4095
_CAT = 'for file in "$@"; do printf "\\n@@ %s\\n" "$file"; cat "$file" 2>/dev/null; done; exit 0'
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_HZ_PER_KHZ = 1e3
#: Android's name for AArch64.
_ANDROID_ABI = "arm64-v8a"
#: What a 64-bit kernel calls itself to programs with a 32-bit personality, such as the login shell of a 32-bit system.
_FOR_32_BIT_PROGRAMS = "armv8l"
#: Types of thermal zones without information: a Jetson's power controller is always at 100 °C.
_CONSTANT_SENSORS = ("PMIC-Die",)


def read_files(remote: Remote, paths: Sequence[str]) -> dict[str, str]:
    """Return the content of files of the board, stripped, in one round trip; those that cannot be read are empty."""
    text = remote.run(["sh", "-c", _CAT, "sh", *paths]).stdout
    found = dict.fromkeys(paths, "")
    for section in text.split("\n@@ ")[1:]:
        path, _, content = section.partition("\n")
        found[path] = content.replace("\0", "").strip()
    return found


def probe(remote: Remote, root: str = "/", emulated: bool = False, architecture: str = "") -> Facts:
    """Read the board's description.

    Args:
        root: the tree whose `proc`, `sys` and `etc` describe it.
        emulated: its programs run in an emulator, so what they report about the machine is not about the board.
        architecture: the board's architecture where it is known, whatever its kernel says.

    Raises:
        DeviceUnavailable: it is not a 64-bit Arm board.
    """
    prefix = root.rstrip("/")
    cpu = f"{prefix}/sys/devices/system/cpu"
    names = {
        "arch": f"{prefix}/proc/sys/kernel/arch",
        "release": f"{prefix}/proc/sys/kernel/osrelease",
        "cpuinfo": f"{prefix}/proc/cpuinfo",
        "meminfo": f"{prefix}/proc/meminfo",
        "os": f"{prefix}/etc/os-release",
        "model": f"{prefix}/proc/device-tree/model",
        "governor": f"{cpu}/cpu0/cpufreq/scaling_governor",
    }
    clocks = [_clock_file(cpu, index) for index in range(_MOST_CORES)]
    caches = [f"{cpu}/cpu0/cache/index{index}/{field}" for index in range(_MOST_CACHES) for field in ("level", "type", "size")]
    describing = [f"{prefix}/{name}" for name in DESCRIBING]
    files = read_files(remote, [*names.values(), *describing, *clocks, *caches, *temperature_files(prefix)])
    android = _android(remote)
    # On a phone the device tree names a chip maker's board, if it can be read at all.
    model = android.get("model", "") or files[names["model"]]
    _check_android(android.get("abis", ""), model)
    # Kernels before 6.1 have no such file.
    architecture = (
        architecture or files[names["arch"]] or (android.get("architecture", "") if emulated else _output_of(remote, ["uname", "-m"]))
    )
    if architecture == _FOR_32_BIT_PROGRAMS:
        architecture = "aarch64"
    _check_architecture(architecture, model)
    numbers = core_numbers(files[names["cpuinfo"]])
    if further := range(_MOST_CORES, max(numbers, default=0) + 1):  # a server
        clocks += [_clock_file(cpu, number) for number in further]
        files |= read_files(remote, clocks[_MOST_CORES:])
    cores = parse_cores(files[names["cpuinfo"]], [files[path] for path in clocks])
    if not cores:
        raise DeviceUnavailable("the board's /proc/cpuinfo names no core.", "tvmmobile needs Linux or Android on 64-bit Arm.")
    l1d, l2 = _cache_sizes([tuple(files[path] for path in caches[start : start + 3]) for start in range(0, len(caches), 3)])
    return Facts(
        architecture=architecture,
        model=model,
        cores=cores,
        memory_bytes=parse_memory(files[names["meminfo"]]),
        system=android.get("system", "") or _pretty_name(files[names["os"]]),
        kernel=files[names["release"]] or ("" if emulated else _output_of(remote, ["uname", "-r"])),
        libc="bionic" if android else ("" if emulated else _output_of(remote, ["getconf", "GNU_LIBC_VERSION"])),
        l1d_bytes=l1d,
        l2_bytes=l2,
        governor=files[names["governor"]],
        temperature_c=max(temperatures_in(files, prefix).values(), default=None),
        api_level=number_in(android.get("api", "")),
        emulator="" if emulated else emulator_described(*(files[path] for path in describing)),
        numbers=() if numbers == tuple(range(len(numbers))) else numbers,
    )


def _clock_file(cpu: str, index: int) -> str:
    return f"{cpu}/cpu{index}/cpufreq/cpuinfo_max_freq"


def _output_of(remote: Remote, words: Sequence[str]) -> str:
    """Return output of a program on the board; "" if it fails or is missing."""
    done = remote.run(words)
    return done.stdout.strip() if done.status == 0 else ""


def _android(remote: Remote) -> dict[str, str]:
    """Return Android's properties; empty on other systems."""
    names = {"api": "ro.build.version.sdk", "release": "ro.build.version.release", "maker": "ro.product.manufacturer"}
    names |= {"product": "ro.product.model", "soc": "ro.soc.model", "abis": "ro.product.cpu.abilist"}
    script = 'command -v getprop >/dev/null || exit 1; for name in "$@"; do printf "%s\\n" "$(getprop "$name")"; done'
    done = remote.run(["sh", "-c", script, "sh", *names.values()])
    if done.status != 0:
        return {}
    facts = dict(zip(names, (line.strip() for line in done.stdout.splitlines()), strict=False))
    soc = f" ({facts['soc']})" if facts.get("soc") else ""
    model = f"{facts.get('maker', '')} {facts.get('product', '')}".strip() + soc
    found = {"api": facts.get("api", ""), "system": f"Android {facts.get('release', '')}".strip(), "model": model}
    return found | {
        "abis": facts.get("abis", ""),
        "architecture": "aarch64" if _ANDROID_ABI in facts.get("abis", "").split(",") else "",
    }


def _check_android(abis: str, model: str) -> None:
    """Raise `DeviceUnavailable` unless Android's binary interfaces `abis`, if it tells any, include AArch64's."""
    if abis and _ANDROID_ABI not in abis.split(","):
        raise DeviceUnavailable(
            f"{model or 'the phone'} runs an Android without {_ANDROID_ABI} ({abis}); libraries are made for AArch64.",
            "Use a phone with a 64-bit Android; adb shell getprop ro.product.cpu.abilist tells.",
        )


def _check_architecture(architecture: str, model: str) -> None:
    if architecture in ("aarch64", "arm64"):
        return
    board = model or "the board"
    if architecture.startswith("arm"):
        raise DeviceUnavailable(
            f"{board} runs a 32-bit kernel ({architecture}); libraries are made for AArch64.",
            "Install the 64-bit system; on a Raspberry Pi, arm_64bit=1 in config.txt gives a 64-bit kernel.",
        )
    raise DeviceUnavailable(f"{board} is not an AArch64 board but {architecture or 'unknown'}.", "tvmmobile compiles only for 64-bit Arm.")


def parse_cores(cpuinfo: str, max_khz: Sequence[str]) -> tuple[LinuxCore, ...]:
    """Return cores from the text of /proc/cpuinfo and the highest clock in kHz, as text, of the cores numbered 0, 1 and so on."""
    cores = []
    for number, part, fields in _described_cores(cpuinfo):
        clock_hz = (number_in(max_khz[number]) or 0) * _HZ_PER_KHZ if number < len(max_khz) else 0.0
        implementer = number_in(fields.get("CPU implementer", "")) or 0
        words = fields.get("Features", "").split()
        has = tuple(name for name, feature in MACHINE_FEATURES.items() if feature.name in words) if words else None
        cores.append(LinuxCore(implementer=implementer, part=part, max_hz=clock_hz if clock_hz <= MOST_HZ else 0.0, has=has))
    return tuple(cores)


def core_numbers(cpuinfo: str) -> tuple[int, ...]:
    """Return the numbers of the cores that `parse_cores` finds; those of cores that are offline are missing."""
    return tuple(number for number, _, _ in _described_cores(cpuinfo))


def _described_cores(cpuinfo: str) -> Iterator[tuple[int, int, Mapping[str, str]]]:
    """Yield number, part and fields of each core in /proc/cpuinfo that has the first two."""
    for section in re.split(r"\n\s*\n", cpuinfo):
        fields = dict(re.findall(r"^([^:\n]+?)\s*:[ \t]*(.*)$", section, re.MULTILINE))
        number, part = number_in(fields.get("processor", "")), number_in(fields.get("CPU part", ""))
        if number is not None and number <= _MOST_NUMBER and part is not None:
            yield number, part, fields


def number_in(text: str) -> int | None:
    """Return a number of at most 15 decimal digits, or of hexadecimal ones after 0x; `None` for any other text."""
    found = re.fullmatch(r"0[xX][0-9a-fA-F]{1,12}|[0-9]{1,15}", text)
    return None if found is None else int(text, 16 if text[1:2] in ("x", "X") else 10)


def parse_memory(meminfo: str) -> int:
    """Return MemTotal of /proc/meminfo in bytes; 0 where it is missing."""
    found = re.search(r"^MemTotal:\s+([0-9]{1,15}) kB", meminfo, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def temperature_files(prefix: str) -> list[str]:
    """Return the files from which `temperatures_in` reads: type and reading of each thermal zone below `prefix`."""
    return [f"{prefix}/sys/class/thermal/thermal_zone{index}/{name}" for index in range(_MOST_ZONES) for name in ("type", "temp")]


def temperatures_in(files: Mapping[str, str], prefix: str) -> dict[str, float]:
    """Return the sensors' plausible temperatures in °C, by the names of their zones."""
    paths = temperature_files(prefix)
    zones = zip(paths[::2], paths[1::2], strict=True)
    told = {path.split("/")[-2]: files[path] for kind, path in zones if files[kind] not in _CONSTANT_SENSORS}
    readings = {zone: int(text) / 1000 for zone, text in told.items() if re.fullmatch(r"-?[0-9]{1,9}", text)}
    return {zone: reading for zone, reading in readings.items() if 0 < reading < 150}


def _pretty_name(os_release: str) -> str:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)"?$', os_release, re.MULTILINE)
    return found[1] if found else ""


def _cache_sizes(described: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Return the sizes of the first-level data cache and of the second level, 0 if unknown."""
    sizes: Mapping[tuple[str, str], int] = {(level, kind): _bytes(size) for level, kind, size in described}
    return sizes.get(("1", "Data"), 0), sizes.get(("2", "Unified"), 0)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([KMG]?)", text)
    return int(found[1]) * _UNITS[found[2]] if found else 0
