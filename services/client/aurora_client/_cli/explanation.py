"""Says in plain words why a rollout ended, or what one in progress still waits for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aurora_client._cli.clause_view import HARM, clause_row, missing
from aurora_client._cli.history_view import OUTCOME_STYLES, duration, local_moment
from aurora_client._cli.past import ENDED
from aurora_client._cli.picture import interval, sparkline
from aurora_client._cli.shape import plain_table, points, short_digest
from aurora_client._status import Clause, EvidencePath, PastRollout, Rollout

# By the reason's first word; what follows a colon there is said as well.
_WHY: Mapping[str, str] = {
    "ReplayBetter": "recorded requests prove that it saves time, and live traffic does not object",
    "AcceptanceBetter": "live requests prove that it is accepted more often",
    "Commanded": "someone commanded it",
    "ReplayHarm": "in replay it is slower than the stable draft",
    "StepCostHarm": "its verify steps take longer, by more than it saves of them",
    "WatchHarm": "on requests recorded since its promotion it is slower than the draft before it",
    "AcceptanceHarm": "live requests accept it less often than the stable draft",
    "TimePerOutputTokenHarm": "requests that it serves take longer per token",
    "TimeToFirstTokenHarm": "requests that it serves wait longer for their first token",
    "CrashHarm": "inference that had it died again and again",
    "Aborted": "someone aborted it",
    "CheckpointRefused": "inference refused to load it",
    "NotComparable": "it cannot be compared with the stable draft",
    "GainTooSmall": "with 95% confidence it saves less than minEffectBps asks for",
    "Superseded": "a newer draft that held-out requests prefer took its turn",
    "StableReverted": "the draft that it was compared with is no longer stable",
    "NotStaged": "no inference had loaded it within ten minutes",
    "NothingJudged": "no request was judged within maxDuration: no traffic, or nothing drafted",
    "DeadlineReached": "maxDuration passed before the rule was met",
}
_VERDICTS = {
    "Promoted": "It was promoted",
    "RolledBack": "It was rolled back",
    "Inconclusive": "It ended without a verdict, and the stable draft stayed",
    "WouldPromote": "A dry run, which changed nothing: replay would have promoted it",
    "WouldRollBack": "A dry run, which changed nothing: replay would have rolled it back",
}


def explanation(past: PastRollout, rollout: Rollout | None, *, is_paused: bool) -> RenderableType:
    """The whole of it; `rollout` has what only the newest one's status still says."""
    parts: list[RenderableType] = [_title(past), Text(_headline(past, rollout, is_paused))]
    if rollout is not None and rollout.deadline and past.outcome not in ENDED:
        parts.append(Text(_until(rollout)))
    clauses = rollout.clauses if rollout is not None and rollout.clauses else past.clauses
    if clauses:
        parts += [Text(), _rule(clauses, is_whole=rollout is not None)]
    pictures = _pictures(past, rollout)
    if pictures.row_count:
        parts += [Text(), pictures]
    return Group(*parts)


def _title(past: PastRollout) -> Text:
    line = Text(past.id, style="bold").append(
        f"  {past.outcome}", style=OUTCOME_STYLES.get(past.outcome, "cyan")
    )
    line.append(f"  {past.checkpoint or '–'}", style="not bold")
    line.append(f"  {short_digest(past.digest)}", style="not bold dim")
    if took := duration(past):
        line.append(f"  {'after' if past.at else 'for'} {took}", style="not bold dim")
    return line.append(f"  {local_moment(past.at)}" if past.at else "", style="not bold dim")


def _headline(past: PastRollout, rollout: Rollout | None, is_paused: bool) -> str:
    if past.outcome in _VERDICTS:
        return _ended(past)
    if is_paused:
        return "It is paused: only harm, a refusal or a command ends it."
    match past.outcome:
        case "Pending":
            return "It waits for every inference to load the candidate and give it a first share."
        case "WaitingForTraffic":
            return "It waits for a first live request to be judged."
        case "Replaying" if not missing(past.clauses):
            return "The rule is met: the dry run ends with the next look."
        case "Replaying":
            return (
                f"A dry run, which changes nothing. It waits for {_listed(missing(past.clauses))}."
            )
        case "Promoting":
            return "It is decided: it waits for every inference to make the candidate stable."
    lacking = missing(past.clauses)
    if lacking:
        return f"It waits for {_listed(lacking)}."
    return "The rule is met: it is promoted with the next look."


def _ended(past: PastRollout) -> str:
    word, _, detail = past.reason.partition(":")
    said = f"{_VERDICTS[past.outcome]}: {_WHY.get(word.split(';')[0], past.reason)}"
    if detail:
        said += f" ({detail.strip()})"
    if word == "DeadlineReached" and (lacking := missing(past.clauses)):
        said += f"; it lacked {_listed(lacking)}"
    return f"{said}."


def _listed(found: Sequence[str]) -> str:
    if len(found) == 1:
        return found[0]
    return f"{', '.join(found[:-1])} and {found[-1]}"


def _until(rollout: Rollout) -> str:
    then = {
        "Pending": "it goes on with the inferences that have it, or ends without a verdict",
        "Promoting": "the verdict names the inferences that do not have it yet",
    }.get(rollout.state, "it ends without a verdict, and the stable draft stays")
    return f"At {local_moment(rollout.deadline)} {then}."


def _rule(clauses: Sequence[Clause], *, is_whole: bool) -> Table:
    table = plain_table("", "promoted if", "found", "needed", "")
    for clause in clauses:
        if clause.name not in HARM:
            table.add_row(*clause_row(clause))
    harmful = [clause for clause in clauses if clause.name in HARM]
    if harmful:
        table.add_row()
        table.add_row("", Text("and ended unless", style="dim"))
        for clause in harmful:
            table.add_row(*clause_row(clause))
    elif not is_whole:
        table.add_row("✓", "nothing spoke for harm")
    return table


def _pictures(past: PastRollout, rollout: Rollout | None) -> Table:
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_column()
    for label, line, numbers in (*_grown(rollout), *_effects(past)):
        rows.add_row(label, line, numbers)
    return rows


def _grown(rollout: Rollout | None) -> Iterator[tuple[str, Text, str]]:
    """The way of the evidence to its thresholds."""
    evidence = None if rollout is None else rollout.evidence
    if evidence is None:
        return
    path: EvidencePath | None = evidence.path if evidence.replay is None else evidence.replay.path
    if path is None or not path.log_e or evidence.threshold <= 0:
        return
    unit = "pair of blocks" if evidence.pairs else "request"
    plural = "pairs of blocks" if evidence.pairs else "requests"
    step = f"a mark each {f'{path.every:,} {plural}' if path.every > 1 else unit}"
    promoted = evidence.promotion_threshold or evidence.threshold
    better = sparkline(path.log_e, top=promoted, style="green")
    worse = sparkline(path.log_harm, top=evidence.threshold, style="red")
    yield "better", better, f"log E, full at {promoted:.2f}; {step}"
    yield "worse", worse, f"log E, full at {evidence.threshold:.2f}"


def _effects(past: PastRollout) -> Iterator[tuple[str, Text, str]]:
    """What it gains, with its interval."""
    shown = (
        ("verify steps saved", past.saved_bps, past.saved_ci_bps, "%"),
        ("live acceptance", past.effect_bps, past.effect_ci_bps, " points"),
    )
    for label, estimate, bounds, unit in shown:
        if estimate is None or bounds is None:
            continue
        low, high = bounds
        style = "green" if low > 0 else "red" if high < 0 else "yellow"
        numbers = f"{points(estimate)}{unit} (95%: {points(low)} to {points(high)})"
        yield label, interval(estimate, low, high, style), numbers
