"""The AuroraDeployment manifest as frozen types: every field here works, nothing else is accepted.

The cluster's resource definition and docs/reference.md are generated from these types, docstrings
included. Durations, quantities and decimals stay the strings that the user wrote (Kubernetes knows
no floats); a property beside each gives the number, with its unit in the name.
"""

from aurora_operator.domain.manifest.spec.buffer import ExternalRedis
from aurora_operator.domain.manifest.spec.deployment import AuroraDeployment, Metadata, Spec
from aurora_operator.domain.manifest.spec.model import (
    INNER_PROBLEM,
    PARENT_PROBLEM,
    STEPS_PROBLEM,
    STORED,
)
from aurora_operator.domain.manifest.spec.pod import PodTemplate, Resources
from aurora_operator.domain.manifest.spec.rollout import Rollout

__all__ = [
    "INNER_PROBLEM",
    "PARENT_PROBLEM",
    "STEPS_PROBLEM",
    "STORED",
    "AuroraDeployment",
    "ExternalRedis",
    "Metadata",
    "PodTemplate",
    "Resources",
    "Rollout",
    "Spec",
]
