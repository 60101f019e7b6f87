"""What the control plane and the fronts need of an engine: values, and the verbs that take them.

An engine fulfils `EngineControl`; one that generates behind our own fronts fulfils
`GenerationEngine` too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

Arm = Literal["stable", "candidate"]
# Where a draft may be: `retained` ones are resident beside the stable one, and requests of its arm
# may be given one of them.
Slot = Literal["stable", "candidate", "retained"]
FinishReason = Literal["stop", "length", "cancelled", "error"]
# What became of a request that is evidence. `draft_failed`: its draft raised an error, and it was
# completed without; `timed_out`: it was still in flight when the outcome log gave it up.
Ending = Literal["completed", "cancelled", "failed", "draft_failed", "timed_out"]
# How traffic is divided between the arms: by a draw for each request, or in pairs of time blocks,
# of which each arm gets one in random order.
AssignmentMode = Literal["PerRequest", "Switchback"]
# What is recorded of the target: its distributions, from the step that used them, or token ids
# alone, from which they can be computed again.
CaptureMode = Literal["InStep", "TokenIds"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do; with one slot a candidate replaces the stable draft while it runs.

    `retained`: how many drafts it can hold beside the slots.
    """

    slots: Literal[1, 2]
    assignments: tuple[AssignmentMode, ...]
    captures: tuple[CaptureMode, ...]
    draft_kinds: tuple[str, ...]
    retained: int = 0


@dataclass(frozen=True, slots=True)
class DraftReference:
    """A checkpoint identified by its content; `uri` locates its files."""

    name: str
    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Retained:
    """A draft beside the slots, and the share of the last output tokens that it served, in basis
    points."""

    draft: DraftReference
    share_bps: int = 0


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the slots hold and how traffic is split; `instance` changes with every start.

    `device`: cpu, or a GPU with its name; empty if unknown.
    """

    instance: str
    stable: DraftReference | None
    candidate: DraftReference | None
    rollout_id: str
    candidate_bps: int
    speculation_length: int
    retained: tuple[Retained, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a switch of drafts cost: how long it held up decoding."""

    pause_microseconds: int


@dataclass(frozen=True, slots=True)
class Served:
    """What was drafted for a request, and how long it took.

    The times are microseconds, 0 if unknown: from its admission to its first token, and for each
    token after that; of a verify step with its draft alone, and of the same step had the stable
    draft proposed as many tokens for as many rows, for a candidate's request.
    """

    drafted_tokens: int = 0
    accepted_tokens: int = 0
    time_to_first_token_us: int = 0
    time_per_output_token_us: int = 0
    step_time_us: int = 0
    stable_step_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request of a rollout, or of those that began in one block, under its arm.

    `stable_digest`, `candidate_digest`: the drafts in the slots when the arm was drawn, empty if
    none. `candidate_bps`: the candidate's share then. `sequence`: its place in the order of
    admission, or of the ends of pairs. `pair`: 0 for a request of its own, else the number of the
    pair of blocks; its two outcomes follow each other. Theirs are `requests`, of which
    `failed_requests` failed, with the means of their times.
    """

    arm: Arm
    stable_digest: str
    candidate_digest: str
    candidate_bps: int
    ending: Ending
    served: Served
    sequence: int = 0
    pair: int = 0
    requests: int = 1
    failed_requests: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an engine's outcome log: everything up to `sequence` has been received.

    Valid only for the instance that issued it; any other instance starts from the beginning.
    """

    instance: str
    sequence: int


@dataclass(frozen=True, slots=True)
class OutcomePage:
    """Consecutive outcomes in the order of admission; `next` is the cursor for those that follow.

    `unlisted`: how many requests of each arm were admitted after them. If the engine dies, these
    are lost with it.
    """

    outcomes: tuple[Outcome, ...]
    next: Cursor
    unlisted: Mapping[Arm, int]


@dataclass(slots=True)
class DraftCounters:
    """What was drafted; `accepted_per_position[i]` counts drafts whose token i was accepted."""

    verify_steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    accepted_per_position: list[int] = field(default_factory=list)

    def observe_step(self, drafted: int, accepted: int) -> None:
        if drafted == 0:
            return
        self.verify_steps += 1
        self.drafted_tokens += drafted
        self.accepted_tokens += accepted
        missing = accepted - len(self.accepted_per_position)
        self.accepted_per_position.extend([0] * missing)
        for position in range(accepted):
            self.accepted_per_position[position] += 1


@dataclass(slots=True)
class ArmCounters(DraftCounters):
    """Totals of one arm, and what its draft drafted; `drafting_seconds`: what that took it, 0 if
    the engine does not measure it."""

    requests: int = 0
    failed_requests: int = 0
    output_tokens: int = 0
    drafting_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineCounters:
    """A snapshot of the totals since this instance started, and of the requests in flight.

    `ngram`: what was drafted by n-grams for requests that no draft served, whatever their arm;
    None if the engine never does so.
    """

    instance: str
    arms: dict[Arm, ArmCounters]
    running: int
    waiting: int
    ngram: DraftCounters | None = None


class EngineControl(Protocol):
    """The verbs of the control plane; each may be repeated without further effect.

    Raises UnavailableError if the engine does not respond in time.
    """

    def problem(self) -> str:
        """Why requests cannot be decoded at the moment, for people; empty if they can.

        Returns at once: health must not wait for what it judges.
        """

    async def capabilities(self) -> Capabilities: ...

    async def status(self) -> EngineStatus: ...

    async def counters(self) -> EngineCounters: ...

    async def stage(self, slot: Slot, draft: DraftReference) -> None:
        """Loads a checkpoint into a slot, or beside them; a no-op if it is there already.

        An empty digest accepts whatever the checkpoint's manifest says. Raises InvalidInputError
        or CheckpointError and leaves the stable draft as it was, and with two slots the candidate
        too: with one, a former candidate makes room first. ConflictError: no more can be retained.
        """

    async def unstage(self) -> None:
        """Empties the candidate slot; all traffic goes to the stable draft."""

    async def release(self, digest: str) -> None:
        """Removes a retained draft; a no-op if it is not retained.

        Requests in flight finish on it.
        """

    async def promote(self, digest: str) -> Receipt:
        """Makes the candidate the stable draft; a no-op if `digest` is stable already.

        Raises ConflictError if the candidate is another draft.
        """

    async def split(self, rollout_id: str, candidate_bps: int, *, crossed: bool = False) -> None:
        """Sets the candidate's share of new requests, or of the time, in basis points.

        A new rollout starts with an empty outcome log. With Switchback, engines with `crossed`
        begin each pair with the arm that the others end it with. Raises InvalidInputError or
        ConflictError.
        """

    async def outcomes(self, rollout_id: str, *, cursor: Cursor, limit: int) -> OutcomePage:
        """At most `limit` outcomes of a rollout after `cursor`, in the order of admission.

        An outcome is listed once every request admitted before it has ended or is given up.
        """

    async def drain(self) -> None:
        """Returns once every outcome of the current rollout has been received."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy, `top_k` 0 and `top_p` 1 keep every token.

    A seed, modulo 2^64, gives one text whatever the draft and the load; None is random.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One completion; `record` says whether its trajectory may be kept."""

    id: str
    prompt_tokens: tuple[int, ...]
    max_tokens: int
    sampling: Sampling
    ignore_eos: bool = False
    tenant: str = ""
    domain: str = ""
    record: bool = True


@dataclass(frozen=True, slots=True)
class SpeculationReport:
    """Which draft a request began with, and how much the target accepted of all that was drafted.

    What n-grams drafted, without a draft or after it failed, is counted apart from what it drafted.
    `own_steps`: how many of the steps, the first, it drafted for, if the engine switched to another
    draft meanwhile.
    """

    draft: str
    draft_digest: str
    arm: Arm
    steps: int
    drafted_tokens: int
    accepted_tokens: int
    ngram_drafted_tokens: int = 0
    ngram_accepted_tokens: int = 0
    own_steps: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """New tokens of one request; the last one carries `finish_reason` and `report`."""

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    report: SpeculationReport | None


Sink = Callable[[Progress], None]


class GenerationEngine(Protocol):
    """An engine that generates for our own fronts; both verbs may be called from any thread."""

    def submit(self, request: Request, sink: Sink) -> None:
        """Starts a request; `sink` gets its progress on the engine's thread and must not block.

        Raises InvalidInputError, OverloadedError or UnavailableError without calling the sink.
        """

    def cancel(self, request_id: str, *, answered: bool = False) -> None:
        """Ends a request; its sink receives `cancelled` unless it has ended already.

        `answered`: a stop string completed its text, so that its outcome is `completed`.
        """
