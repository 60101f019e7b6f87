"""When the trainer trains: what it decides from, saved with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from aurora_trainer.control.gain import Gain, Probe
from aurora_trainer.control.plateau import Plateau, after_round
from aurora_trainer.control.traffic import Averages, Traffic, drift, observed


@dataclass(frozen=True, slots=True)
class Control:
    """`probe` and `began_seconds`: held-out acceptance, and the seconds of training, when the round
    in progress began. `drifts`: how often traffic has changed, `drift` how it last did, `changed`:
    whether it has since the last round began."""

    traffic: Traffic = field(default=Traffic())
    plateau: Plateau = field(default=Plateau())
    probe: Probe = field(default=Probe())
    began_seconds: float = 0.0
    drifts: int = 0
    drift: str = ""
    changed: bool = False

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """What `dataclasses.asdict` gave; raises KeyError or TypeError for something else."""
        traffic, probe = content["traffic"], content["probe"]
        domains = {name: Averages(**each) for name, each in traffic["domains"].items()}
        return cls(
            **{
                **content,
                "traffic": Traffic(traffic["requests"], domains),
                "plateau": Plateau(**content["plateau"]),
                "probe": Probe(**probe),
            }
        )


def with_request(control: Control, domain: str, acceptance: float | None) -> Control:
    """A request was served; a change of traffic ends a plateau."""
    traffic = observed(control.traffic, domain, acceptance)
    if not (change := drift(traffic)):
        return replace(control, traffic=traffic)
    return replace(
        control,
        traffic=Traffic(),
        plateau=Plateau(),
        drifts=control.drifts + 1,
        drift=change,
        changed=True,
    )


def with_round_begun(control: Control, probe: Probe, *, training_seconds: float) -> Control:
    """A round begins; so long was trained before."""
    return replace(control, probe=probe, began_seconds=training_seconds, changed=False)


def with_round_ended(
    control: Control, gain: Gain | None, *, training_seconds: float, trajectories: int
) -> Control:
    """The round's steps are done; `gain`: what was measured of it."""
    plateau = after_round(
        control.plateau,
        gain,
        seconds=training_seconds - control.began_seconds,
        trajectories=trajectories,
    )
    return replace(control, plateau=plateau, probe=Probe())
