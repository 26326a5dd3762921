"""Byte-pair encoding by hand, and the shipped tokenizer as the library's class. Derived in lesson 03."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = 0, 1, 2
SPECIAL_TOKENS = (PAD, BOS, EOS)
N_BYTES = 256
NAMED = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "clean_up_tokenization_spaces": False}
TOKENIZER_FILE = Path(__file__).parent / "assets" / "tokenizer.json"

# A word with the blank before it, a number, a run of signs, or a run of white space: merges stay inside one.
CHUNK_PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^ \t\r\nA-Za-z0-9]+|[ \t\r\n]+"


def chunks(text: str) -> list[bytes]:
    """Cuts a text where no merge may reach across; the pieces joined are the text's UTF-8 bytes again.

    >>> chunks("It is blue.")
    [b'It', b' is', b' blue', b'.']
    """
    return [piece.encode("utf-8") for piece in re.findall(CHUNK_PATTERN, text)]


def count_pairs(words: Iterable[tuple[tuple[int, ...], int]]) -> Counter:
    """How often each pair of neighbouring tokens occurs; words are (token ids, how often the word occurs).

    >>> count_pairs([((1, 2, 1, 2), 10)])
    Counter({(1, 2): 20, (2, 1): 10})
    """
    counts = Counter()
    for ids, times in words:
        for pair in pairwise(ids):
            counts[pair] += times
    return counts


def merge(ids: tuple[int, ...], pair: tuple[int, int], new_id: int) -> tuple[int, ...]:
    """Replaces every occurrence of pair, from the left, by new_id.

    >>> merge((1, 2, 3, 1, 2), (1, 2), 9)
    (9, 3, 9)
    """
    merged, i = [], 0
    while i < len(ids):
        if ids[i : i + 2] == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return tuple(merged)


class BPETokenizer:
    """Byte-level byte-pair encoding: ids 0 to 2 are special, 3 to 258 the bytes, then one id per merge.

    `merges` maps a pair of ids to the id it becomes, in the order in which the merges were learned.
    """

    def __init__(self, merges: dict[tuple[int, int], int]):
        self.merges = merges
        first = len(SPECIAL_TOKENS)
        self.bytes_of = {first + byte: bytes([byte]) for byte in range(N_BYTES)}
        for (left, right), new_id in merges.items():
            self.bytes_of[new_id] = self.bytes_of[left] + self.bytes_of[right]
        self.rank = {pair: n for n, pair in enumerate(merges)}

    @property
    def vocab_size(self) -> int:
        return len(SPECIAL_TOKENS) + len(self.bytes_of)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens; every text has some, since every byte has an id."""
        ids = []
        for chunk in chunks(text):
            word = tuple(byte + len(SPECIAL_TOKENS) for byte in chunk)
            while len(word) > 1:
                pairs = [pair for pair in pairwise(word) if pair in self.rank]
                if not pairs:
                    break
                earliest = min(pairs, key=self.rank.__getitem__)  # the merge that was learned first
                word = merge(word, earliest, self.merges[earliest])
            ids.extend(word)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens vanish, bytes that are no UTF-8 become the sign U+FFFD.

        Raises:
            ValueError: an id that is not in the vocabulary.
        """
        ids = [int(i) for i in ids]
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"token id {i} is not in the vocabulary of {self.vocab_size} tokens")
        return b"".join(self.bytes_of.get(i, b"") for i in ids).decode("utf-8", errors="replace")


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """Learns merges: join the most frequent pair of neighbours, again and again (ties: the smaller ids).

    Args:
        texts: the corpus, an iterable of str.
        vocab_size: tokens wanted in all, at least 259 (3 special tokens and 256 bytes).

    Returns:
        A BPETokenizer; it has fewer tokens than asked for where the corpus offers no further pair.

    Raises:
        TypeError: texts is one string instead of several, or holds something that is no string.
        ValueError: vocab_size below 259.

    Lesson 03 derives it and compares it with the `tokenizers` library on the whole corpus.
    """
    if isinstance(texts, str):
        raise TypeError("texts is one string; pass a list of strings, e.g. [text]")
    smallest = len(SPECIAL_TOKENS) + N_BYTES
    if vocab_size < smallest:
        raise ValueError(f"vocab_size is {vocab_size}; at least {smallest} are needed (3 special tokens, 256 bytes)")
    counted = Counter()
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"texts holds {type(text).__name__} {text!r}; every entry must be a string")
        counted.update(chunks(text))
    words = {tuple(byte + len(SPECIAL_TOKENS) for byte in chunk): times for chunk, times in counted.items()}
    merges = {}
    while smallest + len(merges) < vocab_size:
        pairs = count_pairs(words.items())
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges[best] = smallest + len(merges)
        words = {merge(ids, best, merges[best]): times for ids, times in words.items()}
    return BPETokenizer(merges)


def to_fast_tokenizer(bpe: BPETokenizer):
    """The same tokenizer as a `PreTrainedTokenizerFast`, with pad, bos and eos; BOS is put before every text.

    Args:
        bpe: as returned by `train_bpe`.

    Returns:
        transformers.PreTrainedTokenizerFast. Ids are those of `bpe.encode`, with BOS in front unless
        `add_special_tokens=False`.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    printable = bytes_to_unicode()  # the visible character that stands for each byte in a tokenizer.json
    name = {i: "".join(printable[b] for b in raw) for i, raw in bpe.bytes_of.items()}
    vocab = {token: i for i, token in enumerate(SPECIAL_TOKENS)} | {text: i for i, text in name.items()}
    library = Tokenizer(models.BPE(vocab=vocab, merges=[(name[a], name[b]) for a, b in bpe.merges]))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CHUNK_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, BOS_ID)]
    )
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(tokenizer_object=library, **NAMED)


def load_tokenizer():
    """The tokenizer that ships with the course, trained on the small world's sentences.

    Returns:
        transformers.PreTrainedTokenizerFast with pad (id 0), bos (1) and eos (2); it covers every byte.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), **NAMED)
