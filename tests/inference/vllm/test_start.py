"""The folder and script with which a stock vLLM starts, run with a stand-in for vLLM's program."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from aurora_common.errors import StorageError
from aurora_inference.settings import Address
from aurora_inference.vllm.__main__ import main
from aurora_inference.vllm.start import Vllm, write_start

# Says what it was started with.
PROGRAM = f"""\
#!{sys.executable}
import json, os, sys
names = ("PYTHONPATH", "VLLM_PLUGINS", "VLLM_API_KEY", "AURORA_VLLM_STORE")
print(json.dumps([sys.argv[1:], {{name: os.environ.get(name) for name in names}}]))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "a program"
    path.write_text(PROGRAM)
    path.chmod(0o700)
    return path


@pytest.fixture
def vllm(tmp_path, program):
    return Vllm(
        executable=str(program),
        target=tmp_path / "it's a target",
        draft=tmp_path / "draft",
        store=tmp_path / "claims $HOME",
        listen=Address("127.0.0.1", 8001),
        model_name="chat",
        dtype="bfloat16",
        speculation_length=4,
        max_context_tokens=None,
        arguments=("--seed", "7", "--port=80"),
    )


def started(script, **environment):
    result = subprocess.run(
        ["/bin/sh", script], capture_output=True, check=True, env=os.environ | environment
    )
    return json.loads(result.stdout)


def test_whatever_a_path_holds_reaches_vllm(vllm, tmp_path):
    arguments, environment = started(write_start(vllm, tmp_path / "into here"))

    assert arguments[:2] == ["serve", str(vllm.target)]
    assert environment["AURORA_VLLM_STORE"] == str(vllm.store)
    assert environment["PYTHONPATH"].split(":")[0] == str(tmp_path / "into here" / "plugin")
    speculation = json.loads(arguments[arguments.index("--speculative-config") + 1])
    assert speculation["model"] == str(vllm.draft)
    assert speculation["num_speculative_tokens"] == 4


@pytest.mark.parametrize(("kind", "method"), [("standalone", "draft_model"), ("eagle3", "eagle3")])
def test_vllm_is_told_the_drafts_kind(vllm, tmp_path, kind, method):
    arguments, _ = started(write_start(replace(vllm, draft_kind=kind), tmp_path / "into"))

    speculation = json.loads(arguments[arguments.index("--speculative-config") + 1])
    assert speculation["method"] == method


def test_auroras_flags_hold_whatever_the_user_says(vllm, tmp_path):
    arguments, _ = started(write_start(vllm, tmp_path / "into"))

    assert arguments.index("--port=80") < arguments.index("--port")
    assert arguments[arguments.index("--port") + 1] == "8001"


def test_the_users_plugins_and_path_stay(vllm, tmp_path):
    script = write_start(vllm, tmp_path / "into")
    _, environment = started(script, VLLM_PLUGINS="mine", PYTHONPATH="/mine")

    assert environment["VLLM_PLUGINS"] == "mine,aurora"
    assert environment["PYTHONPATH"].endswith(":/mine")


def test_the_key_is_secret_and_stays(vllm, tmp_path):
    folder = tmp_path / "into"
    script = write_start(vllm, folder)
    key = (folder / "key").read_text()
    write_start(vllm, folder)

    assert (folder / "key").read_text() == key
    assert len(key) >= 32
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert started(script)[1]["VLLM_API_KEY"] == key
    assert key not in script.read_text()


def test_the_plugin_is_one_that_vllm_discovers(vllm, tmp_path):
    write_start(vllm, tmp_path / "into")
    (entries,) = (tmp_path / "into/plugin").glob("*.dist-info/entry_points.txt")

    assert "aurora_vllm.endpoint" in entries.read_text()


def test_what_cannot_be_written_is_named(vllm, tmp_path):
    (tmp_path / "into").write_text("a file")

    with pytest.raises(StorageError, match="into"):
        write_start(vllm, tmp_path / "into")


@pytest.fixture
def flags(tmp_path, program):
    for name in ("target", "draft"):
        folder = tmp_path / "claims/models" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")

    def flags(verb, *more):
        return [
            *(verb, "--into", str(tmp_path / "into"), "--claims", str(tmp_path / "claims")),
            *("--target", "pvc://models/target", "--draft", "pvc://models/draft"),
            *("--listen", "127.0.0.1:8001", "--model-name", "chat"),
            *("--executable", str(program), *more),
        ]

    return flags


def test_prepare_writes_a_script_with_the_users_flags(flags, tmp_path):
    assert main(flags("prepare", "--", "--seed", "7")) == 0

    arguments, _ = started(tmp_path / "into/start")
    assert arguments[1] == str(tmp_path / "claims/models/target")
    assert arguments[arguments.index("--seed") :][:2] == ["--seed", "7"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--draft", "pvc://models/none"), "pvc://models/none: no model in"),
        (("--target", "hf://a/b"), "no model store serves"),
        (("--executable", "no-such-program"), "no program no-such-program"),
    ],
)
def test_bad_input_is_one_line_that_names_it(flags, change, says, capfd):
    assert main(flags("run", *change)) != 0

    assert says in capfd.readouterr().err


def test_run_ends_as_vllm_does(flags, tmp_path):
    script = Path(tmp_path / "a program")
    script.write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    command = [sys.executable, "-m", "aurora_inference.vllm", *flags("run")]

    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 3


def speculation_of(arguments):
    return json.loads(arguments[arguments.index("--speculative-config") + 1])


def test_tokens_by_batch_size_become_vllms_ranges(vllm, tmp_path):
    vllm = replace(vllm, per_batch_size=((1, 4), (5, 2), (7, 0)))
    arguments, _ = started(write_start(vllm, tmp_path / "into"))

    found = speculation_of(arguments)["num_speculative_tokens_per_batch_size"]
    # The last range goes on.
    assert found == [[1, 4, 4], [5, 6, 2], [7, 7, 0]]


def test_without_them_vllm_always_drafts_the_maximum(vllm, tmp_path):
    arguments, _ = started(write_start(vllm, tmp_path / "into"))

    assert "num_speculative_tokens_per_batch_size" not in speculation_of(arguments)


@pytest.mark.parametrize("index", ["0", "3"])
def test_on_several_nodes_the_first_serves_and_the_others_compute(vllm, tmp_path, index):
    script = write_start(replace(vllm, nodes=4), tmp_path)
    leader = {"LWS_LEADER_ADDRESS": "chat-0.chat-0.serving", "LWS_WORKER_INDEX": index}

    arguments, _ = started(script, **leader)

    alone, _ = started(write_start(vllm, tmp_path / "alone"))
    own = arguments[len(alone) :]
    assert arguments[: len(alone)] == alone
    assert own[:6] == [
        *("--nnodes", "4", "--node-rank", index),
        *("--master-addr", "chat-0.chat-0.serving"),
    ]
    assert own[6:] == ([] if index == "0" else ["--headless"])


def test_without_a_leader_it_does_not_start(vllm, tmp_path):
    script = write_start(replace(vllm, nodes=2), tmp_path)
    result = subprocess.run(["/bin/sh", script], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "LWS_WORKER_INDEX" in result.stderr
