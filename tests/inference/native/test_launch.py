"""What a model folder and the command line together decide."""

from __future__ import annotations

import dataclasses
import json

import pytest

from aurora_common.errors import InvalidInputError
from aurora_common.store.registry import model_store
from aurora_inference.contract import Sampling
from aurora_inference.native.launch import load_engine, load_target, request_defaults
from aurora_inference.settings import parse_settings
from aurora_model.folder import read_folder

FLAGS = ["--model-name", "m", "--http-listen", "a:1", "--grpc-listen", "a:2"]


@pytest.fixture
def folder(target_folder, tmp_path):
    """A copy of the target that a test may change."""
    for file in target_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "generation_config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def defaults(folder):
    """defaults(generation_config): what requests default to with these values in the file."""

    def read(source: str = "auto", **values):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 1} | values))
        return request_defaults(read_folder(folder), source)

    return read


def logged(caplog) -> list[tuple[str, dict]]:
    return [(record.levelname, record.fields) for record in caplog.records]


def test_requests_default_to_the_generation_config(defaults, caplog):
    caplog.set_level("INFO")
    assert defaults(temperature=0.6, top_p=0.95, top_k=20, max_new_tokens=99) == (
        Sampling(0.6, 0.95, 20),
        99,
    )
    stated = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_new_tokens": 99}
    assert logged(caplog) == [("INFO", stated)]


def test_an_empty_generation_config_changes_and_says_nothing(defaults, caplog):
    caplog.set_level("INFO")
    assert defaults() == (Sampling(), None)
    assert logged(caplog) == []


def test_vllm_turns_the_generation_config_off(defaults, caplog):
    caplog.set_level("INFO")
    assert defaults("vllm", temperature=0.6, repetition_penalty=1.2) == (Sampling(), None)
    assert logged(caplog) == []


def test_differences_from_vllm_are_logged(defaults, caplog):
    defaults(repetition_penalty=1.2, min_p=0.1, eos_token_id=2)
    assert logged(caplog) == [
        ("WARNING", {"repetition_penalty": 1.2, "min_p": 0.1}),
    ]


def test_a_stop_token_that_vllm_would_ignore_is_logged(defaults, folder, caplog):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | {"eos_token_id": [1, 7]}))
    defaults()
    assert logged(caplog) == [("WARNING", {"eos_token_id": [7]})]


@pytest.fixture
def context(folder):
    """context(flags): the context that is served with a sliding window of 64 of 512 tokens."""
    content = json.loads((folder / "config.json").read_text())
    window = {"model_type": "mistral", "architectures": None, "sliding_window": 64}
    (folder / "config.json").write_text(json.dumps(content | window))

    def served(*flags: str) -> int:
        settings = parse_settings(["--target", str(folder), *FLAGS, *flags])
        settings = dataclasses.replace(settings, max_batch=1)
        target, _ = load_target(settings, model_store())
        return load_engine(target, settings, model_store(), lambda _: None).max_context_tokens

    return served


def test_a_sliding_window_bounds_the_default_context(context):
    assert context() == 64


def test_a_sliding_window_longer_than_the_context_is_harmless(context):
    assert context("--max-context-tokens", "64") == 64


def test_a_context_longer_than_the_sliding_window_is_refused(context):
    with pytest.raises(
        InvalidInputError, match="--max-context-tokens is 65: allowed is at most 64"
    ):
        context("--max-context-tokens", "65")
