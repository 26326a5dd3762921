"""What the judge sees on held-out questions, and what it does not see: distance, other knowledge, other text. 12c."""

from collections.abc import Sequence

import torch

from kto_lab.kl_estimators import k1, k3
from kto_lab.real import protocol
from kto_lab.real.questions import Asked, is_brief, is_right, likes_right_and_brief
from kto_lab.real.sampling import Reply, prompt_ids, sample
from kto_utils.evaluate import score_rows


def row_of(reply: Reply, label: bool) -> dict:
    """The reply as a tokenized feedback row: exactly the sampled ids, so a reply that was cut gets no end token."""
    n_prompt, n_reply = len(reply.prompt_ids), len(reply.ids)
    return {
        "input_ids": [*reply.prompt_ids, *reply.ids],
        "attention_mask": [1] * (n_prompt + n_reply),
        "label_mask": [0] * n_prompt + [1] * n_reply,
        "label": label,
    }


def asked_often(tokenizer, asked: Sequence[Asked], n: int) -> tuple[list[Asked], list[list[int]]]:
    """Each question n times in a row, and its prompt."""
    often = [question for question in asked for _ in range(n)]
    return often, [prompt_ids(tokenizer, question.question) for question in often]


def mean_and_error(values: Sequence[float], n: int) -> tuple[float, float]:
    """Mean over all replies and its standard error, from the means of the questions (n replies each).

    Replies to one question resemble each other, so the questions are what counts as independent.
    """
    by_question = torch.tensor(values, dtype=torch.float64).reshape(-1, n).mean(1)
    return float(by_question.mean()), float(by_question.std() / len(by_question) ** 0.5)


def judged(model, tokenizer, asked: Sequence[Asked], seed: int, on_batch=lambda: None) -> tuple[dict, list[Reply]]:
    """Shares on held-out questions, each (mean, standard error): thumbs_up, right, brief, ended; and words."""
    often, prompts = asked_often(tokenizer, asked, protocol.CHECKED)
    replies = sample(
        model, tokenizer, prompts, protocol.TEMPERATURE, protocol.MAX_NEW_TOKENS, seed, on_batch=on_batch
    )  # fmt: skip
    both = list(zip(often, replies, strict=True))
    values = {
        "thumbs_up": [likes_right_and_brief(question, reply) for question, reply in both],
        "right": [is_right(question, reply.text) for question, reply in both],
        "brief": [is_brief(reply) for reply in replies],
        "ended": [reply.ended for reply in replies],
        "words": [len(reply.text.split()) for reply in replies],
    }
    return {name: mean_and_error(list(map(float, v)), protocol.CHECKED) for name, v in values.items()}, replies


def distance(model, reference, tokenizer, asked: Sequence[Asked], seed: int, on_batch=lambda: None) -> dict:
    """KL(policy || reference) a reply, nats, by k1 and k3 over the policy's own replies at temperature 1.

    A reply is cut after 48 tokens, so this is the KL of the first 48 tokens.
    """
    _, prompts = asked_often(tokenizer, asked, protocol.KL_SAMPLES)
    replies = sample(model, tokenizer, prompts, 1.0, protocol.MAX_NEW_TOKENS, seed, on_batch=on_batch)
    rows = [row_of(reply, True) for reply in replies]
    r = (score_rows(model, rows, tokenizer, 16) - score_rows(reference, rows, tokenizer, 16)).double()
    on_batch()
    return {name: mean_and_error(of(r).tolist(), protocol.KL_SAMPLES) for name, of in (("k1", k1), ("k3", k3))}


def knowledge(model, tokenizer, asked: Sequence[Asked], on_batch=lambda: None) -> tuple[float, float]:
    """Share of simple questions whose likeliest reply holds the answer, and its standard error."""
    prompts = [prompt_ids(tokenizer, question.question) for question in asked]
    replies = sample(model, tokenizer, prompts, 0.0, protocol.FACT_TOKENS, 0, batch_size=50, on_batch=on_batch)
    right = [float(is_right(question, reply.text)) for question, reply in zip(asked, replies, strict=True)]
    return mean_and_error(right, 1)


def nats_a_token(model, tokenizer, texts: Sequence[str]) -> tuple[float, float]:
    """Mean negative log-probability a token of texts that have nothing to do with the task, and its error by text."""
    losses = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        row = {"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": [0] + [1] * (len(ids) - 1)}
        losses.append(-float(score_rows(model, [row], tokenizer)[0]) / (len(ids) - 1))
    return mean_and_error(losses, 1)
