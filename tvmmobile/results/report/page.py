"""Results as one self-contained HTML page: style, script and plots are inside, and its policy lets it load and run nothing else.

Every element that stands for a variant has `data-variant`, its number in the report; the script (`templates/page.js`) reads what it needs
from the rows of the table of variants. Without it the page shows the same numbers.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tvmmobile.results.report import wording
from tvmmobile.results.report.beside import SideBySide
from tvmmobile.results.report.facts import condition_sentence, facts, fit_sentence, law_sentence, sum_sentence, sums_sentence
from tvmmobile.results.report.figures import FONT, HEIGHT, RADIUS, WIDTH
from tvmmobile.results.report.kernel_plots import kind_bars, kind_styles, roofline_plot
from tvmmobile.results.report.kernel_rows import kernel_table, kind_rows
from tvmmobile.results.report.law import TOLERANCE
from tvmmobile.results.report.plots import accuracy_plots, course_plot, scaling_plot
from tvmmobile.results.report.view import View

_TEMPLATES = Path(__file__).parent / "templates"
#: Tooltips, and the latest that fits where a page has a field for milliseconds.
PAGE_SCRIPT = _TEMPLATES / "page.js"


def page(view: View, beside: SideBySide | None = None) -> str:
    """Return the text of `report.html`: the report of one result, below a comparison with an older one if there is one."""
    context = view.context
    tables = {row.index: kernel_table(row.variant, context) for row in view.rows if row.variant.kernels}
    styles = kind_styles(view)
    return rendered(
        _TEMPLATES / "page.html.j2",
        [PAGE_SCRIPT],
        view=view,
        beside=beside,
        context=context,
        origin=wording.origin(context),
        caption=wording.origin_caption(context),
        facts=facts(view),
        fit_sentence=fit_sentence(view.fit, context) if view.fit else "",
        law_sentence=law_sentence(view),
        tolerance=TOLERANCE,
        sums_sentence=sums_sentence(view),
        accuracy_plots=accuracy_plots(view),
        scaling_plot=scaling_plot(view),
        course_plot=course_plot(view),
        bars=kind_bars(view),
        tables=tables,
        sums={row.index: sum_sentence(tables[row.index], row.variant, context) for row in view.rows if row.index in tables},
        rooflines={row.index: roofline_plot(view, row, tables[row.index], styles) for row in view.rows if row.index in tables},
        kinds={row.index: kind_rows(row.variant) for row in view.rows},
        conditions={row.index: condition_sentence(row) for row in view.rows},
    )


def rendered(template: Path, scripts: Sequence[Path], **values: Any) -> str:
    """Return the text of a page, whose template may include those of reports.

    Args:
        template: its file.
        scripts: files that run in the page, as `script`; their digest is `script_hash`, for the page's policy.
        values: other values that the template uses.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([template.parent, _TEMPLATES]),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("latency_ms", "millions", "percent", "mebibytes", "scientific", "signed", "plural", "label_of"):
        environment.filters[name] = getattr(wording, name)
    environment.globals.update(unknown=wording.UNKNOWN, width=WIDTH, height=HEIGHT, font=FONT, radius=RADIUS)
    script = "".join(path.read_text(encoding="utf-8") for path in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Our own scripts are not escaped: their digest is in the page's policy.
    return environment.get_template(template.name).render(script=Markup(script), script_hash=digest, **values)


def _finalized(value: object) -> object:
    """Return what a template prints: text from results without invisible characters; what a macro rendered as it is."""
    return wording.clean(value) if type(value) is str else value
