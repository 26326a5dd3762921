"""The tiny Llama, its rebuilt forward pass, float64, the frozen reference, and loading."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lesson_source import definitions
from transformers import LlamaConfig, LlamaForCausalLM

from kto_utils import evaluate, world
from kto_utils.collator import pad_rows
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import (
    REFERENCE_FOLDER,
    Float64RotaryEmbedding,
    load_model,
    load_reference_model,
    reference_of,
    tiny_llama,
    to_float64,
)
from kto_utils.tokenizer import load_tokenizer

NO_NETWORK = Path(__file__).with_name("no_network")  # its sitecustomize refuses connections
MAIN = definitions("02_tiny_llama", "my_causal_attention", "my_reference", "draw", "sample_reply")
DEEPER = definitions(
    "02b_forward_pass",
    *("rms_norm", "split_heads", "my_rotary", "rotary", "attend", "turn_heads", "swiglu", "layer", "forward"),
)
SHAPES = [(64, 256, 512, 2, 4), (37, 24, 40, 1, 2), (50, 48, 96, 3, 4)]  # V, hidden, inner, layers, heads


def build(shape, **options):
    vocab, hidden, inner, layers, heads = shape
    return tiny_llama(vocab, hidden, inner, num_layers=layers, num_heads=heads, **options)


def shake(model):
    """Gives every parameter a new random value, the norms' ones and the padding row included."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return model


def draw_ids(vocab, length, seed):
    return torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(seed))


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.atleast_2d(ids)).logits


def lesson_logits(model, ids, shape):
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    return DEEPER["forward"](ids, weights, heads=shape[4], layers=shape[3])


@pytest.fixture(scope="module")
def shipped():
    return load_reference_model()


@pytest.fixture(scope="module")
def eight():
    """The eight feedback rows as one batch."""
    tokenizer = load_tokenizer()
    return pad_rows([tokenize_feedback(row, tokenizer) for row in load_eight_rows()], tokenizer.pad_token_id)


# --- tiny_llama ---------------------------------------------------------------------------------------------


def test_the_default_shape():
    model = tiny_llama(512)
    assert sum(p.numel() for p in model.parameters()) == 1_574_144
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 256, 4)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert config._attn_implementation == "sdpa"


def test_the_code_is_the_librarys_own():
    modules = {type(module).__module__ for module in tiny_llama(16, 16, 16, num_heads=2).modules()}
    assert all(name.startswith(("transformers.", "torch.")) for name in modules)


def test_a_seed_fixes_the_weights_and_another_seed_changes_them():
    one, same, other = (tiny_llama(32, 16, 16, num_heads=2, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])


def test_weights_are_drawn_in_float64_and_then_rounded():
    wide = tiny_llama(32, 16, 16, num_heads=2, dtype=torch.float64)
    narrow = tiny_llama(32, 16, 16, num_heads=2, dtype=torch.float32)
    first = torch.randn(32, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.02
    assert torch.equal(wide.model.embed_tokens.weight[1:], first[1:])
    for name, tensor in wide.state_dict().items():
        assert torch.equal(tensor.float(), narrow.state_dict()[name]), name


def test_norms_start_at_one_and_padding_at_zero():
    model = tiny_llama(32, 16, 16, num_heads=2)
    assert torch.equal(model.model.norm.weight, torch.ones(16))
    assert torch.equal(model.model.embed_tokens.weight[0], torch.zeros(16))


def test_building_and_loading_leave_the_global_random_state_alone():
    before = torch.get_rng_state()
    tiny_llama(32, 16, 16, num_heads=2)
    load_reference_model()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 2}, "vocab_size is 2; it must be at least 3"),
        ({"vocab_size": 8, "hidden_size": 10, "num_heads": 3}, "whole, even head size"),
        ({"vocab_size": 8, "hidden_size": 12, "num_heads": 4}, "whole, even head size"),
        ({"vocab_size": 8, "num_layers": 0}, "num_layers is 0; it must be at least 1"),
        ({"vocab_size": 8, "num_heads": 0}, "num_heads is 0; it must be at least 1"),
        ({"vocab_size": 8, "hidden_size": 0}, "hidden_size is 0"),
    ],
)
def test_an_impossible_shape_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny_llama(**options)


# --- the rebuilt forward pass -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=8)
@given(seed=st.integers(0, 1000), length=st.integers(1, 24))
def test_the_rebuilt_forward_pass_is_the_unmodified_librarys(shape, seed, length):
    model, ids = build(shape, seed=seed), draw_ids(shape[0], length, seed)
    rebuilt = lesson_logits(model, ids, shape)
    assert rebuilt.shape == (length, shape[0])
    torch.testing.assert_close(logits_of(model, ids)[0].double(), rebuilt, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_of(to_float64(model), ids)[0], rebuilt, rtol=0, atol=1e-10)


def test_the_rebuilt_forward_pass_agrees_when_no_weight_is_at_its_start():
    """Norm weights of 1 would hide a forgotten one; large weights make attention uneven."""
    shape = SHAPES[1]
    model = to_float64(shake(build(shape)))
    ids = draw_ids(shape[0], 30, 2)
    rebuilt = lesson_logits(model, ids, shape)
    assert rebuilt.std() > 0.5
    torch.testing.assert_close(logits_of(model, ids)[0], rebuilt, rtol=0, atol=1e-10)


def test_the_rebuilt_forward_pass_runs_the_shipped_model(shipped):
    ids = draw_ids(512, 20, 3)
    rebuilt = DEEPER["forward"](ids, shipped.state_dict())
    torch.testing.assert_close(logits_of(shipped, ids)[0], rebuilt, rtol=0, atol=1e-10)


@given(seed=st.integers(0, 1000))
def test_the_lessons_parts_are_torchs(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(7, 12, generator=generator, dtype=torch.float64)
    weight = torch.randn(12, generator=generator, dtype=torch.float64)
    gate, up, down = torch.randn(3, 12, 12, generator=generator, dtype=torch.float64)
    q, k, v = torch.randn(3, 2, 7, 6, generator=generator, dtype=torch.float64)
    functional = torch.nn.functional
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(
        DEEPER["rms_norm"](x, weight), functional.rms_norm(x, (12,), weight, eps=1e-6), **close
    )
    gated = functional.silu(functional.linear(x, gate)) * functional.linear(x, up)
    feed_forward = functional.linear(gated, down)
    torch.testing.assert_close(DEEPER["swiglu"](x, gate, up, down), feed_forward, **close)
    fused = functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    torch.testing.assert_close(DEEPER["attend"](q, k, v), fused, **close)
    for one, head in zip(fused, zip(q, k, v, strict=True), strict=True):
        torch.testing.assert_close(MAIN["my_causal_attention"](*head), one, **close)


@given(seed=st.integers(0, 1000), shift=st.integers(0, 200))
def test_rotary_positions_are_complex_rotations_and_only_distance_counts(seed, shift):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 16, generator=generator, dtype=torch.float64)
    turned_q, turned_k = (DEEPER["my_rotary"](x.repeat(220, 1)) for x in (q, k))
    speeds = 10000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    plane = torch.complex(q[:8], q[8:]) * torch.polar(torch.ones(8, dtype=torch.float64), shift * speeds)
    torch.testing.assert_close(turned_q[shift], torch.cat((plane.real, plane.imag)), rtol=0, atol=1e-10)
    torch.testing.assert_close(turned_q, DEEPER["rotary"](q.repeat(220, 1)), rtol=0, atol=1e-12)
    here, there = turned_q[9] @ turned_k[4], turned_q[9 + shift] @ turned_k[4 + shift]
    torch.testing.assert_close(here, there, rtol=0, atol=1e-9)


@given(position=st.integers(0, 11), token=st.integers(3, 63), seed=st.integers(0, 20))
@settings(max_examples=15)
def test_a_token_changes_no_logits_before_it(position, token, seed):
    shape = SHAPES[0]
    model, ids = to_float64(build(shape)), draw_ids(shape[0], 12, seed)
    other = ids.clone()
    other[position] = token
    change = (logits_of(model, ids) - logits_of(model, other))[0].abs().amax(-1)
    assert (change[:position] < 1e-12).all()
    if token != ids[position]:
        assert (change[position:] > 1e-9).all()


def test_a_row_of_a_batch_has_the_logits_it_has_alone():
    model = to_float64(build(SHAPES[0]))
    batch = torch.stack([draw_ids(64, 9, seed) for seed in range(3)])
    alone = torch.cat([logits_of(model, row) for row in batch])
    torch.testing.assert_close(logits_of(model, batch), alone, rtol=0, atol=1e-10)


def test_the_lessons_draw_follows_the_probabilities_and_never_takes_an_impossible_token():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.tensor([MAIN["draw"](probabilities, generator) for _ in range(4000)])
    hits = torch.bincount(tokens, minlength=6)
    assert (hits[[0, 2, 5]] == 0).all()
    assert ((hits / 4000 - probabilities).abs() < 0.032).all()  # four standard errors


def test_a_dart_on_the_very_edge_takes_a_possible_token(monkeypatch):
    probabilities = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64)
    for dart, token in ((0.0, 1), (0.5, 2), (1.0 - 2**-53, 2)):
        monkeypatch.setattr(torch, "rand", lambda *_, dart=dart, **__: torch.tensor([dart], dtype=torch.float64))
        assert MAIN["draw"](probabilities, None) == token


def test_the_lessons_reply_is_the_packages_from_the_same_seed(shipped):
    tokenizer, question = load_tokenizer(), world.trained_questions()[0]
    ids = torch.tensor(tokenizer.encode(question.prompt))
    reply = MAIN["sample_reply"](shipped, ids, torch.Generator().manual_seed(3))
    assert tokenizer.decode(reply) == evaluate.sample(shipped, question, n=1, seed=3)[0] + tokenizer.eos_token


def test_the_head_that_the_lesson_shows_looks_at_the_thing_asked_about():
    """Not for the one question of the lesson only: in layer 0, head 3 does so for all that the model was trained on."""
    tokenizer, model = load_tokenizer(), load_reference_model()
    model.set_attn_implementation("eager")
    for question in world.trained_questions():
        ids = tokenizer.encode(question.prompt + " It is")
        with torch.no_grad():
            target = model(torch.tensor([ids]), output_attentions=True).attentions[0][0, 3, -1].argmax()
        place = len(tokenizer.decode(ids[1 : target + 1])) - 1  # the last letter of the token looked at
        start = question.prompt.index(question.thing)
        assert start <= place < start + len(question.thing), question.prompt


# --- to_float64 ---------------------------------------------------------------------------------------------


def test_double_alone_and_either_part_alone_leave_float32_noise():
    shape = SHAPES[0]
    library, ids = build(shape), draw_ids(64, 12, 0)
    double, exact = copy.deepcopy(library).double(), to_float64(copy.deepcopy(library))
    norms_only, table_only = copy.deepcopy(exact), copy.deepcopy(double)
    norms_only.model.rotary_emb = double.model.rotary_emb
    table_only.model.rotary_emb = exact.model.rotary_emb
    rebuilt = lesson_logits(library, ids, shape)
    for model in (double, norms_only, table_only):
        gap = (logits_of(model, ids)[0] - rebuilt).abs().max()
        assert 1e-10 < gap < 1e-5
    assert (logits_of(exact, ids)[0] - rebuilt).abs().max() < 1e-10


@pytest.mark.parametrize("training", [True, False])
def test_to_float64_works_in_place_and_keeps_names_values_and_mode(training):
    model = shake(build(SHAPES[1])).train(training)
    before = copy.deepcopy(model.state_dict())
    assert to_float64(model) is model
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name].double()) for name in before)
    assert all(parameter.dtype == torch.float64 for parameter in model.parameters())
    assert all(module.training is training for module in model.modules())


def test_to_float64_twice_is_to_float64_once():
    ids = draw_ids(37, 10, 0)
    model = to_float64(build(SHAPES[1]))
    once = logits_of(model, ids)
    assert torch.equal(logits_of(to_float64(model), ids), once)


def test_gradients_of_the_float64_model_are_the_librarys():
    library = build(SHAPES[1])
    exact = to_float64(copy.deepcopy(library))
    for model in (library, exact):
        model(draw_ids(37, 10, 0)[None]).logits.logsumexp(-1).sum().backward()
    for (name, p), q in zip(library.named_parameters(), exact.parameters(), strict=True):
        assert q.grad.abs().sum() > 0, name
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-3, atol=1e-4)


def test_the_float64_table_is_the_librarys_and_finer():
    config = LlamaConfig(hidden_size=64, num_attention_heads=4)
    library = LlamaForCausalLM(LlamaConfig(**{**config.to_dict(), "num_hidden_layers": 1, "vocab_size": 8}))
    positions, x = torch.arange(40)[None], torch.zeros(1, dtype=torch.float64)
    cos, sin = Float64RotaryEmbedding(config)(x, positions)
    coarse = library.model.rotary_emb(x, positions)
    torch.testing.assert_close((cos, sin), coarse, rtol=0, atol=1e-5)
    assert not torch.equal(cos, coarse[0])
    torch.testing.assert_close(cos**2 + sin**2, torch.ones_like(cos), rtol=0, atol=1e-14)


def test_a_head_size_of_its_own_is_respected():
    config = LlamaConfig(
        vocab_size=16, hidden_size=24, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        head_dim=8,
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config).eval(), draw_ids(16, 6, 0)
    coarse = logits_of(model, ids)
    torch.testing.assert_close(logits_of(to_float64(model), ids), coarse.double(), rtol=0, atol=1e-5)


def test_a_scaled_rotary_table_is_refused():
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
        rope_parameters=scaled,
    )  # fmt: skip
    with pytest.raises(ValueError, match="rope_type is 'linear'; only the default rotary table"):
        to_float64(LlamaForCausalLM(config))


# --- reference_of -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [reference_of, MAIN["my_reference"]], ids=["package", "lesson"])
def test_the_reference_is_an_equal_frozen_copy_without_shared_memory(make):
    policy = build(SHAPES[1]).train()
    policy(draw_ids(37, 5, 0)[None]).logits.sum().backward()
    reference = make(policy)
    assert type(reference) is type(policy)
    ours = dict(policy.named_parameters())
    for name, q in reference.named_parameters():
        assert torch.equal(ours[name], q)
        assert ours[name].data_ptr() != q.data_ptr()
        assert not q.requires_grad
        assert q.grad is None
        assert ours[name].requires_grad  # the policy stays as it was
        assert ours[name].grad is not None
    assert not any(module.training for module in reference.modules())
    assert policy.training


def test_the_reference_switches_dropout_off_and_the_policy_keeps_it():
    policy = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5)).train()
    reference = reference_of(policy)
    x = torch.ones(4, 8)
    assert torch.equal(reference(x), reference(x))
    assert policy[1].training


# --- loading ------------------------------------------------------------------------------------------------


def test_the_shipped_model_is_float64_and_scores_a_known_reply(shipped, eight):
    assert {p.dtype for p in shipped.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in shipped.parameters())
    assert not any(module.training for module in shipped.modules())
    assert shipped.config.hidden_size == 128
    with torch.no_grad():
        logps = sequence_logps(shipped, eight)
    assert 0.05 < logps[0].exp() < 0.15  # one of six templates, and about half of the answers are right
    assert logps[4] < -100  # a reply of a kind it has never seen


def test_every_load_gives_a_new_model(shipped):
    other = load_reference_model()
    assert other is not shipped
    with torch.no_grad():
        other.lm_head.weight.add_(1.0)
    assert not torch.equal(other.lm_head.weight, shipped.lm_head.weight)


def test_a_float64_model_comes_back_bit_for_bit(tmp_path):
    model = to_float64(shake(build(SHAPES[1], dtype=torch.float64)))
    model.save_pretrained(tmp_path)
    back = load_model(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name]), name
    ids = draw_ids(37, 10, 0)
    assert torch.equal(logits_of(model, ids), logits_of(back, ids))


AUTO = """
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
with torch.no_grad():
    torch.save((type(model).__name__, model.dtype, model(torch.arange(3, 15)[None]).logits), sys.argv[2])
"""


def test_save_pretrained_gives_a_folder_that_both_loaders_read_offline(tmp_path, shipped, monkeypatch):
    folder = tmp_path / "model"
    copy.deepcopy(shipped).float().save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors"}

    ours = load_model(folder)
    for name, tensor in shipped.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[name]), name
    ids = torch.arange(3, 15)
    assert torch.equal(logits_of(ours, ids), logits_of(shipped, ids))

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # read when the library is imported, hence a new process
    monkeypatch.setenv("PYTHONPATH", str(NO_NETWORK))
    command = [sys.executable, "-c", AUTO, str(folder), str(tmp_path / "out.pt")]
    subprocess.run(command, check=True, timeout=120)
    kind, dtype, logits = torch.load(tmp_path / "out.pt", weights_only=False)
    assert (kind, dtype) == ("LlamaForCausalLM", torch.float32)
    torch.testing.assert_close(logits.double(), logits_of(shipped, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_named(tmp_path, missing):
    for name in {"config.json", "model.safetensors"} - {missing}:
        (tmp_path / name).write_bytes((REFERENCE_FOLDER / name).read_bytes())
    with pytest.raises(FileNotFoundError, match=f"holds no {missing}"):
        load_model(str(tmp_path))


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
    build(SHAPES[1]).save_pretrained(tmp_path)
    settings_file = tmp_path / "config.json"
    config = json.loads(settings_file.read_text())
    settings_file.write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.1"):
        load_model(tmp_path)
