"""The clauses of a rollout's rule in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from aurora_client._cli.picture import bar
from aurora_client._cli.shape import points
from aurora_client._status import Clause


def _log_e(value: float) -> str:
    return f"log E {value:.2f}"


def _share(bps: float) -> str:
    return f"{points(round(bps))}%"


def _points(bps: float) -> str:
    return f"{points(round(bps))} points"


def _count(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class _Words:
    """`{subject}` in `text` and `missing` is the clause's own; `missing` is what is waited for."""

    text: str
    number: Callable[[float], str]
    found: str
    needed: str
    missing: str = ""
    # Whether a bar shows how near it is to its bound.
    has_bar: bool = False


_WORDS: Mapping[str, _Words] = {
    "Better": _Words(
        "the evidence that it is better reaches its threshold",
        _log_e,
        "{}",
        "at least {}",
        "more evidence that it is better ({found} of {required})",
        has_bar=True,
    ),
    "SavesOverall": _Words(
        "all replayed requests together save verify steps",
        _share,
        "at least {}",
        "above {}",
        "proof that all requests together save time",
    ),
    "StepCostKnown": _Words(
        "the steps of enough live requests are timed",
        _count,
        "{}",
        "at least {}",
        "{more} more live requests whose steps are timed",
        has_bar=True,
    ),
    "MinRequests": _Words(
        "enough live requests are judged",
        _count,
        "{}",
        "at least {}",
        "{more} more live requests",
        has_bar=True,
    ),
    "LiveNotWorse": _Words(
        "live acceptance is not lower",
        _points,
        "at most {}",
        "above {}",
        "live acceptance that is not lower",
    ),
    "WithinMargin": _Words(
        "{subject} seems within its margin",
        _share,
        "{}",
        "at most {}",
        "{subject} within its margin ({found}, at most {required})",
    ),
    "NoReplayHarm": _Words(
        "replay proves no harm to all requests", _log_e, "{}", "below {}", has_bar=True
    ),
    "NoClassHarm": _Words(
        "replay proves no harm to a class; nearest: {subject}",
        _log_e,
        "{}",
        "below {}",
        has_bar=True,
    ),
    "NoStepCostHarm": _Words(
        "its dearer steps leave something saved", _share, "at most {}", "at least {}"
    ),
    "GainPossible": _Words("a sufficient gain is still possible", _share, "at most {}", "{}"),
    "NoAcceptanceHarm": _Words(
        "live requests prove no lower acceptance", _log_e, "{}", "below {}", has_bar=True
    ),
    "NoGuardrailHarm": _Words(
        "live requests prove no harm to {subject}", _log_e, "{}", "below {}", has_bar=True
    ),
    "FewCrashes": _Words("inference with it survives", _count, "{} died", "fewer than {}"),
}
_UNKNOWN = _Words("{name} {subject}", "{:g}".format, "{}", "{}", "{name}")
HARM = frozenset(
    {
        "NoReplayHarm",
        "NoClassHarm",
        "NoStepCostHarm",
        "GainPossible",
        "NoAcceptanceHarm",
        "NoGuardrailHarm",
        "FewCrashes",
    }
)


def clause_row(clause: Clause) -> tuple[Text, str, str, str, Text]:
    """Whether it holds, in words, what was found, what is needed, and how near that is."""
    words = _WORDS.get(clause.name, _UNKNOWN)
    mark = Text("✓", style="green") if clause.holds else Text("✗", style="red")
    if not clause.holds and clause.name not in HARM:
        mark = Text("○", style="yellow")
    text = words.text.format(name=clause.name, subject=clause.subject).strip()
    found = "–" if clause.found is None else words.found.format(words.number(clause.found))
    needed = words.needed.format(words.number(clause.required).removeprefix("log E "))
    picture = Text()
    if words.has_bar and clause.found is not None and clause.required > 0:
        picture = bar(clause.found / clause.required, "red" if clause.name in HARM else "green")
    return mark, text, found, needed, picture


def missing(clauses: Sequence[Clause]) -> list[str]:
    """What a promotion still lacks, each in a few words."""
    return list(_missing(clauses))


def _missing(clauses: Sequence[Clause]) -> Iterator[str]:
    for clause in clauses:
        if clause.holds or clause.name in HARM:
            continue
        words = _WORDS.get(clause.name, _UNKNOWN)
        found = clause.found or 0.0
        yield words.missing.format(
            name=clause.name,
            subject=clause.subject,
            found=words.number(found),
            required=words.number(clause.required).removeprefix("log E "),
            more=f"{max(clause.required - found, 0):,.0f}",
        )
