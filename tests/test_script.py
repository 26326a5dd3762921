"""The script that people copy refuses what cannot train, by row, value and remedy, and stops a run that goes wrong."""

import json
import re
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from test_chat import CHATML, chatml
from transformers import AutoModelForCausalLM, AutoTokenizer

from kto_lab import SCRIPTS, rehearsal
from kto_lab.export import export_world

sys.path.insert(0, str(SCRIPTS))  # as when the script is run: it imports its neighbours by name
import rows as reading
import train_with_trl as script
import watch as watching

sys.path.remove(str(SCRIPTS))
SETTINGS = sorted(SCRIPTS.glob("*.json"))
SMALL = json.loads((SCRIPTS / "small_world.json").read_text(encoding="utf-8"))
ASKED, REPLY = [{"role": "user", "content": "Hello"}], [{"role": "assistant", "content": "Hi"}]
GOOD = [{"prompt": f"Question {i}", "completion": f" answer {i}", "label": i % 2 == 0} for i in range(40)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return export_world(tmp_path_factory.mktemp("world"), n=10)


def write(folder, name, rows):
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def run(monkeypatch, capsys, tmp_path, rows, *options, settings=SMALL, model="no such model"):
    """The script, called as from the shell, in this process; returns (what it wrote to the screen, its last words)."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    rows = write(tmp_path, "rows.jsonl", rows) if isinstance(rows, list) else rows
    given = [str(file), "--cpu", "--model", str(model), "--rows", str(rows), "--output", str(tmp_path / "out" / "deep")]
    monkeypatch.setattr(sys, "argv", ["train_with_trl.py", *given, *options])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    try:
        script.main()
    except SystemExit as end:
        return capsys.readouterr().out, end.code
    return capsys.readouterr().out, None


BAD = {
    "stars": ([*GOOD, GOOD[0] | {"label": 5}], r"rows.jsonl, line 41: label is 5 \(int\).*row\['label'\] == 1"),
    "plus and minus one": ([GOOD[0] | {"label": -1}, *GOOD], r"rows.jsonl, line 1: label is -1"),
    "zero and one": ([GOOD[0] | {"label": 1}, *GOOD], r"line 1: label is 1 \(int\); it must be True or False"),
    "words": ([GOOD[0] | {"label": "true"}, *GOOD], r"line 1: label is 'true' \(str\)"),
    "null": ([GOOD[0] | {"label": None}, *GOOD], r"line 1: the row has no label"),
    "kto_tag": ([{"messages": ASKED + REPLY, "kto_tag": "yes"}], r"line 1: kto_tag is 'yes'"),
    "a string prompt beside whole conversations": (
        [{"prompt": "Hello", "chosen": ASKED + REPLY, "rejected": [*ASKED, REPLY[0] | {"content": "No"}]}],
        r"line 1: prompt is a string and chosen holds messages: does chosen repeat the prompt\? Then leave the field",
    ),
    "six rows and a batch of eight": (
        GOOD[:6], r"6 rows fill no batch of 8 \(8 rows x 1 accumulated x 1 processes\).*_batch_size to at most 6",
    ),
    "one kind": ([row for row in GOOD if row["label"]], r"20 thumbs up and 0 down: KTO needs both kinds"),
    "no rows": ([], r"holds no row"),
    "texts and messages": (
        [*GOOD, {"prompt": ASKED, "completion": REPLY, "label": True}],
        r"rows.jsonl, line 1 holds texts and rows.jsonl, line 41 messages",
    ),
    "equal sides": ([{"prompt": "a", "chosen": "b", "rejected": "b"}], r"line 1: chosen and rejected are the same"),
    "unknown fields": ([{"question": "a", "answer": "b", "label": True}], r"has the fields 'question', 'answer'"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_rows_that_cannot_train_are_refused_before_a_model_is_looked_at(name, monkeypatch, capsys, tmp_path):
    rows, message = BAD[name]
    _, end = run(monkeypatch, capsys, tmp_path, rows)
    assert isinstance(end, str)
    assert end.startswith("train_with_trl: ")
    assert re.search(message, end), end
    assert not (tmp_path / "out").exists()


FILES = {
    "a CSV": ("rows.csv", "prompt,completion,label\na,b,True\n", r"rows\.csv: rows are read from .*pandas\.read_csv"),
    "a JSON array": ("rows.jsonl", json.dumps(GOOD), r"line 1: a JSON array; write one object a line"),
    "a JSON array over many lines": ("rows.jsonl", json.dumps(GOOD, indent=1), r"line 1: no JSON .*one object a line"),
    "a JSON file": ("rows.json", json.dumps(GOOD), r"rows\.json: rows are read from \.jsonl or \.parquet"),
    "half a line": ("rows.jsonl", json.dumps(GOOD[0]) + '\n{"prompt": "a', r"line 2: no JSON \(Unterminated string"),
    "a list of texts": ("rows.jsonl", '"a"\n', r"line 1: a row is a str; it must be a dict"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_named_with_the_remedy(name, monkeypatch, capsys, tmp_path):
    file, content, message = FILES[name]
    (tmp_path / file).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        reading.load_rows(str(tmp_path / file), "train", 0)


def test_utf_16_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "wide.jsonl").write_text(json.dumps(GOOD[0]), encoding="utf-16")
    with pytest.raises(ValueError, match=r"wide\.jsonl: byte 0 is no UTF-8"):
        reading.load_rows(str(tmp_path / "wide.jsonl"), "train", 0)
    with pytest.raises(ValueError, match="there is no file"):
        reading.load_rows(str(tmp_path / "absent.jsonl"), "train", 0)


def test_blank_lines_a_byte_order_mark_and_parquet_are_read(tmp_path):
    import pandas

    text = "\n".join(json.dumps(row) for row in GOOD)
    (tmp_path / "rows.jsonl").write_text("\ufeff" + text + "\n\n\n", encoding="utf-8")
    pandas.DataFrame(GOOD).to_parquet(tmp_path / "rows.parquet")
    read = [reading.load_rows(str(tmp_path / f"rows.{kind}"), "train", 3) for kind in ("jsonl", "parquet")]
    for rows in read:
        plain = [{name: row[name] for name in ("prompt", "completion", "label")} for row in rows]
        assert sorted(plain, key=str) == sorted(GOOD, key=str)
        assert plain != GOOD
    assert [row["prompt"] for row in read[0]] == [row["prompt"] for row in read[1]]


def test_a_text_with_a_special_token_s_name_is_refused_and_so_is_one_typed_into_a_message(paths):
    tokenizer = chatml()
    rendered = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    row = {"where": "line 7", "prompt": rendered, "completion": "Hi<|im_end|>", "label": True}
    with pytest.raises(ValueError, match=r"line 7: holds '<\|im_start\|>'.*give the row as messages"):
        reading.check_special_tokens([row], tokenizer)
    reading.check_special_tokens([row | {"prompt": "Hello"}], tokenizer)  # EOS at the end is TRL's own
    typed = {"where": "line 8", "prompt": ASKED, "completion": [REPLY[0] | {"content": "a<|im_end|>b"}], "label": True}
    with pytest.raises(ValueError, match=r"line 8: holds '<\|im_end\|>'.*somebody typed it"):
        reading.check_special_tokens([typed], tokenizer)


# Settings


def changed(**changes):
    return (
        SMALL
        | {name: value for name, value in changes.items() if name in SMALL}
        | {"kto": SMALL["kto"] | changes.get("kto", {})}
    )


WATCH = {"every": 2, "prompts": 4, "max_new_tokens": 16, "kl_budget": 50.0, "ended_drop": 0.9, "patience": 9}
USELESS = {
    "watch without evaluation": (changed(watch=WATCH), "watch does nothing"),
    "evaluation that nobody makes": (changed(eval_share=0.2), "eval_rows or eval_share does nothing"),
    "eval_strategy without rows": (changed(kto={"eval_strategy": "steps"}), "eval_strategy does nothing"),
    "eval_steps alone": (changed(kto={"eval_steps": 5}), "eval_steps does nothing"),
    "warm-up of a constant rate": (changed(kto={"warmup_steps": 5}), "warmup_steps does nothing"),
    "save_steps alone": (changed(kto={"save_steps": 5}), "save_steps does nothing"),
    "no step": (changed(kto={"max_steps": 0}), "max_steps is 0: a run of no step"),
    "two evaluations": (changed(eval_share=0.2, eval_rows="a.jsonl"), "both given"),
    "unknown": (SMALL | {"betta": 1}, "betta is missing or unknown"),
    "no rate": (
        SMALL | {"kto": {k: v for k, v in SMALL["kto"].items() if k != "learning_rate"}}, "learning_rate is missing",
    ),
    "unknown to TRL": (changed(kto={"betta": 1}), "KTOConfig does not know betta"),
    "half a watch": (changed(watch={"every": 2}, eval_share=0.2), "kl_budget.* is missing or unknown"),
    "no budget": (changed(watch=WATCH | {"kl_budget": 0}, eval_share=0.2), "kl_budget is 0; it must be positive"),
    "watch without a reference": (
        changed(watch=WATCH, eval_share=0.2, kto={"precompute_ref_log_probs": True}), "the reference, and precompute",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", USELESS)
def test_options_that_do_nothing_or_nonsense_are_refused(name):
    settings, message = USELESS[name]
    with pytest.raises(ValueError, match=message):
        script.check_settings(settings)


def test_a_settings_file_that_is_no_json_or_not_there_is_named(monkeypatch, capsys, tmp_path):
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    for name, message in (("bad.json", r"bad\.json is no JSON"), ("absent.json", r"No such file .*absent\.json")):
        monkeypatch.setattr(sys, "argv", ["train_with_trl.py", str(tmp_path / name), "--cpu"])
        with pytest.raises(SystemExit, match=message):
            script.main()


@pytest.mark.parametrize("option", ["--steps", "--max-rows"])
@pytest.mark.parametrize("value", ["0", "-5"])
def test_a_run_of_no_step_or_no_row_is_refused(option, value, monkeypatch, capsys, tmp_path):
    _, end = run(monkeypatch, capsys, tmp_path, GOOD, option, value)
    assert f"{option} is {value}; it must be at least 1" in end


def test_a_run_that_makes_no_step_is_an_error(monkeypatch, capsys, tmp_path, paths):
    class Idle:
        is_fsdp_enabled, train_dataset = False, GOOD
        state = type("State", (), {"global_step": 0})

        def train(self): ...

    monkeypatch.setattr(script, "trainer_of", lambda *_: Idle())
    with pytest.raises(RuntimeError, match="the run made no step: nothing was trained, nothing is written"):
        run(monkeypatch, capsys, tmp_path, GOOD, model=paths["model"])
    assert (tmp_path / "out" / "deep").is_dir()  # made before the training


def test_rows_whose_prompts_fill_max_length_are_counted_and_a_run_without_any_left_is_refused(
    monkeypatch, capsys, tmp_path, paths
):
    settings = changed(kto={"max_length": 4, "max_steps": 1})
    with pytest.raises(ValueError, match="0 rows fill no batch of 8"):
        run(monkeypatch, capsys, tmp_path, paths["thumbs"], settings=settings, model=paths["model"])
    assert "240 rows are left out: their prompt alone fills max_length 4" in capsys.readouterr().out


def test_a_max_length_beyond_the_positions_and_adapters_in_place_of_a_model_are_refused(
    monkeypatch, capsys, tmp_path, paths
):
    settings = changed(kto={"max_length": 4096})
    _, end = run(monkeypatch, capsys, tmp_path, GOOD, settings=settings, model=paths["model"])
    assert "max_length is 4096 and the model knows 512 positions; set it to 512" in end
    for config, why in (
        (PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2), "PROMPT_TUNING: its virtual tokens"),
        (LoraConfig(task_type="CAUSAL_LM"), "LORA: merge it into its model first"),
    ):
        model = AutoModelForCausalLM.from_pretrained(paths["model"])
        get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
        _, end = run(monkeypatch, capsys, tmp_path, GOOD, model=tmp_path / "adapter")
        assert f"is an adapter of the type {why}" in end
        shutil.rmtree(tmp_path / "adapter")


def test_an_output_folder_that_cannot_be_made_ends_the_run_before_the_training(monkeypatch, capsys, tmp_path, paths):
    (tmp_path / "out").write_text("a file", encoding="utf-8")
    monkeypatch.setattr(script, "trainer_of", lambda *_: pytest.fail("it went on"))
    _, end = run(monkeypatch, capsys, tmp_path, GOOD, model=paths["model"])
    assert end.startswith("train_with_trl: ")


def test_a_batch_counts_accumulation_and_processes():
    reading.check_enough(64, 8, 2, 4, "rows")
    with pytest.raises(ValueError, match=r"63 rows fill no batch of 64 \(8 rows x 2 accumulated x 4 .* to at most 7"):
        reading.check_enough(63, 8, 2, 4, "rows")
    with pytest.raises(ValueError, match="to 2, with accumulation 1 and fewer than 5 processes"):
        reading.check_enough(9, 8, 2, 4, "rows")
    with pytest.raises(ValueError, match="per_device_train_batch_size is 1; KTO needs at least 2"):
        reading.check_enough(9, 1, 1, 1, "rows")


# Evaluation rows


def test_evaluation_is_cut_by_prompt_and_never_by_row():
    rows = [row | {"prompt": f"Question {i % 10}"} for i, row in enumerate(GOOD)]
    training, held_out = reading.cut_by_prompt(rows, 0.3, seed=1)
    asked = [{row["prompt"] for row in side} for side in (training, held_out)]
    assert [len(side) for side in asked] == [7, 3]
    assert not asked[0] & asked[1]
    assert len(training) + len(held_out) == len(rows)
    assert reading.cut_by_prompt(rows, 0.3, seed=1) == (training, held_out) != reading.cut_by_prompt(rows, 0.3, seed=2)
    for share, message in (
        (0, "must be between 0 and 1"),
        (1, "must be between 0 and 1"),
        (0.01, "is 0; give evaluation"),
    ):
        with pytest.raises(ValueError, match=message):
            reading.cut_by_prompt(rows, share, seed=1)


def test_evaluation_rows_that_ask_what_was_trained_are_refused(monkeypatch, capsys, tmp_path):
    other = write(tmp_path, "eval.jsonl", [{"prompt": "New", "completion": "a", "label": True}, GOOD[3]])
    settings = changed(kto={"eval_strategy": "steps"})
    _, end = run(monkeypatch, capsys, tmp_path, GOOD, "--eval-rows", str(other), settings=settings)
    assert "1 of 2 evaluation rows ask what a training row asks, the first is eval.jsonl, line 2" in end


def test_too_few_evaluation_rows_are_refused(monkeypatch, capsys, tmp_path):
    other = write(tmp_path, "eval.jsonl", [{"prompt": "New", "completion": "a", "label": True}])
    settings = changed(kto={"eval_strategy": "steps"})
    _, end = run(monkeypatch, capsys, tmp_path, GOOD, "--eval-rows", str(other), settings=settings)
    assert "1 evaluation rows fill no batch of 8" in end


# Imbalance


def test_mixed_batches_are_counted_over_the_whole_step():
    labels = ([True] * 19 + [False]) * 320  # 95 : 5, evenly spread
    torch.manual_seed(0)
    labels = [labels[i] for i in torch.randperm(len(labels)).tolist()]
    shares = {size: reading.share_of_mixed_batches(labels, size) for size in (8, 64)}
    for size, share in shares.items():
        assert share == pytest.approx(1 - 0.95**size, abs=0.05)
    wanted = reading.batch_for_mixed(labels)
    assert 1 - 0.95**wanted >= 0.95 > 1 - 0.95 ** (wanted - 1)
    args = script.arguments_of(SMALL, labels, "unused", cpu=True)
    alone, eight = script.describe(labels, args, 1), script.describe(labels, args, 8)
    assert "steps of 8 rows" in alone
    assert f"set gradient_accumulation_steps to {-(-wanted // 8)}" in alone
    assert "steps of 64 rows, of which with both kinds 9" in eight
    assert "gradient_accumulation_steps" not in eight


# Runs


def watched(**changes):
    kto = {"eval_strategy": "steps", "eval_steps": 2, "logging_steps": 1, "max_steps": 6}
    return changed(eval_share=0.25, watch=WATCH | changes.pop("watch", {}), kto=kto | changes.pop("kto", {}), **changes)


def lines(tmp_path, name):
    text = (tmp_path / "out" / "deep" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


STOPS = {
    "KL": ({"watch": {"kl_budget": 0.2}, "kto": {"learning_rate": 5e-3}}, "nats by sampling, the budget is 0.2"),
    "evaluation": (
        {"watch": {"patience": 1, "kl_budget": 1e9, "ended_drop": 1}, "kto": {"learning_rate": 1e-1}},
        "1 evaluations without a lower loss",
    ),
    "ends": (
        {"watch": {"ended_drop": 0.01, "kl_budget": 1e9}, "kto": {"learning_rate": 3e-2}}, "of the replies end, at the",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPS)
def test_a_run_that_goes_wrong_is_stopped_with_the_reason_and_saved(name, monkeypatch, capsys, tmp_path, paths):
    changes, reason = STOPS[name]
    out, end = run(monkeypatch, capsys, tmp_path, paths["thumbs"], settings=watched(**changes), model=paths["model"])
    assert end is None
    assert "stopped: " in out
    assert reason in out
    stopped = next(row for row in lines(tmp_path, "watch.jsonl") if "stopped" in row)
    assert reason in stopped["stopped"]
    assert stopped["step"] < 6
    assert f"after {stopped['step']} steps; wrote trained" in out
    assert (tmp_path / "out" / "deep" / "trained" / "model.safetensors").is_file()


@pytest.mark.parametrize("lora", [None, {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}])
def test_a_good_run_is_watched_to_its_end(lora, monkeypatch, capsys, tmp_path, paths):
    out, _ = run(monkeypatch, capsys, tmp_path, paths["thumbs"], settings=watched(lora=lora), model=paths["model"])
    assert f"done after 6 steps; wrote {'merged' if lora else 'trained'}" in out
    seen = lines(tmp_path, "watch.jsonl")
    assert [row["step"] for row in seen if "kl" in row] == [0, 2, 4, 6]
    assert [row["step"] for row in seen if "eval_loss" in row] == [2, 4, 6]
    assert seen[0]["kl"] == pytest.approx(0, abs=1e-5)
    assert seen[-1]["eval_loss"] < next(row for row in seen if "eval_loss" in row)["eval_loss"]
    samples = lines(tmp_path, "samples.jsonl")
    assert len(samples) == 4 * 4
    assert {len({row["prompt"] for row in samples}), len({row["reply"] for row in samples}) > 4} == {4, True}
    assert json.loads((tmp_path / "out" / "deep" / "settings.json").read_text(encoding="utf-8"))["lora"] == lora


def test_the_baseline_is_sft_on_the_thumbs_up_alone(monkeypatch, capsys, tmp_path, paths):
    seen = []
    real = script.SFTTrainer
    monkeypatch.setattr(script, "SFTTrainer", lambda **k: seen.append(k) or real(**k))
    settings = changed(kto={"max_steps": 2})
    out, _ = run(
        monkeypatch, capsys, tmp_path, paths["thumbs"], "--sft", "--max-rows", "100", settings=settings,
        model=paths["model"],
    )  # fmt: skip
    assert "done after 2 steps; wrote trained" in out
    rows = reading.load_rows(str(paths["thumbs"]), "train", 0)[:100]
    assert [row["completion"] for row in seen[0]["train_dataset"]] == [r["completion"] for r in rows if r["label"]]
    assert seen[0]["args"].learning_rate == script.SFTConfig.learning_rate == 2e-5


def test_the_reply_s_log_probability_and_the_samples_are_those_of_a_plain_loop(paths):
    model = AutoModelForCausalLM.from_pretrained(paths["model"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(paths["model"])
    prompts = [watching.prompt_ids(tokenizer, text) for text in ("USER: What colour is the sky? ASSISTANT:", "USER:")]
    replies, ended = watching.sample(model, tokenizer, prompts, 12, seed=3)
    assert watching.sample(model, tokenizer, prompts, 12, seed=3) == (replies, ended)
    for reply, end in zip(replies, ended, strict=True):
        assert (tokenizer.eos_token_id in reply) == end
    logps = watching.reply_logps(model, prompts, replies, tokenizer.pad_token_id)
    for prompt, reply, logp in zip(prompts, replies, logps, strict=True):
        with torch.no_grad():
            scores = model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
        plain = sum(scores[len(prompt) + i - 1, token] for i, token in enumerate(reply))
        assert float(logp) == pytest.approx(float(plain), abs=1e-4)


def test_prompts_of_messages_are_rendered_as_trl_renders_them():
    tokenizer = chatml()
    assert tokenizer.chat_template == CHATML
    rendered = tokenizer.apply_chat_template(ASKED, tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(watching.prompt_ids(tokenizer, ASKED)) == rendered
    many = [{"prompt": prompt} for prompt in ("a", "b", "a", "c")]
    assert watching.different_prompts(many, 2) == ["a", "b"]


# What the README says


def test_the_readme_holds_the_table_of_the_rehearsal():
    assert rehearsal.table() in (SCRIPTS / "README.md").read_text(encoding="utf-8")
    assert rehearsal.QWEN_7B.parameters == 7_615_616_512
    hours = rehearsal.stages(rehearsal.QWEN_7B, lora=False, gpus=1)
    assert hours["all"] == pytest.approx(100 * hours["few"])
    assert rehearsal.stages(rehearsal.QWEN_7B, lora=False, gpus=8)["all"] == pytest.approx(hours["all"] / 8)
    # SFT with checkpointing: 8 operations a weight and token in the body, 6 in the head; KTO 14 and 12
    shape = rehearsal.QWEN_7B
    sft = rehearsal.sft_flops(shape, 10, 5, lora=False)
    assert sft == pytest.approx(8 * shape.body * 10 + 6 * shape.head * 5)


REAL = [path for path in SETTINGS if "small_world" not in path.stem]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_a_real_run_follows_the_values_that_the_readme_gives_a_source_for(path):
    settings = json.loads(path.read_text(encoding="utf-8"))
    kto, lora = settings["kto"], settings["lora"]
    assert path.stem in rehearsal.RUNS
    assert (kto["beta"], kto["learning_rate"]) == (0.1, 5e-6 if lora else 1e-6)
    processes = 8 if path.stem == "thumbs_7b_full" else 1
    assert kto["per_device_train_batch_size"] * kto["gradient_accumulation_steps"] * processes == 32
    assert kto["per_device_train_batch_size"] >= 4
    assert (kto["logging_steps"], kto["gradient_checkpointing"], kto["bf16"]) == (1, True, True)
    assert kto["model_init_kwargs"]["dtype"] == ("bfloat16" if lora else "float32")
    assert settings["watch"]["kl_budget"] == 10
    assert settings["eval_share"] == 0.05
    assert kto["eval_strategy"] == "steps"
