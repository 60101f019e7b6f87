"""What names a target, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError
from aurora_model.decoder import Decoder
from aurora_model.target import target_identity
from aurora_model.tokenizer import load_tokenizer
from aurora_model.weights import save_decoder


@pytest.fixture
def folder(draft: Decoder, tmp_path: Path) -> Path:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "hello": 1, "world": 2}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    save_decoder(draft, tmp_path)
    return tmp_path


def test_identity_follows_the_content_and_not_the_place(folder: Path, tmp_path_factory):
    identity = target_identity(folder)
    moved = tmp_path_factory.mktemp("elsewhere") / "model"
    folder.rename(moved)

    assert target_identity(moved) == identity
    assert identity.vocab_size == 97


def test_another_tokenizer_is_another_identity(folder: Path):
    before = target_identity(folder)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("hello", "hallo"))

    after = target_identity(folder)

    assert after.tokenizer_digest != before.tokenizer_digest
    assert after.digest != before.digest


def test_a_target_without_tokenizer_is_refused(folder: Path):
    (folder / "tokenizer.json").unlink()

    with pytest.raises(InvalidInputError, match=r"tokenizer\.json: No such file"):
        target_identity(folder)


def test_the_tokenizer_of_a_folder_is_read(folder: Path):
    tokenizer = load_tokenizer(folder)

    assert tokenizer.encode("hello world") == [1, 2]
    assert tokenizer.decode([2]) == "world"


@pytest.mark.parametrize("text", [None, "{", "{}"])
def test_a_bad_tokenizer_is_refused(folder: Path, text):
    if text is None:
        (folder / "tokenizer.json").unlink()
    else:
        (folder / "tokenizer.json").write_text(text)

    with pytest.raises(InvalidInputError, match="tokenizer"):
        load_tokenizer(folder)
