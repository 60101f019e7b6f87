"""A vLLM that was running before: attached, its draft learns; detached, it has its own back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from stock.server import KEY, MODEL, Server, serving
from stock.up import PROMOTED_SECONDS, Load, manifest, running

pytestmark = pytest.mark.slow


@pytest.fixture
def theirs(models, weak_draft, plugin, tmp_path) -> Iterator[Server]:
    """Takes checkpoints from the folder in which the deployment will keep its own."""
    with serving(
        target=models.target,
        draft=weak_draft,
        store=tmp_path,
        python_path=[plugin],
        log=tmp_path / "vllm.txt",
    ) as server:
        yield server


@pytest.fixture
def attached(models, weak_draft, theirs, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY)
    engine = {
        "type": "vllm",
        "attach": {"url": f"http://127.0.0.1:{theirs.port}", "keyFile": str(key)},
    }
    return manifest(
        target={"uri": models.target.as_uri(), "dtype": "float32"},
        engine=engine,
        draft={"initialCheckpoint": {"uri": weak_draft.as_uri()}},
    )


def live(server: Server) -> str:
    async def status() -> str:
        async with server.client() as client:
            digest: str = (await client.ok("status"))["live"]["digest"]
            return digest

    return asyncio.run(status())


def test_its_draft_learns_while_attached_and_is_put_back(theirs, attached, tmp_path: Path):
    before = live(theirs)
    with running(attached, tmp_path) as aurora:
        assert aurora.component("engine") is None
        with Load(aurora.http_port, KEY, MODEL) as load:
            verdicts = aurora.wait_for(aurora.promoted, "promotion", PROMOTED_SECONDS)
        assert verdicts[0].effect_bps >= 1000
        assert load.errors == []
        assert live(theirs) not in ("", before)
        # Clients have the keys that they had: vLLM checks them.
        url = f"http://127.0.0.1:{aurora.http_port}/v1"
        with (
            openai.OpenAI(base_url=url, api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.completions.create(model=MODEL, prompt="a", max_tokens=1)

    # The vLLM runs on, with the draft that it had.
    assert live(theirs) == before
