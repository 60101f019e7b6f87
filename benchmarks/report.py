"""Writes a benchmark's figures to out/bench/<name>.json, with what they were measured on."""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aurora_common.machine import machine_description

REPORT_FOLDER = Path("out/bench")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: its median over the rounds, and the smallest and largest of them."""

    value: float
    unit: str
    spread: tuple[float, float]


def median_figure(rounds: Sequence[float], unit: str) -> Figure:
    """The figure of several rounds of one measurement; `rounds` must not be empty."""
    return Figure(statistics.median(rounds), unit, (min(rounds), max(rounds)))


def exact_figure(value: float, unit: str) -> Figure:
    """The figure of something that was counted or measured once."""
    return Figure(value, unit, (value, value))


def write_report(name: str, figures: Mapping[str, Figure]) -> Path:
    """Writes `out/bench/<name>.json` below the working folder and prints the figures.

    {"command": …, "machine": {…}, "figures": {key: {"value": …, "unit": …, "spread": [low, high]}}}
    """
    report = {
        "command": _command(),
        "machine": machine_description(),
        "figures": {
            key: {"value": figure.value, "unit": figure.unit, "spread": list(figure.spread)}
            for key, figure in figures.items()
        },
    }
    path = REPORT_FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for key, figure in figures.items():
        low, high = figure.spread
        print(f"{key}: {figure.value:.4g} {figure.unit} ({low:.4g} to {high:.4g})")
    return path


def _command() -> str:
    module = sys.modules["__main__"].__spec__
    script = [sys.argv[0]] if module is None else ["-m", module.name]
    return shlex.join(["python", *script, *sys.argv[1:]])
