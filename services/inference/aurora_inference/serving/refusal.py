"""Request errors that name the parameter, as OpenAI's clients expect."""

from __future__ import annotations

from aurora_common.errors import InvalidInputError, NotFoundError


class RefusedParameterError(InvalidInputError):
    """A parameter's value is not allowed; `code` is OpenAI's error code, if there is one."""

    def __init__(self, message: str, *, param: str, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(message)


class ModelNotFoundError(NotFoundError):
    param = "model"
    code = "model_not_found"

    def __init__(self, model: str, *, served: str) -> None:
        super().__init__(f"the model {model[:200]!r} does not exist; {served!r} is served here")


def context_exceeded(
    prompt_tokens: int, max_tokens: int, context_tokens: int, *, param: str
) -> RefusedParameterError:
    """The prompt leaves no room for the tokens requested."""
    return RefusedParameterError(
        f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together "
        f"{prompt_tokens + max_tokens}; this model's context holds {context_tokens} tokens",
        param=param,
        code="context_length_exceeded",
    )
