"""An engine that the plugin does not support says so, and serves on."""

from __future__ import annotations


async def test_an_unsupported_version_is_one_clear_error(unsupported, plain):
    async with unsupported.client() as client:
        status, answer = await client.call("status")
        completion = await client.complete(plain.prompts[0], 8)

    assert (status, answer["error"]["code"]) == (501, "unsupported_engine")
    assert "it is vLLM 0.31.0+cpu; supported are vLLM 0.32" in answer["error"]["message"]
    assert completion.tokens == plain.outputs[0][:8]
    assert unsupported.log.read_text().count("cannot work with this engine") == 1
