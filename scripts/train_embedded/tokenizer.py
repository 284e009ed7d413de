"""The tokenizer of the embedded models: CLIP's byte-level BPE with one token per known word."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

BOS = "<|startoftext|>"
EOS = "<|endoftext|>"
MAX_LENGTH = 77


def byte_letters() -> list[str]:
    """One printable character for each byte, in the order in which CLIP numbers them.

    Printable Latin-1 bytes stand for themselves, the others get code points from 256 on.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(others))]


def apply_merges(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding: join the adjacent pair of lowest rank until none is left."""
    while True:
        pairs = [(ranks[p], p) for p in pairwise(symbols) if p in ranks]
        if not pairs:
            return symbols
        best = min(pairs)[1]
        joined: list[str] = []
        i = 0
        while i < len(symbols):
            if tuple(symbols[i : i + 2]) == best:
                joined.append(symbols[i] + symbols[i + 1])
                i += 2
            else:
                joined.append(symbols[i])
                i += 1
        symbols = joined


def build(words: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary (token to id) and merges such that each word becomes exactly one token.

    A merge made for one word also fires inside others, so a word is first encoded with the
    merges there are and only the joins that are still missing are added, left to right.
    """
    letters = byte_letters()
    merges: list[tuple[str, str]] = []
    ranks: dict[tuple[str, str], int] = {}
    todo = sorted(set(words))
    changed = True
    while changed:  # a later merge can break an earlier word: repeat until nothing is missing
        changed = False
        for word in todo:
            symbols = apply_merges([*word[:-1], word[-1] + "</w>"], ranks)
            while len(symbols) > 1:
                pair = (symbols[0], symbols[1])
                ranks[pair] = len(merges)
                merges.append(pair)
                symbols = apply_merges(symbols, ranks)
                changed = True
    tokens = [*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), BOS, EOS]
    vocab: dict[str, int] = {}
    for token in tokens:
        vocab.setdefault(token, len(vocab))
    return vocab, merges


def save(folder: Path, words: Iterable[str], pad: str) -> None:
    """Write a tokenizer folder that transformers 4 (vocab.json) and 5 (tokenizer.json) read.

    `pad` is the padding token: the end token for the first encoder, "!" for SDXL's second.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = build(words)
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = load(folder, pad)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "add_prefix_space": False,
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
        "do_lower_case": True,
        "eos_token": EOS,
        "errors": "replace",
        "model_max_length": MAX_LENGTH,
        "pad_token": pad,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": EOS,
    }
    specials = {"bos_token": BOS, "eos_token": EOS, "pad_token": pad, "unk_token": EOS}
    for name, content in (
        ("tokenizer_config.json", config),
        ("special_tokens_map.json", specials),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load(folder: Path, pad: str) -> Any:
    """The tokenizer of a folder, built from vocab.json and merges.txt (transformers 5)."""
    from transformers import CLIPTokenizer

    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=EOS,
        pad_token=pad,
        model_max_length=MAX_LENGTH,
    )
