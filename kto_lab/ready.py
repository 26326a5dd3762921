"""One look at model, tokenizer and rows before a long run: what would fail, or silently train wrongly. Lesson 12.

Each of these was met in bug reports: none gives an error, or one that names something else.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch

LOOKED_AT = 1_000_000  # parameters of a tensor, evenly spread: enough for a share


def _tokenized(rows: Sequence[Mapping]) -> Iterator[tuple[str, Mapping]]:
    """(name, row) of every row; a pair has two."""
    for number, row in enumerate(rows):
        sides = {f"row {number}, {side}": row[side] for side in ("chosen", "rejected") if side in row}
        for name, side in (sides or {f"row {number}": row}).items():
            if not isinstance(side, Mapping) or "input_ids" not in side:
                raise TypeError(f"{name} is not tokenized; make the rows with kto_lab.chat.tokenize_rows first")
            yield name, side


def _adapter_fault(model: torch.nn.Module) -> str | None:
    for name, config in getattr(model, "peft_config", {}).items():
        if getattr(config, "is_prompt_learning", False):
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            return (
                f"adapter {name!r} is {kind}: it puts virtual tokens before the row, so scores and masks no longer "
                "belong to the same tokens, and the reference has none. Use LoRA (peft.LoraConfig) instead"
            )
    return None


def _pad_fault(tokenizer, n_embeddings: int) -> str | None:
    if tokenizer.pad_token_id is None:
        return "the tokenizer has no pad token; tokenizer.pad_token = tokenizer.eos_token (it stands in no mask)"
    if tokenizer.pad_token_id >= n_embeddings:
        return (
            f"the pad token {tokenizer.pad_token!r} has id {tokenizer.pad_token_id} and the model embeds ids below "
            f"{n_embeddings}: it was added without resizing. Set tokenizer.pad_token = tokenizer.eos_token instead, or "
            "call model.resize_token_embeddings(len(tokenizer)) before the reference is copied"
        )
    return None


def _id_fault(name: str, ids: Sequence[int], tokenizer, n_embeddings: int) -> str | None:
    wrong = next((token for token in ids if not 0 <= token < n_embeddings), None)
    if wrong is None:
        return None
    token = tokenizer.convert_ids_to_tokens(wrong) if wrong >= 0 else None
    return (
        f"{name} has token id {wrong} ({token!r}) and the model embeds ids 0 to {n_embeddings - 1}: load model and "
        "tokenizer from one place, or call model.resize_token_embeddings(len(tokenizer)) before the reference is copied"
    )


def _length_faults(lengths: Mapping[str, tuple[int, int]], max_length: int | None, model) -> Iterator[str]:
    """lengths: name -> tokens of prompt and reply. Mismatched rows join the longest of both."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not positions or (max_length is not None and max_length <= positions):
        return
    name, (prompt, reply) = max(lengths.items(), key=lambda item: sum(item[1]))
    if prompt + reply > positions:
        found = f"{name} has {prompt + reply} tokens and the model knows {positions} positions"
        yield f"{found}; pass max_length={positions}, or leave long rows out"
        return
    longest = max(p for p, _ in lengths.values()) + max(r for _, r in lengths.values())
    if longest > positions:
        yield (
            f"no row is longer than the model's {positions} positions, but a mismatched one (this prompt, another's "
            f"reply) can have {longest} tokens; pass max_length={positions}"
        )


def moved_share(parameter: torch.Tensor, step: float) -> float:
    """The share of the weights that a step of this size changes at all, in the parameter's own type.

    AdamW's first step moves every weight by the learning rate. A bfloat16 number has 8 bits: one that is more than 512
    times the step stays where it is.
    """
    weights = parameter.detach().flatten()[:: max(1, parameter.numel() // LOOKED_AT)]
    return float(((weights.double() - step).to(weights.dtype) != weights).double().mean())


def _rounding_concern(model: torch.nn.Module, learning_rate: float) -> str | None:
    """Named where less than half of the 16-bit weights that are trained would move."""
    short = [p for p in model.parameters() if p.requires_grad and p.dtype in (torch.bfloat16, torch.float16)]
    total = sum(p.numel() for p in short)
    moved = sum(moved_share(p, learning_rate) * p.numel() for p in short) / max(total, 1)
    if not short or moved >= 0.5:
        return None
    return (
        f"at learning rate {learning_rate:g} one step changes {moved:.1%} of the {total:,} trained {short[0].dtype} "
        "weights, the others round back. Load the model in float32 (dtype=torch.float32) and compute in bfloat16 by "
        "autocast (bf16=True in TRL), or train LoRA adapters in float32"
    )


def _end_concern(ended: int, n_rows: int, ends: set[int], tokenizer) -> str | None:
    if ended:
        return None
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(end)) for end in sorted(ends))
    return (
        f"none of the {n_rows} replies holds an end token ({names}): the model would not learn to stop. The chat "
        "template should close the assistant's turn with one; or max_length has cut it off"
    )


def check_ready(
    model: torch.nn.Module, tokenizer, rows: Sequence[Mapping], max_length: int | None = None, *, learning_rate: float
) -> None:
    """Refuses what cannot train, and warns of what trains badly. Call it before the reference is made.

    Args:
        model: as it will be trained, adapters and types included.
        rows: tokenized rows or pairs, as `kto_lab.chat.tokenize_rows` returns.
        max_length: what `train_kto` will get.
        learning_rate: of the first step; looked at where weights of 16 bits are trained.

    Raises:
        TypeError: rows that are not tokenized.
        ValueError: names all that is wrong, each with its remedy: prompt-tuning adapters, no pad token or one added
            without resizing, ids beyond the embedding, BOS twice, rows longer than the model's positions.

    Warns:
        UserWarning: rows that lose their end, replies without an end token, 16-bit weights that would not move.
    """
    n_embeddings = model.get_input_embeddings().weight.shape[0]
    faults = [_adapter_fault(model), _pad_fault(tokenizer, n_embeddings)]
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    bad_id = twice = None
    lengths, cut, ended = {}, 0, 0
    for name, row in _tokenized(rows):
        ids, mask = row["input_ids"], row["label_mask"]
        bad_id = bad_id or _id_fault(name, ids, tokenizer, n_embeddings)
        if twice is None and list(ids[:2]) == [tokenizer.bos_token_id] * 2:
            twice = f"{name} begins with BOS twice: a template wrote one, the tokenizer another; use tokenize_rows"
        lengths[name] = (len(ids) - sum(mask), sum(mask))
        cut += max_length is not None and len(ids) > max_length
        ended += any(token in ends for token, of in zip(ids[:max_length], mask[:max_length], strict=True) if of)
    if not lengths:
        raise ValueError("rows is empty; there is nothing to train on")
    faults += [bad_id, twice, *_length_faults(lengths, max_length, model)]
    if found := [fault for fault in faults if fault]:
        raise ValueError("not ready to train:\n" + "\n".join(f"- {fault}" for fault in found))
    lost = f"{cut} of {len(lengths)} replies lose their end at max_length {max_length}, and what ends them"
    concerns = [lost if cut else None, _end_concern(ended, len(lengths), ends, tokenizer)]
    for concern in filter(None, [*concerns, _rounding_concern(model, learning_rate)]):
        warnings.warn(concern, stacklevel=2)
