"""How good is the model, how far has it moved? Exact over the listed replies. Lesson 07."""

import math
import random
from collections.abc import Sequence

import torch

from kto_utils.collator import pad_rows
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.tokenizer import load_tokenizer
from kto_utils.world import Question, judge, replies, reworded_questions, trained_questions, untouched_questions

MAX_NEW_TOKENS = 24  # the longest listed reply has fewer tokens; a longer one is something else anyway


def score_rows(model: torch.nn.Module, rows: Sequence[dict], tokenizer, batch_size: int = 64) -> torch.Tensor:
    """Sequence log-probabilities of tokenized rows, (N,), without gradients.

    Small batches on purpose: the logits of a large one no longer fit the processor's cache and take twice as long.
    """
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = pad_rows(rows[start : start + batch_size], tokenizer.pad_token_id)
        with torch.no_grad():
            parts.append(sequence_logps(model, batch))
    return torch.cat(parts)


def completion_logps(
    model: torch.nn.Module, prompts: Sequence[str], completions: Sequence[str], tokenizer=None, batch_size: int = 64
) -> torch.Tensor:
    """log pi(completion | prompt) of many texts, without gradients.

    Returns:
        (N,), nats, in the order given.

    Raises:
        ValueError: no texts, lists of different lengths, and what `tokenize_feedback` refuses.
    """
    if not prompts:
        raise ValueError("prompts is empty; there is no text to score")
    tokenizer = tokenizer or load_tokenizer()
    rows = [
        tokenize_feedback({"prompt": prompt, "completion": completion, "label": True}, tokenizer)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return score_rows(model, rows, tokenizer, batch_size)


def reply_logps(model: torch.nn.Module, questions: Sequence[Question], tokenizer=None) -> torch.Tensor:
    """log pi of every listed reply to every question.

    Returns:
        (len(questions), 48), nats, columns in the order of `world.replies`. The probabilities of a row add
        up to at most 1; what is missing lies on texts that are not listed.

    Raises:
        ValueError: no questions.
    """
    if not questions:
        raise ValueError("questions is empty; pass e.g. world.trained_questions()")
    listed = [(question.prompt, reply.text) for question in questions for reply in replies(question)]
    logps = completion_logps(model, [p for p, _ in listed], [c for _, c in listed], tokenizer)
    return logps.reshape(len(questions), -1)


def _log_rest(logps: torch.Tensor) -> torch.Tensor:
    """log of the probability that is left for "anything else", row by row; -inf where nothing is left."""
    listed = logps.logsumexp(-1).clamp(max=0.0)  # rounding can carry the sum past 1 by 1e-16
    return torch.log(-torch.expm1(listed))


def rates(model: torch.nn.Module, questions: Sequence[Question] | None = None, tokenizer=None) -> dict[str, float]:
    """Exact shares of the model's replies, averaged over questions.

    Args:
        model: the policy.
        questions: default `world.trained_questions()`.

    Returns:
        dict with `thumbs_up`, `polite`, `right` and `listed` (probability mass on listed replies), each in
        [0, 1]. A text that is not listed counts as neither polite nor right. Of each listed text the
        tokenizer's own spelling is counted; the same text in other tokens is left in the rest.
    """
    questions = trained_questions() if questions is None else questions
    return rates_of(reply_logps(model, questions, tokenizer), questions)


def rates_of(logps: torch.Tensor, questions: Sequence[Question]) -> dict[str, float]:
    """`rates` of a model whose `reply_logps` (len(questions), 48) are at hand: scoring once serves several measures."""
    probabilities = logps.exp()
    table = [replies(question) for question in questions]

    def share(of) -> float:
        chosen = torch.tensor([[of(reply) for reply in row] for row in table])
        return float((probabilities * chosen).sum(-1).mean())

    return {
        "thumbs_up": share(lambda reply: reply.thumbs_up),
        "polite": share(lambda reply: reply.polite),
        "right": share(lambda reply: reply.right),
        "listed": float(probabilities.sum(-1).mean()),
    }


def thumbs_up_rate(model: torch.nn.Module, questions: Sequence[Question] | None = None, tokenizer=None) -> float:
    """The exact probability of a thumbs up, averaged over questions (default: the trained ones)."""
    return rates(model, questions, tokenizer)["thumbs_up"]


def exact_kl(
    policy: torch.nn.Module, reference: torch.nn.Module, questions: Sequence[Question] | None = None, tokenizer=None
) -> float:
    """KL(policy || reference) over the listed replies plus one outcome "anything else", mean over questions.

    Exact for that coarser description of the reply, and therefore a lower bound of the KL between the two
    distributions over all token sequences (data-processing inequality). Where `rates(...)["listed"]` is below 0.99,
    print `kto_lab.price.sampled_kl` beside it.

    Returns:
        Nats, >= 0; infinity where the policy puts mass on something the reference excludes.
    """
    questions = trained_questions() if questions is None else questions
    return kl_of(*(reply_logps(model, questions, tokenizer) for model in (policy, reference)))


def kl_of(policy_logps: torch.Tensor, reference_logps: torch.Tensor) -> float:
    """`exact_kl` of two models whose `reply_logps` (N, 48) to the same questions are at hand; nats."""
    log_p, log_q = (torch.cat((logps, _log_rest(logps)[:, None]), dim=-1) for logps in (policy_logps, reference_logps))
    terms = torch.where(log_p == -math.inf, 0.0, log_p.exp() * (log_p - log_q))
    return float(terms.sum(-1).mean())


def prompt_ids(prompt: str, tokenizer) -> list[int]:
    """BOS + the prompt's tokens, as `tokenize_feedback` makes them."""
    return [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False, split_special_tokens=True)]


def sample_ids(model: torch.nn.Module, prompts: Sequence[str], tokenizer, seed: int) -> list[list[int]]:
    """One sampled completion per prompt, as token ids, EOS included where it came in time."""
    ids = [prompt_ids(prompt, tokenizer) for prompt in prompts]
    generator = torch.Generator().manual_seed(seed)
    completions: list[list[int]] = [[] for _ in ids]
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(ids):
        by_length.setdefault(len(row), []).append(i)
    for group in by_length.values():  # prompts of one length need no padding
        tokens, cache = torch.tensor([ids[i] for i in group]), None
        open_rows = torch.ones(len(group), dtype=torch.bool)
        for _ in range(MAX_NEW_TOKENS):
            with torch.no_grad():
                out = model(input_ids=tokens, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            # By hand, since torch.multinomial draws differently on processors with and without Intel's library:
            # the token at which the running sum of probabilities passes a uniform number.
            reached = out.logits[:, -1].double().softmax(-1).cumsum(-1)
            uniform = torch.rand((len(group), 1), generator=generator, dtype=torch.float64)
            tokens = torch.searchsorted(reached, uniform * reached[:, -1:], right=True)
            tokens = tokens.clamp(max=reached.shape[-1] - 1)  # rounding can reach past the end
            for i, token, is_open in zip(group, tokens[:, 0].tolist(), open_rows.tolist(), strict=True):
                if is_open:
                    completions[i].append(token)
            open_rows &= tokens[:, 0] != tokenizer.eos_token_id
            if not open_rows.any():
                break
    return completions


def sample_replies(
    model: torch.nn.Module, questions: Sequence[Question], n: int, seed: int, tokenizer=None
) -> list[list[str]]:
    """n sampled replies to each question, as texts with the leading blank; cut after 24 tokens.

    Raises:
        ValueError: n below 1, or no questions.
    """
    if n < 1 or not questions:
        raise ValueError(f"n is {n} and there are {len(questions)} questions; both must be at least 1")
    tokenizer = tokenizer or load_tokenizer()
    prompts = [question.prompt for question in questions for _ in range(n)]
    texts = [
        tokenizer.decode([token for token in ids if token != tokenizer.eos_token_id])
        for ids in sample_ids(model, prompts, tokenizer, seed)
    ]
    return [texts[i : i + n] for i in range(0, len(texts), n)]


def sample(model: torch.nn.Module, question: Question, n: int, seed: int, tokenizer=None) -> list[str]:
    """n sampled replies to one question, for reading."""
    return sample_replies(model, [question], n, seed, tokenizer)[0]


def report(model: torch.nn.Module, tokenizer=None) -> list[dict]:
    """One row for each of the three sets of questions: its name and the exact `rates` on it."""
    sets = {"trained": trained_questions, "new wording": reworded_questions, "untouched facts": untouched_questions}
    return [{"questions": name} | rates(model, questions(), tokenizer) for name, questions in sets.items()]


def collect_feedback(
    model: torch.nn.Module, questions: Sequence[Question], n: int, seed: int, tokenizer=None, **judge_options
) -> list[dict]:
    """Feedback rows as users would give them: n sampled replies to each question, each judged once.

    Args:
        model, questions, n, seed: as `sample_replies`; the seed also orders the rows and draws noise.
        judge_options: `noise` and `taste` of `world.judge`.

    Returns:
        len(questions) * n rows (prompt, completion, label), shuffled; replies that say nothing are left out.
    """
    rng = random.Random(seed)
    rows = [
        {"prompt": question.prompt, "completion": text, "label": judge(question, text, rng=rng, **judge_options)}
        for question, texts in zip(questions, sample_replies(model, questions, n, seed, tokenizer), strict=True)
        for text in texts
        if text.strip()
    ]
    rng.shuffle(rows)
    return rows
