"""Tests of what measurements say of a model: ranks, and the term that errs."""

from __future__ import annotations

import pytest
from validation_samples import PI4, observed, parameters

from tvmmobile.virtual.calibration.residuals import CORE, erring, relative_errors, spearman, term_errors
from tvmmobile.virtual.calibration.terms import TERMS


def test_rank_correlation() -> None:
    assert spearman([(1, 10), (2, 20), (3, 25), (4, 400)]) == 1
    assert spearman([(1, 4), (2, 3), (3, 2), (4, 1)]) == -1
    assert spearman([(1, 1), (2, 2), (3, 4), (4, 3)]) == pytest.approx(0.8)
    assert spearman([(1, 1), (2, 2), (3, 3)]) is None and spearman([(1, 1), (1, 2), (1, 3), (1, 4)]) is None and spearman([]) is None


@pytest.mark.parametrize("name", [CORE, *TERMS])
def test_the_term_that_errs_is_named_with_what_it_should_be(name: str) -> None:
    values = {CORE: 1.0} | {p.name: p.value for p in parameters()}
    true = values[name] + 0.4
    seen = observed(24, 0.01, core=true) if name == CORE else observed(24, 0.01, **{name: true})
    errors = relative_errors(PI4, parameters(), seen)
    terms = term_errors(PI4, parameters(), seen)
    found = erring(terms, errors)
    assert found is not None and found.name == name and found.explained > 0.8
    assert found.value == values[name] and found.alone == pytest.approx(true, rel=0.1)
    assert len(terms) == 1 + len(TERMS) and [t.explained for t in terms] == sorted((t.explained for t in terms), reverse=True)


def test_a_good_model_has_no_term_that_errs() -> None:
    seen = observed(24, 0.005)
    errors = relative_errors(PI4, parameters(), seen)
    assert max(map(abs, errors)) < 0.02 and erring(term_errors(PI4, parameters(), seen), errors) is None
    exact = observed(24)
    assert all(term.explained == 0 or term.alone == pytest.approx(term.value) for term in term_errors(PI4, parameters(), exact))


def test_errors_that_no_term_explains_are_blamed_on_none() -> None:
    seen = observed(40, 0.3)
    errors = relative_errors(PI4, parameters(), seen)
    assert max(map(abs, errors)) > 0.2 and erring(term_errors(PI4, parameters(), seen), errors) is None


def test_a_term_is_never_negative() -> None:
    low = parameters(cache_hits=0.05)
    seen = observed(24, cache_hits=-0.2)
    hits = next(term for term in term_errors(PI4, low, seen) if term.name == "cache_hits")
    assert hits.alone == 0.0 and 0 < hits.explained < 1
