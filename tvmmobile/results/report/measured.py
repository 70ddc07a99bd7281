"""Replaces published accuracies by measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.results.file import Results, VariantResult
from tvmmobile.system.errors import UserError

#: Beginning of the source of such an accuracy.
_MEASURED = "measured on "


@dataclass(frozen=True)
class MeasuredAccuracy:
    """Top-1 of a library over labelled images.

    Attributes:
        library, library_sha256: its file name, and the digest of the `.so`.
        top1: top-1 accuracy in percent.
        images: the images that it was measured on, such as `500 images of val`.
    """

    library: str
    library_sha256: str
    top1: float
    images: str


def with_accuracies(results: Results, measured: Sequence[MeasuredAccuracy]) -> Results:
    """Return the results with their libraries' measured accuracies.

    Raises:
        UserError: an accuracy is of another library, or two are of one.
    """
    found = {accuracy.library_sha256: accuracy for accuracy in measured}
    if len(found) < len(measured):
        twice = next(accuracy for accuracy in measured if found[accuracy.library_sha256] is not accuracy)
        raise UserError(f"two accuracies of {twice.library} are given.", "Name one evaluation.json of each library.")
    timed = {variant.library_sha256 for variant in results.variants}
    for accuracy in measured:
        if accuracy.library_sha256 not in timed:
            raise UserError(
                f"none of the results is of {accuracy.library}, whose accuracy was measured.", "Time it: tvmmobile bench LIBRARY"
            )
    return replace(results, variants=tuple(_with_accuracy(variant, found.get(variant.library_sha256)) for variant in results.variants))


def _with_accuracy(variant: VariantResult, measured: MeasuredAccuracy | None) -> VariantResult:
    return variant if measured is None else replace(variant, top1=measured.top1, top1_source=_MEASURED + measured.images)


def is_measured(source: str) -> bool:
    """Return whether a source's accuracies were measured on the timed libraries."""
    return source.startswith(_MEASURED)
