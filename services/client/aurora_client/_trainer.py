"""What a trainer says about itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from aurora.trainer.v1 import trainer_pb2 as pb
from aurora_client._call import Call
from aurora_client._policy import Retry
from aurora_client._sync_channel import SyncChannel

_METHOD = "/aurora.trainer.v1.Trainer/GetStatus"


@dataclass(frozen=True, slots=True)
class TrainerStatus:
    """Its phase and how far it is.

    `phase`: WaitingForTrajectories, Training or Publishing. `eta_seconds`: until the last step of
    the round; None if unknown. `checkpoint`: the last one published, or empty; `acceptance` is its
    own on held-out trajectories, 0..1. `withheld`: why the last round published nothing, or empty.
    `waiting`: why no round begins however much arrives, or empty. `max_share_percent`: how much of
    the time may be spent training, 0 if unknown; `training_share`: how much was, 0..1;
    `pause_seconds`: until the next step may begin. `skipped`: how many trajectories were not
    trained on, by reason.
    """

    phase: str
    new_trajectories: int
    min_new_trajectories: int
    step: int
    steps_per_round: int
    eta_seconds: float | None
    checkpoint: str
    acceptance: float | None
    withheld: str
    waiting: str = ""
    max_share_percent: int = 0
    training_share: float = 0.0
    pause_seconds: float = 0.0
    skipped: Mapping[str, int] = field(default_factory=dict)


def trainer_status(address: str, *, retry: Retry, seconds: float) -> TrainerStatus:
    """Asks the trainer at `host:port`; raises an AuroraClientError if it does not answer."""
    call = Call(_METHOD, pb.GetStatusRequest(), pb.GetStatusResponse, _status_of)
    with closing(SyncChannel(address, retry=retry, jitter=random.random)) as channel:
        return channel.one(call, seconds)


def _status_of(message: pb.GetStatusResponse) -> TrainerStatus:
    return TrainerStatus(
        phase=message.phase,
        new_trajectories=message.new_trajectories,
        min_new_trajectories=message.min_new_trajectories,
        step=max(0, message.steps_per_round - message.steps_left),
        steps_per_round=message.steps_per_round,
        eta_seconds=message.eta_seconds if message.HasField("eta_seconds") else None,
        checkpoint=message.checkpoint,
        acceptance=message.acceptance if message.HasField("acceptance") else None,
        withheld=message.withheld,
        waiting=message.waiting,
        max_share_percent=message.max_share_percent,
        training_share=message.training_share,
        pause_seconds=message.pause_seconds,
        skipped=dict(message.skipped),
    )
