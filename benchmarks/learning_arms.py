"""The arms: how the trainer learns by default, and what that is compared with."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.learning_objectives import (
    accepted_length,
    greedy_cross_entropy,
    negative_log_acceptance,
    reverse_kl,
)
from benchmarks.learning_side import Arm

from aurora_trainer.data.replay import ReplayLimits
from aurora_trainer.learning.learner import LearnerSettings
from aurora_trainer.learning.objective import kl_divergence, likelihood_to_acceptance

_MUON = LearnerSettings(objective="LK", learning_rate=2e-3, optimizer="Muon")
_ADAMW = replace(_MUON, optimizer="AdamW")

OURS = Arm("ours", _MUON, likelihood_to_acceptance)
NO_REPLAY = replace(OURS, name="no_replay", limits=ReplayLimits(reservoir_percent=0))
# Its objective and its optimizer, each request once, one to a step.
PUBLIC_RECIPE = Arm("public_recipe", replace(_ADAMW, objective="ForwardKL"), kl_divergence)
ALTERNATIVES = (
    replace(OURS, name="adamw", learner=_ADAMW),
    replace(OURS, name="adamw_4e-3", learner=replace(_ADAMW, learning_rate=4e-3)),
    replace(OURS, name="forward_kl", loss=kl_divergence),
    replace(OURS, name="negative_log_acceptance", loss=negative_log_acceptance),
    replace(OURS, name="reverse_kl", loss=reverse_kl),
    replace(OURS, name="greedy_cross_entropy", loss=greedy_cross_entropy),
    replace(OURS, name="accepted_length", loss=accepted_length),
)
