"""Rows for a real chat model: messages become token ids by the tokenizer's own template, as in TRL 1.16. Lesson 12.

`kto_lab.scripts.messages` lists the layouts. What a template writes is read as special tokens, typed text never.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from kto_lab.scripts.messages import MARKS, conversation, pattern_of, special_names

FIRST_STAND_IN = 0x10F000  # private characters: a typed name of a special token passes through the template as one
AT_ONCE = 1000
CHOICES = {
    "template": "a template was applied already, these are its tokens",
    "text": "somebody typed them, they stay text",
}


class Side(NamedTuple):
    """One prompt with one reply, as text: the prompt alone and the whole; `chat`: a template wrote it."""

    prompt: str
    whole: str
    label: bool
    chat: bool


class _Encoder:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        names = special_names(tokenizer)
        self.special = pattern_of(names)
        self.stand_ins = {name: chr(FIRST_STAND_IN + place) for place, name in enumerate(names)}
        self.names = {stand_in: name for name, stand_in in self.stand_ins.items()}
        self.stand_in = re.compile(f"([{''.join(self.names)}])" if names else r"(?!)")
        begins = tokenizer.encode("")[:1]  # a tokenizer may know a BOS and not put it: SmolLM2, GPT-2
        self.bos = begins if begins == [tokenizer.bos_token_id] else []

    def ids_of(self, texts: Sequence[str], **options) -> list[list[int]]:
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, **options)["input_ids"]

    def typed(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without any special token."""
        return self.ids_of(texts, split_special_tokens=True)

    def trusted(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids with the special tokens that the template wrote; a stand-in becomes the text that was typed."""
        ids = self.ids_of(texts)
        for place, text in enumerate(texts):
            if self.stand_in.search(text):
                pieces = [piece for piece in self.stand_in.split(text) if piece]
                parts = [self.typed([self.names[p]]) if p in self.names else self.trusted([p]) for p in pieces]
                ids[place] = [token for part in parts for token in part[0]]
        return ids

    def protected(self, messages: Sequence[Mapping]) -> list[Mapping]:
        """The messages with a stand-in for each name of a special token in a content."""
        return [
            {**message, "content": self.special.sub(lambda name: self.stand_ins[name[0]], message["content"])}
            if message.get("content") else message
            for message in messages
        ]  # fmt: skip

    def rendered(self, row: Mapping, reply: Sequence[Mapping]) -> tuple[str, str]:
        """What the template makes of the prompt when a reply is to come, and of prompt and reply."""
        if not self.tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template, which messages need; take the tokenizer of the chat model (often "
                "named Instruct), set tokenizer.chat_template, or give prompt and completion as texts"
            )
        prompt, reply = self.protected(row["prompt"]), self.protected(reply)
        options = {"tools": row.get("tools"), "tokenize": False} | row.get("chat_template_kwargs", {})
        try:
            alone = self.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, **options)
            return alone, self.tokenizer.apply_chat_template(prompt + reply, **options)
        except Exception as error:  # a template refuses in its own words, e.g. roles that do not alternate
            raise ValueError(f"the tokenizer's chat template does not take these messages: {error}") from None

    def check_text(self, text: str) -> None:
        """Refuses text of which nobody can know whether it was typed or rendered by a template."""
        found = self.special.search(text)
        if found or (found := MARKS.search(text)):
            which = "a special token" if self.special.search(text) else "a mark of another model's chat template"
            raise ValueError(
                f"the text contains {found[0]!r}, {which}. Give the row as messages, [{{'role': 'user', 'content': "
                "...}], and the tokenizer's template writes its tokens; or say what such names are: "
                + ", or ".join(f"special_tokens={name!r} ({meaning})" for name, meaning in CHOICES.items())
            )

    def encode(self, sides: Sequence[Side], templated: bool) -> Iterator[tuple[list[int], list[int]]]:
        """Ids of each side's prompt alone and of the whole. Text gets BOS and EOS, once, whoever wrote them."""
        trusted = [side.chat or templated for side in sides]
        queues = {}
        for kind, encode in ((True, self.trusted), (False, self.typed)):
            chosen = [side for side, of in zip(sides, trusted, strict=True) if of is kind]
            texts = [text for side in chosen for text in (side.prompt, side.whole)]
            queues[kind] = iter(encode(texts) if texts else [])
        eos = [self.tokenizer.eos_token_id]
        for side, kind in zip(sides, trusted, strict=True):
            alone, whole = next(queues[kind]), next(queues[kind])
            if not side.chat:
                bos = [] if whole[:1] == self.bos else self.bos
                ended = kind and side.whole.rstrip().endswith(self.tokenizer.eos_token)
                alone, whole = bos + alone, bos + whole + ([] if ended else eos)
            yield alone, whole


def _sides(row: Mapping, encoder: _Encoder, special_tokens: str | None) -> list[Side]:
    row, found = conversation(row), []
    labels = {"completion": row["label"]} if "completion" in row else {"chosen": True, "rejected": False}
    for name, label in labels.items():
        if isinstance(row["prompt"], str):
            if special_tokens is None:
                encoder.check_text(row["prompt"] + row[name])
            found.append(Side(row["prompt"], row["prompt"] + row[name], label, chat=False))
        else:
            found.append(Side(*encoder.rendered(row, row[name]), label, chat=True))
    return found


def _read(rows: Iterable[Mapping], encoder: _Encoder, special_tokens: str | None) -> Iterator[list[Side]]:
    width, texts = None, False
    for number, row in enumerate(rows):
        try:
            sides = _sides(row, encoder, special_tokens)
            width = width or len(sides)
            if len(sides) != width:
                raise ValueError("pairs and rows with a thumb in one list; keep them apart")
        except (KeyError, TypeError, ValueError) as error:
            raise type(error)(f"row {number}: {error.args[0]}") from None
        texts = texts or not sides[0].chat
        yield sides
    if special_tokens and not texts:
        raise ValueError(f"special_tokens={special_tokens!r} is for text rows, and all rows are messages; leave it out")


def _alike(alone: list[int], whole: list[int]) -> int:
    if whole[: len(alone)] == alone:  # nearly every row, and a comparison of lists is quick
        return len(alone)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(alone, whole, strict=False)))


def _masked(start: int, whole: list[int], label: bool, max_length: int | None) -> dict:
    ids = whole[:max_length]
    if len(ids) <= start:
        raise ValueError(
            f"no token of the reply is left: the prompt takes {start} tokens and max_length is {max_length}; raise "
            "max_length or leave the row out"
        )
    masks = {"attention_mask": [1] * len(ids), "label_mask": [0] * start + [1] * (len(ids) - start)}
    return {"input_ids": ids, **masks, "label": label}


def tokenize_rows(
    rows: Iterable[Mapping], tokenizer, max_length: int | None = None, special_tokens: str | None = None
) -> list[dict]:
    """Token ids and masks of chat or text rows, for the loops of `kto_utils.train`; the ids are those of TRL 1.16.

    A chat prompt is rendered with the generation prompt, prompt and reply as a whole without it, and the reply begins
    where the two differ. The template decides about BOS and what ends a reply. A text row gets BOS where the tokenizer
    puts one, and EOS; prompt and reply are tokenized as one text.

    Args:
        rows: all with a thumb or all pairs, in a layout of `kto_lab.scripts.messages`.
        tokenizer: for messages with a chat template, for texts with EOS.
        max_length: keep only the first tokens of a row; None keeps all.
        special_tokens: what the name of a special token in a text row is: "template" or "text" (see `CHOICES`).

    Returns:
        Of thumbs a dict a row, as `data.tokenize_feedback` returns, for `train_kto` and `train_sft`. Of pairs a dict of
        two such rows, `chosen` and `rejected`, for `train_dpo`; all sides shuffled are thumbs for `train_kto`.

    Raises:
        KeyError, TypeError, ValueError: what `messages.conversation` refuses, a text with the name of a special token
            and no `special_tokens`, a reply of which no token is left; all with the row's number. No chat template.

    In messages, what somebody typed stays text. (TRL reads a typed `<|im_end|>` as the end of the turn.)
    """
    if special_tokens not in (None, *CHOICES):
        raise ValueError(f"special_tokens is {special_tokens!r}; it must be None or one of {', '.join(CHOICES)}")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}; it must be at least 1, or None to keep all tokens")
    encoder, tokenized, seams = _Encoder(tokenizer), [], 0
    waiting = _read(rows, encoder, special_tokens)
    while chunk := list(islice(waiting, AT_ONCE)):
        ids = encoder.encode([side for sides in chunk for side in sides], special_tokens == "template")
        for sides in chunk:
            encoded = [next(ids) for _ in sides]
            start = min(_alike(alone, whole) for alone, whole in encoded)  # both sides of a pair keep one prompt
            seams += start < len(encoded[0][0])
            try:
                made = [_masked(start, e[1], side.label, max_length) for side, e in zip(sides, encoded, strict=True)]
            except ValueError as error:
                raise ValueError(f"row {len(tokenized)}: {error}") from None
            tokenized.append(made[0] if len(made) == 1 else {"chosen": made[0], "rejected": made[1]})
    if seams:
        warnings.warn(
            f"in {seams} rows the end of the prompt is tokenized otherwise once the reply follows; as in TRL it counts "
            "as reply. End the prompt on a whole token, or use a template that renders both alike", stacklevel=2,
        )  # fmt: skip
    return tokenized
