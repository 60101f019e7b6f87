"""The arms: how the trainer learns by default, and what that is compared with."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.learning_side import Arm

from aurora_trainer.data.replay import ReplayLimits
from aurora_trainer.learning.learner import LearnerSettings
from aurora_trainer.learning.objective import kl_divergence, likelihood_to_acceptance

_LEARNER = LearnerSettings(objective="LK", learning_rate=2e-3)

OURS = Arm("ours", _LEARNER, likelihood_to_acceptance)
NO_REPLAY = replace(OURS, name="no_replay", limits=ReplayLimits(reservoir_percent=0))
# What its objective is, each request once, one to a step.
PUBLIC_RECIPE = Arm("public_recipe", replace(_LEARNER, objective="ForwardKL"), kl_divergence)
ALTERNATIVES = (replace(OURS, name="forward_kl", loss=kl_divergence),)
