import logging

import pytest

from aurora_common.admission import bearer_token
from aurora_common.errors import NotFoundError
from aurora_common.token import TokenFolder


class Clock:
    seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "team-a").write_text("secret-a\n")
    (tmp_path / "team-b").write_text("secret-b")
    (tmp_path / "empty").write_text("\n")
    return tmp_path


def test_each_file_holds_a_token(folder):
    tokens = TokenFolder(folder)
    assert tokens.admits("secret-a")
    assert tokens.admits("secret-b")
    for wrong in ("", "secret-c", "secret-a\n", "team-a", "sécret", "\udce4"):
        assert not tokens.admits(wrong)


def test_a_replaced_token_is_reloaded_within_a_second(folder):
    clock = Clock()
    tokens = TokenFolder(folder, clock=clock)
    (folder / "new").write_text("secret-n")
    (folder / "new").rename(folder / "team-a")
    assert tokens.admits("secret-a")
    clock.seconds = 1.0
    assert tokens.admits("secret-n")
    assert not tokens.admits("secret-a")


def test_the_last_tokens_stay_valid_while_the_folder_is_unreadable(folder, caplog):
    clock = Clock()
    tokens = TokenFolder(folder, clock=clock)
    (folder / "team-b").unlink()
    (folder / "team-b").mkdir()
    with caplog.at_level(logging.ERROR):
        for clock.seconds in (1.0, 2.0, 3.0):
            assert tokens.admits("secret-b")
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    (folder / "team-b").rmdir()
    clock.seconds = 4.0
    assert not tokens.admits("secret-b")
    assert tokens.admits("secret-a")


def test_without_tokens_every_request_is_refused(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert not TokenFolder(tmp_path).admits("")
    assert "every request is refused" in caplog.text


def test_no_token_is_logged(folder, caplog):
    with caplog.at_level(logging.DEBUG):
        TokenFolder(folder).admits("secret-a")
    assert "secret" not in caplog.text


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        TokenFolder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("header", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", ""), ("", ""), ("Bearer", "")],
)
def test_the_token_of_a_header(header, token):
    assert bearer_token(header) == token
