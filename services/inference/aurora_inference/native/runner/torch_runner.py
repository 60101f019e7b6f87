"""Runs the target and its drafters with plain torch, on any device."""

from __future__ import annotations

import logging
from collections.abc import Sequence as Rows
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from aurora_inference.native.runner import Verified
from aurora_inference.native.runner.cache import CachedAttention
from aurora_inference.native.runner.capture import CapturedRows, as_distributions, top_tokens
from aurora_inference.native.runner.drafter import Drafter, DrafterRoom, Proposal
from aurora_inference.native.runner.drafter.ngram import NgramDrafter
from aurora_inference.native.runner.drafter.registry import DRAFT_KINDS, load_drafter
from aurora_inference.native.runner.randomness import Randomness
from aurora_inference.native.runner.sampler import Sampler
from aurora_inference.native.runner.sampling import BatchSampling
from aurora_inference.native.runner.stopwatch import Stopwatch
from aurora_inference.native.runner.target import Output, Target
from aurora_inference.native.runner.verify import verified
from aurora_inference.native.sequence import Sequence
from aurora_inference.trajectory.completion import Distributions
from aurora_model.device import device_errors, memory_for

logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    """What one sequence has beside its cached tokens."""

    drafter: Drafter
    random: Randomness
    captured: list[CapturedRows]


class TorchRunner:
    """The `Runner` of one target; used by one thread, `load_drafter` by any."""

    def __init__(self, target: Target, *, rows: int, capacity: int) -> None:
        """`capacity`: the tokens that each of the cache's `rows` holds."""
        self._target = target
        self._device = target.device.name
        self._cache = target.new_cache(rows=rows, capacity=capacity)
        self.drafter_room = DrafterRoom(rows, capacity, target.device)
        self._sampling = BatchSampling(self._device)
        # Of all sequences that no other drafter drafts for.
        self._ngram = NgramDrafter(target.identity.vocab_size, self._device)
        self._rows: dict[Sequence, _Row] = {}

    @property
    def stop_tokens(self) -> frozenset[int]:
        return self._target.stop_tokens

    @property
    def device(self) -> str:
        return self._target.device.description

    @property
    def draft_kinds(self) -> tuple[str, ...]:
        return DRAFT_KINDS

    def load_drafter(self, folder: Path, digest: str) -> Drafter:
        with memory_for(f"draft {folder.name} and its cache"):
            return load_drafter(folder, digest=digest, target=self._target, room=self.drafter_room)

    def begin(self, sequence: Sequence, drafter: Drafter | None) -> None:
        random = Randomness(sequence.request.sampling.seed, self._target.identity.vocab_size)
        self._rows[sequence] = _Row(drafter or self._ngram, random, [])

    @device_errors()
    @torch.inference_mode()
    def prefill(self, sequence: Sequence, *, row: int, end: int) -> int | None:
        prompt = sequence.request.prompt_tokens
        start = sequence.cached
        attend = CachedAttention(self._cache, first_row=row, starts=[start], count=end - start)
        drafter, is_last = self._rows[sequence].drafter, end == len(prompt)
        output = self._target.prefill(prompt[start:end], attend, drafter.target_layers)
        try:
            if drafter.target_layers:
                states = _side_by_side(output, drafter.target_layers)
                drafter.observe([(sequence, end - start)], states)
            if is_last:
                drafter.add(sequence)
        except Exception:  # noqa: BLE001 - logged by _give_up
            self._give_up([sequence], drafter)
            if is_last:
                self._ngram.add(sequence)
        return self._first_token(sequence, output.logits[0]) if is_last else None

    def _first_token(self, sequence: Sequence, logits: Tensor) -> int:
        """Draws from the prompt's last position, logits [1, V] float32."""
        token = self._sampler([sequence], 1).first(logits.unsqueeze(0))
        if not sequence.request.record:
            return int(self._target.device.on_host((token,))[0].item())
        found, ids, log_probs = self._target.device.on_host((token, *top_tokens(logits)))
        self._rows[sequence].captured.append(CapturedRows(ids, log_probs))
        return int(found.item())

    @device_errors()
    @torch.inference_mode()
    def decode(self, sequences: Rows[Sequence], lengths: list[int]) -> Verified:
        sampler = self._sampler(sequences, max(lengths) + 1)
        drafters = [self._rows[sequence].drafter for sequence in sequences]
        stopwatch = Stopwatch(self._target.device)
        proposal = self._proposal(
            sequences, lengths, stopwatch, with_probs=sampler.uniforms is not None
        )
        lengths = [
            length if self._rows[sequence].drafter is drafter else 0
            for sequence, drafter, length in zip(sequences, drafters, lengths, strict=True)
        ]
        # A seed's text must not hang on how a product of this batch's shape rounds.
        output = self._read(sequences, proposal.tokens, batch_invariant=sampler.coupled)
        step = verified(output.logits, proposal, lengths, sampler, self._target.device)
        self._capture(sequences, output.logits, step.accepted)
        self._observe(sequences, output, step.accepted, stopwatch)
        return step._replace(drafting=stopwatch.seconds())

    def _sampler(self, sequences: Rows[Sequence], count: int) -> Sampler:
        """Draws the next `count` tokens of each sequence."""
        return Sampler(
            self._sampling.rows(sequences),
            [self._rows[each].random for each in sequences],
            [each.output_count for each in sequences],
            count,
        )

    def _proposal(
        self,
        sequences: Rows[Sequence],
        lengths: list[int],
        stopwatch: Stopwatch,
        *,
        with_probs: bool,
    ) -> Proposal:
        """What all drafters propose: tokens [n, K] and, `with_probs`, their probabilities.

        Probabilities stay 0 where a drafter's rows are all determined.
        """
        count, width = len(sequences), max(lengths)
        tokens = torch.zeros(count, width, dtype=torch.int64, device=self._device)
        probs = None
        if with_probs:
            vocabulary = self._target.identity.vocab_size
            probs = torch.zeros(count, width, vocabulary, device=self._device)
        index = {sequence: place for place, sequence in enumerate(sequences)}
        drafters = {self._rows[sequence].drafter: None for sequence in sequences}
        for drafter in drafters:
            places = [index[sequence] for sequence in drafter.sequences]
            longest = max((lengths[place] for place in places), default=0)
            if longest == 0:
                continue
            try:
                with stopwatch.timing(drafter.digest):
                    proposal = drafter.propose(longest, self._sampler(drafter.sequences, longest))
                tokens[places, :longest] = proposal.tokens
                if probs is not None and proposal.probs is not None:
                    probs[places, :longest] = proposal.probs
            except Exception:  # noqa: BLE001 - logged by _give_up
                self._fall_back(drafter)
        return Proposal(tokens, probs)

    def _read(self, sequences: Rows[Sequence], drafted: Tensor, *, batch_invariant: bool) -> Output:
        """The target's output after each row's newest token and its drafts: logits [n, K+1, V]."""
        newest = torch.tensor([[each.tokens[-1]] for each in sequences], device=self._device)
        layers = {layer for each in sequences for layer in self._rows[each].drafter.target_layers}
        return self._target.decode(
            torch.cat([newest, drafted], dim=1),
            self._cache,
            [each.cached for each in sequences],
            batch_invariant=batch_invariant,
            layers=sorted(layers),
        )

    def _observe(
        self,
        sequences: Rows[Sequence],
        output: Output,
        accepted: list[int],
        stopwatch: Stopwatch,
    ) -> None:
        """Gives each drafter what it needs to know of the target at newest and accepted tokens."""
        if not output.states:
            return
        width = output.logits.shape[1]
        drafters = {self._rows[sequence].drafter: None for sequence in sequences}
        for drafter in drafters:
            if not drafter.target_layers:
                continue
            read: list[tuple[Sequence, int]] = []
            places: list[int] = []
            for row, sequence in enumerate(sequences):
                if self._rows[sequence].drafter is drafter:
                    read.append((sequence, accepted[row] + 1))
                    places += range(row * width, row * width + accepted[row] + 1)
            states = _side_by_side(output, drafter.target_layers)
            try:
                kept = torch.tensor(places, device=states.device)
                with stopwatch.timing(drafter.digest):
                    drafter.observe(read, states.index_select(0, kept))
            except Exception:  # noqa: BLE001 - logged by _give_up
                self._fall_back(drafter)

    def _capture(self, sequences: Rows[Sequence], logits: Tensor, accepted: list[int]) -> None:
        """Keeps the distributions up to and including each row's first rejection."""
        width = logits.shape[1]
        recorded = [
            index * width + position
            for index, sequence in enumerate(sequences)
            if sequence.request.record
            for position in range(accepted[index] + 1)
        ]
        if not recorded:
            return
        flat = logits.flatten(0, 1)  # [n * (K+1), V]
        if len(recorded) < len(flat):
            flat = flat.index_select(0, torch.tensor(recorded, device=flat.device))
        captured = CapturedRows(*self._target.device.on_host(top_tokens(flat)))
        start = 0
        for sequence, count in zip(sequences, accepted, strict=True):
            if sequence.request.record:
                end = start + count + 1
                self._rows[sequence].captured.append(captured.part(start, end))
                start = end

    def change(self, sequence: Sequence, drafter: Drafter) -> None:
        assert not drafter.target_layers, "the target's states of what it has read are gone"
        row = self._rows[sequence]
        row.drafter.remove(sequence)
        # Its next proposal feeds it all tokens so far.
        drafter.add(sequence)
        self._rows[sequence] = row._replace(drafter=drafter)

    def move(self, source: int, destination: int, tokens: int) -> None:
        self._cache.move(source, destination, tokens)

    def end(self, sequence: Sequence) -> Distributions | None:
        row = self._rows.pop(sequence)
        row.drafter.remove(sequence)
        if not row.captured:
            return None
        return as_distributions(row.captured, sequence.output_count)

    def _fall_back(self, drafter: Drafter) -> None:
        """Has n-grams drafted for all sequences of a drafter that raised an error."""
        sequences = list(drafter.sequences)
        self._give_up(sequences, drafter)
        for sequence in sequences:
            self._ngram.add(sequence)

    def _give_up(self, sequences: Rows[Sequence], drafter: Drafter) -> None:
        fields = {"draft": drafter.name, "digest": drafter.digest, "requests": len(sequences)}
        logger.exception("draft failed; its requests go on without", extra={"fields": fields})
        # From the last one on, so that no row moves.
        for sequence in reversed(sequences):
            sequence.draft_failed = True
            drafter.remove(sequence)
            self._rows[sequence] = self._rows[sequence]._replace(drafter=self._ngram)


def _side_by_side(output: Output, layers: Rows[int]) -> Tensor:
    """[n * T, layers × hidden]: what entered these layers of the target."""
    return torch.cat([output.states[layer] for layer in layers], dim=-1).flatten(0, 1)
