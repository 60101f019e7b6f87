"""The texts of a manifest that are more than texts: how each is written, here and in the cluster.

Every type says it twice, since the API server runs no Python: as a validator whose message a person
reads on the command line, and as a pattern with CEL rules for the resource's schema. The tests hold
the two to each other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from aurora_operator.domain.quantity import parse_bytes, parse_decimal, parse_duration

Rule = dict[str, str]

_DURATION = r"^([0-9]+(\.[0-9]+)?(h|ms|m|s))+$"
_BYTES = r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?)?$"
_DECIMAL = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"
_MODEL_URI = r"^(file://(localhost)?/.+|pvc://[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(/.*)?)$"
_REDIS_URL = r"^rediss?://[^/]+.*$"


def rule(expression: str, message: str) -> Rule:
    """A CEL rule of the resource's schema."""
    return {"rule": expression, "message": message}


def _schema(pattern: str, *rules: Rule, longest: int) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": "string", "pattern": pattern, "maxLength": longest}
    if rules:
        schema["x-kubernetes-validations"] = list(rules)
    return WithJsonSchema(schema)


def _shorter(longest: int) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text) > longest:
            raise ValueError(f"has {len(text)} characters; at most {longest} are allowed")
        return text

    return check


def _whole_number_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _positive_duration(text: str) -> str:
    if not parse_duration(text):
        raise ValueError(f"{text!r} must be longer than 0s")
    return text


def _positive_bytes(text: str) -> str:
    if parse_bytes(text) == 0:
        raise ValueError(f"{text!r} must be more than 0 bytes")
    return text


def _learning_rate(text: str) -> str:
    if not 0 < parse_decimal(text) < 1:
        raise ValueError(f"{text!r} must lie between 0 and 1, both excluded")
    return text


def _alpha(text: str) -> str:
    if not 0 < parse_decimal(text) < 0.5:
        raise ValueError(f"{text!r} must lie between 0 and 0.5, both excluded")
    return text


def _model_uri(uri: str) -> str:
    if not re.match(_MODEL_URI, uri):
        raise ValueError(f"{uri!r} is not a model URI; use file:///folder or pvc://claim/folder")
    if ".." in urlsplit(uri).path.split("/"):
        raise ValueError(f"{uri!r} must not contain ..")
    return uri


def _redis_url(url: str) -> str:
    if not re.match(_REDIS_URL, url) or not urlsplit(url).hostname:
        # The value is left out: it may hold a password.
        raise ValueError("is not a Redis URL; use redis://host:port/0 or rediss://host:port/0")
    return url


# Digits other than 0 make a text of these patterns more than nothing.
_NOT_ZERO = "self.matches('[1-9]')"

Duration = Annotated[str, AfterValidator(_duration), _schema(_DURATION, longest=64)]
PositiveDuration = Annotated[
    str,
    AfterValidator(_positive_duration),
    _schema(_DURATION, rule(_NOT_ZERO, "must be longer than 0s, like 24h, 10m or 90s"), longest=64),
]
Bytes = Annotated[
    str,
    AfterValidator(_positive_bytes),
    _schema(_BYTES, rule(_NOT_ZERO, "must be more than 0 bytes, like 16Gi or 500M"), longest=32),
]
LearningRate = Annotated[
    str,
    AfterValidator(_learning_rate),
    _schema(
        _DECIMAL,
        rule(
            "double(self) > 0.0 && double(self) < 1.0",
            "must lie between 0 and 1, both excluded",
        ),
        longest=32,
    ),
]
Alpha = Annotated[
    str,
    AfterValidator(_alpha),
    _schema(
        _DECIMAL,
        rule(
            "double(self) > 0.0 && double(self) < 0.5",
            "must lie between 0 and 0.5, both excluded",
        ),
        longest=32,
    ),
]
ModelUri = Annotated[
    str,
    AfterValidator(_shorter(1024)),
    AfterValidator(_model_uri),
    _schema(
        _MODEL_URI,
        rule("!self.matches('/[.][.](/|$)')", "must not contain .."),
        longest=1024,
    ),
]
RedisUrl = Annotated[str, AfterValidator(_redis_url), _schema(_REDIS_URL, longest=1024)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
# Short enough for every name that is made of it, a pod's hash included.
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]
ObjectName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=253)
]
SecretKeyName = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]{1,253}$")]
Image = Annotated[str, Field(pattern=r"^[a-z0-9][-a-zA-Z0-9._/:@]{0,511}$")]
# A whole number needs no quotes: `cpu: 2` is how everybody writes it.
Quantity = Annotated[
    str,
    BeforeValidator(_whole_number_as_text),
    Field(pattern=_QUANTITY),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": _QUANTITY,
            "minimum": 0,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,62})$")]
