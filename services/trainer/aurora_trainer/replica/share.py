"""A share of a step on the wire: a task and its batch, validated on arrival."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from aurora.trainer.v1 import gradient_pb2
from aurora_common.errors import CheckpointError, InvalidInputError
from aurora_model.draft import DEFAULT_KIND, Draft, DraftConfig, draft_kind
from aurora_trainer.data.batch import Batch, sequence_positions
from aurora_trainer.learning.objective import ObjectiveName
from aurora_trainer.replica.tensor_file import read, size_limit_bytes
from aurora_trainer.settings import OBJECTIVES

_LONGEST_CONFIG_BYTES = 1 << 16
_MOST_LAYERS = 1024
_MOST_SEQUENCES = 4096
_MOST_TOKENS = _MOST_SEQUENCES * 1024
_MOST_ENTRIES = 1024
_BATCH_TYPES = {
    "tokens": torch.int64,
    "rows": torch.int64,
    "top_ids": torch.int64,
    "log_probs": torch.float32,
    "tail_mass": torch.float32,
}
# Per token: its id, row and tail mass; and per top-k entry.
_TOKEN_BYTES, _ENTRY_BYTES = 8 + 8 + 4, 8 + 4


@dataclass(frozen=True, slots=True)
class ShareTask:
    """A share to compute, without its batch."""

    kind: type[Draft]
    config: DraftConfig
    objective: ObjectiveName
    positions: int
    lengths: tuple[int, ...]

    @property
    def most_entries(self) -> int:
        """The most top-k entries that a row of its batch may have."""
        return min(_MOST_ENTRIES, self.config.vocab_size)

    @property
    def batch_limit_bytes(self) -> int:
        """The largest size of its batch."""
        token_bytes = _TOKEN_BYTES + self.most_entries * _ENTRY_BYTES
        return size_limit_bytes(sum(self.lengths) * token_bytes, len(_BATCH_TYPES))


def parsed_task(message: gradient_pb2.Task) -> ShareTask:
    """The task of a message; raises InvalidInputError listing every problem."""
    kind, config = _kind_and_config(message)
    lengths = tuple(message.lengths)
    tokens = sum(lengths)
    allowed = (
        ("sequences", len(lengths), 1, _MOST_SEQUENCES),
        ("shortest sequence", min(lengths, default=1), 1, _MOST_TOKENS),
        ("tokens", tokens, 1, _MOST_TOKENS),
        ("positions", message.positions, 1, 1 << 40),
    )
    problems = [
        f"{name} is {value}: allowed is {low} to {high}"
        for name, value, low, high in allowed
        if not low <= value <= high
    ]
    if message.objective not in OBJECTIVES:
        problems.append(f"objective is {message.objective!r}: allowed is {' or '.join(OBJECTIVES)}")
    if problems:
        raise InvalidInputError("; ".join(problems))
    return ShareTask(
        kind=kind,
        config=config,
        objective=cast(ObjectiveName, message.objective),
        positions=message.positions,
        lengths=lengths,
    )


def config_text(draft: Draft) -> str:
    """The draft's config as `parsed_task` reads it."""
    return json.dumps(draft.config_content())


def batch_tensors(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch that its lengths do not determine."""
    return {name: getattr(batch, name) for name in _BATCH_TYPES}


def parsed_batch(content: bytes, task: ShareTask) -> Batch:
    """The batch of a file; raises InvalidInputError, whose message never contains a token."""
    tensors = read("batch's tensors", content)
    found = {name: tensor.dtype for name, tensor in tensors.items()}
    if found != _BATCH_TYPES:
        raise InvalidInputError(f"the batch has {found}: allowed is {_BATCH_TYPES}")
    tokens, rows, top_ids = tensors["tokens"], tensors["rows"], tensors["top_ids"]
    _check_shapes(tensors, task)
    vocabulary = task.config.vocab_size
    if int(rows[0]) < 0 or int(rows[-1]) >= tokens.shape[1] or bool((rows.diff() <= 0).any()):
        raise InvalidInputError(f"rows do not increase from 0 to below {tokens.shape[1]}")
    for name, ids in (("token", tokens), ("top-k token", top_ids)):
        lowest, highest = (int(extreme) for extreme in ids.aminmax())
        if lowest < 0 or highest >= vocabulary:
            raise InvalidInputError(f"a {name} is not within the vocabulary of {vocabulary}")
    return Batch(
        tokens=tokens,
        positions=sequence_positions(task.lengths),
        lengths=task.lengths,
        rows=rows,
        top_ids=top_ids,
        log_probs=tensors["log_probs"],
        tail_mass=tensors["tail_mass"],
    )


def _kind_and_config(message: gradient_pb2.Task) -> tuple[type[Draft], DraftConfig]:
    text = message.draft_config
    if len(text) > _LONGEST_CONFIG_BYTES:
        raise InvalidInputError(
            f"draft_config has {len(text)} characters: allowed is at most {_LONGEST_CONFIG_BYTES}"
        )
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError("it is not an object")
        kind = draft_kind(message.draft_kind or DEFAULT_KIND)
        if kind.needs_target:
            raise CheckpointError(f"draft_kind is {kind.kind!r}, which only trains at its target")
        config = kind.parse_config(content, source="draft_config")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"draft_config is not a config.json: {error}") from error
    except CheckpointError as error:
        raise InvalidInputError(str(error)) from error
    if config.num_layers > _MOST_LAYERS:
        raise InvalidInputError(
            f"num_hidden_layers is {config.num_layers}: allowed is at most {_MOST_LAYERS}"
        )
    return kind, config


def _check_shapes(tensors: Mapping[str, Tensor], task: ShareTask) -> None:
    tokens, rows = sum(task.lengths), tensors["rows"].numel()
    entries = tensors["top_ids"].shape[-1] if tensors["top_ids"].dim() else 0
    expected: dict[str, Sequence[int]] = {
        "tokens": (1, tokens),
        "rows": (rows,),
        "top_ids": (rows, entries),
        "log_probs": (rows, entries),
        "tail_mass": (rows,),
    }
    problems = [
        f"{name} has shape {list(tensors[name].shape)}, not {list(shape)}"
        for name, shape in expected.items()
        if tuple(tensors[name].shape) != tuple(shape)
    ]
    for name, value, high in (
        ("rows", rows, min(tokens, task.positions)),
        ("top-k entries", entries, task.most_entries),
    ):
        if not 1 <= value <= high:
            problems.append(f"there are {value} {name}: allowed is 1 to {high}")
    if problems:
        raise InvalidInputError(f"the batch does not fit its task: {'; '.join(problems)}")
