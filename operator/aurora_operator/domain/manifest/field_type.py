"""String fields with validation, for the command line and for the cluster.

The API server runs no Python, so each type states its rule twice: as a validator, and as a pattern
and CEL rule in the resource's schema, with the same message. Tests hold the two together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from aurora_operator.domain.manifest.quantity import parse_bytes, parse_decimal, parse_duration

Rule = dict[str, str]

# A longer rollout is a typo; Go has no duration above 292 years.
_LONGEST = timedelta(hours=87_600)
_MOST_BYTES = 1 << 63


def rule(expression: str, message: str, field: str = "") -> Rule:
    """A CEL rule of the resource's schema; an error is reported at `field` of the object."""
    content = {"rule": expression, "message": message}
    return {**content, "fieldPath": f".{field}"} if field else content


@dataclass(frozen=True, slots=True)
class Text:
    """A string's format: a pattern, and `check` for what a pattern cannot express.

    `allowed` describes it in error messages; `cel` is `check` for the API server. A secret value is
    never shown.
    """

    pattern: str
    longest: int
    allowed: str
    check: Callable[[str], bool] | None = None
    cel: str = ""
    is_secret: bool = False

    def validated(self, text: str) -> str:
        """Returns the text; raises ValueError saying what is allowed."""
        if len(text) > self.longest:
            raise ValueError(f"has {len(text)} characters; at most {self.longest} are allowed")
        if not self._holds(text):
            shown = "the value" if self.is_secret else json.dumps(text, ensure_ascii=False)
            raise ValueError(f"{shown} is not allowed; {self.allowed}")
        return text

    def _holds(self, text: str) -> bool:
        if re.fullmatch(self.pattern, text) is None:
            return False
        try:
            return self.check is None or self.check(text)
        except ValueError:
            return False

    def schema(self) -> dict[str, Any]:
        # One rule: `cel` may assume that the pattern matches.
        matches = f"self.matches(r'{self.pattern}')"
        return {
            "type": "string",
            "pattern": self.pattern,
            "maxLength": self.longest,
            "x-kubernetes-validations": [
                rule(f"{matches} && {self.cel}" if self.cel else matches, self.allowed)
            ],
        }

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.validated, handler(source))

    def __get_pydantic_json_schema__(
        self, inner: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return self.schema()


@dataclass(frozen=True, slots=True)
class _IntOrText(Text):
    """A string that may also be written as an integer, as in `cpu: 2`."""

    def schema(self) -> dict[str, Any]:
        return {
            "x-kubernetes-int-or-string": True,
            "pattern": self.pattern,
            "minimum": 0,
            "maxLength": self.longest,
            "x-kubernetes-validations": [
                rule(
                    f"type(self) == int ? self >= 0 : self.matches(r'{self.pattern}')",
                    self.allowed,
                )
            ],
        }


def _number_as_text(value: object) -> object:
    # YAML reads 2e9 as a float.
    if type(value) is float and value.is_integer():
        value = int(value)
    return str(value) if type(value) is int else value


_DURATION = r"^([0-9]+(\.[0-9]+)?(h|ms|m|s))+$"
_DECIMAL = r"^[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?$"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
# A path must not leave its claim, escaped dots included.
_DOTS = re.compile(r"(/|%2[fF])(\.|%2[eE]){2}(/|%2[fF]|$)")

Duration = Annotated[
    str,
    Text(
        _DURATION,
        longest=64,
        allowed="use a duration like 24h, 10m, 90s or 1h30m, at most 87600h",
        check=lambda text: parse_duration(text) <= _LONGEST,
        cel="duration(self) <= duration('87600h')",
    ),
]
PositiveDuration = Annotated[
    str,
    Text(
        _DURATION,
        longest=64,
        allowed="use a duration longer than 0s like 24h, 10m, 90s or 1h30m, at most 87600h",
        check=lambda text: timedelta() < parse_duration(text) <= _LONGEST,
        cel="self.matches('[1-9]') && duration(self) <= duration('87600h')",
    ),
]
Bytes = Annotated[
    str,
    Text(
        r"^[0-9]+(\.[0-9]+)?(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi|[eE][-+]?[0-9]{1,2})?$",
        longest=32,
        allowed="use a quantity of more than 0 bytes like 16Gi, 500M or 1048576, below 8Ei",
        check=lambda text: 0 < parse_bytes(text) < _MOST_BYTES,
        cel="quantity(self).isGreaterThan(quantity('0')) && "
        "quantity(self).isLessThan(quantity('8Ei'))",
    ),
]
LearningRate = Annotated[
    str,
    Text(
        _DECIMAL,
        longest=32,
        allowed='use a decimal number between 0 and 1, both excluded, in quotes: "1e-4"',
        check=lambda text: 0 < parse_decimal(text) < 1,
        cel="double(self) > 0.0 && double(self) < 1.0",
    ),
]
Alpha = Annotated[
    str,
    Text(
        _DECIMAL,
        longest=32,
        allowed='use a decimal number between 0 and 0.5, both excluded, in quotes: "0.01"',
        check=lambda text: 0 < parse_decimal(text) < 0.5,
        cel="double(self) > 0.0 && double(self) < 0.5",
    ),
]
ModelUri = Annotated[
    str,
    Text(
        rf"^(file://(localhost)?/[^\s?#]+|pvc://{_LABEL}(/[^\s?#]*)?)$",
        longest=1024,
        allowed="use file:///folder or pvc://claim/folder, without ..",
        check=lambda text: _DOTS.search(text) is None,
        cel=f"!self.matches(r'{_DOTS.pattern}')",
    ),
]
RedisUrl = Annotated[
    str,
    Text(
        r"^rediss?://([^@/?#\s]*@)?(\[[0-9a-fA-F:.]+\]|[^@/?#:\[\]\s]+)(:[0-9]{1,5})?"
        r"(/[0-9]*)?(\?[^\s#]*)?$",
        longest=1024,
        allowed="use a Redis URL: redis://host:port/0 or rediss://host:port/0",
        is_secret=True,
    ),
]
Digest = Annotated[
    str,
    Text(r"^sha256:[0-9a-f]{64}$", longest=71, allowed="use sha256: and 64 hexadecimal digits"),
]
DnsLabel = Annotated[
    str,
    Text(
        rf"^{_LABEL}$",
        longest=63,
        allowed="use lower-case letters, digits and '-', at most 63, beginning and ending with a "
        "letter or digit",
    ),
]
# Leaves room for every name derived from it, a pod's hash included.
NAME = Text(
    r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$",
    longest=40,
    allowed="use lower-case letters, digits and '-', at most 40, beginning with a letter and "
    "ending with a letter or digit",
)
Name = Annotated[str, NAME]
ObjectName = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$",
        longest=253,
        allowed="use lower-case letters, digits, '-' and '.', at most 253, beginning and ending "
        "with a letter or digit",
    ),
]
SecretKeyName = Annotated[
    str,
    Text(
        r"^[-._a-zA-Z0-9]+$",
        longest=253,
        allowed="use letters, digits, '-', '_' and '.', at most 253",
    ),
]
Image = Annotated[
    str,
    Text(
        r"^[a-z0-9][-a-zA-Z0-9._/:@]*$",
        longest=512,
        allowed="use repository/name:tag or repository/name@sha256:digest",
    ),
]
Quantity = Annotated[
    str,
    _IntOrText(
        r"^[0-9]+(\.[0-9]+)?(m|k|Ki|[MGTPE]i?|[eE][-+]?[0-9]{1,2})?$",
        longest=32,
        allowed="use a quantity such as 4, 500m or 16Gi",
    ),
    BeforeValidator(_number_as_text),
]
# vLLM takes them with '_' for '-' too; its short forms are -sc, -dp, -n and -r.
_AURORA_SETS = (
    "model", "served-model-name", "tokenizer", "dtype", "host", "port", "uds", "api-key",
    "speculative-config", "data-parallel-.*", "worker-extension-cls",
    "per-request-spec-decode-metrics", "config", "root-path", "ssl-.*", "max-model-len",
    "nnodes", "node-rank", "master-addr", "master-port", "headless",
)  # fmt: skip
_OWN_FLAG = re.compile(
    f"^(-sc|-dp|-n|-r|--({'|'.join(_AURORA_SETS).replace('-', '[-_]')}))(=|$)",
)
VllmArgument = Annotated[
    str,
    Text(
        r"^[^\x00]+$",
        longest=4096,
        allowed="use vLLM's own flags without those that Aurora sets: --model, --port, "
        "--speculative-config and the like",
        check=lambda text: _OWN_FLAG.match(text) is None,
        cel=f"!self.matches(r'{_OWN_FLAG.pattern}')",
    ),
]
EngineUrl = Annotated[
    str,
    Text(
        r"^https?://(\[[0-9a-fA-F:.]+\]|[^@/?#:\[\]\s]+)(:[0-9]{1,5})?/?$",
        longest=1024,
        allowed="use http://host:port, without a path",
    ),
]
AbsolutePath = Annotated[
    str, Text(r"^/[^\x00]*$", longest=4096, allowed="use an absolute path such as /etc/key")
]
Device = Annotated[
    str,
    Text(
        r"^(auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?)$",
        longest=8,
        allowed="use auto, cpu, cuda or cuda:<index>",
    ),
]
LABEL_NAME = Text(
    r"^([a-z0-9][-a-z0-9.]{0,251}/)?[a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$",
    longest=317,
    allowed="use a label's name such as app or example.com/model",
)
LabelValue = Annotated[
    str,
    Text(
        r"^([a-zA-Z0-9]([-._a-zA-Z0-9]{0,61}[a-zA-Z0-9])?)?$",
        longest=63,
        allowed="use a label's value: letters, digits, '-', '_' and '.', at most 63",
    ),
]
HeaderName = Annotated[
    str,
    Text(
        r"^[a-z0-9][-a-z0-9]*$",
        longest=63,
        allowed="use a lower-case HTTP header name such as x-aurora-no-train",
    ),
]
