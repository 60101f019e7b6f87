"""A rank beside the trainer's: it computes shares of steps, and keeps nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from aurora_common.errors import ConflictError, UnavailableError
from aurora_model.decoder import Decoder
from aurora_model.draft import Draft, draft_kind
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.ranks.call import ARRIVALS, ROUND, Call
from aurora_trainer.ranks.group import Group, flat_gradient, wait_for
from aurora_trainer.ranks.share import Task, decoded
from aurora_trainer.ranks.store import first_line, joined_store

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
# A call is closed within seconds.
_CLOSING_SECONDS = 30.0
# Longer than a rollout takes to replace all pods.
_CONFLICT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class HeldTarget:
    """The target, in float32."""

    decoder: Decoder
    digest: str


class Worker:
    """Follows the trainer at an address, whatever becomes of it."""

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float,
        target: HeldTarget | None,
        on_joined: Callable[[bool], None],
    ) -> None:
        """`target`: for drafts that learn from what it computes; `on_joined`: hears whether the
        trainer is there."""
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._target = target
        self._on_joined = on_joined
        self._draft: Draft | None = None
        # The draft's parameters are views of it.
        self._weights = torch.empty(0)
        self._teacher: Teacher | None = None
        self.computed = 0

    def run(self) -> None:
        """Computes until the process ends.

        Raises ConflictError if the trainer has been of another version for two minutes.
        """
        conflict_since: float | None = None
        reason = ""
        while True:
            try:
                store = joined_store(self._address)
                conflict_since, reason = None, ""
                self._follow(store)
            except ConflictError as error:
                conflict_since = conflict_since or time.monotonic()
                if time.monotonic() - conflict_since >= _CONFLICT_SECONDS:
                    raise
                reason = _logged(str(error), reason)
            except (UnavailableError, distributed.DistError) as error:
                reason = _logged(first_line(error), reason)
            self._on_joined(False)
            time.sleep(_RETRY_SECONDS)

    def _follow(self, store: distributed.TCPStore) -> None:
        """Answers calls; raises DistNetworkError once the trainer is gone."""
        self._on_joined(True)
        logger.info("trainer found", extra={"fields": {"address": self._address}})
        answered = 0
        while True:
            store.add(ARRIVALS, 1)
            newest = int(store.get(ROUND))
            call = Call(max(newest, answered + 1))
            wait_for(store, call.opened)
            answered = call.number
            rank = store.add(call.answers, 1)
            store.wait([call.size], timedelta(seconds=_CLOSING_SECONDS))
            size = int(store.get(call.size))
            if rank < size:
                self._take_part(store, call, rank, size)

    def _take_part(self, store: distributed.TCPStore, call: Call, rank: int, size: int) -> None:
        try:
            with Group(
                distributed.PrefixStore(call.group, store),
                rank=rank,
                size=size,
                timeout_seconds=self._timeout_seconds,
            ) as group:
                while (task := group.next_task()) is not None:
                    self._compute(group, decoded(task))
        except (RuntimeError, ConflictError) as error:
            logger.warning("left the group", extra={"fields": {"reason": first_line(error)}})
            store.set(call.failure, f"rank {rank}: {first_line(error)}")

    def _compute(self, group: Group, task: Task) -> None:
        digest = "" if self._target is None else self._target.digest
        if task.target_digest != digest:
            raise ConflictError(
                f"this rank holds {_target(digest)}, the trainer {_target(task.target_digest)}"
            )
        draft = self._draft_for(task)
        group.broadcast(self._weights)
        draft.zero_grad(set_to_none=True)
        measure = task.differentiate(draft, group.rank, self._teacher)
        group.add_up(flat_gradient(draft.parameters()))
        group.add_up(torch.tensor([measure.loss, measure.acceptance], dtype=torch.float64))
        self.computed += 1

    def _draft_for(self, task: Task) -> Draft:
        """The draft to receive the weights; one of another config is dropped."""
        kind = draft_kind(task.draft_kind)
        config = kind.parse_config(task.draft_config, source="the trainer's draft")
        draft = self._draft
        if draft is None or (type(draft), draft.config) != (kind, config):
            # First, so that two are never in memory.
            self._draft = None
            self._draft = draft = kind.build(config).train()
            self._weights = _joined_weights(draft)
            if self._target is not None:
                decoder = self._target.decoder
                draft.attach(decoder)
                self._teacher = Teacher(decoder, draft.target_layers(decoder.config))
        return draft


def _joined_weights(draft: Draft) -> Tensor:
    """All parameters end to end, of which they are views from now on."""
    weights = parameters_to_vector(draft.parameters()).detach()
    vector_to_parameters(weights, draft.parameters())
    return weights


def _target(digest: str) -> str:
    return f"target {digest}" if digest else "no target"


def _logged(reason: str, before: str) -> str:
    """Logs a reason unless it is that of before."""
    if reason != before:
        logger.warning("waiting for the trainer", extra={"fields": {"reason": reason}})
    return reason
