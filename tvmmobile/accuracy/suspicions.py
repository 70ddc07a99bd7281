"""Signs that an evaluation's images, labels or preprocessing are wrong, rather than the network."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from tvmmobile.accuracy.evaluation_file import EvaluationFile, ImageResult
from tvmmobile.accuracy.noise import is_noise
from tvmmobile.results.report.wording import plural

#: Both hypotheses of `_is_guessing` need more than this probability.
_LEAST_LIKELY = 0.01
#: Images of a class that show which class they mostly get.
_LEAST_IMAGES = 3
#: Descriptions of untrained weights, whose accuracy is that of guessing.
_GENERATED = "seeded "


def suspicions(file: EvaluationFile) -> tuple[str, ...]:
    """Return a sentence for each sign; none for noise or generated weights, whose accuracy is meaningless."""
    context = file.context
    read = [result for result in file.images if result.original_top5]
    if not read or is_noise(context.folder) or context.weights.startswith(_GENERATED):
        return ()
    return tuple(_found(file, read))


def _found(file: EvaluationFile, read: Sequence[ImageResult]) -> Iterator[str]:
    context, right, count = file.context, file.original.top1, len(read)
    labels = {result.label for result in read}
    if len(labels) == 1 and count > 1:
        yield f"All {count} images have class {labels.pop()}: top-1 means little. Give images of several classes."
        return
    if offset := _offset(read):
        higher = f"{abs(offset)} {'higher' if offset > 0 else 'lower'}"
        yield (
            f"Most images get a class {higher} than their label: the classes are numbered differently, as with a background class. "
            "Give --labels FILE with the network's classes in its order, or name the folders by class number."
        )
        return
    swapped = _swapped(read)
    for first, second in swapped:
        yield f"Most images of class {first} get class {second}, and the other way round: their folders may be swapped."
    if not swapped and _is_guessing(right, count, context.classes):
        yield (
            f"{right} of {plural(count, 'image')} right is no better than guessing among {context.classes} classes. "
            f"Suspect the preprocessing first: every image got {context.preprocessing}. "
            "Compare size, crop, channel order, mean and standard deviation with the training's (--mean, --std, --no-resize); "
            "then check the order of the classes (--labels)."
        )


def _offset(read: Sequence[ImageResult]) -> int:
    """Return the difference between class and label of most images; 0 unless it is the same for most, over several classes."""
    differences = [result.original_top5[0] - result.label for result in read]
    offset, count = Counter(differences).most_common(1)[0]
    several = len({result.label for result, difference in zip(read, differences, strict=True) if difference == offset})
    return offset if 2 * count > len(read) and several >= _LEAST_IMAGES else 0


def _swapped(read: Sequence[ImageResult]) -> list[tuple[int, int]]:
    """Return pairs of classes of which most images get the other one."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    for result in read:
        found[result.label].append(result.original_top5[0])
    mostly: dict[int, int] = {}
    for label, classes in found.items():
        answer, count = Counter(classes).most_common(1)[0]
        if count >= _LEAST_IMAGES and 2 * count > len(classes):
            mostly[label] = answer
    return sorted((label, answer) for label, answer in mostly.items() if label < answer and mostly.get(answer) == label)


def _is_guessing(right: int, count: int, classes: int) -> bool:
    """Return whether guessing explains the number of right images, while a network halfway between guessing and perfection would not."""
    from scipy.stats import binom

    chance = 1 / classes
    return bool(binom.sf(right - 1, count, chance) > _LEAST_LIKELY > binom.cdf(right, count, (1 + chance) / 2))
