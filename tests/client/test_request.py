from __future__ import annotations

import pytest

from aurora_client import BadRequestError, GenerateRequest


def test_all_problems_are_reported_together():
    with pytest.raises(BadRequestError) as caught:
        GenerateRequest(prompt="x", max_tokens=0, temperature=-1, top_p=0, top_k=-1, seed=-1)
    assert str(caught.value) == (
        "max_tokens must be at least 1, got 0; temperature must be at least 0, got -1; "
        "top_p must be above 0 and at most 1, got 0; top_k must be at least 0, got -1; "
        "seed must be an unsigned 64-bit number, got -1"
    )


@pytest.mark.parametrize("temperature", [float("nan"), float("inf")])
def test_a_temperature_must_be_finite(temperature):
    with pytest.raises(BadRequestError, match="temperature"):
        GenerateRequest(prompt="x", max_tokens=1, temperature=temperature)


def test_token_ids_are_unsigned():
    with pytest.raises(BadRequestError, match=r"token ids .* got -3"):
        GenerateRequest(prompt=[1, -3], max_tokens=1)


def test_a_single_stop_string_is_not_split_into_letters():
    assert GenerateRequest(prompt="x", max_tokens=1, stop="END").stop == ("END",)


def test_an_empty_stop_string_is_refused():
    with pytest.raises(BadRequestError, match="stop"):
        GenerateRequest(prompt="x", max_tokens=1, stop=["END", ""])
