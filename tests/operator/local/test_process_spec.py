import json

import pytest

from aurora_inference.gateway.settings import parse_settings as parse_gateway
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.local.process_spec import Ports, desired_processes
from aurora_trainer.settings import parse_settings as parse_trainer

PORTS = Ports(
    http=8000,
    grpc=9000,
    control=4,
    buffer=2,
    trainer=3,
    engine=5,
    meeting=6,
    ranks={"rank-1": 7, "rank-2": 8},
)


def commands(layout, **spec):
    content = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "target": {"uri": "pvc://models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
            **spec,
        },
    }
    deployment = parse_manifest(json.dumps(content), "test")
    found = desired_processes(deployment, layout, PORTS, python="python")
    return {command.name: command for command in found}


def test_the_order_of_start(layout):
    found = commands(layout)
    assert list(found) == ["redis", "buffer", "inference", "trainer"]
    requires = [command.requires for command in found.values()]
    assert requires == [(), ("redis",), (), ("buffer",)]


def test_vllm_runs_behind_its_gateway(layout):
    found = commands(
        layout,
        draft={"initialCheckpoint": {"uri": "pvc://models/draft"}},
        engine={"type": "vllm", "executable": "/opt/vllm", "args": ["--enforce-eager"]},
    )
    assert list(found) == ["redis", "buffer", "engine", "inference", "trainer"]
    engine, gateway = found["engine"], found["inference"]
    assert (engine.probe, engine.address, engine.requires) == ("http", "127.0.0.1:5", ())
    assert engine.argv[-2:] == ("--", "--enforce-eager")
    assert "/opt/vllm" in engine.argv
    assert (gateway.probe, gateway.address) == ("grpc", "127.0.0.1:4")
    assert gateway.requires == ("engine",)
    settings = parse_gateway(gateway.argv[3:])
    assert settings.engine == "http://127.0.0.1:5"
    assert settings.engine_key == layout.engine / "key"


def test_a_vllm_that_others_run_is_not_started(layout):
    found = commands(
        layout,
        draft={"initialCheckpoint": {"uri": "pvc://models/draft"}},
        engine={"type": "vllm", "attach": {"url": "http://127.0.0.1:8000", "keyFile": "/key"}},
    )
    assert list(found) == ["redis", "buffer", "inference", "trainer"]
    settings = parse_gateway(found["inference"].argv[3:])
    assert settings.engine == "http://127.0.0.1:8000"
    assert str(settings.engine_key) == "/key"
    assert settings.put_back
    assert settings.pass_authorization
    assert found["inference"].requires == ()


def test_on_one_machine_limits_choose_no_device(layout):
    gpu = {"resources": {"limits": {"nvidia.com/gpu": 1}}}
    found = commands(layout, inference=gpu, trainer={**gpu, "device": "cuda:1"})
    assert "--device" not in found["inference"].argv
    assert "cuda:1" in found["trainer"].argv


def test_an_external_redis_is_not_started(layout):
    found = commands(layout, buffer={"external": {"url": "redis://elsewhere:6379/0"}})
    assert "redis" not in found
    assert found["buffer"].requires == ()
    # Arguments are visible to everyone, and the URL may hold a password.
    assert not any("elsewhere" in argument for argument in found["buffer"].argv)
    assert found["buffer"].environment == {"AURORA_REDIS_URL": "redis://elsewhere:6379/0"}
    assert "elsewhere" not in repr(found["buffer"])


def test_several_trainers_are_ranks_that_share_the_cores(layout):
    found = commands(layout, trainer={"replicas": 3}, security={"trainerTraffic": "Plaintext"})
    assert list(found) == ["redis", "buffer", "inference", "trainer", "rank-1", "rank-2"]
    trainer = parse_trainer(found["trainer"].argv[3:])
    assert (trainer.ranks, trainer.ranks_listen, trainer.local_ranks) == (3, "127.0.0.1:6", 3)
    ranks = [parse_trainer(found[name].argv[3:]) for name in ("rank-1", "rank-2")]
    assert [(each.listen, each.trainer, each.local_ranks) for each in ranks] == [
        ("127.0.0.1:7", "127.0.0.1:6", 3),
        ("127.0.0.1:8", "127.0.0.1:6", 3),
    ]
    assert found["rank-1"].requires == ("trainer",)


def test_a_suspended_trainer_does_not_run(layout):
    assert "trainer" not in commands(layout, trainer={"suspend": True})
    assert "rank-1" not in commands(
        layout,
        trainer={"suspend": True, "replicas": 2},
        security={"trainerTraffic": "Plaintext"},
    )


def test_models_are_in_their_claim(layout):
    found = commands(layout, draft={"initialCheckpoint": {"uri": "pvc://models/draft"}})
    assert "pvc://models/target" in found["inference"].argv
    assert "pvc://models/draft" not in found["inference"].argv
    assert "pvc://models/draft" in found["trainer"].argv
    assert all(str(layout.claims) in found[name].argv for name in ("inference", "trainer"))
    assert str(layout.claims / "models" / "chat") in found["trainer"].argv


@pytest.mark.parametrize(
    ("component", "parse", "spec"),
    [
        (
            "inference",
            "aurora_inference.settings",
            {
                "draft": {"speculationLength": {"max": 3, "adaptive": False}},
                "inference": {"maxContextTokens": 99, "generationConfig": "vllm"},
            },
        ),
        (
            "trainer",
            "aurora_trainer.settings",
            {"trainer": {"objective": "ForwardKL", "optimizer": "Muon"}},
        ),
    ],
)
def test_the_component_understands_its_flags(layout, component, parse, spec):
    module = pytest.importorskip(parse)
    settings = module.parse_settings(commands(layout, **spec)[component].argv[3:])
    if component == "inference":
        assert (settings.max_speculation_length, settings.adaptive_speculation) == (3, False)
        assert settings.max_context_tokens == 99
        assert settings.generation_config == "vllm"
    else:
        assert (settings.objective, settings.optimizer) == ("ForwardKL", "Muon")
        assert settings.learning_rate == 1e-4
