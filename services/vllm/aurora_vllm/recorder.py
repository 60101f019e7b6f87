"""Follows requests through vLLM's sampling: counts their verify steps and captures the target."""

from __future__ import annotations

import logging
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aurora_vllm.capture import Capture, packed

logger = logging.getLogger("vllm.aurora")

KEY = "aurora_key"
CAPTURE = "aurora_capture"
TOP_TOKENS = 64
_KEY_LIMIT_CHARACTERS = 64
# A token that a structured output rules out; float16 and p·log p stay finite.
_LEAST_LOG_PROB = -1e4


@dataclass(slots=True)
class _Followed:
    """`verified`: its verify steps so far; `proposed`: tokens for the next one are proposed."""

    key: str
    capture: Capture | None
    verified: int = 0
    proposed: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """A request's place in a step: its row among those captured, in the batch and in the drafts."""

    followed: _Followed
    row: int
    index: int
    drafts: slice


@dataclass(frozen=True, slots=True)
class _Step:
    """Tensors on their way to the host; complete once `copied` is."""

    parts: list[_Part]
    ids: Tensor  # [rows, k] int64
    log_probs: Tensor  # [rows, k] float16
    tail_mass: Tensor  # [rows] float16
    sampled: Tensor  # [batch, most drafts + 1]; -1 after the first rejection
    drafted: Tensor  # [drafts of the batch]
    copied: torch.Event | None  # None: they are there


class Recorder:
    """Wraps the runner's sampling. A request is followed if its `vllm_xargs` give it a key.

    For the engine's thread alone. `limit_bytes` bounds what waits to be handed out: beyond it
    captures are dropped and counted.
    """

    def __init__(self, runner: Any, *, limit_bytes: int) -> None:
        self.dropped = 0
        self._runner = runner
        self._limit_bytes = limit_bytes
        self._followed: dict[str, _Followed | None] = {}
        self._keys: set[str] = set()
        self._steps: deque[_Step] = deque()
        self._finished: deque[Capture] = deque()
        self._handed: list[Capture] = []
        # Of one engine start alone: the receipt of a former one must not acknowledge anything.
        self._batch = secrets.randbits(40)
        self._bytes = 0
        self._broken = False
        self._sample: Callable[[Tensor | None, Any], Any] = runner._sample
        runner._sample = self._recorded_sample

    @property
    def pending_bytes(self) -> int:
        return self._bytes

    def steps_by_key(self) -> dict[str, int]:
        """Per request, how many of its verify steps check tokens proposed until now.

        Those that ended a moment ago are there too: their answers may be under way.
        """
        if self._broken:
            return {}
        steps = {
            followed.key: followed.verified + followed.proposed
            for followed in self._followed.values()
            if followed is not None
        }
        self._forget_ended()
        return steps

    def hand_out(self, *, max_bytes: int, acknowledged: int | None) -> tuple[int, bytes]:
        """The batch's number and bytes: the same again until it is acknowledged, 0 if none is."""
        self._forget_ended()
        if acknowledged == self._batch:
            self._bytes -= sum(capture.nbytes for capture in self._handed)
            self._handed = []
        if not self._handed and self._finished:
            self._batch += 1
            size = 0
            while self._finished and (size == 0 or size + self._finished[0].nbytes <= max_bytes):
                self._handed.append(self._finished.popleft())
                size += self._handed[-1].nbytes
        batch = self._batch if self._handed else 0
        return batch, packed(batch, self._handed, more=bool(self._finished), dropped=self.dropped)

    def _recorded_sample(self, logits: Tensor | None, metadata: Any) -> Any:
        step = self._guarded(lambda: self._begun(logits, metadata))
        output = self._sample(logits, metadata)
        if step is not None:
            self._guarded(lambda: self._ended(step, metadata, output.sampled_token_ids))
        return output

    def _guarded(self, record: Callable[[], Any]) -> Any:
        """A fault in recording must not end requests: it ends the recording."""
        if self._broken:
            return None
        try:
            return record()
        except Exception:
            logger.exception("recording failed and is off; requests go on")
            self._broken = True
            return None

    def _begun(
        self, logits: Tensor | None, metadata: Any
    ) -> tuple[list[_Part], tuple[Tensor, ...]]:
        """Counts the step and takes the target's distributions before sampling changes them."""
        if logits is None:  # another worker has them
            return [], ()
        runner = self._runner
        request_ids = runner.input_batch.req_ids
        counts = metadata.num_draft_tokens if metadata is not None else [0] * len(request_ids)
        discarded = runner.discard_request_mask.np
        parts: list[_Part] = []
        rows: list[int] = []
        row = draft = 0
        for index, (request_id, count) in enumerate(zip(request_ids, counts, strict=True)):
            followed = self._follow(request_id)
            if followed is not None and not discarded[index]:
                followed.verified += count > 0
                followed.proposed = True
                if followed.capture is not None:
                    parts.append(_Part(followed, len(rows), index, slice(draft, draft + count)))
                    rows.extend(range(row, row + count + 1))
            row += count + 1
            draft += count
        return parts, _top(logits, rows) if rows else ()

    def _ended(
        self, begun: tuple[list[_Part], tuple[Tensor, ...]], metadata: Any, sampled: Tensor
    ) -> None:
        parts, top = begun
        if parts:
            drafted = sampled[:0, 0] if metadata is None else metadata.draft_token_ids
            ids, log_probs, tail = map(_on_host, top)
            here = _on_host(sampled), _on_host(drafted)
            copied = None
            if sampled.device.type != "cpu":
                copied = torch.Event(sampled.device)
                copied.record()
            self._steps.append(_Step(parts, ids, log_probs, tail, *here, copied))
        while self._steps and (self._steps[0].copied is None or self._steps[0].copied.query()):
            self._take(self._steps.popleft())

    def _take(self, step: _Step) -> None:
        ids, log_probs, tail, sampled, drafted = (
            tensor.numpy()
            for tensor in (step.ids, step.log_probs, step.tail_mass, step.sampled, step.drafted)
        )
        for part in step.parts:
            capture = part.followed.capture
            if capture is None:
                continue
            drafts = drafted[part.drafts]
            tokens = sampled[part.index, : len(drafts) + 1]
            # Behind the first rejection nothing was emitted.
            tokens = tokens[tokens >= 0]
            here = slice(part.row, part.row + len(tokens))
            rows = (
                ids[here].astype("<u4"),
                log_probs[here].copy(),
                tail[here].copy(),
            )
            self._bytes += capture.add(rows, tokens.astype("<u4"), drafts.astype("<u4"))
            if self._bytes > self._limit_bytes:
                self._drop(part.followed)

    def _follow(self, request_id: str) -> _Followed | None:
        if request_id not in self._followed:
            self._followed[request_id] = self._new(request_id)
            if len(self._followed) > 2 * self._runner.max_num_reqs:
                self._forget_ended()
        return self._followed.get(request_id)

    def _new(self, request_id: str) -> _Followed | None:
        parameters = self._runner.requests[request_id].sampling_params
        extra = (parameters.extra_args if parameters is not None else None) or {}
        key = extra.get(KEY)
        # The other choices of a request with n > 1 come with the same key.
        if not isinstance(key, str) or len(key) > _KEY_LIMIT_CHARACTERS or key in self._keys:
            return None
        self._keys.add(key)
        followed = _Followed(key, Capture(key) if extra.get(CAPTURE) else None)
        if followed.capture is not None and self._bytes >= self._limit_bytes:
            self._drop(followed)
        return followed

    def _drop(self, followed: _Followed) -> None:
        assert followed.capture is not None
        self._bytes -= followed.capture.nbytes
        followed.capture = None
        self.dropped += 1

    def _forget_ended(self) -> None:
        ended = [
            request_id for request_id in self._followed if request_id not in self._runner.requests
        ]
        if not ended:
            return
        while self._steps:
            step = self._steps.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            self._take(step)
        for request_id in ended:
            followed = self._followed.pop(request_id)
            if followed is not None:
                self._keys.discard(followed.key)
                if followed.capture is not None:
                    self._finished.append(followed.capture)


def _top(logits: Tensor, rows: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The most probable tokens of these rows, at temperature 1, and the mass of all others."""
    chosen = logits[torch.tensor(rows, device=logits.device)].float().log_softmax(dim=-1)
    values, ids = chosen.topk(min(TOP_TOKENS, chosen.shape[-1]), dim=-1)
    tail = (1.0 - values.exp().sum(dim=-1)).clamp_min(0.0)
    return ids, values.clamp_min(_LEAST_LOG_PROB).half(), tail.half()


def _on_host(tensor: Tensor) -> Tensor:
    """A copy on the host; that of a GPU's tensor is complete once an event recorded next is."""
    if tensor.device.type == "cpu":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
