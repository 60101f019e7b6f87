"""Who may call the plugin's routes, and what the engine does not offer."""

from __future__ import annotations

import json

import pytest

ROUTES = [
    ("GET", "status"),
    ("POST", "stage"),
    ("POST", "unstage"),
    ("POST", "activate"),
    ("POST", "capture"),
]
DEVELOPMENT = ["/pause", "/resume", "/collective_rpc", "/reset_prefix_cache", "/update_weights"]


@pytest.mark.parametrize(("method", "verb"), ROUTES)
@pytest.mark.parametrize("key", [None, "wrong"])
async def test_every_route_needs_the_key(vllm, method, verb, key):
    async with (
        vllm.client(key) as client,
        client.session.request(method, f"/v1/aurora/{verb}", json={}) as answer,
    ):
        assert answer.status == 401


@pytest.mark.parametrize("path", DEVELOPMENT)
async def test_routes_of_the_development_mode_are_absent(vllm, path):
    async with vllm.client() as client, client.session.post(path, json={}) as answer:
        assert answer.status == 404


async def test_status_names_the_engine_and_its_drafts(vllm, models):
    async with vllm.client() as client:
        await client.only(models.twin)
        status = await client.ok("status")

    assert status["runner"] == "V1"
    assert status["vllm"].startswith("0.32.")
    assert status["method"] == "draft_model"
    assert status["speculation_length"] == 4
    assert status["live"] == {"digest": models.twin.digest, "name": models.twin.name}
    assert status["staged"] == []
    assert status["capture"]["entries"] == 64
    config = json.loads((models.target / "config.json").read_text())
    shape = ("vocab_size", "hidden_size", "num_hidden_layers")
    assert status["target"] == {
        "model": str(models.target),
        "max_model_len": 512,
        **{name: config[name] for name in shape},
    }
    assert status["start"]["digest"] == models.start_digest


@pytest.mark.parametrize(
    ("verb", "body"),
    [
        ("stage", {"digest": "sha256:0"}),
        ("activate", {"digest": "sha256:0", "restart": True}),
        ("capture", {"max_bytes": 0}),
    ],
)
async def test_a_body_of_another_form_is_refused(vllm, verb, body):
    async with vllm.client() as client:
        status, answer = await client.call(verb, **body)

    assert status == 400
    assert answer["error"]["message"]
