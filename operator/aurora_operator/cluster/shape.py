"""What a deployment consists of, with what this installation adds to it."""

from __future__ import annotations

from dataclasses import replace

from aurora_operator.adapters.kubernetes import Json
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import desired_objects
from aurora_operator.domain.objects.drift import needs_apply
from aurora_operator.domain.objects.setting import Setting


class ComponentShape:
    """`setting`: that of every deployment; the owner's uid is filled in for each."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def wanted(self, deployment: AuroraDeployment, uid: str) -> tuple[Json, ...]:
        return desired_objects(deployment, replace(self._setting, owner_uid=uid))

    def differs(self, desired: Json, live: Json) -> bool:
        return needs_apply(desired, live)
