"""The trainer's state as one file, from which a new process resumes."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from aurora_common.durable import write_file
from aurora_common.errors import InvalidInputError, StorageError
from aurora_model.draft import DEFAULT_KIND
from aurora_trainer.control.control import Control
from aurora_trainer.data.packed import packed_samples, unpacked_samples
from aurora_trainer.data.replay import Replay, ReplayLimits, Reservoir
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.learner import LearnerState
from aurora_trainer.progress import Progress
from aurora_trainer.verdict import Verdict

STATE = "state.pt"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class State:
    """Everything saved; `learner`'s tensors may be live ones, since they are only read."""

    target_digest: str
    tokenizer_digest: str
    draft_kind: str
    draft_config: dict[str, Any]
    learner: LearnerState
    progress: Progress
    seen: tuple[str, ...]
    replay: Replay
    verdicts: tuple[Verdict, ...] = ()


def save_state(path: Path, state: State) -> None:
    """Replaces the file; on failure raises StorageError and leaves the old file intact."""
    buffer = io.BytesIO()
    torch.save(
        {
            "format": _FORMAT,
            "target_digest": state.target_digest,
            "tokenizer_digest": state.tokenizer_digest,
            "draft_kind": state.draft_kind,
            "draft_config": state.draft_config,
            "learner": dict(state.learner),
            "progress": asdict(state.progress),
            "seen": list(state.seen),
            "replay": _packed_replay(state.replay),
            "verdicts": [asdict(verdict) for verdict in state.verdicts],
        },
        buffer,
    )
    write_file(path, buffer.getvalue())


def load_state(path: Path, limits: ReplayLimits) -> State | None:
    """The state in the file; None if there is no file.

    Raises StorageError naming the file and the way out if it is unusable.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
    try:
        _check_sums(content)
        # Only tensors and plain values: a state file cannot run code.
        found: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if found["format"] != _FORMAT:
            raise ValueError(f"it has format {found['format']}, this version reads {_FORMAT}")
        return State(
            target_digest=found["target_digest"],
            tokenizer_digest=found["tokenizer_digest"],
            draft_kind=found.get("draft_kind", DEFAULT_KIND),
            draft_config=found["draft_config"],
            learner=found["learner"],
            progress=_unpacked_progress(found["progress"]),
            seen=tuple(found["seen"]),
            replay=_unpacked_replay(found["replay"], limits),
            verdicts=tuple(Verdict(**each) for each in found.get("verdicts", ())),
        )
    except (
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        EOFError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        InvalidInputError,
    ) as error:
        raise unusable(path, str(error) or repr(error)) from error


def _check_sums(content: bytes) -> None:
    # torch writes a zip file with checksums but does not verify them when loading.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")


def discard_unfinished(path: Path) -> None:
    """Removes what a process that was killed while saving left beside the file."""
    for file in path.parent.glob(f".{path.name}.*.partial"):
        file.unlink(missing_ok=True)


def unusable(path: Path, reason: str) -> StorageError:
    """The error for a state that this trainer cannot resume from."""
    return StorageError(
        f"training cannot resume from {path} ({_first_line(reason)}). Move it away to begin again "
        "from --draft or random weights; published checkpoints are not touched, and the buffer "
        "delivers unacknowledged trajectories again"
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300]


def _packed_replay(replay: Replay) -> dict[str, object]:
    samples = list({id(sample): sample for sample in replay.samples()}.values())
    index = {id(sample): number for number, sample in enumerate(samples)}

    def numbers(members: Iterable[Sample]) -> list[int]:
        return [index[id(member)] for member in members]

    return {
        **packed_samples(samples),
        "window": numbers(replay.window.members),
        "holdout": numbers(replay.holdout.members),
        "reservoirs": {
            domain: (each.capacity, each.offered, numbers(each.members))
            for domain, each in replay.reservoirs.items()
        },
    }


def _unpacked_progress(packed: dict[str, Any]) -> Progress:
    if "control" not in packed:
        return Progress(**packed)
    return Progress(**{**packed, "control": Control.from_content(packed["control"])})


def _unpacked_replay(packed: dict[str, Any], limits: ReplayLimits) -> Replay:
    samples = unpacked_samples(packed)
    replay = Replay(limits)
    for name in ("window", "holdout"):
        for number in packed[name]:
            getattr(replay, name).append(samples[number])
    for domain, (capacity, offered, members) in packed["reservoirs"].items():
        kept = [samples[number] for number in members]
        size_bytes = sum(sample.size_bytes for sample in kept)
        replay.reservoirs[domain] = Reservoir(capacity, offered, kept, size_bytes)
    return replay
