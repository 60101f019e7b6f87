"""What runs the target: Aurora's own engine, a vLLM of Aurora's, or one that others own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from aurora_operator.domain.manifest.field_type import (
    LABEL_NAME,
    AbsolutePath,
    EngineUrl,
    Image,
    LabelValue,
    VllmArgument,
    rule,
)
from aurora_operator.domain.manifest.spec.model import Model, with_rules
from aurora_operator.domain.manifest.spec.pod import Resources, SecretKeyReference

_OF_VLLM = (
    "image, executable, args, speculative and attach are vLLM's: set type: vllm, or leave them out"
)
_OF_ITS_OWNER = (
    "the owner of an attached vLLM decides how it runs: leave out image, executable, args, "
    "resources and speculative"
)
_NODES = (
    "only a vLLM of Aurora's own spans nodes: set type: vllm without attach, or leave nodes out"
)
_IN_ORDER = "the first must be of batchSize 1, and batchSize must increase"
_ON_KUBERNETES = "set selector and keySecretRef; url and keyFile are for one machine"
_EITHER = "set selector and keySecretRef on Kubernetes, url and keyFile on one machine"


class Attach(Model):
    """A vLLM that others own and run, with Aurora's plugin in it and an API key."""

    model_config = with_rules(
        rule(
            "has(self.selector) && has(self.keySecretRef) && !has(self.url) && !has(self.keyFile)",
            _ON_KUBERNETES,
        )
    )

    selector: dict[str, LabelValue] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        json_schema_extra={
            "x-kubernetes-validations": [
                dict(
                    rule(
                        f"self.all(name, name.matches(r'{LABEL_NAME.pattern}'))", LABEL_NAME.allowed
                    )
                )
            ]
        },
    )
    """Labels of its pods, which must have all of them, in the deployment's namespace. On Kubernetes
    only."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Its HTTP port in those pods. On Kubernetes only."""
    key_secret_ref: SecretKeyReference | None = None
    """The Secret that holds its --api-key. On Kubernetes only."""
    url: EngineUrl | None = None
    """http://host:port. On one machine only."""
    key_file: AbsolutePath | None = None
    """A file that holds its --api-key. On one machine only."""

    @field_validator("selector")
    @classmethod
    def _named(cls, selector: dict[str, str] | None) -> dict[str, str] | None:
        for name in selector or ():
            LABEL_NAME.validated(name)
        return selector

    @model_validator(mode="after")
    def _of_one_runtime(self) -> Attach:
        in_cluster = (self.selector is not None, self.key_secret_ref is not None)
        on_machine = (self.url is not None, self.key_file is not None)
        if {in_cluster, on_machine} != {(True, True), (False, False)}:
            raise ValueError(_EITHER)
        return self


class BatchSpeculation(Model):
    """How many tokens are drafted while that many requests run or more."""

    batch_size: int = Field(ge=1, le=65535)
    """How many requests."""
    tokens: int = Field(ge=0, le=16)
    """At most speculationLength.max; 0: none."""


class Speculative(Model):
    """How vLLM speculates, besides draft.speculationLength.max."""

    per_batch_size: tuple[BatchSpeculation, ...] = Field(
        default=(),
        max_length=16,
        strict=False,
        json_schema_extra={
            "x-kubernetes-validations": [
                dict(
                    rule(
                        "size(self) == 0 || (self[0].batchSize == 1 && "
                        "self.map(one, one.batchSize).isSorted() && self.all(one, "
                        "self.exists_one(other, other.batchSize == one.batchSize)))",
                        _IN_ORDER,
                    )
                )
            ]
        },
    )
    """Fewer tokens when more requests run, by batch size; empty: always the maximum."""

    @field_validator("per_batch_size")
    @classmethod
    def _in_order(cls, steps: tuple[BatchSpeculation, ...]) -> tuple[BatchSpeculation, ...]:
        sizes = [step.batch_size for step in steps]
        if sizes and (sizes[0] != 1 or sizes != sorted(set(sizes))):
            raise ValueError(_IN_ORDER)
        return steps


class Engine(Model):
    """What runs the target."""

    model_config = with_rules(
        rule(
            "(has(self.type) && self.type == 'vllm') || !(has(self.image) || has(self.executable) "
            "|| has(self.attach) || has(self.speculative) || "
            "(has(self.args) && size(self.args) > 0))",
            _OF_VLLM,
        ),
        rule(
            "!has(self.attach) || !(has(self.image) || has(self.executable) || "
            "(has(self.args) && size(self.args) > 0) || has(self.resources) || "
            "has(self.speculative))",
            _OF_ITS_OWNER,
        ),
        rule(
            "!has(self.nodes) || self.nodes == 1 || (has(self.type) && self.type == 'vllm' "
            "&& !has(self.attach))",
            _NODES,
        ),
    )

    type: Literal["native", "vllm"] = "native"
    """native: Aurora's own engine, on CPUs. vllm: a stock vLLM, 0.32 or later, behind Aurora's
    gateway; its drafts alternate in time."""
    image: Image | None = None
    """vLLM's image; vllm/vllm-openai:v0.32.0 by default. On Kubernetes only."""
    executable: str | None = Field(default=None, min_length=1, max_length=4096)
    """vLLM's program; `vllm` on PATH by default. On one machine only."""
    args: tuple[VllmArgument, ...] = Field(default=(), max_length=64, strict=False)
    """vLLM's own flags, such as --tensor-parallel-size=2, but those that Aurora sets."""
    resources: Resources = Resources()
    """Of the container vllm, such as nvidia.com/gpu. On Kubernetes only."""
    nodes: int = Field(default=1, ge=1, le=16)
    """In how many pods, one for each node, a vLLM runs. Above 1 they are a LeaderWorkerSet's, whose
    controller must be installed, and args say how the model is divided, such as
    --tensor-parallel-size. On Kubernetes only."""
    speculative: Speculative | None = None
    """How vLLM speculates."""
    attach: Attach | None = None
    """A vLLM that runs already: Aurora runs only gateways in front of it."""

    @property
    def drafts_greedily(self) -> bool:
        """Whether it drafts the draft's most probable token at any temperature, as vLLM does."""
        return self.type == "vllm"

    @property
    def times_drafts(self) -> bool:
        """Whether it measures what a step costs with each draft, apart from others in its batch."""
        return self.type == "native"

    @model_validator(mode="after")
    def _of_vllm(self) -> Engine:
        is_set = bool(self.args) or any(
            each is not None for each in (self.image, self.executable, self.speculative)
        )
        if self.type == "native" and (is_set or self.attach is not None):
            raise ValueError(_OF_VLLM)
        if self.attach is not None and (is_set or self.resources != Resources()):
            raise ValueError(_OF_ITS_OWNER)
        if self.nodes > 1 and (self.type == "native" or self.attach is not None):
            raise ValueError(_NODES)
        return self
