"""Mutations of samples that readers accept: of bytes, of text, of JSON values and of the members of a zip archive.

Everything is drawn from one `random.Random`, so that a number is all that is needed to make an input again, and Hypothesis, which gives
such an object too, can shrink one.
"""

from __future__ import annotations

import io
import json
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from random import Random
from typing import Any, Literal

#: What a sample consists of, and so how it is mutated; `lines`: a JSON value a line; the last three are networks.
Shape = Literal["bytes", "text", "json", "lines", "zip", "onnx", "litert", "pt2"]
#: Bytes at random seldom leave anything of these to read.
_NETWORKS = ("onnx", "litert", "pt2")
#: A level of a list takes five lines of stack in some parsers; more is refused by all.
_DEEP = 100_000
#: Of a member that is unpacked: more than readers may take.
_BOMB_BYTES = 3 << 30
#: Written as they stand where a JSON value belongs.
RAW_VALUES = (
    *("null", "true", "false", "{}", "[]", '""', "0", "-0", "-1", "1", "0.5", "-1e-9", "1e-320", "1e300", "1e999999", "-1e999999"),
    *("NaN", "Infinity", "-Infinity", "2147483648", "9223372036854775808", "-9223372036854775809", "1" + "0" * 40, "9" * 5000),
    *(
        '"NaN"',
        '"1"',
        '"\\ud800"',
        '"\\u0000"',
        '"\\u001b[2J"',
        '"\\u202e"',
        '"../../etc/passwd"',
        '"=1+1"',
        '"%s%n{0}"',
        f'"{"x" * 3000}"',
    ),
    *("[null]", "[[]]", '{"":{}}', "[1,2,3,4,5,6,7,8,9]", "[" * 40 + "]" * 40, "[" * 700 + "]" * 700, "[" * 2000 + "]" * 2000),
    *("undefined", "'a'", "01", "1_000", "+1", ".5", "0x10", "1.", '"\t"', '"unfinished'),
)
#: Put where a word or a number of a text stands.
_WORDS = (
    *("", "0", "-1", "1", "65536", "4294967295", "18446744073709551616", "9" * 5000, "1e999", "nan", "inf", "0x", "0x10", "٣", "²"),
    *(
        "\0",
        "\r",
        "\r\n",
        "\n",
        "\v",
        "\x1b[31m",
        "\u2028",
        "\u202e",
        "\ud7ff",
        "%h",
        "%",
        "~",
        "~nobody/x",
        "$HOME",
        "*",
        "!",
        "?",
        "[",
        "]",
    ),
    *('"', "'", "\\", "|", "|1|", "=", "==", ",", ":", "/", "../..", "#", "@", "a" * 5000, "none", "yes", "true"),
)
#: Whole texts that belong to no sample.
_STRANGERS = (
    *(b"", b"\0", b"\n", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[]", b"{}", b"null", b"1", b'""', b"NaN", b"\x80\x04K\x01.", b"PK\x03\x04"),
    *(b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b"9" * 100_000, b"1e" + b"9" * 1000, b"a=" * 5000),
)
_TOKEN = re.compile(r"[\w.+-]+")
_SIZES = ("<B", "<H", "<I", "<Q", ">H", ">I", ">Q")
_SMALL_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 31, 64, 127, 128, 255, 256)
_LARGE_NUMBERS = (4096, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63)
_NUMBERS = (*_SMALL_NUMBERS, *_LARGE_NUMBERS)


def mutated(sample: bytes, shape: Shape, random: Random) -> bytes:
    """Return a sample with one to four mutations; now and then something else altogether."""
    if random.randrange(200) == 0:
        return random.choice(_STRANGERS)
    content = sample
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4))):
        well_formed = random.randrange(40 if shape in _NETWORKS else 5)
        content = _structured(content, shape, random) if well_formed else mutate_bytes(content, random)
    return content


def _structured(content: bytes, shape: Shape, random: Random) -> bytes:
    """Return one mutation that keeps the rest of the structure."""
    match shape:
        case "bytes":
            return mutate_bytes(content, random)
        case "text":
            return mutate_text(content, random)
        case "json":
            return mutate_json(content, random)
        case "lines":
            return _mutate_lines(content, random)
        case "zip":
            return _mutate_zip(content, random)
        case "onnx":
            from hostile.onnx_mutations import mutate_onnx

            return mutate_onnx(content, random)
        case "litert":
            from hostile.litert_mutations import mutate_litert

            return mutate_litert(content, random)
        case "pt2":
            from hostile.pt2_mutations import mutate_pt2

            return mutate_pt2(content, random)


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Flips, cuts, repeats, or writes a number over some bytes."""
    if not content:
        return random.randbytes(random.randrange(64))
    place = random.randrange(len(content))
    length = min(len(content) - place, random.choice((1, 2, 4, 8, 16, 64, 1024)))
    kind = random.randrange(8)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ 1 << random.randrange(8)]) + content[place + 1 :]
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + content[place + length :]
    if kind == 3:
        return content[:place] + content[place : place + length] * random.choice((2, 3, 100)) + content[place + length :]
    if kind == 4:
        return content[:place] + random.randbytes(length) + content[place + length :]
    if kind == 5:
        other = random.randrange(len(content))
        return content[:place] + content[other : other + length] + content[place + length :]
    if kind == 6:
        return content[:place] + random.choice((b"\0", b"\xff", b"\r", b"\n", b"\x1b", b"\xed\xa0\x80", b"\xef\xbb\xbf")) + content[place:]
    size = random.choice(_SIZES)
    number = (random.choice(_NUMBERS) + random.choice((-1, 0, 0, 0, 1))) % (1 << 8 * struct.calcsize(size))
    return (content[:place] + struct.pack(size, number) + content[place + struct.calcsize(size) :])[: max(len(content), 8)]


def mutate_text(content: bytes, random: Random) -> bytes:
    """Changes a word or a number, or the order of lines."""
    lines = content.decode("utf-8", "surrogateescape").split("\n")
    place = random.randrange(len(lines))
    line = lines[place]
    kind = random.randrange(6)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(random.randrange(len(lines) + 1), line)
    elif kind == 2:
        lines[place] = random.choice(lines)
    else:
        tokens = [match.span() for match in _TOKEN.finditer(line)] or [(0, len(line))]
        begin, end = random.choice(tokens)
        word = random.choice(_WORDS)
        kept = (begin, begin) if kind == 5 else (begin, end)
        lines[place] = line[: kept[0]] + word + line[kept[1] :]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def mutate_json(content: bytes, random: Random) -> bytes:
    """Changes one value, key or entry of a JSON text; bytes where it is not JSON any more."""
    try:
        value = _parsed(content)
    except (ValueError, RecursionError):
        return mutate_bytes(content, random)
    raw = random.choice(RAW_VALUES)
    changed = _changed(value, random)
    try:
        text = json.dumps(changed, separators=(",", ":"))
    except (ValueError, RecursionError):  # numbers with thousands of digits
        return mutate_bytes(content, random)
    return text.replace('"@raw@"', raw).replace('"@again@', '"').encode("utf-8", "surrogatepass")


@lru_cache(maxsize=64)
def _parsed(content: bytes) -> Any:
    return json.loads(content)


def _changed(value: Any, random: Random) -> Any:
    """Return a copy of a JSON value with one place changed; the original is shared, never written to."""
    if isinstance(value, dict) and value and random.randrange(8):
        key = random.choice(list(value))
        kind = random.randrange(12)
        if kind == 0:
            return {name: inner for name, inner in value.items() if name != key}
        if kind == 1:
            return value | {f"@again@{key}": "@raw@"}
        if kind == 2:
            return {(random.choice(_WORDS) if name == key else name): inner for name, inner in value.items()}
        if kind == 3:
            return value | {key: random.choice(list(value.values()))}
        return value | {key: _changed(value[key], random)}
    if isinstance(value, list) and value and random.randrange(8):
        place = random.randrange(len(value))
        kind = random.randrange(12)
        if kind == 0:
            return value[:place] + value[place + 1 :]
        if kind == 1:
            return [*value[:place], value[place], *value[place:]]
        if kind == 2:
            return value[:place]
        return [*value[:place], _changed(value[place], random), *value[place + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 and random.randrange(2):
        return random.choice((value + 1, value - 1, -value, value * 2, value // 2, value * 1000, float(value), str(value)))
    if isinstance(value, str) and random.randrange(2):
        return mutate_text(value.encode("utf-8", "surrogatepass"), random).decode("utf-8", "replace")
    return "@raw@"


def _mutate_lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    place = random.randrange(len(lines))
    kind = random.randrange(8)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, lines[place])
    else:
        lines[place] = mutate_json(lines[place], random)
    return b"\n".join(lines)


def _mutate_zip(content: bytes, random: Random) -> bytes:
    """Changes a member, its name or how it is packed; bytes where it is no archive any more."""
    try:
        members = list(_members(content))
    except Exception:  # whatever a damaged archive is to zipfile
        return mutate_bytes(content, random)
    if not members:
        return mutate_bytes(content, random)
    place = random.randrange(len(members))
    name, inner = members[place]
    if random.randrange(100) == 0:
        return _bomb(members, place)
    kind = random.randrange(10)
    if kind == 0:
        del members[place]
    elif kind == 1:
        members.append((name, random.choice(members)[1]))
    elif kind == 2:
        members[place] = (random.choice(("../../x", "/x", name + "/", "", name.upper(), "a\x1b[2J", name * 50)), inner)
    else:
        edit: Callable[[bytes, Random], bytes] = mutate_json if inner[:1] in (b"{", b"[") else random.choice((mutate_bytes, mutate_text))
        members[place] = (name, edit(inner, random))
    return packed(members, zipfile.ZIP_DEFLATED if kind == 3 else zipfile.ZIP_STORED)


@lru_cache(maxsize=64)
def _members(content: bytes) -> tuple[tuple[str, bytes], ...]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(info.file_size for info in archive.infolist()) > 1 << 20:
            raise ValueError("it is a bomb already")
        return tuple((info.filename, archive.read(info)) for info in archive.infolist())


@lru_cache(maxsize=1)
def _zeros() -> bytes:
    """`_BOMB_BYTES` of zeros, deflated: blocks that do not refer to one another, so that one of them can be repeated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (_BOMB_BYTES >> 20) + zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS).flush()


def _bomb(members: Sequence[tuple[str, bytes]], place: int) -> bytes:
    """Return an archive one member of which is much larger when it is unpacked; the checksum at its end is wrong."""
    name = members[place][0]
    archive = bytearray(packed([*members[:place], (name, _zeros()), *members[place + 1 :]]))
    with zipfile.ZipFile(io.BytesIO(archive)) as reader:
        info = reader.infolist()[place]
        local, central = info.header_offset, reader.start_dir
        for earlier in reader.infolist()[:place]:
            central += 46 + len(earlier.orig_filename.encode())
    for method_at, size_at in ((local + 8, local + 22), (central + 10, central + 24)):
        struct.pack_into("<H", archive, method_at, zipfile.ZIP_DEFLATED)
        struct.pack_into("<I", archive, size_at, _BOMB_BYTES)
    return bytes(archive)


def packed(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # a name twice
        for name, inner in members:
            archive.writestr(zipfile.ZipInfo(name or "\0"), inner, method)
    return stream.getvalue()
