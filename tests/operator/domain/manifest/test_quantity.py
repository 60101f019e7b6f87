from datetime import timedelta

import pytest

from aurora_operator.domain.manifest.quantity import parse_bytes, parse_decimal, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("10m", 600), ("90s", 90), ("1h30m", 5_400), ("250ms", 0.25), ("0s", 0),
     ("1.5h", 5_400), ("1m1s1ms", 61.001)],
)  # fmt: skip
def test_duration(text, seconds):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "24", "h", "1d", "-1h", "1 h", "1h ", "1e3s", "9" * 30 + "h"])
def test_not_a_duration(text):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("16Gi", 16 << 30), ("500M", 500_000_000), ("1.5Ki", 1536), ("7", 7), ("0.1", 1), ("2k", 2000),
     ("1Pi", 1 << 50)],
)  # fmt: skip
def test_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "Gi", "16GB", "16gi", "-1", "1e", "1e1000", "1 Gi"])
def test_not_a_quantity(text):
    with pytest.raises(ValueError, match="quantity"):
        parse_bytes(text)


@pytest.mark.parametrize(("text", "number"), [("1e-4", 1e-4), ("0.01", 0.01), ("3", 3.0)])
def test_decimal(text, number):
    assert parse_decimal(text) == number


@pytest.mark.parametrize("text", ["", "nan", "inf", "-1", ".5", "1e", "0x1", "1e9999"])
def test_not_a_decimal(text):
    with pytest.raises(ValueError, match="decimal"):
        parse_decimal(text)
