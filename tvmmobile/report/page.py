"""Results as one HTML page that needs nothing else: style and plots are inside, and it may load nothing (its own policy forbids it).

For later interactive parts: every element that stands for a variant has `data-variant`, its number in the report; rows and plot marks also
have their values as `data-…`.
"""

from __future__ import annotations

from pathlib import Path

from tvmmobile.report import wording
from tvmmobile.report.facts import facts, fit_sentence
from tvmmobile.report.kernel_rows import kernel_rows, kind_rows
from tvmmobile.report.plots import FONT, HEIGHT, RADIUS, WIDTH, accuracy_plots, scaling_plot
from tvmmobile.report.view import View

_TEMPLATES = Path(__file__).parent / "templates"


def page(view: View) -> str:
    """The text of `report.html`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_finalized,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("latency_ms", "millions", "percent", "mebibytes", "scientific", "plural", "label_of"):
        environment.filters[name] = getattr(wording, name)
    environment.globals.update(unknown=wording.UNKNOWN, width=WIDTH, height=HEIGHT, font=FONT, radius=RADIUS)
    context = view.context
    return environment.get_template("page.html.j2").render(
        view=view,
        context=context,
        origin=wording.origin(context),
        caption=wording.origin_caption(context),
        facts=facts(view),
        fit_sentence=fit_sentence(view.fit, context) if view.fit else "",
        plots=[*accuracy_plots(view), scaling_plot(view)],
        kernels={row.index: kernel_rows(row.variant, context) for row in view.rows},
        kinds={row.index: kind_rows(row.variant) for row in view.rows},
    )


def _finalized(value: object) -> object:
    """What a template prints: text from results without invisible characters; what a macro rendered as it is."""
    return wording.clean(value) if type(value) is str else value
