"""One run of the story: sample, judge, train by each method, measure. Each stage is kept as soon as it is done. 12c."""

import gc
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from kto_lab.extra_terms import OwnThumbsUp
from kto_lab.real import measure, protocol
from kto_lab.real.chat_model import load_chat_model
from kto_lab.real.questions import JUDGES, Asked, capitals, facts, likes_right_and_brief, neutral_texts
from kto_lab.real.sampling import Reply, sample
from kto_utils.evaluate import score_rows
from kto_utils.losses import balanced_weights
from kto_utils.model import reference_of
from kto_utils.train import Callback, Parts, train_dpo, train_kto, train_sft

FIELDS = ("prompt_ids", "ids", "text", "ended")  # of a Reply, as they are kept


def write_json(path: Path, content: object) -> None:
    """All or nothing: a stop in the middle leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".unfinished")
    half.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, default=str) + "\n", encoding="utf-8")
    os.replace(half, path)


@dataclass(frozen=True)
class Judged:
    """A sampled reply, the number of its question, and the judge's thumb."""

    number: int
    reply: Reply
    label: bool

    @property
    def row(self) -> dict:
        return measure.row_of(self.reply, self.label)


def draw_replies(
    model, tokenizer, seed: int, on_batch=lambda: None, n_questions: int | None = None
) -> list[tuple[int, Reply]]:
    """Four replies to each trained question (or to the first few), with the question's number."""
    trained, _ = capitals()
    _, prompts = measure.asked_often(tokenizer, trained[:n_questions], protocol.SAMPLES)
    replies = sample(
        model, tokenizer, prompts, protocol.TEMPERATURE, protocol.MAX_NEW_TOKENS, seed, on_batch=on_batch
    )  # fmt: skip
    return [(place // protocol.SAMPLES, reply) for place, reply in enumerate(replies)]


def judge_all(replies: Sequence[tuple[int, Reply]], judge: Callable[[Asked, Reply], bool]) -> list[Judged]:
    trained, _ = capitals()
    return [Judged(number, reply, judge(trained[number], reply)) for number, reply in replies]


def pairs_of(thumbs: Sequence[Judged], seed: int) -> list[dict]:
    """What DPO can use: to each question a thumbs-up beside a thumbs-down, each reply once; tokenized."""
    rng = random.Random(seed)
    pairs = []
    for number in sorted({one.number for one in thumbs}):
        sides = [[one.row for one in thumbs if one.number == number and one.label is label] for label in (True, False)]
        for side in sides:
            rng.shuffle(side)
        pairs += [{"chosen": up, "rejected": down} for up, down in zip(*sides, strict=False)]
    return pairs


class Progress(Callback):
    """Tells a listener of each training step."""

    def __init__(self, tell: Callable[[], None]):
        self.tell = tell

    def step(self, run) -> None:
        self.tell()


def trained_policy(reference, tokenizer, thumbs: Sequence, method: protocol.Method, seed: int, steps: int, on_step):
    """(policy, history, facts about the data) after one method; the reference is frozen and stays as it is.

    Args:
        thumbs: each with `number` (of its question), `row` (tokenized) and `label`, as `Judged` has them.

    Raises:
        ValueError: thumbs of one kind only; for DPO no question with both kinds.
    """
    labels = [one.label for one in thumbs]
    n_up, n_down = sum(labels), len(labels) - sum(labels)
    if not n_up or not n_down:
        raise ValueError(
            f"{n_up} thumbs up and {n_down} down: the judge must see both. Ask so that a part of the replies pleases it"
        )
    policy = reference_of(reference).requires_grad_(True)
    extra = OwnThumbsUp(method.sft_term) if method.sft_term else None
    settings = {
        "steps": steps, "learning_rate": protocol.LEARNING_RATE, "seed": seed,
        "parts": Parts(callbacks=[Progress(on_step)], extra_loss=extra),
    }  # fmt: skip
    data = {"n_up": n_up, "n_down": n_down}
    if method.loop == "dpo":
        pairs = pairs_of(thumbs, seed)
        if len(pairs) < protocol.BATCH_SIZE // 2:
            raise ValueError(f"{len(pairs)} pairs are fewer than a batch; more replies to each question make more")
        data["pairs"] = len(pairs)
        settings |= {"batch_size": protocol.BATCH_SIZE // 2, "beta": protocol.BETA}
        _, history = train_dpo(policy, reference, pairs, tokenizer, **settings)
    elif method.loop == "sft":
        liked = [one.row for one in thumbs if one.label]
        settings |= {"batch_size": min(protocol.BATCH_SIZE, len(liked)), "schedule": "constant"}
        _, history = train_sft(policy, liked, tokenizer, **settings)
    else:
        up, down = balanced_weights(n_up, n_down, protocol.RATIO)
        data |= {"desirable_weight": up, "undesirable_weight": down}
        settings |= {"batch_size": protocol.BATCH_SIZE, "beta": protocol.BETA}
        settings |= {"desirable_weight": up, "undesirable_weight": down}
        _, history = train_kto(policy, reference, [one.row for one in thumbs], tokenizer, **settings)
    return policy, history, data


class Story:
    """The story of one chat model and one seed, in a folder; what is there already is not made again.

    Args:
        folder: for `thumbs.json` and a file of measures for each method, `before.json` included.
        seed: of sampling and training.
        source: a folder or a name of a chat model; None is SmolLM2.
        tell: called as tell(stage, done, of_all) while something is under way.
        thumbs: of a person (`clicks.read`), for all methods; None lets the judge of each method give them.
        steps: of each method's training; None takes the protocol's.
    """

    def __init__(
        self, folder: Path, seed: int, source: str | None = None, tell=lambda stage, done, total: None,
        thumbs: Sequence[Judged] | None = None, steps: int | None = None,
    ):  # fmt: skip
        self.folder, self.seed, self.source, self.tell = Path(folder), seed, source, tell
        self.thumbs, self.steps = thumbs, steps or protocol.STEPS
        labels = None if thumbs is None else json.dumps([[one.number, one.reply.text, one.label] for one in thumbs])
        self.key = {"seed": seed, "source": source, "thumbs": labels and hashlib.sha256(labels.encode()).hexdigest()}
        self._reference = self._start = None

    def reference(self):
        """(frozen chat model, tokenizer), loaded at the first need."""
        if self._reference is None:
            model, tokenizer = load_chat_model(self.source)
            self._reference = model.requires_grad_(False), tokenizer
        return self._reference

    def _ticker(self, stage: str, total: int) -> Callable[[], None]:
        done = 0

        def tick() -> None:
            nonlocal done
            done += 1
            self.tell(stage, done, total)

        self.tell(stage, 0, total)
        return tick

    def _kept(self, name: str, make: Callable[[], dict]) -> dict:
        path = self.folder / f"{name}.json"
        if path.is_file():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if any(kept.get(name) != value for name, value in self.key.items()):
                whose = "a person's thumbs" if kept.get("thumbs") else "the judge's thumbs"
                model = kept["source"] or "SmolLM2"
                raise ValueError(f"{path} belongs to seed {kept['seed']}, model {model} and {whose}, not to this run; "
                                 "name another folder")  # fmt: skip
            return kept
        start = time.perf_counter()
        made = self.key | make()
        write_json(path, made | {"seconds": round(time.perf_counter() - start)})
        return made

    def replies(self) -> list[tuple[int, Reply]]:
        """The 128 sampled replies to the trained questions."""

        def make() -> dict:
            drawn = draw_replies(*self.reference(), self.seed, self._ticker("replies", 4))
            return {"replies": [{"number": number} | asdict(reply) for number, reply in drawn]}

        kept = self._kept("replies", make)["replies"]
        return [(one["number"], Reply(*(one[field] for field in FIELDS))) for one in kept]

    def questions(self) -> list[str]:
        """What the replies before and after answer, in their order."""
        return [asked.question for asked in capitals()[1]]

    def before(self) -> dict:
        """The chat model as it is: measures, replies to the held-out questions."""

        def make() -> dict:
            model, tokenizer = self.reference()
            return self._measured(model, tokenizer, "the chat model itself")

        return self._kept("before", make)

    def after(self, name: str, save_to: Path | None = None) -> dict:
        """The same after a method of the protocol, with what its run logged."""

        def make() -> dict:
            method = protocol.METHODS[name]
            reference, tokenizer = self.reference()
            thumbs = judge_all(self.replies(), JUDGES[method.judge]) if self.thumbs is None else self.thumbs
            tick = self._ticker(f"{method.title}: training", self.steps)
            start = time.perf_counter()
            policy, history, data = trained_policy(reference, tokenizer, thumbs, method, self.seed, self.steps, tick)
            data["training_seconds"] = round(time.perf_counter() - start)
            data["history"] = [{k: v if v == v else None for k, v in row.items()} for row in history]  # NaN is no JSON
            measured = self._measured(policy, tokenizer, f"{method.title}: measuring")
            if save_to is not None:
                policy.save_pretrained(save_to)
                tokenizer.save_pretrained(save_to)
            del policy
            gc.collect()
            return data | measured

        return self._kept(name, make)

    def _measured(self, model, tokenizer, stage: str) -> dict:
        _, held_out = capitals()
        reference, _ = self.reference()
        tick = self._ticker(stage, 4 + 3 + 2 + 2)
        shares, replies = measure.judged(model, tokenizer, held_out, self.seed, tick)
        measured = {"held_out": shares, "replies": [asdict(reply) for reply in replies]}
        if model is not reference:
            measured["kl"] = measure.distance(model, reference, tokenizer, held_out, self.seed + 1000, tick)
            measured["reward_margin"] = self._margin(model, tokenizer, held_out)
        tick()
        measured["facts"] = measure.knowledge(model, tokenizer, facts(), tick)
        measured["neutral"] = measure.nats_a_token(model, tokenizer, neutral_texts())
        tick()
        return measured

    def _margin(self, model, tokenizer, held_out: Sequence[Asked]) -> float | None:
        """beta times the log-ratio of the chat model's own held-out replies, liked minus disliked; nats * beta."""
        if self._start is None:
            replies = [Reply(*(one[field] for field in FIELDS)) for one in self.before()["replies"]]
            rows = [
                measure.row_of(reply, likes_right_and_brief(held_out[place // protocol.CHECKED], reply))
                for place, reply in enumerate(replies)
            ]
            self._start = rows, score_rows(self.reference()[0], rows, tokenizer, 16)
        rows, start_logps = self._start
        label = torch.tensor([row["label"] for row in rows])
        if label.all() or not label.any():
            return None
        r = score_rows(model, rows, tokenizer, 16) - start_logps
        return protocol.BETA * float(r[label].mean() - r[~label].mean())
