"""Training loops: what a step does, what the history says, what a checkpoint keeps, what is refused."""

import dataclasses
import io
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lesson_source import definitions

from kto_lab import checkpoints
from kto_lab.checkpoints import Checkpoint
from kto_lab.extra_terms import Demonstrations
from kto_lab.looking import EachStep
from kto_lab.scored_reference import ReferenceLogps, scored_beforehand
from kto_utils import train, world
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.evaluate import completion_logps
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import balanced_weights
from kto_utils.model import reference_of, tiny_llama, to_float64
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts

TOKENIZER = load_tokenizer()
KTO_KEYS = {
    "step", "loss", "kl", "reward_desirable", "reward_undesirable", "margin", "saturated", "grad_norm",
    "learning_rate",
}  # fmt: skip
DPO_KEYS = {"step", "loss", "reward_chosen", "reward_rejected", "margin", "grad_norm", "learning_rate"}


def small_model(seed=0):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_layers": 1}
    return to_float64(tiny_llama(512, **shape, seed=seed, dtype=torch.float64))


def judged_rows(n=20):
    """Random replies to the first n questions with their thumbs; both kinds occur."""
    by_prompt = {question.prompt: question for question in world.all_questions()}
    rows = world.sft_rows(1, seed=3)[:n]
    return [row | {"label": world.judge(by_prompt[row["prompt"]], row["completion"])} for row in rows]


ROWS = judged_rows()
PAIRS = [
    {"prompt": question.prompt, "chosen": world.replies(question)[0].text, "rejected": world.replies(question)[-1].text}
    for question in world.trained_questions()[:10]
]  # fmt: skip


def run(method, rows=None, seed_of_model=0, **options):
    """A short run of one of the three loops with a fresh small model: (policy, reference, history).

    `checkpoint` and `every` make a part of their own; other parts are given as such.
    """
    if "checkpoint" in options:
        kept = Checkpoint(options.pop("checkpoint"), **{"every": options.pop("every")} if "every" in options else {})
        options["parts"] = dataclasses.replace(options.get("parts") or Parts(), callbacks=[kept])
    policy = small_model(seed_of_model)
    reference = reference_of(policy)
    options = {"steps": 6, "batch_size": 4} | options
    if method == "sft":
        policy, history = train.train_sft(policy, ROWS if rows is None else rows, TOKENIZER, **options)
    elif method == "kto":
        policy, history = train.train_kto(policy, reference, ROWS if rows is None else rows, TOKENIZER, **options)
    else:
        policy, history = train.train_dpo(policy, reference, PAIRS if rows is None else rows, TOKENIZER, **options)
    return policy, reference, history


def bits(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def same_bits(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def same_history(a, b):
    return repr(a) == repr(b)  # repr, since NaN is not equal to itself


METHODS = ("sft", "kto", "dpo")


# Runs


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_the_same_seed_gives_the_same_run_to_the_last_bit_and_another_seed_another(method):
    first, again, other = run(method, seed=5), run(method, seed=5), run(method, seed=6)
    assert same_history(first[2], again[2])
    assert same_bits(bits(first[0]), bits(again[0]))
    assert not same_history(first[2], other[2])


def test_dpo_changes_the_policy_and_not_the_reference():
    before = bits(small_model())
    policy, reference, _ = run("dpo")
    assert not any(torch.equal(a, b) for a, b in zip(before, bits(policy), strict=True) if a.dim() > 1)
    assert same_bits(before, bits(reference))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in reference.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_models_in_training_mode_are_put_into_eval_mode(method):
    policy = small_model().train()
    reference = reference_of(policy).train()
    if method == "sft":
        train.train_sft(policy, ROWS, TOKENIZER, steps=1, batch_size=2)
    else:
        loop, rows = (train.train_kto, ROWS) if method == "kto" else (train.train_dpo, PAIRS)
        loop(policy, reference, rows, TOKENIZER, steps=1, batch_size=2)
        assert not reference.training
    assert not policy.training


@pytest.mark.parametrize(
    ("method", "keys"),
    [("sft", {"step", "loss", "grad_norm", "learning_rate"}), ("kto", KTO_KEYS), ("dpo", DPO_KEYS)],
)
def test_a_history_row_has_all_that_is_promised(method, keys):
    history = run(method)[2]
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    for row in history:
        assert set(row) == keys
        assert all(isinstance(number, float) for name, number in row.items() if name != "step")
        assert math.isfinite(row["loss"])
        assert row["grad_norm"] > 0


def test_the_learning_rate_stays_or_falls_in_a_line():
    assert [row["learning_rate"] for row in run("kto", steps=4)[2]] == [3e-4] * 4
    linear = run("kto", steps=4, schedule="linear", learning_rate=0.4)[2]
    assert [row["learning_rate"] for row in linear] == pytest.approx([0.4, 0.3, 0.2, 0.1])


def test_the_first_dpo_step_costs_ln_2():
    first = run("dpo", steps=1)[2][0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert first["margin"] == pytest.approx(0.0, abs=1e-12)  # the reference was scored in other batches


def test_the_first_sft_step_costs_what_cross_entropy_on_the_completion_tokens_says():
    model = small_model()
    logits, targets = [], []
    for row in ROWS:
        example = tokenize_feedback(row, TOKENIZER)
        ids, mask = torch.tensor(example["input_ids"]), torch.tensor(example["label_mask"]).bool()
        with torch.no_grad():
            out = model(input_ids=ids[None], use_cache=False).logits[0]
        logits.append(out[:-1][mask[1:]])
        targets.append(ids[1:][mask[1:]])
    expected = torch.nn.functional.cross_entropy(torch.cat(logits), torch.cat(targets))
    _, history = train.train_sft(model, ROWS, TOKENIZER, steps=1, batch_size=len(ROWS))
    assert history[0]["loss"] == pytest.approx(float(expected), abs=1e-9)
    assert history[0]["loss"] == pytest.approx(math.log(512), abs=0.3)


def test_sft_needs_no_thumbs_and_ignores_them():
    bare = [{"prompt": row["prompt"], "completion": row["completion"]} for row in ROWS]
    assert same_history(run("sft")[2], run("sft", rows=bare)[2])


def test_sft_learns_its_texts():
    policy, _, history = run("sft", rows=ROWS[:8], steps=60, batch_size=8, learning_rate=1e-2)
    assert history[-1]["loss"] < 0.3 < 5 < history[0]["loss"]
    assert float(completion_logps(policy, [ROWS[0]["prompt"]], [ROWS[0]["completion"]])) > -5


def test_dpo_widens_the_margin():
    history = run("dpo", steps=25, learning_rate=3e-3)[2]
    assert history[-1]["margin"] > 0.5
    assert history[-1]["loss"] < 0.5


def test_the_lesson_trains_the_same_run():
    lesson = definitions("07_train", "train_kto", "batch_loss")["train_kto"]
    settings = {
        "steps": 8, "batch_size": 5, "learning_rate": 1e-3, "seed": 2, "beta": 0.2, "desirable_weight": 2.5,
        "max_grad_norm": 0.1,
    }  # fmt: skip
    results = []
    for loop in (lesson, train.train_kto):
        policy = small_model()
        trained, history = loop(policy, reference_of(policy), ROWS, TOKENIZER, **settings)
        results.append((bits(trained), history))
    # Up to rounding: the package scores the reference in other batches and takes AdamW's steps in one pass.
    for mine, theirs in zip(*(weights for weights, _ in results), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    for mine, theirs in zip(*(history for _, history in results), strict=True):
        assert mine == pytest.approx({name: theirs[name] for name in mine}, abs=1e-10, nan_ok=True)


@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_a_reference_scored_beforehand_gives_the_same_run(method):
    options = {"steps": 12, "batch_size": 3, "learning_rate": 1e-3}  # 20 rows (10 pairs): two to four passes
    beforehand = Parts(reference_logps=scored_beforehand)
    (kept, _, mine), (anew, _, theirs) = (run(method, parts=parts, **options) for parts in (beforehand, None))
    for a, b in zip(mine, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-12), "ReferenceLogps answers with another row's number"
        assert a == pytest.approx(b, abs=1e-9, nan_ok=True)
    for a, b in zip(bits(kept), bits(anew), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


# The reference, scored beforehand


def batches_of(numbers):
    collate = KTOPaddingCollator(TOKENIZER)
    examples = [tokenize_feedback(row, TOKENIZER) for row in ROWS]
    return [collate([examples[i] for i in batch]) for batch in numbers]


def rows_scored(model):
    """Counts the rows of every forward pass of the model from now on."""
    rows = []
    model.register_forward_hook(
        lambda module, _, inputs, output: rows.append(len(inputs["input_ids"])), with_kwargs=True
    )
    return rows


def test_a_reference_scores_each_row_and_each_pair_once_and_each_batch_gets_its_own_numbers(monkeypatch):
    # Row 0 meets row 2 twice and row 1 once, in three passes over four rows.
    monkeypatch.setattr(ReferenceLogps, "TOKENS_PER_BATCH", 100)
    batches = batches_of([[0, 1], [2, 3], [0, 1], [3, 2], [0, 2], [1, 3], [2, 0]])
    reference = small_model()
    expected = [sequence_logps(reference, batch, prefix) for batch in batches for prefix in ("", "kl_")]
    scored = rows_scored(reference)
    of = ReferenceLogps(reference, batches, ("", "kl_"))
    assert scored == []
    found = [of(batch, prefix) for batch in batches for prefix in ("", "kl_")]
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain.detach(), rtol=0, atol=1e-10)
    neighbours = [(0, 1), (2, 3), (0, 2), (1, 3)]
    pairs = {*neighbours, *((b, a) for a, b in neighbours)}
    assert sum(scored) == 4 + len(pairs), "rows that come back must not be scored again"
    assert len(scored) > 1


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_sections_change_nothing(size, monkeypatch):
    batches = batches_of([[0, 1, 2], [3, 4, 5], [2, 3, 4]])
    reference = small_model()
    whole = ReferenceLogps(reference, batches, ("", "kl_"))(batches[2], "kl_")
    monkeypatch.setattr(ReferenceLogps, "ROWS_PER_SECTION", size)
    scored = rows_scored(reference)
    parts = ReferenceLogps(reference, batches, ("", "kl_"))(batches[2], "kl_")
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    assert sum(scored) == 6 + 8  # row 4 lends from row 3 twice


def test_a_row_that_was_not_announced_is_refused():
    first, other = batches_of([[0, 1], [0, 2]])
    of = ReferenceLogps(small_model(), [first], ("", "kl_"))
    with pytest.raises(KeyError, match=r"rows \[1\] \(input_ids\) stood in none of the batches"):
        of(other)
    with pytest.raises(KeyError, match="kl_input_ids"):
        of(other, "kl_")


def test_the_same_tokens_with_another_mask_are_another_row():
    batch = batches_of([[0, 1]])[0]
    longer = {field: values.clone() for field, values in batch.items()}
    longer["label_mask"][0, 1] = 1
    of = ReferenceLogps(small_model(), [batch, longer])
    assert of(batch)[0] != of(longer)[0]
    assert of(batch)[1] == of(longer)[1]


def test_a_kept_number_has_the_type_of_the_models_and_no_graph():
    for dtype in (torch.float64, torch.float32):
        batch = batches_of([[0, 1]])[0]
        kept = ReferenceLogps(small_model().to(dtype), [batch])(batch)
        assert kept.dtype == dtype
        assert not kept.requires_grad


def test_rows_of_one_kind_train_and_leave_the_other_column_nan():
    liked = [row | {"label": True} for row in ROWS]
    history = run("kto", rows=liked)[2]
    assert all(math.isfinite(row["loss"]) and math.isnan(row["reward_undesirable"]) for row in history)
    assert all(math.isnan(row["margin"]) for row in history)
    assert history[-1]["reward_desirable"] > 0


def test_the_gradient_is_clipped_to_the_norm_asked_for(monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        seen.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    history = run("sft", max_grad_norm=0.01)[2]
    assert all(row["grad_norm"] > 0.01 for row in history)
    assert seen == pytest.approx([0.01] * 6, rel=1e-3)


# Metrics


def test_metrics_are_means_per_side_and_the_saturated_share():
    logratio = torch.tensor([1.0, 3.0, -20.0, -60.0], dtype=torch.float64)
    label = torch.tensor([True, True, False, False])
    found = train.kto_metrics(logratio, label, torch.tensor(2.0), beta=0.1)
    assert found == pytest.approx(
        {"kl": 2.0, "reward_desirable": 0.2, "reward_undesirable": -4.0, "margin": 4.2, "saturated": 0.25}
    )


@given(st.floats(-200, 200), st.floats(0, 20), st.floats(0.01, 1))
def test_a_row_is_saturated_where_its_gradient_factor_is_under_a_tenth_of_the_maximum(r, z0, beta):
    u = beta * (r - z0)
    factor = 1 / (2 + math.exp(u) + math.exp(-u))
    found = train.kto_metrics(
        torch.tensor([r], dtype=torch.float64), torch.tensor([True]), torch.tensor(z0, dtype=torch.float64), beta
    )
    if abs(factor / 0.25 - 0.1) > 1e-9:
        assert found["saturated"] == float(factor / 0.25 < 0.1)


# Batches


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_a_pass_deals_no_row_twice_and_leaves_out_less_than_a_batch(n_rows, batch_size, seed):
    batch_size = min(batch_size, n_rows)
    batches = train.Batches(n_rows, batch_size, seed)
    for _ in range(2):
        dealt = [row for _ in range(n_rows // batch_size) for row in batches.draw()]
        assert len(dealt) == len(set(dealt)) > n_rows - batch_size
        assert set(dealt) <= set(range(n_rows))


def test_passes_are_shuffled_anew():
    batches = train.Batches(50, 50, seed=0)
    first, second = batches.draw(), batches.draw()
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second != list(range(50))


@given(st.integers(0, 9))
def test_batches_continue_in_the_middle_of_a_pass(already):
    batches = train.Batches(10, 3, seed=4)
    for _ in range(already):
        batches.draw()
    fresh = train.Batches(10, 3, seed=99)
    fresh.load_state_dict(batches.state_dict())
    assert [batches.draw() for _ in range(7)] == [fresh.draw() for _ in range(7)]


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_a_batch_size_that_the_rows_cannot_fill_is_refused(batch_size):
    with pytest.raises(ValueError, match="there are 10 rows"):
        train.Batches(10, batch_size, seed=0)


# Printing


def test_a_line_is_printed_every_k_steps_and_no_bar_without_a_terminal(capsys):
    run("kto", steps=6, log_every=2)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "2"], ["step", "4"], ["step", "6"]]
    assert all(name in lines[0] for name in ("loss", "kl", "reward_desirable", "saturated", "grad_norm"))
    assert err == ""


def test_a_terminal_shows_a_bar_and_no_lines(monkeypatch, capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    run("kto", steps=6)
    assert "KTO" in terminal.getvalue()
    assert "6/6" in terminal.getvalue()
    assert capsys.readouterr().out == ""


# Checkpoints


class Stop(Exception):
    """Stands for a kill right after a checkpoint was written."""


def without_every(options):
    return {name: value for name, value in options.items() if name != "every"}


def stopped_run(method, path, monkeypatch, **options):
    write = checkpoints.save_checkpoint

    def write_and_stop(*args):
        write(*args)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_checkpoint", write_and_stop)
        with pytest.raises(Stop):
            run(method, checkpoint=path, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_stopped_run_resumes_bit_for_bit(method, schedule, tmp_path, monkeypatch):
    # 20 rows (10 pairs) in batches of 3: step 4 lies in the middle of a pass and of Adam's warm-up.
    options = {"steps": 9, "batch_size": 3, "schedule": schedule, "every": 4}
    whole, _, whole_history = run(method, **without_every(options))
    path = tmp_path / "folder that does not exist yet" / "run.pt"
    stopped_run(method, path, monkeypatch, **options)
    assert torch.load(path, weights_only=True)["step"] == 4
    resumed, _, history = run(method, checkpoint=path, **options)
    assert same_bits(bits(whole), bits(resumed))
    assert same_history(whole_history, history)


def test_a_resumed_kto_run_does_not_depend_on_the_weights_it_is_given(tmp_path, monkeypatch):
    options = {"steps": 6, "every": 3}
    whole, reference, _ = run("kto", **without_every(options))
    stopped_run("kto", tmp_path / "run.pt", monkeypatch, **options)
    policy = small_model(seed=77)
    parts = Parts(callbacks=[Checkpoint(tmp_path / "run.pt", every=3)])
    train.train_kto(policy, reference, ROWS, TOKENIZER, steps=6, batch_size=4, parts=parts)
    assert same_bits(bits(whole), bits(policy))


def test_a_checkpoint_holds_all_that_the_next_step_needs(tmp_path):
    run("kto", checkpoint=tmp_path / "run.pt", every=3)
    state = torch.load(tmp_path / "run.pt", weights_only=True)
    assert set(state) == {"fingerprint", "step", "model", "optimizer", "batches", "history"}
    assert state["step"] == len(state["history"]) == 6
    assert list(tmp_path.iterdir()) == [tmp_path / "run.pt"]


def test_a_finished_run_is_returned_without_training_again(tmp_path, monkeypatch):
    options = {"checkpoint": tmp_path / "run.pt", "every": 3}
    policy, _, history = run("kto", **options)
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: pytest.fail("a step was taken"))
    again, _, same = run("kto", **options)
    assert same_bits(bits(policy), bits(again))
    assert same_history(history, same)


def test_writing_checkpoints_changes_nothing_in_the_run(tmp_path):
    plain, written = run("kto"), run("kto", checkpoint=tmp_path / "run.pt", every=1)
    assert same_history(plain[2], written[2])
    assert same_bits(bits(plain[0]), bits(written[0]))


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    checkpoints.save_checkpoint(path, {"fingerprint": "old", "step": 1})
    old = path.read_bytes()

    def half(state, target):
        target.write_bytes(old[: len(old) // 2])
        raise Stop

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Stop):
        checkpoints.save_checkpoint(path, {"fingerprint": "new", "step": 2})
    assert path.read_bytes() == old
    assert checkpoints.load_checkpoint(path, "old")["step"] == 1


def test_a_real_kill_while_writing_leaves_a_whole_file(tmp_path):
    path = tmp_path / "run.pt"
    code = (
        "import sys, torch; from kto_lab.checkpoints import save_checkpoint\n"
        "for step in range(10**6): save_checkpoint(sys.argv[1], "
        "{'fingerprint': 'x', 'step': step, 'w': torch.full((300_000,), float(step))})"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    deadline = time.monotonic() + 60
    while not path.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    child.kill()
    assert child.wait() in (-signal.SIGTERM, -9, 1)
    state = checkpoints.load_checkpoint(path, "x")
    assert bool((state["w"] == state["step"]).all())


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"beta": 0.2}, {"steps": 7}, {"learning_rate": 2e-3}, {"rows": ROWS[::-1]}, {"seed_of_model": 1}],
    ids=lambda change: next(iter(change)),
)
def test_a_checkpoint_of_another_run_is_refused(change, tmp_path):
    path = tmp_path / "run.pt"
    run("kto", checkpoint=path, every=3)
    with pytest.raises(ValueError, match=r"run\.pt was written by a run with other rows, settings or models"):
        run("kto", checkpoint=path, **change)


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    run("sft", checkpoint=tmp_path / "run.pt", every=3)
    with pytest.raises(ValueError, match="was written by a run with other"):
        run("kto", checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_a_file_that_is_no_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "run.pt").write_bytes(content)
    with pytest.raises(ValueError, match="is no checkpoint"):
        run("kto", checkpoint=tmp_path / "run.pt")


def test_a_foreign_torch_file_is_refused(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "run.pt")
    with pytest.raises(ValueError, match="was written by a run with other"):
        run("kto", checkpoint=tmp_path / "run.pt")


# What is refused


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 1000}, "batch_size is 1000"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"schedule": "cosine"}, "'cosine'"),
                ({"rows": []}, "is empty"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_every_loop(method, options, message):
    with pytest.raises(ValueError, match=message):
        run(method, **options)


def test_kto_refuses_a_batch_of_one_row():
    with pytest.raises(ValueError, match="batch_size is 1; KTO needs at least 2"):
        run("kto", batch_size=1)


@pytest.mark.parametrize("option", ["beta", "desirable_weight", "undesirable_weight"])
def test_kto_refuses_negative_settings_of_its_loss(option):
    with pytest.raises(ValueError, match=f"{option} is -1"):
        run("kto", **{option: -1.0})


@pytest.mark.parametrize("loop", ["kto", "dpo"])
def test_a_reference_that_shares_memory_is_refused(loop):
    policy = small_model()
    call, rows = (train.train_kto, ROWS) if loop == "kto" else (train.train_dpo, PAIRS)
    with pytest.raises(ValueError, match=r"share the memory of model\.embed_tokens"):
        call(policy, policy, rows, TOKENIZER, steps=1, batch_size=2)


def test_a_reference_that_shares_a_single_tensor_is_refused():
    policy = small_model()
    reference = reference_of(policy)
    reference.lm_head.weight = policy.lm_head.weight
    with pytest.raises(ValueError, match=r"share the memory of lm_head\.weight"):
        train.train_kto(policy, reference, ROWS, TOKENIZER, steps=1, batch_size=2)


def test_a_reference_that_can_be_trained_is_refused():
    policy = small_model()
    with pytest.raises(ValueError, match="still requires a gradient"):
        train.train_kto(policy, small_model(1), ROWS, TOKENIZER, steps=1, batch_size=2)
    with pytest.raises(ValueError, match="still requires a gradient"):
        train.train_dpo(policy, small_model(1), PAIRS, TOKENIZER, steps=1, batch_size=2)


def test_a_frozen_policy_is_refused():
    policy = reference_of(small_model())
    with pytest.raises(ValueError, match="was it frozen by reference_of"):
        train.train_kto(policy, reference_of(policy), ROWS, TOKENIZER, steps=1, batch_size=2)


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"prompt": "a", "completion": " b"}, KeyError, "row 3.*label"),
        ({"completion": " b", "label": True}, KeyError, "row 3.*prompt"),
        ({"prompt": "a", "completion": "", "label": True}, ValueError, "row 3.*empty"),
        ({"prompt": "a", "completion": " b", "label": 1}, TypeError, "row 3.*label is 1"),
        ({"prompt": "a", "completion": 7, "label": True}, TypeError, "row 3.*string"),
        ("a row", TypeError, "row 3"),
    ],
)
def test_a_bad_row_is_named_with_its_number(bad, error, message):
    with pytest.raises(error, match=message):
        run("kto", rows=[*ROWS[:3], bad])


@pytest.mark.parametrize("bad", [{"prompt": "a", "completion": " "}, {"prompt": "a"}, 5])
def test_a_bad_text_for_sft_is_named_with_its_number(bad):
    with pytest.raises((KeyError, TypeError, ValueError), match="row 2"):
        run("sft", rows=[*ROWS[:2], bad])


def test_dpo_names_a_row_without_a_partner():
    with pytest.raises(KeyError, match=r"pair 1 has no 'rejected'.*pair_up makes pairs"):
        run("dpo", rows=[PAIRS[0], {"prompt": "a", "chosen": " b"}])
    with pytest.raises(KeyError, match="pair 0 has no 'chosen'"):
        run("dpo", rows=ROWS)
    with pytest.raises(TypeError, match="pair 1 is a str"):
        run("dpo", rows=[PAIRS[0], "pair"])
    with pytest.raises(ValueError, match=r"row 1.*empty"):
        run("dpo", rows=[PAIRS[0], PAIRS[1] | {"chosen": " "}])


@pytest.mark.parametrize("method", METHODS)
def test_broken_weights_end_the_run_instead_of_training_on_nan(method, monkeypatch):
    def broken(seed):
        model = tiny_llama(512, hidden_size=32, intermediate_size=64, num_layers=1, dtype=torch.float64)
        with torch.no_grad():
            model.lm_head.weight[0, 0] = float("nan")
        return model

    monkeypatch.setitem(globals(), "small_model", broken)
    with pytest.raises(ValueError, match="NaN"):
        run(method)


def test_weights_from_the_counts_give_both_sides_the_same_total():
    n_up = sum(row["label"] for row in ROWS)
    up, down = balanced_weights(n_up, len(ROWS) - n_up)
    assert up * n_up == pytest.approx(down * (len(ROWS) - n_up))


# --- another reference point, an SFT term, a look on the way ----------------------------------------------------------


def test_another_estimate_of_z0_takes_the_place_of_the_mismatched_one():
    seen = []

    def estimate(logps):
        seen.append(logps)
        return torch.tensor(1.5)

    _, _, history = run("kto", parts=Parts(estimate_z0=estimate))
    assert [row["kl"] for row in history] == [1.5] * 6
    assert set(seen[0]) == {"policy_logps", "reference_logps", "policy_kl_logps", "reference_kl_logps"}
    assert all(tensor.shape == (4,) and not tensor.requires_grad for tensor in seen[0].values())
    sign_of_u = torch.sigmoid(torch.tensor(-0.15, dtype=torch.float64))  # r = 0 at step 1, beta 0.1
    labels = [ROWS[i]["label"] for i in train.Batches(len(ROWS), 4, 0).draw()]
    expected = sum(float(1 - sign_of_u if up else sign_of_u) for up in labels) / 4
    assert history[0]["loss"] == pytest.approx(expected, abs=1e-12)


def test_the_package_s_own_estimate_given_by_hand_changes_nothing():
    def by_hand(logps):
        return (logps["policy_kl_logps"] - logps["reference_kl_logps"]).mean().clamp(min=0)

    policy, _, history = run("kto")
    other, _, again = run("kto", parts=Parts(estimate_z0=by_hand))
    assert same_history(history, again)
    assert same_bits(bits(policy), bits(other))


def test_an_sft_term_adds_its_weight_times_the_mean_loss_a_token():
    demonstrations = world.sft_rows(1, seed=5)[:8]
    _, _, plain = run("kto", steps=1)
    _, _, with_term = run("kto", steps=1, parts=Parts(extra_loss=Demonstrations(demonstrations, 0.3)))
    batch = [demonstrations[i] for i in train.Batches(8, 4, 0).draw()]
    examples = [tokenize_feedback(row | {"label": True}, TOKENIZER) for row in batch]
    n_tokens = sum(sum(example["label_mask"]) for example in examples)
    texts = [row["prompt"] for row in batch], [row["completion"] for row in batch]
    nll = -float(completion_logps(small_model(), *texts, TOKENIZER).sum()) / n_tokens
    assert with_term[0]["loss"] - plain[0]["loss"] == pytest.approx(0.3 * nll, abs=1e-10)


def test_demonstrations_start_afresh_in_another_run():
    term = Demonstrations(world.sft_rows(1, seed=5)[:8], 0.3)
    first, second = (run("kto", steps=3, parts=Parts(extra_loss=term))[2] for _ in range(2))
    assert same_history(first, second)


def test_a_checkpoint_every_0_steps_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every is 0"):
        Checkpoint(tmp_path / "run.pt", every=0)


def test_an_unknown_setting_is_refused():
    with pytest.raises(TypeError, match="lr"):
        run("kto", lr=1e-3)


def test_a_checkpoint_refuses_what_it_cannot_hold(tmp_path):
    for parts in (Parts(estimate_z0=lambda logps: 0.0), Parts(extra_loss=Demonstrations(ROWS, 0.1))):
        with pytest.raises(ValueError, match="a checkpoint does not hold"):
            run("kto", checkpoint=tmp_path / "run.pt", parts=parts)


@pytest.mark.parametrize("method", ["kto", "dpo"])
def test_the_look_on_the_way_sees_the_policy_after_each_step_and_changes_nothing(method):
    seen = []
    look = EachStep(lambda step, model: seen.append((step, bits(model))))
    policy, _, history = run(method, parts=Parts(callbacks=[look]))
    plain, _, again = run(method)
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert same_bits(seen[-1][1], bits(policy))
    assert not same_bits(seen[0][1], seen[1][1])
    assert same_bits(bits(policy), bits(plain))
    assert same_history(history, again)


def tokenized(row):
    return tokenize_feedback({"label": True} | row, TOKENIZER)


def tokenized_pair(pair):
    return {side: tokenized({"prompt": pair["prompt"], "completion": pair[side]}) for side in ("chosen", "rejected")}


@pytest.mark.parametrize("method", ["sft", "kto", "dpo"])
def test_tokenized_rows_train_the_same_run_as_their_texts(method):
    texts = PAIRS if method == "dpo" else ROWS
    ids = [tokenized_pair(pair) for pair in texts] if method == "dpo" else [tokenized(row) for row in texts]
    of_texts, of_ids = (run(method, rows, steps=3)[-1] for rows in (texts, ids))
    assert of_texts == of_ids


@pytest.mark.parametrize("method", ["sft", "kto", "dpo"])
def test_max_length_cuts_text_rows_and_tokenized_rows_alike_and_the_mismatched_ones_too(method, monkeypatch):
    widths = []
    real = train.pad_rows

    def watched(*arguments):
        batch = real(*arguments)
        widths.append(batch["input_ids"].shape[1])
        return batch

    monkeypatch.setattr(train, "pad_rows", watched)
    monkeypatch.setattr("kto_utils.collator.pad_rows", watched)
    texts = PAIRS if method == "dpo" else ROWS
    ids = [tokenized_pair(pair) for pair in texts] if method == "dpo" else [tokenized(row) for row in texts]
    whole = run(method, texts, steps=3)[-1]
    longest = max(widths)
    widths.clear()
    of_texts, of_ids = (run(method, rows, steps=3, max_length=longest - 2)[-1] for rows in (texts, ids))
    assert of_texts == of_ids != whole
    assert max(widths) == longest - 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"label": 1}, TypeError, r"row 2: the tokenized row: label is 1; it must be True or False"),
        ({"label_mask": None}, KeyError, "row 2: the tokenized row has no label_mask"),
        ({"attention_mask": [1]}, ValueError, "row 2: the tokenized row: .*must have one length"),
    ],
)
def test_a_bad_tokenized_row_is_refused_before_the_first_step(change, error, message):
    rows = [tokenized(row) for row in ROWS]
    rows[2] = {name: value for name, value in (rows[2] | change).items() if value is not None}
    with pytest.raises(error, match=message):
        run("kto", rows, steps=1, batch_size=2)


def test_a_tokenized_row_of_whose_completion_max_length_leaves_nothing_is_refused_before_the_first_step():
    rows = [ROWS[0] | {"prompt": "", "completion": " a"}] * 2 + [tokenized(ROWS[2])]
    with pytest.raises(ValueError, match=r"row 2: the tokenized row: no token of its completion is left \(max_l"):
        run("kto", rows, steps=1, batch_size=2, max_length=3)


@pytest.mark.parametrize(
    ("method", "parts"),
    [("sft", {"reference_logps": scored_beforehand}), ("sft", {"estimate_z0": lambda logps: 0.0}),
     ("dpo", {"estimate_z0": lambda logps: 0.0})],
)  # fmt: skip
def test_a_part_that_would_do_nothing_is_refused(method, parts):
    with pytest.raises(ValueError, match=rf"{method.upper()} has no use for Parts\({next(iter(parts))}=...\)"):
        run(method, steps=1, parts=Parts(**parts))


@pytest.mark.parametrize(("kind", "name"), [(True, "undesirable_weight"), (False, "desirable_weight")])
def test_a_weight_for_a_kind_of_thumb_that_no_row_has_is_refused(kind, name):
    rows = [row | {"label": kind} for row in ROWS]
    with pytest.raises(ValueError, match=f"a weight of 3.0 for rows with label {not kind}, and there is none"):
        run("kto", rows, steps=1, **{name: 3.0})
    other = {"desirable_weight", "undesirable_weight"} - {name}
    run("kto", rows, steps=1, **dict.fromkeys(other, 3.0))


@pytest.mark.parametrize("method", METHODS)
def test_a_tokenizer_without_a_pad_token_is_refused_before_the_first_step(method):
    tokenizer, policy = load_tokenizer(), small_model()
    tokenizer.pad_token = None
    models = (policy,) if method == "sft" else (policy, reference_of(policy))
    loop = getattr(train, f"train_{method}")
    with pytest.raises(ValueError, match=r"no pad token; set tokenizer.pad_token, e.g. to its eos token"):
        loop(*models, PAIRS if method == "dpo" else ROWS, tokenizer, steps=1, batch_size=2)
