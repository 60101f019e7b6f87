"""Samples as a few tensors and lists, in which form they are saved and sent to other ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aurora_trainer.data.sample import Sample

_ARRAYS = ("tokens", "top_ids", "log_probs", "tail_mass")


def packed_samples(samples: Sequence[Sample]) -> dict[str, object]:
    """Plain values and tensors, which load with weights_only."""
    return {
        "stream_ids": [sample.stream_id for sample in samples],
        "request_ids": [sample.request_id for sample in samples],
        "domains": [sample.domain for sample in samples],
        "token_counts": [len(sample.tokens) for sample in samples],
        "shapes": [tuple(sample.top_ids.shape) for sample in samples],
        "greedy": [sample.is_greedy for sample in samples],
        **{name: _joined([getattr(sample, name) for sample in samples]) for name in _ARRAYS},
    }


def unpacked_samples(packed: Mapping[str, Any]) -> list[Sample]:
    """The samples that were packed; raises a KeyError, ValueError or TypeError if they were not."""
    shapes: list[tuple[int, int]] = packed["shapes"]
    if not shapes:
        return []
    rows = [rows for rows, _ in shapes]
    entries = [rows * entries for rows, entries in shapes]
    tokens = _split(packed["tokens"], packed["token_counts"])
    top_ids = _split(packed["top_ids"], entries)
    log_probs = _split(packed["log_probs"], entries)
    tail_mass = _split(packed["tail_mass"], rows)
    # Absent in states of earlier versions.
    greedy = packed.get("greedy", [False] * len(shapes))
    return [
        Sample(
            stream_id=packed["stream_ids"][number],
            request_id=packed["request_ids"][number],
            domain=packed["domains"][number],
            tokens=tokens[number],
            top_ids=top_ids[number].reshape(shape),
            log_probs=log_probs[number].reshape(shape),
            tail_mass=tail_mass[number],
            is_greedy=greedy[number],
        )
        for number, shape in enumerate(shapes)
    ]


def _joined(arrays: Sequence[np.ndarray[Any, Any]]) -> Tensor | None:
    # One tensor for all samples: writing thousands of small ones would take seconds.
    return torch.from_numpy(np.concatenate([each.ravel() for each in arrays])) if arrays else None


def _split(joined: Tensor, sizes: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    # Copies: a single view would keep the whole file in memory.
    return [part.numpy().copy() for part in torch.split(joined, list(sizes))]
