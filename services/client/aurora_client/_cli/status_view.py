"""Renders a snapshot for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aurora_client._cli.history_view import OUTCOME_STYLES
from aurora_client._cli.picture import bar
from aurora_client._cli.shape import percent, plain_table, points, short_digest
from aurora_client._cli.snapshot import Served, Snapshot
from aurora_client._cli.trainer_view import live_trainer, local_time, stored_trainer
from aurora_client._deployment import Component, Deployment
from aurora_client._status import Condition, Evidence, PastRollout, Replay, ServedDraft, Watch

_HISTORY_ROWS = 5
_GOOD = {("Ready", "True"), ("Progressing", "True")}
# Of these, only the bad is news.
_QUIET = {("Progressing", "False"), ("Degraded", "False"), ("ClientsGuarded", "True")}
# They repeat what the others say.
_UNSHOWN = {"Reconciling", "Stalled", "Suspended"}


def view(snapshot: Snapshot, *, problem: str = "") -> RenderableType:
    """The whole snapshot; `problem` says why it may be out of date."""
    deployment = snapshot.deployment
    parts: list[RenderableType] = [_title(deployment)]
    if problem:
        parts.append(Text(problem, style="red"))
    parts += [Text(), _components(deployment.components), Text(), _serving(snapshot)]
    if deployment.history:
        parts += [Text(), history_table(deployment.history)]
    return Group(*parts)


def _title(deployment: Deployment) -> Text:
    title = Text(f"{deployment.namespace}/{deployment.name}", style="bold")
    for condition in deployment.conditions:
        if (text := condition_text(condition)).plain:
            title.append("   ").append(text)
    return title


def condition_text(condition: Condition) -> Text:
    """A condition in green, or why it is not as it should be; empty if it is no news."""
    found = (condition.type, condition.status)
    if found in _GOOD:
        return Text(condition.type, style="green")
    if found in _QUIET or condition.type in _UNSHOWN:
        return Text()
    name = condition.type if condition.type == "Degraded" else f"not {condition.type}"
    return Text(f"{name}: {condition.message or condition.reason}", style="yellow")


def _components(components: tuple[Component, ...]) -> Table:
    table = plain_table("component", "state")
    table.add_column("pid", justify="right")
    table.add_column("restarts", justify="right")
    table.add_column("address")
    table.add_column(style="yellow")
    for component in components:
        state = Text("● ready", style="green")
        if not component.ready:
            style = "yellow" if component.pid else "red"
            state = Text("○ starting" if component.pid else "○ down", style=style)
        restarts = Text(str(component.restarts), style="yellow" if component.restarts else "")
        table.add_row(
            component.name,
            state,
            str(component.pid or "–"),
            restarts,
            component.address or "–",
            component.message,
        )
    return table


def drafts_table(
    deployment: Deployment, candidate_bps: int | None = None, *, trainer: str = ""
) -> Table:
    """Drafts, rollout and trainer as labelled rows.

    `candidate_bps`: the candidate's share of new requests, if known. `trainer`: what it does now;
    default: what the status says.
    """
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="dim")
    rows.add_column()
    rows.add_row("stable", _stable(deployment))
    for number, each in enumerate(deployment.status.retained):
        rows.add_row("" if number else "retained", _retained(each))
    if deployment.status.watch is not None:
        rows.add_row("watch", _watch(deployment.status.watch))
    if deployment.queued is not None:
        rows.add_row("queued", deployment.queued.checkpoint)
    if deployment.rollout is not None:
        rows.add_row("rollout", _rollout(deployment, candidate_bps))
        if deployment.rollout.evidence is not None:
            for label, line in _evidence(deployment.rollout.evidence):
                rows.add_row(label, line)
    if deployment.status.device:
        rows.add_row("device", deployment.status.device)
    if not trainer and deployment.status.trainer is not None:
        trainer = stored_trainer(deployment.status.trainer)
    if trainer:
        rows.add_row("trainer", trainer)
    return rows


def _serving(snapshot: Snapshot) -> Table:
    """Drafts, rollout and traffic."""
    deployment, served = snapshot.deployment, snapshot.served
    share = None
    if isinstance(served, Served) and deployment.rollout is not None:
        is_its_own = served.status.rollout_id == deployment.rollout.id
        share = served.status.candidate_bps if is_its_own else None
    trainer = "" if snapshot.trainer is None else live_trainer(snapshot.trainer)
    rows = drafts_table(deployment, share, trainer=trainer)
    if isinstance(served, str):
        rows.add_row("traffic", Text(served, style="red"))
    else:
        for label, line in _traffic(served):
            rows.add_row(label, line)
    return rows


def _stable(deployment: Deployment) -> Text:
    stable = deployment.stable
    if stable is None:
        return Text("none: nothing is drafted but n-grams", style="yellow")
    line = Text(stable.checkpoint, style="bold").append(
        f"  {short_digest(stable.digest)}", style="not bold dim"
    )
    if stable.acceptance_bps is not None:
        line.append(f"  {percent(stable.acceptance_bps / 1e4)} accepted", style="not bold")
    return line


def _retained(draft: ServedDraft) -> Text:
    line = Text(draft.checkpoint).append(f"  {short_digest(draft.digest)}", style="dim")
    return line.append(f"  serves {draft.share_percent}% of the tokens")


def _watch(watch: Watch) -> Text:
    """Whether the last promotion holds."""
    former = "" if watch.former is None else watch.former.checkpoint
    line = Text(f"against {former} until {local_time(watch.ends_at)}")
    if watch.replay is not None and watch.replay.requests:
        line.append(f", {_saved(watch.replay)}, {watch.replay.requests:,} recorded requests")
    return line


def _rollout(deployment: Deployment, candidate_bps: int | None) -> Text:
    rollout = deployment.rollout
    assert rollout is not None
    line = Text(rollout.id).append(
        f"  {rollout.state}", style=OUTCOME_STYLES.get(rollout.state, "cyan")
    )
    if rollout.reason:
        line.append(f" ({rollout.reason})")
    if deployment.is_paused:
        line.append("  paused", style="yellow")
    if rollout.candidate is not None:
        line.append(f"  {rollout.candidate.checkpoint}", style="bold")
        line.append(f"  {short_digest(rollout.candidate.digest)}", style="dim")
    if rollout.step is not None:
        line.append(f"  step {rollout.step + 1} of {max(len(rollout.steps_percent), 1)}")
    if candidate_bps is not None:
        line.append(f"  {candidate_bps / 100:g}% of new requests")
    return line


def _evidence(evidence: Evidence) -> Iterator[tuple[str, Text]]:
    threshold, replay = evidence.threshold, evidence.replay
    # An earlier operator says nothing of it.
    promoted = evidence.promotion_threshold or threshold
    if threshold:
        if replay is None:
            yield "better", _log_e(evidence.log_e, promoted, "promoted", "green")
        else:
            yield "faster", _log_e(replay.log_e, promoted, "promoted", "green")
            yield "slower", _log_e(replay.log_harm, threshold, "rolled back", "red")
        yield "worse", _log_e(evidence.log_harm, threshold, "rolled back", "red")
    for guardrail in evidence.guardrails:
        shown = bar(guardrail.log_harm / threshold if threshold else 0.0, "red")
        estimate = f" {guardrail.effect_bps / 100:+.1f}%, at most {guardrail.margin_bps / 100:+g}%"
        line = shown.append(estimate, style="default")
        if guardrail.effect_bps > guardrail.margin_bps:
            line.append("  holds back", style="yellow")
        yield guardrail.name, line
    if evidence.crashes:
        yield "crashes", Text(f"{evidence.crashes} of inference with the candidate", style="red")
    effect = f"{points(evidence.effect_bps)} points of acceptance"
    effect += _interval(evidence.interval_bps)
    if replay is not None:
        yield "replay", Text(f"{_saved(replay)}, {replay.requests:,} recorded requests replayed")
    judged = f"{evidence.requests:,} requests"
    if evidence.pairs:
        judged += f" in {evidence.pairs:,} pairs"
    yield "effect", Text(f"{effect}, {judged} judged")


def _log_e(log_e: float, threshold: float, verdict: str, style: str) -> Text:
    numbers = f" log E {log_e:.2f}, {verdict} at {threshold:.2f}"
    return bar(log_e / threshold, style).append(numbers, style="default")


def _saved(replay: Replay) -> str:
    return f"{points(replay.saved_bps)}% of verify steps saved{_interval(replay.interval_bps)}"


def _interval(bounds: tuple[int, int] | None) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return f" (95%: {points(low)} to {points(high)})"


def _traffic(served: Served) -> list[tuple[str, Text]]:
    counters = served.counters
    now = f"{counters.running_requests} running, {counters.waiting_requests} waiting"
    lines = [
        ("traffic", Text(f"{now}, {served.status.speculation_length} tokens drafted at a time"))
    ]
    for arm in counters.arms:
        if not arm.requests:
            continue
        line = Text(f"{arm.requests:,} requests on {arm.arm}")
        if arm.failed_requests:
            line.append(f" ({arm.failed_requests:,} failed)", style="red")
        rate, length = arm.acceptance_rate, arm.mean_acceptance_length
        if rate is not None and length is not None:
            line.append(f", {percent(rate)} accepted, {length:.2f} tokens a step")
        lines.append(("", line))
    rate = counters.ngram.acceptance_rate
    if rate is not None:
        drafted = f"{counters.ngram.drafted_tokens:,} tokens"
        lines.append(("", Text(f"{drafted} drafted by n-grams, {percent(rate)} accepted")))
    recorded = Text(f"{counters.trajectories_sent:,} trajectories recorded")
    if counters.trajectories_dropped:
        recorded.append(f", {counters.trajectories_dropped:,} dropped", style="yellow")
    lines.append(("", recorded))
    return lines


def history_table(history: tuple[PastRollout, ...]) -> Table:
    """The most recent past rollouts."""
    shown = history[:_HISTORY_ROWS]
    replayed = any(past.saved_bps is not None for past in shown)
    table = plain_table("past rollout", "checkpoint", "outcome", "reason")
    if replayed:
        table.add_column("saved", justify="right")
    table.add_column("effect", justify="right")
    table.add_column("requests", justify="right")
    table.add_column("at")
    for past in shown:
        saved = "–" if past.saved_bps is None else f"{points(past.saved_bps)}%"
        table.add_row(
            past.id,
            past.checkpoint or "–",
            Text(past.outcome, style=OUTCOME_STYLES.get(past.outcome, "")),
            past.reason or "–",
            *([saved] if replayed else []),
            points(past.effect_bps),
            f"{past.requests:,}",
            local_time(past.at),
        )
    return table
