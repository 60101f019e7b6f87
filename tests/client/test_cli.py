from __future__ import annotations

import importlib.util
import json
import os
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner

from aurora.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from aurora_client import (
    ArmCounters,
    Component,
    Counters,
    Draft,
    InferenceStatus,
    NgramCounters,
    PublishedDraft,
    Speculation,
    Timeout,
    UnavailableError,
)
from aurora_client._cli import snapshot
from aurora_client._cli.app import app
from aurora_client._cli.run import run
from aurora_client.testing import Answer, FakeServer
from aurora_common.version import VERSION

STATUS = {
    "stable": {"checkpoint": "ckpt-41", "digest": "sha256:" + "41" * 32, "acceptanceBps": 6120},
    "rollout": {
        "id": "chat-42",
        "candidate": {"checkpoint": "ckpt-42", "digest": "sha256:" + "42" * 32},
        "state": "Analyzing",
        "step": 1,
        "plan": {"stepsPercent": [5, 20, 50]},
        "evidence": {
            "requests": 1412,
            "logE": "2.305",
            "threshold": "4.61",
            "effectBps": 182,
            "ciBps": [-12, 371],
            "guardrails": [
                {"name": "tpot", "marginBps": 1000, "logHarm": "1.2", "effectBps": 1340}
            ],
        },
    },
    "history": [{"id": "chat-41", "outcome": "RolledBack", "reason": "Aborted", "effectBps": -40}],
    "conditions": [{"type": "Degraded", "status": "True", "message": "trainer is down"}],
}


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """On a busy machine even a server in this process may take seconds to respond."""
    monkeypatch.setattr(snapshot, "_TIMEOUT", Timeout(call_seconds=60))


@pytest.fixture
def server():
    with FakeServer(Answer("Hello", " world", prompt_tokens=3)) as server:
        yield server


@pytest.fixture
def data_dir(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A deployment's data folder, as written by its operator."""
    place = {"address": server.address, "http": "127.0.0.1:1", "grpc": server.address, "pid": 1}
    (tmp_path / "operator.json").write_text(json.dumps(place))
    monkeypatch.setenv("AURORA_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def busy(server: FakeServer) -> FakeServer:
    server.show(
        STATUS,
        [
            Component("inference", 42, True, 0, server.address, "log", ""),
            Component("trainer", None, False, 3, "", "log", "exited with 1"),
        ],
    )
    stable, candidate = Draft("ckpt-41", "sha256:41"), Draft("ckpt-42", "sha256:42")
    server.status = InferenceStatus(
        "i", "tiny", "", "", stable, candidate, "chat-42", 2000, 4, 4096
    )
    arms = (
        ArmCounters("stable", 1204, 2, 9000, 40000, 24500, 33500),
        ArmCounters("candidate", 0, 0, 0, 0, 0, 0),
    )
    server.counters = Counters("i", arms, 1410, 3, 5, 0, NgramCounters(40, 1210, 605))
    return server


@pytest.mark.usefixtures("data_dir")
def test_status_shows_all_sections(busy):
    shown = invoke("status")
    for text in (
        "default/fake   Degraded: trainer is down",
        "inference  ● ready   42         0  " + busy.address,
        "trainer    ○ down     –         3  –",
        "exited with 1",
        "ckpt-41  414141414141  61.2% accepted",
        "chat-42  Analyzing  ckpt-42  424242424242  step 2 of 3  20% of new requests",
        "━━━━━━━━━━━━──────────── log E 2.31, promoted at 4.61",
        "+1.82 points of acceptance (95%: -0.12 to +3.71), 1,412 requests judged",
        "━━━━━━────────────────── +13.4%, at most +10%  holds back",
        "5 running, 0 waiting, 4 tokens drafted at a time",
        "1,204 requests on stable (2 failed), 61.3% accepted, 3.72 tokens a step",
        "1,210 tokens drafted by n-grams, 50.0% accepted",
        "1,410 trajectories recorded, 3 dropped",
        "RolledBack  Aborted   -0.40",
    ):
        assert text in shown
    assert "\x1b" not in shown
    assert not any(line.endswith(" ") for line in shown.splitlines())
    assert "on candidate" not in shown


@pytest.mark.usefixtures("data_dir")
def test_status_shows_what_replay_has_found(server):
    status = deepcopy(STATUS)
    status["rollout"]["evidence"]["replay"] = {
        "logE": "3.45",
        "logHarm": "-0.2",
        "savedBps": 153,
        "ciBps": [-12, 318],
        "requests": 1180,
    }
    status["watch"] = {
        "former": {"checkpoint": "ckpt-39"},
        "endsAt": "2026-01-01T10:00:00Z",
        "replay": {"savedBps": 410, "requests": 75},
    }
    status["history"][0] |= {"savedBps": -210, "replayed": 140}
    server.show(status, [Component("inference", 42, True, 0, server.address, "log", "")])
    shown = invoke("status")
    for text in (
        "━━━━━━━━━━━━━━━━━━────── log E 3.45, promoted at 4.61",
        "──────────────────────── log E -0.20, rolled back at 4.61",
        "+1.53% of verify steps saved (95%: -0.12 to +3.18), 1,180 recorded requests replayed",
        "+1.82 points of acceptance (95%: -0.12 to +3.71), 1,412 requests judged",
        "RolledBack  Aborted  -2.10%   -0.40",
        "against ckpt-39 until ",
        ", +4.10% of verify steps saved, 75 recorded requests",
    ):
        assert text in shown
    assert "better" not in shown


@pytest.fixture
def trainer():
    """A trainer's gRPC server whose status a test sets: its address and the status."""
    found = trainer_pb2.GetStatusResponse(min_new_trajectories=48, steps_per_round=60)

    class Trainer(trainer_pb2_grpc.TrainerServicer):
        def GetStatus(self, request, context):  # noqa: N802
            return found

    server = grpc.server(ThreadPoolExecutor(2))
    trainer_pb2_grpc.add_TrainerServicer_to_server(Trainer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", found
    server.stop(None).wait()


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"phase": "WaitingForTrajectories", "new_trajectories": 24},
            "24 of 48 trajectories to the next round; nothing published yet",
        ),
        (
            {"phase": "WaitingForTrajectories", "new_trajectories": 50},
            "50 trajectories wait for trigger.minInterval to pass; nothing published yet",
        ),
        (
            {"phase": "Training", "steps_left": 47, "eta_seconds": 94, "checkpoint": "ckpt-3"},
            "training, step 13 of 60, 94 s left; ckpt-3 published",
        ),
        (
            {"phase": "Publishing", "checkpoint": "ckpt-3", "acceptance": 0.625},
            "publishing; ckpt-3 published, 62.5% accepted on held-out trajectories",
        ),
        (
            {
                "phase": "Training",
                "steps_left": 47,
                "max_share_percent": 10,
                "training_share": 0.094,
                "pause_seconds": 3.2,
            },
            "training, step 13 of 60, which waits 3 s for trainer.budget; 9.4% of the time spent "
            "training, at most 10%; nothing published yet",
        ),
        (
            {
                "phase": "WaitingForTrajectories",
                "new_trajectories": 50,
                "max_share_percent": 10,
                "pause_seconds": 3.2,
            },
            "50 trajectories wait for trainer.budget; 0.0% of the time spent training, at most "
            "10%; nothing published yet",
        ),
        (
            {"phase": "Publishing", "skipped": {"Repeated": 1200, "Bare": 9, "Malformed": 2}},
            "publishing; nothing published yet; trajectories skipped: 2 malformed, 1,200 repeated",
        ),
        (
            {"phase": "WaitingForTrajectories", "new_trajectories": 90, "waiting": "no gain"},
            "training pauses: no gain; nothing published yet",
        ),
        (
            {"phase": "Publishing", "checkpoint": "ckpt-3", "withheld": "too little is accepted"},
            "publishing; ckpt-3 published; the last round published nothing: too little is "
            "accepted",
        ),
    ],
)
def test_status_shows_how_far_the_trainer_is(server, trainer, fields, line):
    address, status = trainer
    status.MergeFrom(trainer_pb2.GetStatusResponse(**fields))
    server.show({}, [Component("trainer", 1, True, 0, address, "", "")])
    shown = invoke("status", "--operator", server.address)
    assert f"trainer  {line}\n" in shown
    received = json.loads(invoke("status", "--json", "--operator", server.address))
    assert received["trainer"]["phase"] == fields["phase"]


@pytest.mark.usefixtures("data_dir")
def test_a_trainer_that_does_not_answer_is_shown_as_last_known(server):
    training = {"phase": "Training", "since": "2026-01-01T00:00:00Z", "stepsPerRound": 60}
    server.show({"trainer": training})
    assert "trainer  training for 60 steps since " in invoke("status")


@pytest.mark.usefixtures("data_dir")
def test_status_before_anything_has_happened(server):
    assert "none: nothing is drafted but n-grams" in invoke("status", "--once")


def test_status_queries_the_named_operator_and_finds_inference(busy):
    assert "1,204 requests on stable" in invoke("status", "--operator", busy.address)


def test_status_works_without_the_inference_server(server):
    with FakeServer() as gone:
        pass
    server.show({}, [Component("inference", None, False, 1, gone.address, "", "")])
    assert f"{gone.address}: cannot connect" in invoke("status", "--operator", server.address)


@pytest.mark.usefixtures("data_dir", "busy")
def test_status_as_json_is_the_deployments_own():
    received = json.loads(invoke("status", "--json"))
    assert received["status"] == STATUS
    assert [component["name"] for component in received["components"]] == ["inference", "trainer"]
    assert received["inference"]["counters"]["arms"][0]["requests"] == 1204


@pytest.mark.usefixtures("data_dir")
def test_generate_prints_the_completion_and_nothing_else():
    assert invoke("generate", "Hi") == "Hello world\n"


@pytest.mark.usefixtures("data_dir")
def test_generate_passes_its_options(server):
    invoke(
        "generate", "Hi", "--max-tokens", "3", "--temperature", "0", "--stop", "a", "--stop", "b"
    )
    request = server.requests[0]
    assert (request.prompt, request.max_tokens, request.temperature) == ("Hi", 3, 0.0)
    assert request.stop == ("a", "b")


@pytest.mark.parametrize("arguments", [["generate", "Hi"], ["bench", "-n", "1", "--api", "grpc"]])
def test_the_token_comes_from_the_environment_or_the_command_line(monkeypatch, capsys, arguments):
    with FakeServer(Answer("Hello"), token="secret-a") as server:
        arguments = [*arguments, "--address", server.address]
        invoke(*arguments, "--token", "secret-a")
        monkeypatch.setenv("AURORA_TOKEN", "secret-a")
        invoke(*arguments)
        capsys.readouterr()
        assert "no valid token" in failure(capsys, *arguments, "--token", "secret-b")


def test_generate_reads_standard_input(server):
    CliRunner().invoke(app, ["generate", "-", "--address", server.address], input="from a pipe")
    assert server.requests[0].prompt == "from a pipe"


def test_generate_reports_speed_and_acceptance_beside_the_completion(server):
    result = CliRunner().invoke(app, ["generate", "Hi", "--stats", "--address", server.address])
    assert result.stdout == "Hello world\n"
    assert "2 tokens in" in result.stderr
    assert (
        "ckpt-1 (stable): 75.0% of 16 drafted tokens accepted, 4.00 tokens a step" in result.stderr
    )


@pytest.mark.parametrize(
    ("speculation", "shown"),
    [
        (Speculation("", "", "stable", 4, 0, 0), "no draft"),
        (Speculation("ckpt-1", "d", "stable", 4, 0, 0), "nothing drafted"),
        (
            Speculation("", "", "stable", 4, 0, 0, 8, 6),
            "n-grams: 75.0% of 8 drafted tokens accepted, 2.50 tokens a step",
        ),
        (
            Speculation("ckpt-1", "d", "candidate", 4, 4, 2, 8, 6),
            "ckpt-1 (candidate): 50.0% of 4 drafted tokens accepted\n"
            "n-grams: 75.0% of 8 drafted tokens accepted, 3.00 tokens a step",
        ),
    ],
)
def test_generate_reports_what_drafted(speculation, shown):
    with FakeServer(Answer("Hello", speculation=speculation)) as server:
        result = CliRunner().invoke(app, ["generate", "Hi", "--stats", "--address", server.address])
    assert result.stderr.endswith(f"\n{shown}\n")


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("arguments", [["drafts"], ["drafts", "list"]])
def test_drafts_lists_the_model_store(server, arguments):
    server.drafts = (
        PublishedDraft("ckpt-2", "sha256:" + "2" * 64, "", "", "candidate", "", 0, 0.631),
    )
    assert "ckpt-2  candidate  –        –          222222222222  –            63.1%" in invoke(
        *arguments
    )
    assert json.loads(invoke(*arguments, "--json"))[0]["name"] == "ckpt-2"


@pytest.mark.usefixtures("data_dir")
def test_drafts_says_when_there_is_none():
    assert invoke("drafts") == "no draft checkpoint has been published yet\n"


@pytest.mark.usefixtures("data_dir", "busy")
@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("pause", "paused: chat-42 is Paused"),
        ("resume", "resumed: chat-42 is Analyzing"),
        ("abort", "aborted: chat-42 is RolledBack"),
        ("promote", "promoted by hand: chat-42 is Promoting"),
    ],
)
def test_rollout_commands_reach_the_operator(server, command, line):
    assert invoke("rollout", command) == line + "\n"
    assert server.commands == ((command, "chat-42"),)


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error with which a command fails."""
    assert run(app, arguments, name="aurora") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bogus"], "aurora: No such command 'bogus'. (see aurora --help)"),
        (["generate"], "aurora: Missing argument 'prompt'. (see aurora generate --help)"),
        (["rollout"], "aurora: Missing command. (see aurora rollout --help)"),
        (["up"], "aurora: Missing option '--file' / '-f'. (see aurora up --help)"),
        (
            ["generate", "Hi", "--max-tokens", "0", "--address", "127.0.0.1:1"],
            "aurora: max_tokens must be at least 1, got 0",
        ),
        (
            ["generate", "Hi", "--address", "nowhere"],
            "aurora: 'nowhere' is not an address; use host:port",
        ),
        (
            ["bench", "--prompts", "/nowhere", "--address", "127.0.0.1:1"],
            "aurora: /nowhere: No such file or directory",
        ),
    ],
)
def test_a_wrong_command_line_is_one_line(capsys, arguments, line):
    assert failure(capsys, *arguments) == line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["up", "-f", "x", "--http-port", "99999"],
            "less than or equal to 65535, but it is '99999'",
        ),
        (["up", "-f", "x", "--grpc-port", "-1"], "greater than or equal to 0, but it is '-1'"),
        (
            ["bench", "-c", "many"],
            "valid integer, unable to parse string as an integer, but it is 'many'",
        ),
        (["generate", "Hi", "--temperature", "hot"], "but it is 'hot'"),
        (["bench", "--api", "foo"], "'foo' is not one of 'grpc', 'openai'"),
    ],
)
def test_a_refused_value_is_named_with_what_is_allowed(capsys, arguments, says):
    line = failure(capsys, *arguments)
    assert line.startswith("aurora: Invalid value for '--")
    assert says in line


@pytest.mark.usefixtures("data_dir", "server")
@pytest.mark.parametrize("command", ["pause", "resume", "abort", "promote"])
def test_a_command_without_a_rollout_fails(capsys, command):
    assert "no rollout is in progress" in failure(capsys, "rollout", command)


@pytest.mark.parametrize("name", ["aurora", "kubectl aurora"])
def test_version(capsys, name):
    from aurora_client._kubectl.app import app as kubectl

    assert run(app if name == "aurora" else kubectl, ["--version"], name=name) == 0
    assert capsys.readouterr().out == f"aurora {VERSION}\n"


def test_without_a_deployment_the_line_says_how_to_start_one(capsys, tmp_path):
    line = failure(capsys, "status", "--data-dir", str(tmp_path))
    assert line.startswith(f"aurora: no deployment was started in {tmp_path}")
    assert "aurora up -f manifest.yaml" in line


@pytest.mark.parametrize("content", ["{", "[]", '{"address": 3, "http": "", "grpc": ""}'])
def test_a_broken_operator_json_is_named(capsys, tmp_path, content):
    (tmp_path / "operator.json").write_text(content)
    assert str(tmp_path) in failure(capsys, "drafts", "--data-dir", str(tmp_path))


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize(
    "arguments", [["status"], ["drafts"], ["rollout", "abort"], ["generate", "Hi"]]
)
def test_a_refusal_is_one_line(capsys, server, arguments):
    server.fail(*[UnavailableError("starting")] * 3)
    assert failure(capsys, *arguments) == f"aurora: {server.address}: starting"


def test_a_prompt_that_is_not_text_is_refused(capsys, server):
    broken = os.fsdecode(b"\xff")
    assert "not UTF-8" in failure(capsys, "generate", broken, "--address", server.address)


def test_help_is_shown_without_arguments(capsys):
    assert run(app, [], name="aurora") == 0
    assert "Commands:" in capsys.readouterr().out


def test_missing_packages_of_up_are_named(capsys, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "psutil" else found(name)
    )
    line = failure(capsys, "up", "-f", "manifest.yaml")
    assert "psutil must be installed for this: " in line
    assert line.endswith("pip install 'aurora-serving[operator,buffer,inference,trainer]'")
