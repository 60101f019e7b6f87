"""What desired objects depend on besides the deployment: how the operator is installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True, slots=True)
class Setting:
    """`operator_namespace` and `operator_labels`: whose pods may call the control ports."""

    inference_image: str
    buffer_image: str
    trainer_image: str
    operator_namespace: str
    operator_labels: Mapping[str, str]
    image_pull_policy: PullPolicy = "IfNotPresent"
    owner_uid: str = ""
