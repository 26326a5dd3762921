"""The thumbs that a run is given: collected once, judged again, then thinned out as its setting says."""

import functools
import random
import statistics
from collections.abc import Iterable, Mapping, Sequence

from kto_lab.experiments.protocol import Setting
from kto_utils.data import pair_up, unpair
from kto_utils.evaluate import collect_feedback
from kto_utils.model import load_reference_model
from kto_utils.world import judge, trained_questions

REPLIES_PER_QUESTION = 50


@functools.lru_cache(maxsize=64)
def _collected(small: bool, seed: int) -> tuple[dict, ...]:
    model = load_reference_model(small)
    return tuple(collect_feedback(model, trained_questions(), REPLIES_PER_QUESTION, seed))


def _judged_again(rows: Iterable[Mapping], setting: Setting, rng: random.Random) -> list[dict]:
    """The same replies, judged by raters of two tastes and with flipped thumbs."""
    by_prompt = {question.prompt: question for question in trained_questions()}
    judged = []
    for row in rows:
        taste = "polite and right" if rng.random() < setting.majority else "rude and right"
        question = by_prompt[row["prompt"]]
        judged.append({**row, "label": judge(question, row["completion"], setting.flip, taste, rng)})
    return judged


def _thinned(rows: Sequence[Mapping], label: bool, kept: float, rng: random.Random) -> list[dict]:
    """Keeps a share of the rows with this label, at least one, and all others."""
    numbers = [i for i, row in enumerate(rows) if row["label"] is label]
    left = set(rng.sample(numbers, max(1, round(kept * len(numbers))))) if numbers else set()
    return [row for i, row in enumerate(rows) if row["label"] is not label or i in left]


def _one_kind_on_most(rows: Sequence[Mapping], both_kinds: float, rng: random.Random) -> list[dict]:
    """That share of the questions keeps all thumbs; of the others half keep only ups and half only downs."""
    prompts = sorted({row["prompt"] for row in rows})
    rng.shuffle(prompts)
    whole = round(both_kinds * len(prompts))
    only = {prompt: i % 2 == 0 for i, prompt in enumerate(prompts[whole:])}
    return [row for row in rows if row["prompt"] not in only or only[row["prompt"]] is row["label"]]


def _of_liked_length(rows: Sequence[Mapping], wanted: str) -> list[dict]:
    """Leaves out thumbs-up on replies that are longer ("short" wanted) or not longer than the median, in characters."""
    middle = statistics.median(len(row["completion"].strip()) for row in rows if row["label"])
    return [row for row in rows if not row["label"] or (len(row["completion"].strip()) > middle) == (wanted == "long")]


def feedback(setting: Setting, seed: int) -> list[dict]:
    """The thumbs of a run: replies sampled from the shipped reference, judged, then thinned out as the setting says.

    The same seed and setting give the same rows to every method.
    """
    rng = random.Random(seed)
    rows = [dict(row) for row in _collected(setting.small, seed)]
    if setting.majority < 1.0 or setting.flip > 0.0:
        rows = _judged_again(rows, setting, rng)
    rows = _thinned(rows, True, setting.keep_up, rng)
    rows = _thinned(rows, False, setting.keep_down, rng)
    if setting.both_kinds < 1.0:
        rows = _one_kind_on_most(rows, setting.both_kinds, rng)
    if setting.only is not None:
        rows = [row for row in rows if row["label"] is (setting.only == "up")]
    if setting.liked_length is not None:
        rows = _of_liked_length(rows, setting.liked_length)
    if getattr(setting, "paired", False):
        rows = unpair(pair_up(rows, seed)[0], seed)
    return rows
