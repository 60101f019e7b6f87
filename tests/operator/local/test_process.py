"""The runtime with small real processes as its components."""

import os
import signal
import socket

import pytest


def detail(runtime, name):
    return next(found for found in runtime.details() if found.view.name == name)


async def test_starts_in_the_order_of_readiness(start, component, until):
    gate = component("redis", "--fail")
    runtime = await start(gate, component("buffer", requires=("redis",)), component("inference"))
    await until(lambda: runtime.is_ready("inference"))
    assert detail(runtime, "buffer").pid is None
    assert detail(runtime, "buffer").view.message == "waiting for redis"
    await runtime.apply([component("redis"), component("buffer", requires=("redis",))])
    await until(lambda: runtime.is_ready("buffer"))
    assert [found.view.name for found in runtime.details()] == ["redis", "buffer"]


async def test_a_killed_component_is_restarted(start, component, until, layout):
    runtime = await start(component("buffer"))
    await until(lambda: runtime.is_ready("buffer"))
    first = detail(runtime, "buffer").pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: detail(runtime, "buffer").restarts == 1)
    assert detail(runtime, "buffer").view.message == "was killed by SIGKILL"
    await until(lambda: detail(runtime, "buffer").pid not in (None, first))
    await until(lambda: runtime.is_ready("buffer"))
    assert detail(runtime, "buffer").restarts == 1
    assert layout.log("buffer").read_text().count("serving") == 2


async def test_a_crash_loop_reports_its_cause(start, component, until):
    runtime = await start(component("trainer", "--fail"))
    await until(lambda: detail(runtime, "trainer").view.failing)
    view = detail(runtime, "trainer").view
    assert view.message == "exited with code 1: no space left on the device"
    assert not view.ready


async def test_a_component_that_cannot_serve_any_more_says_why(start, component, until):
    runtime = await start(component("buffer"))
    await until(lambda: runtime.is_ready("buffer"))
    os.kill(detail(runtime, "buffer").pid, signal.SIGUSR1)
    await until(lambda: not runtime.is_ready("buffer"))
    assert detail(runtime, "buffer").view.message == (
        "running, but not ready; its last log line: not serving: no space left"
    )
    assert detail(runtime, "buffer").restarts == 0


async def test_a_restarted_operator_adopts(start, component, until, abandon, runs):
    commands = [component("buffer"), component("inference")]
    runtime = await start(*commands)
    await until(lambda: runtime.is_ready("buffer") and runtime.is_ready("inference"))
    pids = {found.view.name: found.pid for found in runtime.details()}
    await abandon(runtime)
    changed = component("inference")
    again = await start(commands[0], changed)
    await until(lambda: again.is_ready("buffer") and again.is_ready("inference"))
    assert detail(again, "buffer").pid == pids["buffer"]
    assert detail(again, "buffer").restarts == 0
    assert detail(again, "inference").pid != pids["inference"]
    assert not runs(pids["inference"])


async def test_an_adopted_component_that_exits_is_restarted(start, component, until, abandon):
    command = component("buffer")
    runtime = await start(command)
    await until(lambda: runtime.is_ready("buffer"))
    pid = detail(runtime, "buffer").pid
    await abandon(runtime)
    again = await start(command)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: detail(again, "buffer").pid not in (None, pid))
    assert detail(again, "buffer").restarts == 1


async def test_a_component_no_longer_wanted_is_stopped(start, component, until, runs):
    commands = [component("buffer"), component("trainer")]
    runtime = await start(*commands)
    await until(lambda: runtime.is_ready("trainer"))
    pid = detail(runtime, "trainer").pid
    await runtime.apply(commands[:1])
    assert not runs(pid)
    assert [found.view.name for found in runtime.details()] == ["buffer"]


async def test_stop_drains(start, component, until, layout, runs):
    runtime = await start(component("redis"), component("buffer", requires=("redis",)))
    await until(lambda: runtime.is_ready("buffer"))
    pids = [found.pid for found in runtime.details()]
    await runtime.stop()
    assert not any(runs(pid) for pid in pids)
    assert layout.log("buffer").read_text().endswith("drained\n")


async def test_a_component_that_does_not_drain_is_killed(
    start, component, until, monkeypatch, runs
):
    monkeypatch.setattr("aurora_operator.local.process.DRAIN_SECONDS", 0.2)
    runtime = await start(component("buffer", "--stubborn"))
    await until(lambda: runtime.is_ready("buffer"))
    pid = detail(runtime, "buffer").pid
    await runtime.stop()
    assert not runs(pid)


async def test_a_process_waits_until_its_pid_is_recorded(layout, until, runs):
    from aurora_operator.local.child import gated

    log = layout.log("buffer")
    child = gated(("/bin/echo", "ran"), log=log, environment=dict(os.environ), leash=None)
    assert runs(child.pid)
    # As the kernel does for a killed operator.
    child._popen.stdin.close()
    await until(lambda: not child.is_alive())
    assert log.read_text() == ""


@pytest.mark.parametrize("answer", [b"+PONG\r\n", b"-LOADING Redis is loading\r\n", b""])
async def test_redis_is_ready_once_it_says_pong(answer, tmp_path):
    import asyncio

    from aurora_operator.adapters.probe import RedisProbe

    async def serve(reader, writer):
        await reader.readline()
        writer.write(answer)
        writer.close()

    path = str(tmp_path / "redis.sock")
    server = await asyncio.start_unix_server(serve, path)
    assert await RedisProbe(path).is_ready(5) is (answer == b"+PONG\r\n")
    server.close()
    await server.wait_closed()
    assert not await RedisProbe(path).is_ready(5)


async def test_what_a_starting_component_loads_is_its_message(start, component, until):
    runtime = await start(component("inference", "--load"))
    await until(lambda: detail(runtime, "inference").view.message == "loading weights: 1 of 9 GB")
    await until(lambda: runtime.is_ready("inference"))
    assert detail(runtime, "inference").view.message == ""


async def test_a_refusal_is_told_from_a_failure(start, component, until):
    runtime = await start(component("inference", "--refuse"), component("trainer", "--fail"))
    await until(lambda: all(found.restarts for found in runtime.details()))
    assert detail(runtime, "inference").refused
    assert not detail(runtime, "trainer").refused


def test_ports_that_a_person_chose_are_not_kept():
    from aurora_operator.local.port import chosen_ports, free_ports

    kept, other = free_ports(2)
    chosen = chosen_ports(
        ("redis", "buffer"),
        {"redis": kept, "buffer": other},
        frozenset(),
        reserved=frozenset({kept}),
    )
    assert chosen["redis"] != kept
    assert chosen["buffer"] == other


def test_kept_ports_stay_unless_they_are_taken():
    from aurora_operator.local.port import chosen_ports

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        chosen = chosen_ports(("buffer", "trainer"), {"buffer": port}, frozenset())
        assert chosen["buffer"] != port
        assert len(set(chosen.values())) == 2
        assert chosen_ports(("buffer",), {"buffer": port}, frozenset({"buffer"})) == {
            "buffer": port
        }
    assert chosen_ports(("trainer",), chosen, frozenset()) == {"trainer": chosen["trainer"]}
