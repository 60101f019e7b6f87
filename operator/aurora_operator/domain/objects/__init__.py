"""The Kubernetes objects of an AuroraDeployment."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.attached import EnginePod
from aurora_operator.domain.objects.buffer import buffer_objects
from aurora_operator.domain.objects.cert_manager import certificates
from aurora_operator.domain.objects.drift import stamped
from aurora_operator.domain.objects.inference import inference_objects
from aurora_operator.domain.objects.metadata import Json, metadata
from aurora_operator.domain.objects.network_policy import network_policies
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.objects.trainer import trainer_objects


def desired_objects(
    deployment: AuroraDeployment,
    setting: Setting,
    engines: Sequence[EnginePod] = (),
    *,
    drained: bool = True,
) -> tuple[Json, ...]:
    """Everything but the Secrets of a self-managed CA, ready for server-side apply.

    `engines`: the pods of an attached vLLM. `drained`: no inference pod is left that records, so
    that the buffer of a suspended deployment may stop as well.
    """
    objects = (
        _service_account(deployment, setting),
        *network_policies(deployment, setting),
        *certificates(deployment, setting),
        *buffer_objects(deployment, setting, drained=drained),
        *inference_objects(deployment, setting, engines),
        *trainer_objects(deployment, setting),
    )
    return tuple(stamped(desired) for desired in objects)


def _service_account(deployment: AuroraDeployment, setting: Setting) -> Json:
    """An identity without permissions: no component calls the API server."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(deployment, setting, None, name=deployment.metadata.name),
        "automountServiceAccountToken": False,
    }
