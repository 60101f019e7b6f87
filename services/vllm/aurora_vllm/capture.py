"""What is captured of a request, and how it is packed for the gateway."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(slots=True)
class Capture:
    """The target's distribution at each output token, and what was drafted.

    Parts, one a step: token ids [n, k], log-probabilities [n, k] float16, tail mass [n] float16.
    `steps`: drafted and accepted tokens of each verify step.
    """

    key: str
    token_ids: list[Array] = field(default_factory=list)
    log_probs: list[Array] = field(default_factory=list)
    tail_mass: list[Array] = field(default_factory=list)
    output_tokens: list[Array] = field(default_factory=list)
    drafted_tokens: list[Array] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0

    def add(
        self, rows: tuple[Array, Array, Array], output_tokens: Array, drafted_tokens: Array
    ) -> int:
        """Adds a step; `rows` are those of the output tokens. Returns the bytes added."""
        for kept, part in zip((self.token_ids, self.log_probs, self.tail_mass), rows, strict=True):
            kept.append(part)
        self.output_tokens.append(output_tokens)
        if len(drafted_tokens):
            self.drafted_tokens.append(drafted_tokens)
            self.steps.append((len(drafted_tokens), len(output_tokens) - 1))
        added = sum(part.nbytes for part in (*rows, output_tokens, drafted_tokens))
        self.nbytes += added
        return added

    def header(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "k": self.token_ids[0].shape[1] if self.token_ids else 0,
            "tokens": sum(map(len, self.output_tokens)),
            "steps": self.steps,
        }

    def body(self) -> bytes:
        """Little-endian: ids u32, log-probabilities and tail f16, output and drafted ids u32."""
        return b"".join(
            np.ascontiguousarray(part, dtype).tobytes()
            for parts, dtype in (
                (self.token_ids, "<u4"),
                (self.log_probs, "<f2"),
                (self.tail_mass, "<f2"),
                (self.output_tokens, "<u4"),
                (self.drafted_tokens, "<u4"),
            )
            for part in parts
        )


def packed(batch: int, captures: Sequence[Capture], *, more: bool, dropped: int) -> bytes:
    """A length, u32 little-endian, so many bytes of JSON, and the captures' bodies in order."""
    header = json.dumps(
        {
            "batch": batch,
            "more": more,
            "dropped": dropped,
            "requests": [capture.header() for capture in captures],
        }
    ).encode()
    bodies = b"".join(capture.body() for capture in captures)
    return len(header).to_bytes(4, "little") + header + bodies
