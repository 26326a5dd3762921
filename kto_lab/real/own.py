"""Your own rows and a chat model, from thumbs to a report: `course.py real --rows train.jsonl --check eval.jsonl`. 12c.

A model that was trained elsewhere is measured in the same way: `--check eval.jsonl --after FOLDER`.
"""

import csv
import gc
import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kto_lab.chat import tokenize_rows
from kto_lab.kl_estimators import k1, k3
from kto_lab.real import measure, protocol
from kto_lab.real.chat_model import load_chat_model
from kto_lab.real.questions import facts, neutral_texts
from kto_lab.real.sampling import Reply, sample
from kto_lab.real.story import Story
from kto_lab.scripts.messages import conversation
from kto_utils.evaluate import score_rows

ELSEWHERE = "elsewhere"  # the stage of a model that was trained by another program
STEPS, MAX_LENGTH = 40, 512
PROMPTS, REPLIES, NEW_TOKENS = 20, 2, 96  # prompts kept apart that are sampled, replies to each, their longest
SCORED = 128  # rows kept apart whose log-ratios are measured
COLUMNS = ("number", "prompt", "reply", "thumb")
THUMBS = {"1": 1.0, "up": 1.0, "true": 1.0, "0": 0.0, "down": 0.0, "false": 0.0}


@dataclass(frozen=True)
class Rated:
    """A tokenized row; `number` is the same for rows with the same prompt."""

    number: int
    row: dict

    @property
    def label(self) -> bool:
        return self.row["label"]


def read_rows(file: Path, tokenizer, max_length: int) -> list[Rated]:
    """The tokenized rows of a JSON lines file, in a layout of `kto_lab.scripts.messages`, with a thumb each.

    Raises:
        ValueError: a line that is no such row, with its number; a file without rows; pairs; thumbs of one kind.
    """
    rows = []
    for number, line in enumerate(Path(file).read_text(encoding="utf-8").split("\n"), 1):  # a reply may hold U+2028
        if not line.strip():
            continue
        try:
            rows.append(conversation(json.loads(line)))
            if "label" not in rows[-1]:
                raise ValueError("a pair has no thumb; write its two sides as two rows with a label")
        except (KeyError, TypeError, ValueError) as error:
            remedy = f"`course.py inspect {file}` says what a row needs, `course.py split {file} --good-rows` keeps the"
            raise ValueError(f"{file}, line {number}: {error.args[0]}. {remedy} others") from None
    n_up = sum(row["label"] for row in rows)
    if not 0 < n_up < len(rows):
        raise ValueError(f"{file} has {n_up} thumbs up and {len(rows) - n_up} down; both kinds are needed")
    random.Random(0).shuffle(rows)  # an export is sorted by time or by user, and only its first rows are measured
    try:
        tokenized = tokenize_rows(rows, tokenizer, max_length)
    except ValueError as error:
        raise ValueError(f"{file} (rows counted after shuffling): {error}. Or a larger --max-length") from None
    numbers: dict[tuple, int] = {}
    return [Rated(numbers.setdefault(prompt_of(row), len(numbers)), row) for row in tokenized]


def prompt_of(row: Mapping) -> tuple[int, ...]:
    """The ids before the reply of a tokenized row."""
    return tuple(row["input_ids"][: row["label_mask"].index(1)])


def digest(*paths: Path) -> str:
    """Tells contents apart: of files their bytes, of a model's folder its names, sizes and times."""
    found = hashlib.sha256()
    for path in paths:
        if path.is_dir():
            state = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(path.iterdir())]
            found.update(repr(state).encode())
        else:
            found.update(path.read_bytes())
    return found.hexdigest()


class OwnRows(Story):
    """The story with rows of yours: both files are read before a model trains, and each stage is kept.

    Args:
        train: the rows to train on; None measures only, then `elsewhere` is needed.
        check: rows kept apart (`course.py split`): their prompts are sampled, their thumbs give the reward margin.
        elsewhere: a folder with a model that another program trained, which starts from `source`.
    """

    def __init__(
        self, folder: Path, train: Path | None, check: Path, seed: int = 0, source: str | None = None,
        elsewhere: Path | None = None, steps: int = STEPS, max_length: int = MAX_LENGTH,
    ):  # fmt: skip
        super().__init__(folder, seed, source, steps=steps)
        self.elsewhere = elsewhere
        _, tokenizer = self.reference()
        kept_apart = read_rows(check, tokenizer, max_length)
        sides = [[one for one in kept_apart if one.label is label] for label in (True, False)]
        self.checked = [one for side in sides for one in side[: SCORED // 2]]  # however rare one kind is
        self.thumbs = read_rows(train, tokenizer, max_length) if train else []
        self.prompts = list(dict.fromkeys(prompt_of(one.row) for one in kept_apart))[:PROMPTS]
        files = [Path(path) for path in (train, check, elsewhere) if path]
        self.key = {"seed": seed, "source": source, "thumbs": f"{digest(*files)} {steps} steps, {max_length} tokens"}

    def questions(self) -> list[str]:
        """The sampled prompts as text, without the template's marks."""
        return [self.reference()[1].decode(prompt, skip_special_tokens=True).strip() for prompt in self.prompts]

    def after(self, name: str, save_to: Path | None = None) -> dict:
        """As in `Story`; the stage "elsewhere" measures the model of that folder."""
        if name != ELSEWHERE:
            return super().after(name, save_to)

        def make() -> dict:
            model, _ = load_chat_model(self.elsewhere)
            measured = self._measured(model, self.reference()[1], "the trained model: measuring")
            del model
            gc.collect()
            return measured

        return self._kept(name, make)

    def _sampled(self, model, tokenizer, temperature: float, seed: int, tick) -> list[Reply]:
        often = [prompt for prompt in self.prompts for _ in range(REPLIES)]
        return sample(model, tokenizer, often, temperature, NEW_TOKENS, seed, batch_size=16, on_batch=tick)

    def _measured(self, model, tokenizer, stage: str) -> dict:
        reference, _ = self.reference()
        batches = -(-len(self.prompts) * REPLIES // 16)
        tick = self._ticker(stage, 2 * batches + 4)
        replies = self._sampled(model, tokenizer, protocol.TEMPERATURE, self.seed, tick)
        values = {"ended": [float(r.ended) for r in replies], "words": [float(len(r.text.split())) for r in replies]}
        made = {
            "held_out": {name: measure.mean_and_error(v, REPLIES) for name, v in values.items()},
            "replies": [asdict(reply) for reply in replies],
            "facts": measure.knowledge(model, tokenizer, facts(), tick),
            "neutral": measure.nats_a_token(model, tokenizer, neutral_texts()),
        }
        tick()
        if model is not reference:
            rows = [measure.row_of(r, True) for r in self._sampled(model, tokenizer, 1.0, self.seed + 1000, tick)]
            r = (score_rows(model, rows, tokenizer, 16) - score_rows(reference, rows, tokenizer, 16)).double()
            kl = {name: measure.mean_and_error(of(r).tolist(), REPLIES) for name, of in (("k1", k1), ("k3", k3))}
            made |= {"kl": kl} | self._rewards(model, tokenizer)
        return made

    def _rewards(self, model, tokenizer) -> dict:
        """Of the rated rows: beta * logratio, thumbs-up minus thumbs-down, its error; share of pairs in order."""
        rows = [one.row for one in self.checked]
        if self._start is None:
            self._start = score_rows(self.reference()[0], rows, tokenizer, 16)
        label = torch.tensor([one.label for one in self.checked])
        reward = protocol.BETA * (score_rows(model, rows, tokenizer, 16) - self._start).double()
        up, down = reward[label], reward[~label]
        error = sum(float(side.var()) / len(side) for side in (up, down) if len(side) > 1) ** 0.5
        in_order = (up[:, None] > down).double() + 0.5 * (up[:, None] == down).double()
        return {"reward_margin": float(up.mean() - down.mean()), "margin_error": error,
                "in_order": float(in_order.mean())}  # fmt: skip


def _table(questions: Sequence[str], before: Mapping, after: Mapping) -> list[tuple[str, int, str, str]]:
    """(whose, place, prompt, reply) of all replies, in one shuffled order that says nothing of whose they are."""
    found = [(whose, place, questions[place // REPLIES], reply["text"])
             for whose, run in (("before", before), ("after", after))
             for place, reply in enumerate(run["replies"])]  # fmt: skip
    random.Random(0).shuffle(found)
    return found


def write_to_rate(file: Path, questions: Sequence[str], before: Mapping, after: Mapping) -> None:
    """A table for a person or a program that gives thumbs, blind: nothing in it says which model wrote a reply.

    Raises:
        FileExistsError: it is there already, perhaps half filled in.
    """
    with open(file, "x", encoding="utf-8-sig", newline="") as handle:  # the mark tells a spreadsheet that it is UTF-8
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for number, (_, _, prompt, reply) in enumerate(_table(questions, before, after), 1):
            writer.writerow((number, prompt, reply, ""))


def read_ratings(
    file: Path, questions: Sequence[str], before: Mapping, after: Mapping
) -> dict[str, tuple[float, float]]:
    """{"before": (thumbs-up rate, standard error), "after": ...} of a table that was filled in.

    Raises:
        ValueError: another table, or a thumb that is missing or unknown; names the line.
    """
    with open(file, encoding="utf-8-sig", newline="") as handle:
        lines = list(csv.DictReader(handle))
    expected = {str(number): line for number, line in enumerate(_table(questions, before, after), 1)}
    if sorted(line.get("number") or "" for line in lines) != sorted(expected):
        raise ValueError(f"{file} is no table of this run: it needs the numbers 1 to {len(expected)}, each once; sort "
                         "the lines as you like, and fill in the column thumb only")  # fmt: skip
    thumbs = {whose: [0.0] * len(run["replies"]) for whose, run in (("before", before), ("after", after))}
    for line in lines:
        whose, place, _, reply = expected[line["number"]]
        thumb = THUMBS.get((line.get("thumb") or "").strip().lower())
        if thumb is None:
            raise ValueError(f"{file}, number {line['number']}: thumb is {line.get('thumb')!r}; it must be up or down, "
                             "or 1 or 0")  # fmt: skip
        if (line.get("reply") or "").split() != reply.split():
            raise ValueError(f"{file}, number {line['number']}: the reply is not the one of this run")
        thumbs[whose][place] = thumb
    return {whose: measure.mean_and_error(values, REPLIES) for whose, values in thumbs.items()}
