"""Replies of a chat model, as token ids: what was sampled is what is scored and trained. Lesson 12c."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig


@dataclass(frozen=True)
class Reply:
    """One reply: the ids of its prompt and its own, the end token included if it came."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    ended: bool


def prompt_ids(tokenizer, question: str) -> list[int]:
    """The question as the user's turn in the tokenizer's own chat template, up to where the reply begins."""
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)  # the template has written BOS where the model wants it


def _left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@torch.no_grad()
def sample(
    model, tokenizer, prompts: Sequence[Sequence[int]], temperature: float, max_new_tokens: int, seed: int,
    batch_size: int = 32, on_batch=lambda: None,
) -> list[Reply]:  # fmt: skip
    """One reply to each prompt, sampled from the whole distribution (temperature 0: the likeliest token each time).

    Args:
        prompts: N lists of ids from `prompt_ids`; give a prompt several times for several replies.
        temperature: divides the logits, at least 0.
        max_new_tokens: a reply that has not ended by then is cut.
        seed: of the draws, together with the order and the batch size.
        on_batch: called after each batch, for a progress bar.
    """
    draws = {"do_sample": False}
    if temperature:
        draws = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends if ends is not None else tokenizer.eos_token_id])
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id, **draws
    )
    replies = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            chosen = prompts[start : start + batch_size]
            ids, mask = (part.to(model.device) for part in _left_padded(chosen, tokenizer.pad_token_id))
            drawn = model.generate(ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :].tolist()
            for prompt, row in zip(chosen, drawn, strict=True):
                stop = next((place for place, token in enumerate(row) if token in ends), None)
                row = row if stop is None else row[: stop + 1]
                text = tokenizer.decode(row, skip_special_tokens=True).strip()
                replies.append(Reply(tuple(prompt), tuple(row), text, stop is not None))
            on_batch()
    return replies
