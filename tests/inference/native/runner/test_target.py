"""A float32 target rounds a row alike whatever else is in its batch."""

from __future__ import annotations

import pytest
import torch

from aurora_inference.native.runner.cache import CachedAttention
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.target import Target
from aurora_kernels.linear.calibration import is_batch_invariant
from aurora_kernels.linear.form import FORMS
from aurora_model.config import DecoderConfig, parse_config
from aurora_model.draft import random_draft
from aurora_model.target import TargetIdentity

VOCABULARY, ROWS, CAPACITY = 96, 8, 200
# Of each row before the step: the neighbours reach into other blocks of attention.
LENGTHS = (37, 5, 63, 64, 150, 1, 100, 40)


def _config(kv_heads: int) -> DecoderConfig:
    return parse_config(
        {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            # A longer sum than some libraries make in one piece.
            "intermediate_size": 1536,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": kv_heads,
            "max_position_embeddings": 512,
        }
    )


@pytest.fixture(scope="module", params=[1, 2, 4], ids="kv_heads={}".format)
def target(request) -> Target:
    weight = torch.randn(64, 1536)
    if not any(is_batch_invariant(form.pack(weight, None), weight) for form in FORMS[:2]):
        pytest.skip("this processor has no batch-invariant linear layer")
    decoder = random_draft(_config(request.param), seed=0)
    identity = TargetIdentity("sha256:target", "sha256:tokenizer", VOCABULARY)
    return Target(decoder, identity, stop_tokens=frozenset(), device=Cpu())


@torch.inference_mode()
def _logits(target: Target, *, rows: int, width: int) -> torch.Tensor:
    """[V]: the target's logits after row 0's next token, in a batch of `rows`."""
    cache = target.new_cache(rows=ROWS, capacity=CAPACITY)
    tokens = torch.randint(
        0, VOCABULARY, (ROWS, CAPACITY), generator=torch.Generator().manual_seed(1)
    )
    for row, length in enumerate(LENGTHS[:rows]):
        attend = CachedAttention(cache, first_row=row, starts=[0], count=length)
        target.prefill(tokens[row, :length].tolist(), attend)
    starts = list(LENGTHS[:rows])
    fed = torch.stack([tokens[row, start : start + width] for row, start in enumerate(starts)])
    return target.decode(fed, cache, starts, batch_invariant=True).logits[0, 0]


def test_a_rows_logits_are_the_same_to_the_last_bit_in_every_batch(target) -> None:
    alone = _logits(target, rows=1, width=1)
    for rows in range(1, ROWS + 1):
        for width in range(1, 9):
            assert torch.equal(_logits(target, rows=rows, width=width), alone), (rows, width)
