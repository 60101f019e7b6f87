"""What the trainer is told about the model store: what to keep, and what to record."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_operator.domain.status.deployment import Draft, Status, Verdict


@dataclass(frozen=True, slots=True)
class Housekeeping:
    """Checkpoints that are neither in `needed` nor among the newest `keep` are removed, unless they
    were published after `seen_sequence`.

    `stable`: the draft against which the next is judged. `verdicts`: how the last rollouts ended,
    newest first.
    """

    keep: int
    needed: frozenset[str]
    seen_sequence: int
    stable: Draft | None
    verdicts: tuple[Verdict, ...]
    attempts: int

    @property
    def records(self) -> bool:
        """Whether the model store keeps what is stable, and `attempts`, for a deployment of this
        name that is created anew.

        Before a rollout has ended, that is what the manifest or an earlier deployment decided.
        """
        return bool(self.verdicts)


def housekeeping(keep: int, status: Status, initial: Draft | None) -> Housekeeping:
    """`initial`: the manifest's, which is needed as well."""
    digest = "" if initial is None else initial.digest
    return Housekeeping(
        keep=keep,
        needed=status.needed_digests | (frozenset({digest}) if digest else frozenset()),
        seen_sequence=status.queue.sequence,
        stable=status.stable,
        verdicts=status.history,
        attempts=status.attempts,
    )
