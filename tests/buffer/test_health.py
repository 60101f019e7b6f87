"""Health follows what Redis lets the buffer do, by a real Redis that loses its abilities."""

import os
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import grpc
import pytest

STREAM = "aurora:trajectories"
CANARY = f"{STREAM}:canary"
# A round, its deadline, and a busy machine.
SOON_SECONDS = 15

pytestmark = pytest.mark.redis


@pytest.fixture
def becomes(until):
    """Waits until a buffer's health is as expected, soon."""

    def wait(buffer, health):
        began = time.monotonic()
        until(lambda: buffer.health() == health, f"it is {health}")
        assert time.monotonic() - began < SOON_SECONDS

    return wait


def refusal(url):
    """The exit code of a buffer in front of a Redis that cannot serve it, and what it says."""
    result = subprocess.run(
        [
            *(sys.executable, "-m", "aurora_buffer", "serve", "--listen", "127.0.0.1:0"),
            *("--max-age-seconds", "60", "--max-bytes", "1000000"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"AURORA_REDIS_URL": url},
        check=False,
    )
    lines = [line for line in result.stderr.splitlines() if not line.startswith("{")]
    return result.returncode, lines


def test_no_consumer_sees_a_canary(buffer, redis_server, until, trajectory, take):
    def newest():
        return redis_server.client.xinfo_stream(CANARY)["last-generated-id"]

    first = newest()
    until(lambda: newest() != first, "another canary was stored")
    stream = buffer.subscribe()
    buffer.append(trajectory("a"))
    assert list(take(stream, 1).values()) == ["a"]
    stats = buffer.stats()
    assert (stats.entries, [group.name for group in stats.groups]) == (1, ["trainer"])
    assert redis_server.client.xlen(CANARY) <= 17


def test_buffers_of_one_redis_do_not_disturb_each_others_canaries(serve, redis_server, until):
    buffers = [serve() for _ in range(3)]
    entries = redis_server.client.xinfo_stream(CANARY)["last-generated-id"]
    until(lambda: redis_server.client.xinfo_stream(CANARY)["last-generated-id"] != entries, "more")
    assert "not serving" not in buffers[0].log()


def test_a_user_who_may_not_run_scripts_is_refused(redis_server):
    redis_server.client.acl_setuser(
        "poor", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all", "-@scripting"]
    )
    code, lines = refusal(f"redis://poor:secret@127.0.0.1:{redis_server.port}")
    assert code == 1
    (line,) = lines
    assert "'eval" in line
    assert "+eval +evalsha +script|load" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (
            ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            "aurora_buffer: Redis evicts by maxmemory-policy allkeys-lru, which deletes "
            "trajectories behind the buffer's back: set it to noeviction",
        ),
        (
            ("--cluster-enabled", "yes"),
            "aurora_buffer: Redis runs in cluster mode: the buffer needs one without cluster or "
            "sentinel",
        ),
    ],
    ids=["eviction", "cluster"],
)
def test_a_redis_that_cannot_serve_is_refused_by_name(start_redis, setting, problem):
    assert refusal(start_redis(*setting).url) == (1, [problem])


def test_rights_that_are_taken_away_and_given_back(buffer, redis_server, becomes, trajectory):
    redis_server.client.execute_command("ACL", "SETUSER", "default", "-xadd")
    becomes(buffer, "NOT_SERVING")
    with pytest.raises(grpc.RpcError, match="xadd"):
        buffer.append(trajectory("a"))
    time.sleep(3)
    redis_server.client.execute_command("ACL", "SETUSER", "default", "+xadd")
    becomes(buffer, "SERVING")
    assert buffer.append(trajectory("a")).appended == 1
    log = buffer.log()
    assert "xadd" in log
    assert log.count("not serving until") == 1


def test_an_eviction_policy_set_later_is_noticed(buffer, redis_server, becomes):
    redis_server.client.config_set("maxmemory", "100mb")
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    becomes(buffer, "NOT_SERVING")
    assert "set it to noeviction" in buffer.log()
    redis_server.client.config_set("maxmemory-policy", "noeviction")
    becomes(buffer, "SERVING")


class Address:
    """One TCP address that leads to the redis-server of a port, another one later."""

    def __init__(self, port):
        self.target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            if self.target is None:
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            self._threads.append(threading.Thread(target=self._copy, args=(client, server)))
            self._threads[-1].start()

    def _copy(self, client, server):
        with client, server, suppress(OSError):
            while True:
                for source in select.select((client, server), (), ())[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        return
                    (server if source is client else client).sendall(data)

    def close(self):
        """Call when no client is connected any more."""
        self.target = None
        socket.create_connection(self._listener.getsockname()).close()
        for thread in self._threads:
            thread.join()
        self._listener.close()


@pytest.fixture
def address():
    made = []

    def make(port):
        made.append(Address(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_demoted_primary_is_left_for_the_new_one(
    start_redis, address, serve, becomes, trajectory
):
    former, new = start_redis(), start_redis()
    leader = address(former.port)
    buffer = serve(url=leader.url)
    buffer.append(trajectory("a"))
    former.client.execute_command("REPLICAOF", "127.0.0.1", new.port)
    becomes(buffer, "NOT_SERVING")
    assert "read only replica" in buffer.log()
    # The connections to the former primary stay open.
    leader.target = new.port
    becomes(buffer, "SERVING")
    buffer.append(trajectory("b"))
    assert new.client.xlen(STREAM) == 1


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounts a small file system, for which it must be root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_named_and_left_behind(
    small_disk, start_redis, serve, becomes, until, trajectory
):
    redis_server = start_redis(folder=small_disk / "redis", appendfsync="everysec")
    buffer = serve(url=redis_server.url)
    with (small_disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(bytes(4096)):
            pass
    becomes(buffer, "NOT_SERVING")
    with pytest.raises(grpc.RpcError, match="No space left on device"):
        buffer.append(trajectory("a"))
    assert "No space left on device" in buffer.log()
    (small_disk / "filler").unlink()
    becomes(buffer, "SERVING")
    assert buffer.append(trajectory("a")).appended == 1


def test_a_full_memory_is_named_and_left_behind(serve, redis_server, becomes, trajectory):
    buffer = serve()
    redis_server.client.config_set("maxmemory", 1)
    becomes(buffer, "NOT_SERVING")
    assert "it is out of memory" in buffer.log()
    redis_server.client.config_set("maxmemory", 0)
    becomes(buffer, "SERVING")
    assert buffer.append(trajectory("a")).appended == 1


_CRASHING_UPKEEP = """
import sys
from aurora_buffer import __main__, upkeep
rounds = upkeep.Upkeep._round
calls = []
async def crash_in_the_third(self):
    calls.append(1)
    if len(calls) == 3:
        raise RuntimeError("a bug")
    await rounds(self)
upkeep.Upkeep._round = crash_in_the_third
sys.exit(__main__.main(sys.argv[1:]))
"""


def test_upkeep_that_crashes_is_shown_counted_and_started_again(serve, until):
    buffer = serve(program=("-c", _CRASHING_UPKEEP))
    buffer.may_crash = True
    until(lambda: buffer.health() == "NOT_SERVING", "the crash is shown")
    until(lambda: buffer.health() == "SERVING", "upkeep runs again")
    with urllib.request.urlopen(f"http://127.0.0.1:{buffer.metrics_port}/metrics") as answer:
        assert b'aurora_buffer_task_restarts_total{task="upkeep"} 1.0' in answer.read()
    assert buffer.log().count("background task ended; will restart") == 1
