"""The embedded redis-server as a process: private, restricted, never stuck on a damaged file."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from aurora_buffer import redis_process
from aurora_buffer.redis_server import redis_binary

# A container's user, who owns nothing.
NOBODY = 65532
SECONDS = 30


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


class Embedded:
    """`aurora_buffer redis` in a folder, and a client of its socket."""

    def __init__(self, folder, *python, **more):
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.client = redis.Redis(unix_socket_path=str(self.socket), driver_info=None)
        self._python = python or ("-m", "aurora_buffer")
        self._more = more
        self.process = None

    def start(self):
        self._close_log()
        command = [sys.executable, *self._python, "redis"]
        command += ["--dir", str(self.folder), "--socket", str(self.socket)]
        command += ["--appendfsync", "always"]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **self._more)
        return self.process

    def answers(self):
        with suppress(redis.ConnectionError, redis.TimeoutError):
            return self.client.ping()
        return False

    def server(self):
        """The process of redis-server."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def fill(self, count=100):
        for number in range(count):
            self.client.xadd("stream", {"trajectory": f"{number:04}" * 16})

    def stop(self):
        """Terminates it; its log."""
        self.process.terminate()
        _, log = self.process.communicate(timeout=SECONDS)
        return log

    def close(self):
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self._close_log()

    def _close_log(self):
        if self.process is not None:
            self.process.stderr.close()


@pytest.fixture
def embedded(tmp_path, until):
    made = []

    def start(folder=tmp_path / "redis", *python, **more):
        one = Embedded(folder, *python, **more)
        made.append(one)
        one.start()
        until(one.answers, "Redis answers")
        return one

    yield start
    for one in made:
        one.close()


def modes(folder):
    """The permissions of a folder and all in it, for others than its owner."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) & 0o077
        for path in (folder, *folder.rglob("*"))
    }


@pytest.mark.redis
def test_a_signal_stops_redis_with_its_parent(embedded, tmp_path):
    one = embedded(tmp_path / "made" / "on the way")
    server = one.server()
    assert one.client.info("server")["process_id"] == server.pid
    one.process.terminate()
    assert one.process.wait(SECONDS) == 0
    assert not server.is_running()
    assert any(one.folder.rglob("appendonly*"))


@pytest.mark.redis
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux'")
def test_redis_ends_with_a_killed_parent_and_its_data_stays(embedded, until):
    one = embedded()
    one.fill(3)
    server = one.server()
    one.process.kill()
    one.process.wait()
    # At once: it waits for the former to let go of the folder.
    one.start()
    until(lambda: not server.is_running(), "the former is gone")
    until(one.answers, "Redis answers")
    assert len(one.client.xrange("stream")) == 3


@pytest.mark.redis
def test_redis_ends_with_its_leash(embedded):
    held, holder = os.pipe()
    one = embedded(env=os.environ | {"AURORA_LEASH_FD": str(held)}, pass_fds=[held])
    os.close(held)
    os.close(holder)
    assert one.process.wait(SECONDS) == 0


@pytest.mark.redis
def test_another_redis_on_the_same_folder_is_refused(embedded, monkeypatch):
    one = embedded()
    other = Embedded(one.folder)
    with other.start() as process:
        _, errors = process.communicate(timeout=SECONDS)
    other.client.close()
    assert process.returncode == 1
    assert errors == f"aurora_buffer: another redis-server uses {one.folder}\n"
    assert one.answers()


@pytest.mark.redis
def test_files_are_private_even_those_of_an_earlier_version(embedded, tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir(mode=0o755)
    one = embedded(folder)
    one.fill()
    assert set(modes(folder).values()) == {0}
    one.stop()
    for path in (folder, *folder.rglob("appendonly*")):
        path.chmod(path.stat().st_mode | 0o055)
    one = embedded(folder)
    assert len(one.client.xrange("stream")) == 100
    assert set(modes(folder).values()) == {0}


@pytest.mark.redis
def test_redis_has_no_port_and_no_password_to_leak(embedded):
    one = embedded()
    processes = (psutil.Process(one.process.pid), one.server())
    assert not [each for process in processes for each in process.net_connections("inet")]
    assert not any(">" in part for process in processes for part in process.cmdline())


FORBIDDEN = [
    ("CONFIG", "SET", "dir", "/tmp"),
    ("CONFIG", "GET", "*"),
    ("DEBUG", "SLEEP", "0"),
    ("MODULE", "LIST"),
    ("SAVE",),
    ("BGSAVE",),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("SHUTDOWN",),
    ("ACL", "LIST"),
    ("FLUSHALL",),
    ("KEYS", "*"),
    ("SCRIPT", "FLUSH"),
    ("MIGRATE", "127.0.0.1", "1", "key", "0", "1"),
    ("SET", "key", "value"),
    ("EVAL", "return redis.call('set', KEYS[1], '1')", "1", "key"),
    ("EVAL", "return redis.call('config', 'get', 'dir')", "0"),
]


@pytest.mark.redis
def test_only_what_the_buffer_does_is_allowed(embedded):
    one = embedded()
    for command in FORBIDDEN:
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't run this|not allowed"):
            pytest.fail(f"{command}: {one.client.execute_command(*command)}")
    assert one.answers()


def damaged_in_the_middle(content):
    half = len(content) // 2
    return content[:half] + b"\x00" * 64 + content[half + 64 :]


def damaged_command(content):
    """Well-formed, but no command."""
    at = content.index(b"\r\nXADD\r\n", len(content) // 2)
    return content[:at] + content[at:].replace(b"XADD", b"XBAD", 1)


def damaged_preamble(content):
    return content[:40] + bytes(byte ^ 0xFF for byte in content[40:90]) + content[90:]


def newest_file(folder, *, preamble):
    """The file of the log of commands, or the one that begins with a snapshot."""
    files = [
        path
        for pattern in ("appendonly.aof", "appendonlydir/*.rdb", "appendonlydir/*.aof")
        for path in folder.glob(pattern)
    ]
    if preamble:
        files = [path for path in files if path.read_bytes()[:5] == b"REDIS"]
    return max(files, key=lambda path: path.stat().st_size)


@pytest.mark.redis
@pytest.mark.parametrize("damage", [damaged_in_the_middle, damaged_command, damaged_preamble])
def test_a_damaged_file_is_set_aside_and_redis_starts_empty(embedded, until, damage):
    preamble = damage is damaged_preamble
    one = embedded()
    one.fill()
    if preamble:
        one.client.bgrewriteaof()
        info = one.client.info
        until(lambda: not info("persistence")["aof_rewrite_in_progress"], "rewritten")
    one.stop()
    for _ in range(2):
        path = newest_file(one.folder, preamble=preamble)
        path.write_bytes(damage(path.read_bytes()))
        content = path.read_bytes()
        one.start()
        until(one.answers, "Redis answers")
        assert one.client.exists("stream") == 0
        kept = [found.read_bytes() for found in (one.folder / "damaged").rglob("appendonly.*")]
        assert content in kept
        assert set(modes(one.folder).values()) == {0}
        one.fill()
        if preamble:
            one.client.bgrewriteaof()
            until(lambda: not info("persistence")["aof_rewrite_in_progress"], "rewritten")
        log = one.stop()
        assert log.count("the append-only file is damaged") == 1
    # One copy at most.
    assert len([found for found in one.folder.iterdir() if "damaged" in found.name]) == 1


@pytest.mark.redis
def test_a_missing_file_counts_as_damage(embedded, until):
    one = embedded()
    one.fill()
    one.stop()
    if not (one.folder / "appendonlydir").exists():
        pytest.skip("Redis 6 has a single file")
    newest_file(one.folder, preamble=False).unlink()
    one.start()
    until(one.answers, "Redis answers")
    assert one.client.exists("stream") == 0
    assert (one.folder / "damaged").exists()


@pytest.mark.redis
def test_a_truncated_file_loses_only_its_end(embedded, until):
    one = embedded()
    one.fill()
    one.stop()
    path = newest_file(one.folder, preamble=False)
    path.write_bytes(path.read_bytes()[:-7])
    one.start()
    until(one.answers, "Redis answers")
    assert len(one.client.xrange("stream")) == 99


def test_a_large_damaged_file_is_not_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(redis_process, "DAMAGED_KEPT_BYTES", 10)
    (tmp_path / "appendonly.aof").write_bytes(b"x" * 11)
    redis_process._set_aside(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert "damaged" in caplog.text


@pytest.mark.redis
def test_what_is_no_damage_is_no_reason_to_start_empty(embedded, tmp_path):
    one = embedded()
    one.fill(3)
    one.stop()
    one.socket.unlink(missing_ok=True)
    one.socket.mkdir()
    with one.start() as process:
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode != 0
    assert "Unix socket" in errors
    assert "damaged" not in errors
    assert any(one.folder.glob("appendonly*"))


@pytest.mark.redis
def test_leftovers_of_killed_rewrites_are_removed(embedded, tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    (folder / "temp-rewriteaof-bg-77.aof").write_bytes(b"half")
    embedded(folder)
    assert not list(folder.glob("temp-*"))


@pytest.fixture
def users_folder():
    """A folder that other users can reach."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@needs_root
@pytest.mark.redis
@pytest.mark.parametrize("mount", [False, True])
def test_it_needs_no_more_than_its_folder(embedded, users_folder, until, mount):
    data = users_folder / "data"
    data.mkdir()
    # The root of a volume belongs to root, and the pod's group may write there.
    os.chown(data, 0 if mount else NOBODY, NOBODY)
    data.chmod(0o2775 if mount else 0o755)
    (data / "lost+found").mkdir(mode=0o700)
    one = embedded(data, "-c", _AS_NOBODY)
    one.fill()
    one.client.bgrewriteaof()
    until(lambda: not one.client.info("persistence")["aof_rewrite_in_progress"], "rewritten")
    found = modes(data)
    found.pop(".")
    assert set(found.values()) == {0}
    one.stop()
    assert one.process.returncode == 0


@needs_root
def test_a_folder_that_cannot_be_written_is_one_line(users_folder):
    one = Embedded(users_folder, "-c", _AS_NOBODY)
    with one.start() as process:
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert errors == f"aurora_buffer: cannot write in {users_folder}: Permission denied\n"


@pytest.mark.parametrize(
    ("folder", "problem"),
    [("file/folder", "cannot make "), ("long" * 30, "a socket's may have 103")],
)
def test_a_folder_that_cannot_be_used_is_one_line(tmp_path, folder, problem):
    (tmp_path / "file").touch()
    with Embedded(tmp_path / folder).start() as process:
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert problem in errors
    assert errors.count("\n") == 1


@pytest.mark.redis
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_while_loading_sets_nothing_aside(embedded, number, until):
    one = embedded()
    one.fill(10)
    one.stop()
    for _ in range(3):
        one.start()
        until(lambda: psutil.Process(one.process.pid).children(), "redis-server runs")
        one.process.send_signal(number)
        one.process.communicate(timeout=SECONDS)
    assert not (one.folder / "damaged").exists()
    assert any(one.folder.glob("appendonly*"))
