"""A scripted completion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aurora.inference.v1 import inference_pb2 as pb
from aurora_client._completion import FinishReason, Speculation
from aurora_client._errors import AuroraClientError

_SPECULATION = Speculation(
    draft="ckpt-1",
    draft_digest="sha256:" + "1" * 64,
    arm="stable",
    steps=4,
    drafted_tokens=16,
    accepted_tokens=12,
)


@dataclass(frozen=True, slots=True, init=False)
class Answer:
    """A completion that arrives as `texts`, each one chunk and one token (ids 0, 1, …).

    `end` follows the last text: a finish reason, an error that the call fails with, or `hang`:
    nothing until the call is cancelled or times out.
    """

    texts: tuple[str, ...]
    end: FinishReason | AuroraClientError | Literal["hang"]
    prompt_tokens: int
    speculation: Speculation

    def __init__(
        self,
        *texts: str,
        end: FinishReason | AuroraClientError | Literal["hang"] = "stop",
        prompt_tokens: int = 1,
        speculation: Speculation = _SPECULATION,
    ) -> None:
        object.__setattr__(self, "texts", texts)
        object.__setattr__(self, "end", end)
        object.__setattr__(self, "prompt_tokens", prompt_tokens)
        object.__setattr__(self, "speculation", speculation)

    def chunks(self, request_id: str) -> list[pb.GenerateResponse]:
        """The responses before the last one."""
        return [
            pb.GenerateResponse(request_id=request_id, text=text, token_ids=[token])
            for token, text in enumerate(self.texts)
        ]

    def last(self, request_id: str) -> pb.GenerateResponse:
        """The last response of an answer that finishes."""
        assert isinstance(self.end, str)
        return pb.GenerateResponse(
            request_id=request_id,
            finish_reason=self.end,
            usage=pb.Usage(prompt_tokens=self.prompt_tokens, completion_tokens=len(self.texts)),
            speculation=pb.Speculation(
                draft=self.speculation.draft,
                draft_digest=self.speculation.draft_digest,
                arm=self.speculation.arm,
                steps=self.speculation.steps,
                drafted_tokens=self.speculation.drafted_tokens,
                accepted_tokens=self.speculation.accepted_tokens,
                ngram_drafted_tokens=self.speculation.ngram_drafted_tokens,
                ngram_accepted_tokens=self.speculation.ngram_accepted_tokens,
            ),
        )
