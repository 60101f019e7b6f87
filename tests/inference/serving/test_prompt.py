"""Every message is in the rendered prompt, or the request is refused."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from aurora_inference.serving.prompt import PromptEncoder
from aurora_inference.serving.refusal import RefusedParameterError

from ..conftest import byte_level_tokenizer

_ROLES = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TEMPLATES = {
    "all roles": _ROLES,
    "trims": _ROLES.replace("m.content", "m.content | trim"),
    "refuses developers": "{% for m in messages %}{% if m.role == 'developer' %}"
    "{{ raise_exception('no') }}{% endif %}{% endfor %}" + _ROLES,
    "drops developers": "{% for m in messages %}{% if m.role != 'developer' %}<{{ m.role }}>"
    "{{ m.content }}{% endif %}{% endfor %}",
    "drops systems": "{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
    "{{ m.content }}{% endif %}{% endfor %}",
    "the last one alone": "{{ messages[-1].content }}",
    "in reverse": "{% for m in messages | reverse %}{{ m.content }};{% endfor %}",
    "drops thoughts": "{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}",
    "drops even thoughts of users": "{% for m in messages %}{{ m.content.split('k')[-1] }}"
    "{% endfor %}",
}
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant"]),
            "content": st.one_of(
                st.text("ak \n世", max_size=6),
                st.builds("{}</think>{}".format, st.text("ab", max_size=3), st.text("cd")),
            ),
        }
    ),
    min_size=1,
    max_size=4,
)


def _encoder(template: str) -> tuple[PromptEncoder, PreTrainedTokenizerFast]:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="</s>")
    tokenizer.chat_template = template
    return PromptEncoder(tokenizer, model_name="tiny", max_context_tokens=1000), tokenizer


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_every_accepted_message_is_in_the_prompt(template):
    encoder, tokenizer = _encoder(template)
    accepted = 0

    @given(MESSAGES)
    def holds(messages):
        nonlocal accepted
        try:
            tokens = asyncio.run(encoder.encode_chat(messages))
        except RefusedParameterError:
            return
        accepted += 1
        rest = tokenizer.backend_tokenizer.decode(list(tokens))
        for message in messages:
            content = message["content"]
            if message["role"] == "assistant":
                content = content.rpartition("</think>")[2]
            place = rest.find(content.strip())
            assert place >= 0
            rest = rest[place + len(content.strip()) :]

    holds()
    assert accepted


def test_the_message_left_out_is_named():
    encoder, _ = _encoder(TEMPLATES["drops systems"])
    messages = [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]
    with pytest.raises(RefusedParameterError, match="message 1, of role 'system'"):
        asyncio.run(encoder.encode_chat(messages))
