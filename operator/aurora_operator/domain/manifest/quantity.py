"""Parses Kubernetes' strings for durations, quantities and decimals."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|ms|m|s))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}

_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?)([numkMGTPE]?|[KMGTPE]i)")
_BYTES = re.compile(r"\d+(?:\.\d+)?(?:|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][-+]?\d{1,2})")
_UNITS = {
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("n", "u", "m", ""), start=-3)},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}

_DECIMAL = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")


def parse_duration(text: str) -> timedelta:
    """Parses `1h30m`, `90s` or `250ms` as Go does; raises ValueError for anything else."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; write it like 24h, 10m, 90s or 1h30m")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError(f"{text!r} is too long a duration") from None


def parse_bytes(text: str) -> int:
    """Parses `16Gi`, `500M`, `1.5Ki`, `2e9` or plain bytes; raises ValueError for anything else.

    Fractions of a byte are rounded up, as Kubernetes does.
    """
    amount = parse_quantity(text) if _BYTES.fullmatch(text) else None
    if amount is None:
        raise ValueError(f"{text!r} is not a quantity; write it like 16Gi, 500M or 1048576")
    return int(amount.to_integral_value(ROUND_CEILING))


def parse_quantity(text: str) -> Decimal | None:
    """Any Kubernetes quantity, so that `0.5` equals `500m`; None if it is not one."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    number, unit = match.groups()
    return Decimal(number) * _UNITS[unit]


def parse_decimal(text: str) -> float:
    """Parses `0.01` or `1e-4`; raises ValueError for anything but a plain decimal."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f'{text!r} is not a decimal number; write it like "0.01" or "1e-4"')
    return float(text)
