"""What was read of a rollout's requests, as evidence: each request counts once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aurora_operator.domain.plan.action import share_bps
from aurora_operator.domain.plan.observation import Observation, OutcomeBatch
from aurora_operator.domain.rollout.evidence import Evidence, observe, observe_pair
from aurora_operator.domain.rollout.outcome import Outcome, Pair
from aurora_operator.domain.rollout.replay import read
from aurora_operator.domain.status.deployment import Cursor, Draft, Rollout


def tallied(rollout: Rollout, stable: Draft | None, observed: Observation) -> Rollout:
    """The rollout with the outcomes, deaths and losses that `observed` adds.

    Only requests that could have drawn either draft of this rollout count. Those that an inference
    had admitted and not told of when it died are lost: what its last page said of them is known,
    what it admitted after that page is not.
    """
    rollout = replace(rollout, evidence=_replayed(rollout, observed))
    # No inference has its candidate.
    if rollout.plan.dry_run:
        return rollout
    cursors = dict(rollout.cursors)
    batches = [batch for batch in observed.batches if batch.rollout_id == rollout.id]
    lost: list[Outcome | Pair] = []
    crashes = 0
    for name, instance in _instances(observed, batches):
        cursor = cursors.get(name)
        if cursor is not None and cursor.instance != instance:
            lost += _lost(cursor, share_bps(rollout))
            crashes += 1
        if cursor is None or cursor.instance != instance:
            cursors[name] = Cursor(instance, 0)
    found = [*_listed(rollout, stable, batches, cursors), *lost]
    for name in sorted(cursors.keys() - observed.existing):
        cursor = cursors[name]
        gone = _lost(cursor, share_bps(rollout))
        found += gone
        # If it was unseen for a moment only, what it tells of these does not count again.
        cursors[name] = Cursor(cursor.instance, cursor.after + len(gone))
    evidence = rollout.evidence
    # Beside a replay the live requests are a guard: any gain is one.
    min_effect = rollout.plan.min_effect if evidence.replay is None else 0.0
    for outcome in found:
        if isinstance(outcome, Pair):
            evidence = observe_pair(evidence, outcome, min_effect=min_effect)
            continue
        evidence = observe(
            evidence, outcome, min_effect=min_effect, without_stable=rollout.without_stable
        )
    evidence = replace(evidence, crashes=evidence.crashes + crashes)
    return replace(rollout, evidence=evidence, cursors=cursors)


def _replayed(rollout: Rollout, observed: Observation) -> Evidence:
    """The evidence with what replay adds."""
    evidence, batch = rollout.evidence, observed.replay
    if evidence.replay is None or batch is None or batch.rollout_id != rollout.id:
        return evidence
    min_effect = rollout.plan.min_effect
    replay = read(evidence.replay, batch.scores, through=batch.after, min_effect=min_effect)
    return replace(evidence, replay=replay)


def _instances(observed: Observation, batches: list[OutcomeBatch]) -> Iterator[tuple[str, str]]:
    """The inferences that have or get the candidate, by name, and which run of each it is."""
    for view in observed.participants:
        yield view.name, view.instance
    for batch in batches:
        yield batch.inference, batch.instance


def _listed(
    rollout: Rollout,
    stable: Draft | None,
    batches: list[OutcomeBatch],
    cursors: dict[str, Cursor],
) -> Iterator[Outcome | Pair]:
    """The outcomes of this rollout's pair of drafts after the cursors, which are moved on."""
    pair = ("" if stable is None else stable.digest, rollout.candidate.draft.digest)
    for batch in batches:
        after = cursors[batch.inference].after
        for sequence, outcome in batch.outcomes:
            if sequence <= after:
                continue
            after = sequence
            if (outcome.stable_digest, outcome.candidate_digest) == pair:
                yield outcome
        cursors[batch.inference] = Cursor(
            batch.instance, after, batch.open_stable or None, batch.open_candidate or None
        )


def _lost(cursor: Cursor, candidate_bps: int) -> list[Outcome]:
    """The requests that died with an inference."""
    stable = Outcome("stable", candidate_bps, 0, 0, "lost")
    candidate = Outcome("candidate", candidate_bps, 0, 0, "lost")
    return [stable] * (cursor.open_stable or 0) + [candidate] * (cursor.open_candidate or 0)
