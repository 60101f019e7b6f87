"""The status of an AuroraDeployment: what Aurora remembers between two reconciles.

From these types follow the JSON, the schema of the cluster and the client's own types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Literal

from aurora_common.codec import Wire
from aurora_operator.domain.rollout.betting import log_threshold
from aurora_operator.domain.rollout.clause import MAX_CLAUSES, Clause, clauses, deadline
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.state import Ended, RolloutPlan, State

# One per inference that ever served in the rollout.
_MAX_CURSORS = 10_000
HISTORY_LIMIT = 20
_MAX_RETAINED = 8
_IN_EVIDENCE = "evidence"

ConditionType = Literal[
    "Ready", "Progressing", "Degraded", "Reconciling", "Stalled", "ClientsGuarded", "Suspended"
]


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft checkpoint; two are the same if their digests are."""

    checkpoint: Annotated[str, "Its name."]
    digest: Annotated[str, "sha256:<hex> over its files."]
    uri: Annotated[str, "Where its files are."]


@dataclass(frozen=True, slots=True)
class Retained:
    """A draft that stays in memory beside the stable one, and that requests may be served with."""

    draft: Annotated[Draft, Wire(inline=True)]
    share_percent: Annotated[
        int, "Of the last output tokens, the share that it served; in steps of 5 percent."
    ] = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A draft that the trainer published."""

    draft: Annotated[Draft, Wire(inline=True)]
    sequence: Annotated[int, "The number of its publication, from 1."]
    trained_through: Annotated[str, "The newest trajectory that it was trained on."] = ""
    held_out_bps: Annotated[
        int | None, "Its acceptance on held-out trajectories, by the trainer; basis points."
    ] = None


@dataclass(frozen=True, slots=True)
class Queue:
    """Published drafts without a rollout; only the newest waits (QueueLatest)."""

    # The trainer is asked for later ones.
    sequence: Annotated[int, "The newest publication seen."] = 0
    waiting: Annotated[Candidate | None, "The draft of the next rollout."] = None
    superseded: Annotated[
        tuple[str, ...],
        "Digests of drafts that never had a rollout, newest first.",
        Wire(max_items=50),
    ] = ()


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the outcomes of one inference were counted."""

    instance: Annotated[str, "The run of it that listed them."]
    after: Annotated[int, "The number of the last one counted."]
    # Lost if it dies. None is as good as 0, and shorter.
    open_stable: Annotated[int | None, "How many more requests the stable draft was given."] = None
    open_candidate: Annotated[int | None, "How many more the candidate was given."] = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """The rollout in progress, or the last one once its state is an ended one."""

    id: Annotated[str, "<deployment>-<sequence of the candidate>."]
    candidate: Annotated[Candidate, "The draft that is tried."]
    plan: Annotated[RolloutPlan, "Its terms."]
    state: Annotated[State, "Its state.", Wire(inline=True)]
    # The candidate is compared with none.
    without_stable: Annotated[bool, "No draft was served when it began.", Wire(required=True)] = (
        False
    )
    evidence: Annotated[Evidence, "What was measured.", Wire(required=True)] = field(
        default_factory=Evidence
    )
    # Stored with the evidence, so that nothing is counted twice.
    cursors: Annotated[
        Mapping[Annotated[str, "Its name.", Wire("inference")], Cursor],
        "How far the outcomes of each inference were counted.",
        Wire(within=_IN_EVIDENCE, max_items=_MAX_CURSORS),
    ] = field(default_factory=dict)
    # None in a rollout that an earlier operator began.
    started_at: Annotated[datetime | None, "When it began."] = None

    @property
    def clauses(
        self,
    ) -> Annotated[
        tuple[Clause, ...], "The rule, as far as it holds now.", Wire(max_items=MAX_CLAUSES)
    ]:
        return clauses(self.plan, self.evidence)

    @property
    def deadline(
        self,
    ) -> Annotated[datetime | None, "When its state ends at the latest; absent while paused."]:
        return deadline(self.state, self.plan)

    @property
    def threshold(
        self,
    ) -> Annotated[
        float, "What the logarithm of an e-value must reach.", Wire(within=_IN_EVIDENCE, digits=4)
    ]:
        return self.plan.threshold

    @property
    def promotion_threshold(
        self,
    ) -> Annotated[float, "What promotingLogE must reach.", Wire(within=_IN_EVIDENCE, digits=4)]:
        return self.plan.promotion_threshold

    @property
    def is_live(self) -> bool:
        return not isinstance(self.state, Ended)


@dataclass(frozen=True, slots=True)
class Watch:
    """After a promotion: the draft that served before, with which the new one is compared on."""

    rollout_id: Annotated[str, "The rollout that promoted.", Wire("rollout")]
    former: Annotated[Draft, "The draft that served before it."]
    alpha: Annotated[str, "Bound on the chance of going back without a cause."]
    ends_at: Annotated[datetime, "Until when."]
    replay: Annotated[Replay, "What replaying recorded requests has shown of the new draft."]
    # None in one that an earlier operator began.
    started_at: Annotated[datetime | None, "Since when."] = None
    suspended_at: Annotated[datetime | None, "Since when the deployment is suspended."] = None
    step_cost: Annotated[
        float, "What a step with the new draft was found to cost, by one with the former."
    ] = 1.0

    @property
    def verdict_id(self) -> str:
        """The id under which the history has what the watch took back."""
        return f"{self.rollout_id}-watch"

    @property
    def threshold(
        self,
    ) -> Annotated[float, "What its logHarm must reach to go back.", Wire(digits=4)]:
        return log_threshold(self.alpha)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a rollout ended."""

    id: Annotated[str, "The rollout's id."]
    checkpoint: Annotated[str, "The draft's name."]
    digest: Annotated[str, "The draft's digest."]
    outcome: Annotated[
        str, "Promoted, RolledBack or Inconclusive; of a dry run WouldPromote or WouldRollBack."
    ]
    reason: Annotated[str, "Why."]
    effect_bps: Annotated[int, "Estimated gain in acceptance; basis points."]
    requests: Annotated[int, "How many live requests were judged."]
    at: Annotated[datetime, "When it ended."]
    saved_bps: Annotated[
        int | None, "Share of the verify steps that it saves, by replay; basis points."
    ] = None
    replayed: Annotated[int | None, "How many recorded requests it was replayed on."] = None
    # None in what an earlier operator wrote.
    started_at: Annotated[datetime | None, "When it began."] = None
    saved_ci_bps: Annotated[tuple[int, int] | None, "95% interval of savedBps, asymptotic."] = None
    effect_ci_bps: Annotated[tuple[int, int] | None, "95% interval of effectBps, asymptotic."] = (
        None
    )
    clauses: Annotated[
        tuple[Clause, ...] | None,
        "What a promotion asks for, and the harm that was found, at its end.",
        Wire(max_items=MAX_CLAUSES),
    ] = None

    @property
    def key(self) -> tuple[str, datetime]:
        """Tells it from every other verdict, also of an earlier deployment of that name."""
        return self.id, self.at


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the deployment's conditions."""

    type: Annotated[ConditionType, "Which condition."]
    status: Annotated[bool, "Whether it holds.", Wire(quoted=True)]
    reason: Annotated[str, "Why, in one word."]
    message: Annotated[str, "Why, for a person."]
    last_transition_time: Annotated[datetime, "When its status last changed."]
    observed_generation: Annotated[int, "The generation that it is about."]


@dataclass(frozen=True, slots=True)
class LastCommand:
    """The answer to the newest aurora.dev/command annotation."""

    request: Annotated[str, "The annotation's text."]
    outcome: Annotated[Literal["Done", "Refused"], "Whether it was carried out."]
    message: Annotated[str, "Why it was refused."]
    at: Annotated[datetime, "When it was answered."]


@dataclass(frozen=True, slots=True)
class Training:
    """What the trainer does, as of its last change of phase or its last checkpoint."""

    phase: Annotated[str, "WaitingForTrajectories, Training or Publishing."]
    since: Annotated[datetime, "When that was seen first."]
    min_new_trajectories: Annotated[int, "How many new trajectories begin a round."]
    steps_per_round: Annotated[int, "How many steps a round has."]
    checkpoint: Annotated[str, "The last one that it published."] = ""
    acceptance_bps: Annotated[
        int | None, "The checkpoint's acceptance on held-out trajectories; basis points."
    ] = None
    withheld: Annotated[
        str, "Why the last round published nothing, by held-out trajectories; empty: it did."
    ] = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What was last observed and what was decided."""

    observed_generation: Annotated[int, "The generation that it is about."] = 0
    stable: Annotated[Draft | None, "The draft that serves."] = None
    stable_acceptance_bps: Annotated[
        int | None,
        "Its acceptance rate as last measured; basis points.",
        Wire("acceptanceBps", within="stable"),
    ] = None
    retained: Annotated[
        tuple[Retained, ...],
        "Drafts in memory beside the stable one, the newest first.",
        Wire(max_items=_MAX_RETAINED),
    ] = ()
    rollout: Annotated[Rollout | None, "The rollout in progress, or the last one."] = None
    watch: Annotated[Watch | None, "The watch over the last promotion, while it lasts."] = None
    queue: Annotated[Queue, "Drafts that wait for a rollout."] = Queue()
    attempts: Annotated[int, "Candidates that were tried since the last promotion."] = 0
    trainer: Annotated[Training | None, "What the trainer does, unless it is suspended."] = None
    device: Annotated[
        str | None, "What the inferences compute on: cpu, or a GPU with its name; absent: unknown."
    ] = None
    # The manifest may pause as well.
    paused: Annotated[bool, "Paused by command."] = False
    history: Annotated[
        tuple[Verdict, ...], "Ended rollouts, newest first.", Wire(max_items=50)
    ] = ()
    unrecorded: Annotated[int, "Of how many of the newest the model store has no record yet."] = 0
    unannounced: Annotated[int, "Of how many of the newest no notification went out yet."] = 0
    conditions: Annotated[
        tuple[Condition, ...],
        "Ready, Progressing, Degraded, Reconciling, Stalled; perhaps ClientsGuarded, Suspended.",
        Wire(max_items=8),
    ] = ()
    last_command: Annotated[LastCommand | None, "The answer to the newest command."] = None
    # None if they cannot be scaled.
    replicas: Annotated[int | None, "Inference pods that exist."] = None
    ready_replicas: Annotated[int | None, "Those that are ready."] = None
    updated_replicas: Annotated[int | None, "Those with the current template."] = None
    selector: Annotated[str | None, "Label selector of the inference pods."] = None

    @property
    def live_rollout(self) -> Rollout | None:
        return self.rollout if self.rollout is not None and self.rollout.is_live else None

    @property
    def served_rollout(self) -> Rollout | None:
        """The one in progress, unless it is a dry run, of which inferences hear nothing."""
        rollout = self.live_rollout
        return None if rollout is None or rollout.plan.dry_run else rollout

    def with_verdict(self, verdict: Verdict) -> Status:
        """With one more in the history, which forgets the oldest."""
        return replace(self, history=(verdict, *self.history)[:HISTORY_LIMIT])

    @property
    def decided(self) -> object:
        """The part on which actions rest."""
        rollout = self.rollout
        retained = tuple(each.draft.digest for each in self.retained)
        return self.stable, retained, rollout and (rollout.id, rollout.state)

    @property
    def needed_digests(self) -> frozenset[str]:
        """The drafts that a rollout or a restart may still need."""
        rollout, waiting = self.live_rollout, self.queue.waiting
        drafts = (
            self.stable,
            None if rollout is None else rollout.candidate.draft,
            None if waiting is None else waiting.draft,
            None if self.watch is None else self.watch.former,
            *(each.draft for each in self.retained),
        )
        return frozenset(draft.digest for draft in drafts if draft is not None)
