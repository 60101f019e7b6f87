"""On a full disk appends are refused, and all else goes on, with a real Redis on a small one."""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import grpc
import pytest
import redis

from aurora_buffer.disk import Reserve, Room, shortage

pytestmark = pytest.mark.redis

MIB = 1 << 20
SIZE = 64 * MIB


def test_part_of_the_disk_is_held_back():
    assert Room(40 * MIB, 0).reserve_bytes == MIB
    assert Room(1 << 50, 0).reserve_bytes == 32 * MIB


@pytest.mark.parametrize(
    ("free", "told"),
    [
        (48 * MIB, ""),
        (
            48 * MIB - 1,
            "the disk of Redis is full: 48.0 MiB of 2048 MiB are free, 48.0 MiB are needed; "
            "what is stored is still delivered and trimmed",
        ),
    ],
)
def test_a_shortage_is_told_in_numbers(free, told):
    assert shortage(Room(2048 * MIB, free)) == told


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounts a small file system, for which it must be root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Filler:
    """A file that takes all room on a disk."""

    def __init__(self, disk):
        self._path = disk / "filler"

    def fill(self):
        with self._path.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def remove(self):
        self._path.unlink()


@pytest.fixture
def redis_on(small_disk, until):
    """A Redis as a deployment runs it, whose files are on the small disk."""
    folder, socket = small_disk / "redis", small_disk / "socket" / "redis.sock"
    command = [sys.executable, "-m", "aurora_buffer", "redis", "--dir", folder, "--socket", socket]
    command += ["--max-bytes", str(SIZE * 2 // 5), "--storage-bytes", str(SIZE)]
    command += ["--memory-bytes", str(SIZE)]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL) as process:
        client = redis.Redis(unix_socket_path=str(socket), driver_info=None)

        def answers():
            with suppress(redis.RedisError):
                return client.ping()
            return False

        until(answers, "Redis answers")
        until((folder / "reserve").exists, "the reserve is there")
        yield folder, f"unix://{socket}", client
        client.close()
        process.terminate()


def append(buffer, *trajectories):
    """The refusal's code and words; empty if there is none."""
    try:
        buffer.append(*trajectories)
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return ""


def test_trims_and_acknowledges_on_a_full_disk_and_heals(
    small_disk, redis_on, serve, until, trajectory, take
):
    folder, url, client = redis_on
    pid = client.info("server")["process_id"]
    buffer = serve(url=url, redis_dir=folder, max_age_seconds=15)
    buffer.append(trajectory("a"), trajectory("b"))
    stream = buffer.subscribe()
    (first, _) = take(stream, 2)

    filler = Filler(small_disk)
    filler.fill()

    until(lambda: "RESOURCE_EXHAUSTED" in append(buffer, trajectory("c")), "appends are refused")
    refusal = append(buffer, trajectory("c"))
    assert refusal.startswith("RESOURCE_EXHAUSTED: trajectories are not stored: the disk of Redis")
    assert not (folder / "reserve").exists()
    until(lambda: buffer.health() == "SERVING", "it serves")
    assert buffer.ack(first) == 1
    until(lambda: buffer.stats().entries == 0, "the old are trimmed")
    assert buffer.stats().groups[0].pending == 0

    filler.remove()
    until(lambda: not append(buffer, trajectory("d")), "appends are accepted")
    until((folder / "reserve").exists, "the reserve is there again")
    assert buffer.stats().entries == 1
    assert client.info("server")["process_id"] == pid
    assert buffer.log().count("refusing trajectories") <= 5


def test_the_reserve_gives_way_before_redis_starts(small_disk):
    reserve = Reserve(small_disk)
    reserve.adjust()
    held = small_disk / "reserve"
    assert held.stat().st_blocks * 512 >= SIZE // 40
    Filler(small_disk).fill()
    reserve.adjust()
    assert not held.exists()
    # Nothing changes until there is much room.
    reserve.adjust()
    assert not held.exists()
    Filler(small_disk).remove()
    stop = threading.Event()
    thread = threading.Thread(target=reserve.run, args=(stop,))
    thread.start()
    try:
        while not held.exists():
            assert thread.is_alive()
    finally:
        stop.set()
        thread.join()


def test_the_stream_and_its_rewrites_fit_on_the_disk(
    small_disk, redis_on, serve, trajectory, until
):
    """As much as is kept by default, replaced several times over; traffic is slower than a disk."""
    folder, url, client = redis_on
    buffer = serve(url=url, redis_dir=folder, max_bytes=SIZE * 2 // 5)
    added = trajectory("x", tokens=10_000)
    refused, rewrites = [], 0
    for _ in range(4 * SIZE * 2 // 5 // added.ByteSize()):
        refused.append(append(buffer, added))
        # Redis looks at the file's size ten times a second.
        time.sleep(0.02)
        if client.info("persistence")["aof_rewrite_in_progress"]:
            rewrites += 1
            until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "rewritten")
    assert set(refused) == {""}
    assert rewrites >= 2
    assert client.info("persistence")["aof_last_bgrewrite_status"] == "ok"
    assert buffer.health() == "SERVING"


def test_a_redis_that_runs_out_of_memory_drops_the_oldest(
    serve, redis_server, until, trajectory, tmp_path
):
    buffer = serve(redis_dir=tmp_path / "redis")
    buffer.append(*(trajectory(str(number), tokens=10_000) for number in range(20)))
    used = redis_server.client.info("memory")["used_memory"]
    redis_server.client.config_set("maxmemory", used + (1 << 18))
    for number in range(8):
        added = trajectory(f"more-{number}", tokens=10_000)
        until(lambda added=added: not append(buffer, added), "it is stored")
    assert 8 <= buffer.stats().entries < 28
    assert "Redis is out of memory; dropped the oldest" in buffer.log()
    with urllib.request.urlopen(f"http://127.0.0.1:{buffer.metrics_port}/metrics") as answer:
        assert b"aurora_buffer_trimmed_total 0.0" not in answer.read()
