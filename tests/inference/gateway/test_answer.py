"""What is taken out of answers again; the bytes are those of vLLM 0.32."""

from __future__ import annotations

import json

import pytest

from aurora_inference.contract import Request, Sampling
from aurora_inference.gateway.answer import EventStream, Report, without_additions
from aurora_inference.gateway.question import Question

SPECULATION = (
    '{"speculative_decoding":{"mean_acceptance_length":2.0,"draft_acceptance_rate":0.5,'
    '"acceptance_histogram":[0,2],"num_spec_steps":2,"num_accepted_draft_tokens":2,'
    '"num_draft_tokens":4,"num_spec_tokens":2,"per_step_accepted":[1,1],"per_step_drafted":[2,2]}}'
)
USAGE = '{"prompt_tokens":3,"total_tokens":8,"completion_tokens":5}'
# What a client may make a model say.
TRICKS = ',\\"token_ids\\":[1],\\"metrics\\":{\\"speculative_decoding\\":{}},\\"choices\\":[],'


def asking(*, record=True, hide_ids=True, hide_usage=True) -> Question:
    request = Request("k", (), 5, Sampling(), record=record)
    return Question(b"", request, record and hide_ids, hide_usage, capture=False)


def whole(text, *, ids="[5,6,7,8,9]", prompt="[1,2,3]", metrics=SPECULATION) -> bytes:
    return (
        '{"id":"cmpl-1","object":"text_completion","created":1,"model":"tiny","choices":'
        f'[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"length","stop_reason":null,'
        f'"token_ids":{ids},"prompt_logprobs":null,"prompt_token_ids":{prompt},'
        f'"routed_experts":null}}],"service_tier":null,"system_fingerprint":null,"usage":{USAGE},'
        f'"kv_transfer_params":null,"metrics":{metrics}}}'
    ).encode()


@pytest.mark.parametrize("text", ["hé 世界 \\u001f 🙂", TRICKS])
def test_a_whole_answer_is_as_without_the_gateway(text):
    content, report = without_additions(whole(text), asking())
    assert content == whole(text, ids="null", prompt="null", metrics="null")
    assert report == Report((1, 2, 3), (5, 6, 7, 8, 9), 5, "length", ((2, 1), (2, 1)))
    assert report.has_token_ids


def test_what_the_client_asked_for_stays():
    content, report = without_additions(whole("a"), asking(hide_ids=False))
    assert content == whole("a", metrics="null")
    assert report.output_tokens == (5, 6, 7, 8, 9)


def test_other_metrics_of_the_engine_stay():
    timed = SPECULATION[:-1] + ',"time_to_first_token_ms":1.5}'
    content, _ = without_additions(whole("a", metrics=timed), asking(record=False))
    kept = '{"speculative_decoding":null,"time_to_first_token_ms":1.5}'
    assert content == whole("a", metrics=kept)


def test_without_a_verify_step_there_are_no_steps():
    metrics = '{"speculative_decoding":{"num_spec_steps":0,"num_spec_tokens":2}}'
    _, report = without_additions(whole("a", metrics=metrics), asking())
    assert report.steps == ()
    _, report = without_additions(whole("a", metrics="null"), asking())
    assert report.steps is None


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"choices":[]}', b'{"choices":3}'])
def test_an_answer_of_another_kind_is_passed_and_counts_as_failed(content):
    assert without_additions(content, asking()) == (content, Report(finish_reason="error"))


def chunk(
    delta, *, ids="null", finish="null", prompt=None, fingerprint=None, logprobs="null"
) -> str:
    stop = ',"stop_reason":null' if finish != "null" else ""
    extra = f',"system_fingerprint":"{fingerprint}"' if fingerprint else ""
    extra += f',"prompt_token_ids":{prompt}' if prompt else ""
    first = "" if prompt else f',"token_ids":{ids}'
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
        f'"choices":[{{"index":0,"delta":{delta},"logprobs":{logprobs},"finish_reason":{finish}'
        f"{stop}{first}}}]{extra}}}\n\n"
    )


def usage(*, metrics=SPECULATION, fingerprint="vllm-0.32.0") -> str:
    said = f',"system_fingerprint":"{fingerprint}"' if fingerprint else ""
    said += f',"metrics":{metrics}' if metrics else ""
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
        f'"choices":[],"usage":{USAGE}{said}}}\n\n'
    )


DONE = "data: [DONE]\n\n"
ROLE = '{"role":"assistant","content":""}'
WITH_ADDITIONS = [
    chunk(ROLE, prompt="[1,2,3]"),
    ": keep-alive\n\n",
    chunk('{"content":"he"}', ids="[5]"),
    chunk("{}", ids="[6]"),
    chunk(f'{{"content":"{TRICKS}"}}', ids="[7,8]"),
    chunk('{"content":"o"}', ids="[9]", finish='"stop"'),
    usage(),
    DONE,
]
PLAIN = [
    chunk(ROLE, prompt="null"),
    ": keep-alive\n\n",
    chunk('{"content":"he"}'),
    chunk(f'{{"content":"{TRICKS}"}}'),
    chunk('{"content":"o"}', finish='"stop"', fingerprint="vllm-0.32.0"),
    DONE,
]


def fed(stream, text, size) -> str:
    data = text.encode()
    parts = [stream.feed(data[at : at + size]) for at in range(0, len(data), size)]
    return b"".join([*parts, stream.end()]).decode()


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_a_stream_is_as_without_the_gateway_however_it_is_cut(size):
    stream = EventStream(asking())
    assert fed(stream, "".join(WITH_ADDITIONS), size) == "".join(PLAIN)
    assert stream.report == Report((1, 2, 3), (5, 6, 7, 8, 9), 5, "stop", ((2, 1), (2, 1)))


def test_a_client_that_asked_for_usage_gets_it_without_the_metrics():
    stream = EventStream(asking(hide_usage=False))
    plain = [*PLAIN[:-2], chunk('{"content":"o"}', finish='"stop"'), usage(metrics=""), DONE]
    assert fed(stream, "".join(WITH_ADDITIONS), 50) == "".join(plain)


@pytest.mark.parametrize("before", [True, False])
def test_other_metrics_of_a_stream_stay(before):
    timing = '"time_to_first_token_ms":1.5'
    inner = SPECULATION[1:-1]
    metrics = f"{{{timing},{inner}}}" if before else f"{{{inner},{timing}}}"
    stream = EventStream(asking(record=False, hide_usage=False))
    assert fed(stream, usage(metrics=metrics), 50) == usage(metrics=f"{{{timing}}}")


def test_an_empty_chunk_that_the_client_would_have_got_stays():
    events = chunk("{}", ids="[6]", logprobs='{"content":[]}') + chunk("{}", finish='"stop"')
    stream = EventStream(asking(hide_usage=False))
    assert fed(stream, events, 50) == events.replace("[6]", "null")


def test_a_stream_that_is_not_recorded_keeps_everything_but_the_usage():
    stream = EventStream(asking(record=False))
    given = [event.replace("[1,2,3]", "null") for event in PLAIN[:-2]]
    last = chunk('{"content":"o"}', finish='"stop"')
    assert fed(stream, "".join([*given, last, usage(), DONE]), 64) == "".join(PLAIN)
    assert stream.report.steps == ((2, 1), (2, 1))
    assert not stream.report.has_token_ids


def test_an_engine_that_always_sends_the_usage_goes_on_doing_so():
    last = chunk('{"content":"o"}', finish='"stop"').replace("}]}", f'}}],"usage":{USAGE}}}')
    plain = last + usage(metrics="") + DONE
    assert fed(EventStream(asking()), last + usage() + DONE, 64) == plain


def test_an_error_in_a_stream_is_passed_at_once_and_counts_as_failed():
    error = 'data: {"error": {"message": "boom", "type": "InternalServerError"}}\n\n'
    stream = EventStream(asking())
    text = PLAIN[0] + error + DONE
    assert fed(stream, text, 64) == text
    assert stream.report.finish_reason == "error"


def test_nothing_is_kept_back_if_the_usage_does_not_come():
    last = chunk('{"content":"o"}', finish='"stop"')
    for ending in (DONE, "", "data: cut"):
        assert fed(EventStream(asking()), last + ending, 64) == last + ending


def test_reasoning_that_the_engine_hides_is_not_all_of_the_text():
    stream = EventStream(asking())
    fed(stream, "".join([WITH_ADDITIONS[0], chunk("{}", ids="null"), *WITH_ADDITIONS[4:]]), 64)
    assert not stream.report.has_token_ids


def test_aborted_requests_are_not_taken_for_finished_ones():
    content = whole("a").replace(b'"length"', b'"abort"')
    assert without_additions(content, asking())[1].finish_reason == "cancelled"
    content = whole("a").replace(b'"length"', b'"tool_calls"')
    assert without_additions(content, asking())[1].finish_reason == "stop"


def test_samples_are_json():
    for event in (*WITH_ADDITIONS, *PLAIN):
        if event.startswith("data: {"):
            json.loads(event.removeprefix("data: "))
    json.loads(whole(TRICKS))
