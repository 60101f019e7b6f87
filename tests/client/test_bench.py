from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from aurora_client import BadRequestError, ServerError
from aurora_client._bench.load import Acceptance, Piece, Sample, run_load
from aurora_client._bench.prompt import prompts_of_file, synthetic_prompts
from aurora_client._bench.result import failures_of, figures_of, nearest_rank
from aurora_client._cli.app import app
from aurora_client._cli.run import run
from aurora_client.testing import Answer, FakeServer


@pytest.mark.parametrize(
    ("share", "value"), [(0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100), (0.0, 1)]
)
def test_a_percentile_is_a_measured_value(share, value):
    assert nearest_rank(range(100, 0, -1), share) == value


def test_figures_of_two_requests():
    samples = [
        Sample(10.0, 10.5, 12.5, 5, Acceptance(8, 4, 2)),
        Sample(10.0, 11.0, 14.0, 4, Acceptance(4, 2, 1)),
        Sample(10.0, 13.0, 13.0, 0, None, "UnavailableError"),
    ]
    values = {key: figure.value for key, figure in figures_of(samples).items()}
    assert values == {
        "requests": 2,
        "failed_requests": 1,
        "seconds": 4.0,
        "output_tokens": 9,
        "output_tokens_per_second": 2.25,
        "requests_per_second": 0.5,
        "time_to_first_token_p50": 500.0,
        "time_to_first_token_p99": 1000.0,
        "time_per_output_token_p50": 500.0,
        "time_per_output_token_p99": 1000.0,
        "acceptance_rate": 0.5,
        "mean_acceptance_length": 3.0,
    }


def test_figures_without_samples_are_absent():
    figures = figures_of([Sample(0.0, 1.0, 1.0, 0, None, "ServerError")])
    assert "time_to_first_token_p50" not in figures
    assert "acceptance_rate" not in figures


def test_only_the_most_frequent_reasons_are_listed():
    samples = [Sample(0.0, 1.0, 1.0, 0, None, reason) for reason in "aaabbcdef"]
    assert failures_of(samples) == "3 a, 2 b, 1 c, 3 others"


def test_the_acceptance_length_needs_the_steps():
    figures = figures_of([Sample(0.0, 1.0, 2.0, 5, Acceptance(8, 4, None))])
    assert figures["acceptance_rate"].value == 0.5
    assert "mean_acceptance_length" not in figures


def test_one_token_has_no_time_per_output_token():
    assert Sample(0.0, 1.0, 2.0, 1).seconds_per_output_token is None


def test_synthetic_prompts_are_the_same_for_the_same_seed():
    first, second = synthetic_prompts(2, words=5, seed=1)
    assert first != second
    assert len(first.split()) == 5
    assert synthetic_prompts(2, words=5, seed=1) == [first, second]
    assert synthetic_prompts(2, words=5, seed=2) != [first, second]


def test_prompts_of_a_file_are_its_lines_in_order(tmp_path):
    file = tmp_path / "prompts"
    file.write_text("one\n\ntwo\n")
    assert prompts_of_file(file, 3) == ["one", "two", "one"]
    file.write_text("\n")
    with pytest.raises(BadRequestError, match="contains no prompt"):
        prompts_of_file(file, 3)


async def test_the_load_never_exceeds_its_concurrency_and_survives_failures():
    running, most = 0, 0

    class Endpoint:
        async def stream(self, prompt):
            nonlocal running, most
            running += 1
            most = max(most, running)
            try:
                yield Piece(has_text=True)
                if prompt == "bad":
                    raise ServerError("why")
                yield Piece(has_text=False, output_tokens=3)
            finally:
                running -= 1

    seen: list[Sample] = []
    samples = await run_load(
        Endpoint(), ["good", "bad", "good", "good"], concurrency=2, on_sample=seen.append
    )
    assert samples == seen
    assert most <= 2
    assert sorted(sample.error for sample in samples) == ["", "", "", "ServerError (why)"]
    assert [sample.output_tokens for sample in samples if not sample.error] == [3, 3, 3]


def bench(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_bench_over_grpc_reports_a_table_and_json(tmp_path):
    file = tmp_path / "deeper" / "bench.json"
    with FakeServer(Answer("a", "b", "c")) as server:
        shown = bench(
            *("--api", "grpc", "--address", server.address, "-n", "6", "-c", "2"),
            *("--warmup", "1", "--json", str(file)),
        )
        assert len(server.requests) == 7
        assert all(request.no_train and request.ignore_eos for request in server.requests)
    assert "time to first token p99" in shown
    assert "acceptance rate" in shown
    assert "75.0%" in shown
    report = json.loads(file.read_text())
    assert set(report) == {"command", "machine", "figures"}
    assert report["figures"]["output_tokens"] == {"value": 18, "unit": "tokens", "spread": [18, 18]}


def test_bench_fails_if_requests_fail(capsys):
    with FakeServer(Answer("a", end=ServerError("why"))) as server:
        code = run(
            app,
            ["bench", "--api", "grpc", "--address", server.address, "-n", "3", "--warmup=0"],
            name="aurora",
        )
    captured = capsys.readouterr()
    assert code == 1
    assert "failed requests" in captured.out
    assert captured.err == "aurora: of 3 requests failed: 3 ServerError (why)\n"


class OpenAI(BaseHTTPRequestHandler):
    """An OpenAI-compatible server that generates two tokens."""

    bodies: list[dict[str, object]] = []  # noqa: RUF012 - one server per test
    headers_seen: list[str | None] = []  # noqa: RUF012 - one server per test
    tokens_seen: list[str | None] = []  # noqa: RUF012 - one server per test
    status = 200

    def log_message(self, format, *args):
        pass

    def do_GET(self):
        self.tokens_seen.append(self.headers["authorization"])
        self._answer(200, b'{"object": "list", "data": [{"id": "tiny", "object": "model"}]}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.bodies.append(json.loads(body))
        self.headers_seen.append(self.headers["x-aurora-no-train"])
        self.tokens_seen.append(self.headers["authorization"])
        if self.status != 200:
            self._answer(self.status, b'{"error": {"message": "queue is full"}}')
            return
        events = [
            {"choices": [{"text": ""}]},
            {"choices": [{"text": "a"}]},
            {"choices": [{"text": "b", "finish_reason": "length"}]},
            {
                "choices": [],
                "usage": {"completion_tokens": 2},
                "aurora": {"drafted_tokens": 4, "accepted_tokens": 1},
            },
        ]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self._answer(200, "".join([*lines, "data: [DONE]\n\n"]).encode())

    def _answer(self, status, content):
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def openai(monkeypatch):
    monkeypatch.setattr(OpenAI, "bodies", [])
    monkeypatch.setattr(OpenAI, "headers_seen", [])
    monkeypatch.setattr(OpenAI, "tokens_seen", [])
    with ThreadingHTTPServer(("127.0.0.1", 0), OpenAI) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["{}", "http://{}", "http://{}/v1/"])
def test_bench_over_http(openai, form):
    shown = bench("--address", form.format(openai), "-n", "4", "-c", "2", "--warmup", "0")
    assert len(OpenAI.bodies) == 4
    body = OpenAI.bodies[0]
    assert body["model"] == "tiny"
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert "no_train" not in body
    assert OpenAI.headers_seen == ["true"] * 4
    assert "acceptance rate" in shown
    assert "25.0%" in shown


def test_bench_reveals_its_token_only_to_the_server(openai, monkeypatch, tmp_path):
    file = tmp_path / "bench.json"
    arguments = ["bench", "--address", openai, "-n", "1", "--warmup=0", f"--json={file}"]
    monkeypatch.setattr(sys, "argv", ["aurora", *arguments, "--token=secret-a"])
    assert run(app, sys.argv[1:], name="aurora") == 0
    assert OpenAI.tokens_seen == ["Bearer secret-a"] * 2
    assert "--token=***" in json.loads(file.read_text())["command"]
    assert "secret-a" not in file.read_text()


def test_bench_lets_aurora_learn_only_on_request(openai):
    bench("--address", openai, "-n", "1", "--warmup", "0", "--train")
    assert OpenAI.headers_seen == [None]


def test_bench_counts_refusals(openai, monkeypatch, capsys):
    monkeypatch.setattr(OpenAI, "status", 429)
    assert run(app, ["bench", "--address", openai, "-n", "2", "--warmup", "0"], name="aurora") == 1
    assert (
        capsys.readouterr().err
        == "aurora: of 2 requests failed: 2 OverloadedError (queue is full)\n"
    )
