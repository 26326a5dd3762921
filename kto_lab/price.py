"""What a policy has paid for its rate: the KL estimated from its replies, and the least that would do. Lesson 07b."""

from collections.abc import Sequence

import torch

from kto_utils.evaluate import prompt_ids, reply_logps, sample_ids, score_rows
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import Question, replies, trained_questions


def sampled_kl(
    policy: torch.nn.Module,
    reference: torch.nn.Module,
    questions: Sequence[Question] | None = None,
    n: int = 32,
    seed: int = 0,
    tokenizer=None,
) -> tuple[float, float]:
    """KL(policy || reference) over the first 24 tokens, estimated from n replies of the policy to each question.

    Replies are cut there, so for a policy that never stops the number grows with the cut.

    Returns:
        (mean, standard error), nats. The questions are fixed: the error is that of the sampling alone.

    Raises:
        ValueError: n below 2, which gives no standard error.
    """
    if n < 2:
        raise ValueError(f"n is {n}; a standard error needs at least 2 replies to each question")
    questions = trained_questions() if questions is None else questions
    tokenizer = tokenizer or load_tokenizer()
    prompts = [question.prompt for question in questions for _ in range(n)]
    completions = sample_ids(policy, prompts, tokenizer, seed)
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        asked = prompt_ids(prompt, tokenizer)
        ids = asked + completion
        mask = [0] * len(asked) + [1] * len(completion)
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids), "label_mask": mask})
    logratio = score_rows(policy, rows, tokenizer) - score_rows(reference, rows, tokenizer)
    per_question = logratio.reshape(len(questions), n)
    variance_of_mean = per_question.var(-1, unbiased=True) / n
    return float(per_question.mean()), float(variance_of_mean.sum().sqrt() / len(questions))


def question_rates(model: torch.nn.Module, questions: Sequence[Question] | None = None, tokenizer=None) -> list[float]:
    """The exact thumbs-up rate on each question (default: the trained ones), for `least_kl`."""
    questions = trained_questions() if questions is None else questions
    probabilities = reply_logps(model, questions, tokenizer).exp()
    good = torch.tensor([[reply.thumbs_up for reply in replies(question)] for question in questions])
    return (probabilities * good).sum(-1).tolist()


def least_kl(reference_rates: Sequence[float], target: float) -> float:
    """The least KL(policy || reference), mean over questions, of any policy with this mean thumbs-up rate.

    The best policy tilts all questions by one common factor: odds of thumbs up times exp(t). The t that
    reaches the target is found by bisection. At target 1 the result is the mean of -ln(rate).

    Args:
        reference_rates: the reference's exact thumbs-up rate on each question, in (0, 1).
        target: mean rate, in [0, 1]. Below the reference's own mean the tilt is against thumbs up.

    Returns:
        Nats.

    Raises:
        ValueError: rates outside (0, 1), a target outside the range.
    """
    p = torch.as_tensor(reference_rates, dtype=torch.float64)
    if p.numel() == 0 or not bool(((p > 0) & (p < 1)).all()):
        raise ValueError("reference_rates must lie strictly between 0 and 1, at least one of them")
    if not 0.0 <= target <= 1.0:
        raise ValueError(f"target is {target}; it is a mean rate, between 0 and 1")
    if target < float(p.mean()) - 1e-12:  # the mirror image: raise the rate of "no thumbs up"
        return least_kl((1.0 - p).tolist(), 1.0 - target)
    if target == 1.0:
        return float(-p.log().mean())
    logit = p.log() - (1 - p).log()
    low, high = 0.0, 1.0
    while float(torch.sigmoid(logit + high).mean()) < target and high < 1e4:
        high *= 2.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(torch.sigmoid(logit + middle).mean()) < target else (low, middle)
    # KL of a tilt: E[t * thumbs up] - ln E_reference[exp(t * thumbs up)]
    log_normaliser = torch.logaddexp(torch.log1p(-p), p.log() + high)
    return float((high * torch.sigmoid(logit + high) - log_normaliser).mean().clamp(min=0.0))
