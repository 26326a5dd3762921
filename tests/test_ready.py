"""The check before a run names each fault with its remedy, warns of what trains badly, and lets good runs pass."""

import warnings

import peft
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from kto_lab.chat import tokenize_rows
from kto_lab.ready import check_ready, moved_share
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.model import load_reference_model, reference_of, tiny_llama
from kto_utils.tokenizer import TOKENIZER_FILE, load_tokenizer
from kto_utils.train import train_kto

TOKENIZER = load_tokenizer()
ROWS = [tokenize_feedback(row, TOKENIZER) for row in load_eight_rows()]
PAIRS = [{"chosen": ROWS[0], "rejected": ROWS[3]}] * 2


def model(max_length=512, dtype=torch.float32):
    return tiny_llama(512, hidden_size=16, intermediate_size=16, num_layers=1, max_length=max_length, dtype=dtype)


def check(of=None, tokenizer=TOKENIZER, rows=ROWS, max_length=None, learning_rate=1e-3):
    check_ready(of or model(), tokenizer, rows, max_length, learning_rate=learning_rate)


@pytest.mark.parametrize("rows", [ROWS, PAIRS])
def test_a_good_run_passes_without_a_word(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(rows=rows)
        check(rows=rows, max_length=200)
        check(load_reference_model(), rows=rows)


def with_new_pad():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), bos_token="<bos>", eos_token="<eos>")
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    return tokenizer


def test_a_pad_token_added_without_resizing_is_refused_and_both_remedies_work():
    tokenizer, grown = with_new_pad(), model()
    assert tokenizer.pad_token_id == 512
    with pytest.raises(ValueError, match=r"'\[PAD\]' has id 512 and .* ids below 512: it was added without"):
        check(tokenizer=tokenizer)
    with pytest.raises(IndexError):  # what the run would say
        train_kto(grown, reference_of(grown), ROWS, tokenizer, steps=1, batch_size=4)
    grown.resize_token_embeddings(len(tokenizer))
    check(grown, tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    check(tokenizer=tokenizer)


def test_no_pad_token_is_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER_FILE), bos_token="<bos>", eos_token="<eos>")
    with pytest.raises(ValueError, match=r"no pad token; tokenizer\.pad_token = tokenizer\.eos_token"):
        check(tokenizer=tokenizer)


@pytest.mark.parametrize(("token", "text"), [(511 + 1, "None"), (99999, "None"), (-100, "None")])
@pytest.mark.parametrize("side", [None, "rejected"])
def test_an_id_beyond_the_embedding_is_named_with_its_row(token, text, side):
    bad = ROWS[3] | {"input_ids": [*ROWS[3]["input_ids"][:-1], token]}
    rows = [PAIRS[0], PAIRS[0] | {side: bad}] if side else [*ROWS[:1], bad]
    name = f"row 1, {side}" if side else "row 1"
    with pytest.raises(ValueError, match=rf"{name} has token id {token} \({text}\) and the model embeds ids 0 to 511"):
        check(rows=rows)


def test_a_token_of_a_larger_tokenizer_is_named():
    tokenizer = load_tokenizer()
    tokenizer.add_tokens(["<extra>"])
    row = tokenize_rows([{"prompt": "a", "completion": " <extra>", "label": True}], tokenizer)
    with pytest.raises(ValueError, match=r"row 0 has token id 512 \('<extra>'\)"):
        check(tokenizer=tokenizer, rows=row)


def test_a_row_beyond_the_positions_is_refused_and_max_length_mends_it():
    longest = max(len(row["input_ids"]) for row in ROWS)
    name = next(f"row {i}" for i, row in enumerate(ROWS) if len(row["input_ids"]) == longest)
    short = model(max_length=longest - 1)
    message = rf"{name} has {longest} tokens and the model knows {longest - 1} positions; pass max_length={longest - 1}"
    for max_length in (None, longest, longest + 5):
        with pytest.raises(ValueError, match=message):
            check(short, max_length=max_length)
    with pytest.warns(UserWarning, match=rf"of 8 replies lose their end at max_length {longest - 1}"):
        check(short, max_length=longest - 1)


def test_a_mismatched_row_beyond_the_positions_is_refused_too():
    rows = [
        {"prompt": "a " * 20, "completion": " b", "label": True},
        {"prompt": "a", "completion": " b" * 20, "label": False},
    ]
    rows = [tokenize_feedback(row, TOKENIZER) for row in rows]
    longest = max(len(row["input_ids"]) for row in rows)
    with pytest.raises(ValueError, match=rf"longer than the model's {longest} positions, but a mismatched one"):
        check(model(max_length=longest), rows=rows)
    check(model(max_length=longest), rows=rows, max_length=longest)
    check(model(max_length=2 * longest), rows=rows)


def test_learned_positions_count_too():
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=512, n_positions=10, n_embd=16, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="the model knows 10 positions"):
        check(gpt2)


@pytest.mark.parametrize(
    "config",
    [peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
     peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4),
     peft.PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=4, encoder_hidden_size=8)],
    ids=lambda config: config.peft_type.value,
)  # fmt: skip
def test_adapters_that_put_virtual_tokens_are_refused_by_name(config):
    with pytest.raises(ValueError, match=rf"adapter 'default' is {config.peft_type.value}: .*Use LoRA"):
        check(peft.get_peft_model(model(), config))


def test_lora_passes():
    check(peft.get_peft_model(model(), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_weights_at_a_tiny_rate_are_warned_of_with_the_share_that_moves(dtype):
    tiny, adapted = model(dtype=dtype), peft.get_peft_model(model(dtype=dtype), peft.LoraConfig(task_type="CAUSAL_LM"))
    with pytest.warns(UserWarning, match=rf"rate 1e-07 one step changes \d+\.\d% of the [\d,]+ trained {dtype}"):
        check(tiny, learning_rate=1e-7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(tiny, learning_rate=1e-2)
        check(model(), learning_rate=1e-7)
        check(adapted, learning_rate=1e-7)


def test_the_share_that_moves_is_what_adamw_moves():
    torch.manual_seed(0)
    weights = torch.nn.Parameter((torch.randn(100_000) * 0.02).bfloat16())
    before = weights.detach().clone()
    weights.grad = torch.ones_like(weights)
    torch.optim.AdamW([weights], lr=1e-6, weight_decay=0.0).step()
    moved = float((weights != before).float().mean())
    assert moved_share(before, 1e-6) == pytest.approx(moved, abs=2e-3)
    assert 0.005 < moved < 0.03


def test_replies_without_an_end_token_are_warned_of():
    rows = [{name: value[:-1] if isinstance(value, list) else value for name, value in row.items()} for row in ROWS]
    with pytest.warns(UserWarning, match=r"none of the 8 replies holds an end token \('<eos>'\): .* learn to stop"):
        check(rows=rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(rows=[*rows, ROWS[0]])
        other_end = model()
        other_end.generation_config.eos_token_id = [2, rows[0]["input_ids"][-1]]
        check(other_end, rows=rows)


def test_bos_twice_is_refused():
    row = {name: [value[0], *value] if isinstance(value, list) else value for name, value in ROWS[0].items()}
    with pytest.raises(ValueError, match="row 1 begins with BOS twice"):
        check(rows=[ROWS[0], row])


def test_all_faults_are_named_at_once():
    with pytest.raises(ValueError, match="not ready to train") as caught:
        check(model(max_length=4), with_new_pad(), rows=[ROWS[0] | {"input_ids": [600] * len(ROWS[0]["input_ids"])}])
    assert str(caught.value).count("\n- ") == 3


@pytest.mark.parametrize(
    "rows", [[{"prompt": "a", "completion": "b", "label": True}], [{"chosen": "a", "rejected": "b"}]]
)
def test_rows_of_text_are_refused(rows):
    with pytest.raises(TypeError, match=r"is not tokenized; make the rows with kto_lab\.chat\.tokenize_rows first"):
        check(rows=rows)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="rows is empty"):
        check(rows=[])
