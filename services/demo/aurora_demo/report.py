"""The run as a picture and a self-contained page."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from aurora_demo.measurement import Canary, Figure, Guard, Measurement, rolling_acceptance
from aurora_demo.scenario import Scenario, Side

_COLOURS: dict[Side, str] = {"static": "#8a8f98", "adapted": "#1a7f5a"}
_OUTCOMES = {"Promoted": "#1a7f5a", "RolledBack": "#c0392b", "Inconclusive": "#b7950b"}
_WINDOW = 16
# Of a candidate's evidence.
_LINE = (120, 28)
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
}


def picture(scenario: Scenario, measurement: Measurement, *, kind: str) -> bytes:
    """Acceptance and tokens per second over requests, both sides; `kind` is svg or png."""
    measurement = _told(scenario, measurement)
    with rc_context(_STYLE):
        figure = Picture(figsize=(10, 6), layout="constrained")
        acceptance, speed = figure.subplots(2, 1, sharex=True)
        _draw_phases(acceptance, scenario, labelled=True)
        _draw_phases(speed, scenario, labelled=False)
        _draw_acceptance(acceptance, measurement)
        _draw_speed(speed, measurement)
        _draw_canaries(acceptance, measurement.canaries)
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {}
        )
    return buffer.getvalue()


def page(
    scenario: Scenario,
    measurement: Measurement,
    figures: dict[str, Figure],
    notes: Sequence[str],
) -> str:
    """The report: headline figures, picture, canaries with their verdicts, and notes."""
    svg = picture(scenario, measurement, kind="svg").decode()
    svg = svg[svg.index("<svg") :]
    cards = "".join(_card(name, figures[name]) for name in _HEADLINES if name in figures)
    rows = "".join(_canary_row(canary) for canary in measurement.canaries)
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return _PAGE.format(cards=cards, picture=svg, rows=rows, notes=listed, window=_WINDOW)


def _told(scenario: Scenario, measurement: Measurement) -> Measurement:
    """What the picture tells: all but the last phase, which is as long as its verdicts take."""
    blocks = tuple(b for b in measurement.blocks if b.phase < scenario.offering_phase)
    end = scenario.requests_per_block * (1 + max(block.number for block in blocks))
    return replace(
        measurement,
        blocks=blocks,
        requests=tuple(each for each in measurement.requests if each.number < end),
        canaries=tuple(each for each in measurement.canaries if each.last_request < end),
    )


def _draw_phases(axes: Axes, scenario: Scenario, *, labelled: bool) -> None:
    start = 0
    for index, phase in enumerate(scenario.phases[: scenario.offering_phase]):
        end = start + phase.blocks * scenario.requests_per_block
        if index % 2:
            axes.axvspan(start, end, color="#f1f4f8", zorder=0)
        if labelled:
            axes.text(
                (start + end) / 2,
                1.04,
                phase.title,
                ha="center",
                transform=axes.get_xaxis_transform(),
            )
        start = end
    axes.set_xlim(0, start)


def _draw_acceptance(axes: Axes, measurement: Measurement) -> None:
    for side, colour in _COLOURS.items():
        numbers, rates = rolling_acceptance(measurement.side(side), _WINDOW)
        axes.plot(numbers, rates, color=colour, linewidth=1.8)
    axes.set_ylim(0, 1)
    axes.set_ylabel("acceptance rate")


def _draw_speed(axes: Axes, measurement: Measurement) -> None:
    size = measurement.requests_per_block
    for side, colour in _COLOURS.items():
        blocks = [block for block in measurement.blocks if block.side == side]
        edges = [block.number * size for block in blocks] + [(blocks[-1].number + 1) * size]
        axes.stairs(
            [block.tokens_per_second for block in blocks],
            edges,
            baseline=None,
            color=colour,
            label=f"{side} draft",
            linewidth=1.8,
        )
    axes.legend(loc="upper left", frameon=False)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("tokens per second")
    axes.set_xlabel("requests")


def _draw_canaries(axes: Axes, canaries: Sequence[Canary]) -> None:
    for canary in canaries:
        colour = _OUTCOMES.get(canary.outcome, "#555555")
        axes.axvspan(
            canary.first_request, canary.last_request, ymax=0.03, color=colour, alpha=0.5, lw=0
        )
        axes.axvline(canary.last_request, color=colour, linewidth=0.8, linestyle=":")


_HEADLINES = (
    "adapted_over_static",
    "adapted_over_static_net",
    "promotions",
    "refusals",
    "bad_drafts_refused",
    "failed_requests",
)
_LABELS = {
    "adapted_over_static": "adapted ÷ static, tokens/s after the shift, while serving only",
    "adapted_over_static_net": "the same over the whole phase, all training charged to it",
    "promotions": "drafts promoted",
    "refusals": "drafts refused",
    "bad_drafts_refused": "bad drafts published on purpose, refused",
    "failed_requests": "failed requests",
}


def _card(name: str, figure: Figure) -> str:
    shown = f"{figure.value:.2f}×" if figure.unit == "ratio" else f"{figure.value:.0f}"
    return f'<div class="card"><b>{shown}</b><span>{html.escape(_LABELS[name])}</span></div>'


def _canary_row(canary: Canary) -> str:
    effect = "" if canary.effect_bps is None else f"{canary.effect_bps / 100:+.1f} pp"
    saved = "" if canary.saved_bps is None else f"{canary.saved_bps / 100:+.1f}%"
    if canary.saved_ci_bps is not None:
        low, high = canary.saved_ci_bps
        saved += f" ({low / 100:+.1f} to {high / 100:+.1f})"
    replayed = "" if canary.replayed is None else str(canary.replayed)
    colour = _OUTCOMES.get(canary.outcome, "#555555")
    named = f"{canary.checkpoint}, {canary.offered}" if canary.offered else canary.checkpoint
    guards = ", ".join(map(_guard, canary.guards))
    cells = (canary.id, named, replayed, saved, str(canary.requests), effect, guards)
    columns = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    verdict = html.escape(
        f"{canary.outcome} ({canary.reason})" if canary.reason else canary.outcome
    )
    drawn = _evidence_line(canary.evidence, canary.threshold, colour)
    return f'<tr>{columns}<td>{drawn}</td><td style="color:{colour}">{verdict}</td></tr>'


def _guard(guard: Guard) -> str:
    sign = "–" if guard.held is None else "✓" if guard.held else "✗"
    return f"{sign} {guard.name}"


def _evidence_line(log_e: Sequence[float], threshold: float, colour: str) -> str:
    """log E as it grew, below a dotted line at its threshold; empty without either."""
    if not log_e or threshold <= 0:
        return ""
    width, height = _LINE
    top, bottom = max(threshold, *log_e), min(0.0, *log_e)

    def across(number: int) -> float:
        return width * (number + 1) / len(log_e)

    def down(value: float) -> float:
        return 1 + (height - 2) * (top - value) / (top - bottom)

    points = " ".join(f"{across(n):.1f},{down(value):.1f}" for n, value in enumerate(log_e))
    level = f"{down(threshold):.1f}"
    return (
        f'<svg class="line" viewBox="0 0 {width} {height}" role="img">'
        f"<title>log E {log_e[-1]:.2f}, promoted at {threshold:.2f}</title>"
        f'<line x1="0" x2="{width}" y1="{level}" y2="{level}" stroke="#8a8f98" '
        'stroke-dasharray="2 2"/>'
        f'<polyline points="0,{down(0.0):.1f} {points}" fill="none" stroke="{colour}" '
        'stroke-width="1.5"/></svg>'
    )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Aurora demo</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1d2329; max-width: 1000px; margin: 2rem auto;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem; }} h2 {{ font-size: 1.1rem; margin-top: 2rem; }}
.cards {{ display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }}
.card {{ flex: 1 1 150px; border: 1px solid #dde2e8; border-radius: 8px; padding: .7rem .9rem; }}
.card b {{ display: block; font-size: 1.6rem; }} .card span {{ color: #5b6570; font-size: .85rem; }}
svg {{ width: 100%; height: auto; }} svg.line {{ width: 120px; }}
table {{ border-collapse: collapse; width: 100%; }}
td, th {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #e6eaef; }}
</style></head><body>
<h1>The draft that keeps learning</h1>
<p>The same requests, sent to a deployment whose draft is frozen and to one whose draft learns from
them and is replaced whenever another one has proved to be faster.</p>
<div class="cards">{cards}</div>
{picture}
<p>Acceptance rate over the last {window} requests; gaps mean that the engine had turned
speculation off because it did not pay. The bars at the foot are canaries, each ending in its
verdict: green promoted, red rolled back, yellow inconclusive.</p>
<h2>Canaries</h2>
<p>Both drafts are replayed on the same recorded requests: the verify steps that a candidate saves
decide, with their 95% interval. Their evidence grows with the requests, and promotes at the dotted
line. The requests that a candidate serves live guard the promotion: each guard held (✓), did not
(✗), or had nothing to measure (–). After what the picture shows, a worse and a slower draft are
published on purpose.</p>
<table><tr><th>rollout</th><th>checkpoint</th><th>requests replayed</th><th>steps saved</th>
<th>live requests</th><th>acceptance, live</th><th>guards</th><th>evidence</th><th>verdict</th></tr>
{rows}</table>
<h2>What was run</h2><ul>{notes}</ul>
</body></html>
"""
