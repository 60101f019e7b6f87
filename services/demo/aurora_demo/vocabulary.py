"""The demo's tokenizer: byte-level BPE, trained on the models' training text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from aurora_common.errors import StorageError

END_OF_TEXT = "<|end|>"
END_OF_TEXT_ID = 0
CHAT_TEMPLATE_FILE = "chat_template.jinja"
# The model knows text, not conversations: an answer continues what the messages say.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message.content }}{% if not loop.last %}{{ '\\n' }}{% endif %}"
    "{% endfor %}"
)


class Vocabulary:
    """Text to tokens and back."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def encode_documents(self, documents: Sequence[str]) -> list[int]:
        """The documents concatenated, each followed by the end-of-text token."""
        encoded = self._tokenizer.encode_batch(list(documents))
        return [token for each in encoded for token in (*each.ids, END_OF_TEXT_ID)]

    def decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(tokens))
        return text

    def save(self, folder: Path) -> None:
        """Writes the files that transformers' AutoTokenizer reads."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
        }
        try:
            (folder / "tokenizer.json").write_text(self._tokenizer.to_str(pretty=True))
            (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
            (folder / CHAT_TEMPLATE_FILE).write_text(CHAT_TEMPLATE)
        except OSError as error:
            raise StorageError(
                f"cannot write the tokenizer in {folder}: {error.strerror}"
            ) from error


def trained_vocabulary(texts: Sequence[str], size: int) -> Vocabulary:
    """A vocabulary of at most `size` tokens, including every byte."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Vocabulary(tokenizer)


def load_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary that `save` wrote in this folder."""
    return Vocabulary(Tokenizer.from_file(str(folder / "tokenizer.json")))
