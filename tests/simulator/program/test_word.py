"""Words are texts, and hashed as texts are."""

from __future__ import annotations

import pickle

from simulator.program.operations import Op
from simulator.program.stream import StreamKind
from simulator.program.word import Word


def test_a_word_finds_what_its_text_finds() -> None:
    for word in (Op.FORWARD, StreamKind.SEND):
        assert isinstance(word, Word)
        assert hash(word) == hash(word.value)
        assert {word.value: 1}[word] == 1
        assert type(word).__hash__ is str.__hash__  # not a function in Python
        assert pickle.loads(pickle.dumps(word)) is word
