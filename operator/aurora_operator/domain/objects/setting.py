"""How the operator is installed: what objects depend on besides the deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

PullPolicy = Literal["Always", "IfNotPresent", "Never"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Pods in `operator_namespace` with `operator_labels` may call the control ports.

    `image_pull_secrets`: names of Secrets that may exist in a deployment's namespace.
    """

    inference_image: str
    buffer_image: str
    trainer_image: str
    operator_namespace: str
    operator_labels: Mapping[str, str]
    image_pull_policy: PullPolicy = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    owner_uid: str = ""
