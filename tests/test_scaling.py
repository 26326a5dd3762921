"""Several processes and one give the same run; what is lost is said; TRL takes over, and its pitfalls are real."""

import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import scaling_worker as worker
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from accelerate.commands.launch import launch_command_parser
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trl_setup import quiet

from kto_lab import scaling, trl_pitfalls
from kto_lab.checkpoints import load_checkpoint
from kto_lab.distributed import Processes
from kto_lab.export import export_world
from kto_utils import train
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.evaluate import rates
from kto_utils.logprobs import sequence_logps
from kto_utils.model import load_model, load_reference_model
from kto_utils.tokenizer import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
SCALING = ROOT / "kto_lab" / "scripts"
LIMIT = 300  # seconds for any run of several processes; they take about ten on a quiet machine
KTO = {"method": "kto", "options": {}}


def launch(folder, *command, config="two_processes_cpu.yaml", limit=LIMIT):
    """`accelerate launch` with everything it caches in `folder`. The whole family of processes ends with it."""
    if os.name == "nt":
        pytest.skip("torch's launcher is not proven on Windows, whose builds lack libuv")
    env = os.environ | {
        "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache"),
        "TQDM_DISABLE": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SCALING / config), *command],
        cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    try:
        output = process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        for member in [*psutil.Process(process.pid).children(recursive=True), process]:
            member.kill()
        pytest.fail(f"no end after {limit} s:\n{process.communicate()[0][-3000:]}")
    return process.returncode, output


def run_jobs(folder, jobs, **options):
    return launch(folder, str(ROOT / "tests" / "scaling_worker.py"), str(folder), json.dumps(jobs), **options)


def checkpointed(path, **options):
    return {"method": "kto", "options": {"checkpoint": str(path)} | options}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes, started once, make of several jobs: name -> (results of rank 0 and 1, weights of both)."""
    folder = tmp_path_factory.mktemp("two processes")
    jobs = {
        "kto": {"method": "kto", "options": {"log_every": 5}},
        "kto scored beforehand": {"method": "kto", "options": {"scored_beforehand": True}},
        "sft": {"method": "sft", "options": {}},
        "dpo": {"method": "dpo", "options": {"batch_size": 3}},
        "uninterrupted": checkpointed(folder / "whole.pt"),
        "two rows": {"method": "kto", "options": {"batch_size": 2}},
        "other seed": {"method": "kto", "options": {}, "differ": "seed"},
        "other weights": {"method": "kto", "options": {}, "differ": "weights"},
        "too few rows": {"method": "sft", "options": {"batch_size": 1}},
    }
    status, output = run_jobs(folder, list(jobs.values()))
    assert status == 0, output[-3000:]
    results = [json.loads((folder / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    weights = [torch.load(folder / f"rank_{rank}.pt") for rank in (0, 1)]
    named = {name: [results[rank][number] for rank in (0, 1)] for number, name in enumerate(jobs)}
    finished = [name for name in jobs if "history" in named[name][0]]
    held = {name: [w[number] for w in weights] for number, name in enumerate(finished)}
    return {name: {"ranks": named[name], "weights": held.get(name)} for name in jobs} | {"output": output}


def largest_difference(a, b):
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True))


def same_numbers(a, b):
    return repr(a) == repr(b)  # repr, since NaN is not equal to itself


# Two processes


@pytest.mark.parametrize("name", ["kto", "kto scored beforehand", "sft", "dpo", "two rows"])
def test_two_processes_train_what_one_trains(name, two):
    method, options = {
        "kto": ("kto", {}), "kto scored beforehand": ("kto", {"scored_beforehand": True}), "sft": ("sft", {}),
        "dpo": ("dpo", {"batch_size": 3}), "two rows": ("kto", {"batch_size": 2}),
    }[name]  # fmt: skip
    model, history = worker.run(method, options)
    shared = two[name]["ranks"][0]["history"]
    assert len(shared) == len(history) == 10
    for mine, theirs in zip(history, shared, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-10), "sums must be divided by global counts"
        assert theirs == pytest.approx(mine, abs=1e-8, nan_ok=True), "kl and rewards in the history must be global"
    for weights in two[name]["weights"]:
        assert largest_difference(model.parameters(), weights) < 1e-10


def test_the_run_that_is_compared_has_a_kl_above_0_shares_of_unequal_size_and_shares_with_one_kind(two):
    history = two["kto"]["ranks"][0]["history"]
    assert {row["kl"] > 0 for row in history} == {True, False}
    batches, labels = train.Batches(30, 7, 5), [row["label"] for row in worker.rows()]
    shares = [Processes(rank, 2).share(7) for rank in (0, 1)]
    assert [share.stop - share.start for share in shares] == [3, 4]
    kinds = [
        [len({labels[i] for i in drawn[share]}) for share in shares] for drawn in (batches.draw() for _ in range(10))
    ]
    assert any(1 in both for both in kinds)


@pytest.mark.parametrize("name", ["kto", "dpo", "sft"])
def test_all_processes_hold_the_same_weights_and_history_to_the_last_bit(name, two):
    first, second = two[name]["ranks"]
    assert same_numbers(first["history"], second["history"])
    assert largest_difference(*two[name]["weights"]) == 0.0


def test_only_process_0_prints_and_writes_checkpoints(two):
    assert [rank["saves"] for rank in two["uninterrupted"]["ranks"]] == [[3, 6, 9], []]
    lines = [line for line in two["output"].splitlines() if line.startswith("step ")]
    assert [line.split()[1] for line in lines] == ["5", "10"]


@pytest.mark.parametrize("name", ["other seed", "other weights"])
def test_processes_that_were_given_different_things_say_so(name, two):
    for rank in two[name]["ranks"]:
        assert "the processes start with different" in rank["error"]


def test_a_batch_smaller_than_the_number_of_processes_is_refused(two):
    for rank in two["too few rows"]["ranks"]:
        assert "cannot be shared by 2 processes" in rank["error"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_killed_process_ends_the_run_with_a_clear_error_and_the_rest_is_the_same_to_the_last_bit(
    which, two, tmp_path
):
    job = checkpointed(tmp_path / "run.pt")
    start = time.monotonic()
    status, output = run_jobs(tmp_path, [job | {"interrupt": {"how": "killed", "which": which, "at_step": 8}}])
    assert status != 0
    assert time.monotonic() - start < 60
    # The survivor says so, unless the launcher was quicker to name the dead one and to end it.
    assert f"process {1 - which} of 2 lost another one" in output or f"local_rank: {which}" in output, output[-3000:]
    assert load_checkpoint(tmp_path / "run.pt", torch.load(tmp_path / "run.pt")["fingerprint"])["step"] == 6
    if which == 0:
        return  # one continued run is enough
    status, output = run_jobs(tmp_path, [job])
    assert status == 0, output[-3000:]
    continued = json.loads((tmp_path / "rank_0.json").read_text())[0]
    assert continued["saves"] == [9], "it did not continue from step 6"
    assert same_numbers(continued["history"], two["uninterrupted"]["ranks"][0]["history"])
    assert largest_difference(torch.load(tmp_path / "rank_1.pt")[0], two["uninterrupted"]["weights"][0]) == 0.0


def test_a_process_that_is_stuck_is_given_up_after_the_patience(tmp_path):
    status, output = run_jobs(
        tmp_path, [KTO | {"patience": 3, "interrupt": {"how": "asleep", "which": 1, "at_step": 2}}], limit=60
    )
    assert status != 0
    assert "process 0 of 2 lost another one, which has ended or is stuck" in output, output[-3000:]


# What would be wrong


def batch_and_logps(n_rows=8):
    policy, reference = worker.models()
    examples = [tokenize_feedback(row, worker.TOKENIZER) for row in worker.rows()[:n_rows]]
    collate = KTOPaddingCollator(worker.TOKENIZER)
    return policy, reference, examples, collate


def test_rotating_inside_each_share_gives_another_reference_point():
    policy, reference, examples, collate = batch_and_logps()

    def borrowed(examples):
        batch = collate(examples)
        with torch.no_grad():
            return sequence_logps(policy, batch, "kl_"), sequence_logps(reference, batch, "kl_")

    whole = borrowed(examples)
    inside = [torch.cat(parts) for parts in zip(borrowed(examples[:4]), borrowed(examples[4:]), strict=True)]
    difference = abs(float((whole[0] - whole[1]).mean() - (inside[0] - inside[1]).mean()))
    assert difference > 0.01, "the two ways are to differ visibly, or the comparison of two processes shows nothing"


def test_a_share_is_every_row_once_and_no_share_is_empty():
    for size in range(1, 6):
        for n_rows in range(size, 12):
            shares = [Processes(rank, size).share(n_rows) for rank in range(size)]
            assert [row for share in shares for row in range(n_rows)[share]] == list(range(n_rows))
            lengths = [share.stop - share.start for share in shares]
            assert min(lengths) >= 1
            assert max(lengths) - min(lengths) <= 1


def test_alone_nothing_is_copied_or_exchanged():
    here, numbers = Processes(), torch.tensor([1.0, 2.0])
    assert here.gathered(numbers, 2) is numbers
    assert here.total(numbers) is numbers
    assert not torch.distributed.is_initialized()


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # some clusters set it for other reasons
    assert Processes.of_launcher() == Processes(0, 1)


# The hand-over to TRL

SETTINGS = sorted(SCALING.glob("*.json"))
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)


def script():
    """The script as a module; it imports its neighbours by name, as when it is run."""
    sys.path.insert(0, str(SCALING))
    try:
        return importlib.import_module("train_with_trl")
    finally:
        sys.path.remove(str(SCALING))


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return export_world(tmp_path_factory.mktemp("small world"), n=20)


def train_with_trl(folder, settings, model, rows, *arguments, **options):
    status, output = launch(
        folder, str(SCALING / "train_with_trl.py"), str(SCALING / settings), "--model", str(model), "--rows", str(rows),
        "--output", str(folder / "out"), "--cpu", *arguments, **options,
    )  # fmt: skip
    assert status == 0, output[-4000:]
    return output


def test_the_exported_model_and_tokenizer_are_the_shipped_ones(paths):
    assert set(paths) == {"model", "thumbs", "pairs"}
    loaded, shipped = load_model(paths["model"]), load_reference_model()
    assert largest_difference(loaded.parameters(), shipped.parameters()) < 1e-7  # written in float32
    theirs = AutoModelForCausalLM.from_pretrained(paths["model"])
    ids = torch.tensor([[1, 40, 50, 60]])
    torch.testing.assert_close(theirs(input_ids=ids).logits.double(), shipped(input_ids=ids).logits, rtol=0, atol=1e-4)
    tokenizer, ours = AutoTokenizer.from_pretrained(paths["model"]), load_tokenizer()
    for row in load_eight_rows():
        assert tokenizer(row["prompt"])["input_ids"] == ours(row["prompt"])["input_ids"]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_exported_rows_hold_what_the_formats_ask_for(paths):
    thumbs, pairs = (lines_of(paths[name]) for name in ("thumbs", "pairs"))
    assert len(thumbs) == 24 * 20
    assert all(set(row) == {"prompt", "completion", "label"} and isinstance(row["label"], bool) for row in thumbs)
    assert pairs
    assert all(set(pair) == {"prompt", "chosen", "rejected"} for pair in pairs)


@pytest.mark.parametrize("settings", ["small_world.json", "small_world_lora.json"])
def test_trl_on_two_processes_trains_the_export_and_the_result_loads_and_scores_better(settings, paths, tmp_path):
    output = train_with_trl(tmp_path, settings, paths["model"], paths["thumbs"], "--steps", "24")
    assert "2 processes, 480 rows" in output
    lora = "lora" in settings
    assert (tmp_path / "out" / "trained" / "adapter_model.safetensors").exists() == lora
    model = load_model(tmp_path / "out" / ("merged" if lora else "trained"))
    before, after = rates(load_model(paths["model"])), rates(model)
    assert after["thumbs_up"] > before["thumbs_up"] + 0.05, (before, after)


def as_chat(rows):
    """Rows as public data sets hold them: messages, and in pairs the prompt inside both of them."""
    made = []
    for row in rows:
        asked = [{"role": "user", "content": row["prompt"]}]
        said = {name: [{"role": "assistant", "content": row[name]}] for name in ("completion", "chosen", "rejected")
                if name in row}  # fmt: skip
        if "label" in row:
            made.append({"prompt": asked, "completion": said["completion"], "label": row["label"]})
        else:
            made.append({name: asked + said[name] for name in ("chosen", "rejected")})
    return made


@pytest.mark.parametrize(
    ("settings", "rows", "config", "result"),
    [
        ("thumbs_0.5b.json", "thumbs", "two_processes_cpu.yaml", "trained"),
        ("thumbs_7b_full.json", "thumbs", "fsdp.yaml", "trained"),
        ("thumbs_7b_lora.json", "thumbs", "fsdp.yaml", "merged"),
        ("pairs_8b_lora.json", "pairs", "two_processes_cpu.yaml", "merged"),
    ],
)
def test_the_settings_for_a_real_run_run_from_end_to_end_on_the_small_model(
    settings, rows, config, result, paths, tmp_path
):
    model = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(paths["model"]).save_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(paths["model"])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(model)
    chat = tmp_path / "chat.jsonl"
    chat.write_text("".join(json.dumps(row) + "\n" for row in as_chat(lines_of(paths[rows]))), encoding="utf-8")
    # Of the FSDP file everything but the sharding itself runs here: accelerate shards on accelerators only.
    more = ("--num_processes", "2", "--mixed_precision", "no") if config == "fsdp.yaml" else ()
    real = json.loads((SCALING / settings).read_text(encoding="utf-8"))
    real["eval_share"], real["kto"]["eval_steps"], real["kto"]["max_length"] = 0.2, 1, 512  # small as the model
    real["watch"] |= {"every": 1, "max_new_tokens": 8, "ended_drop": 1}
    small = tmp_path / "settings.json"
    small.write_text(json.dumps(real), encoding="utf-8")
    status, output = launch(
        tmp_path, *more, str(SCALING / "train_with_trl.py"), str(small), "--model", str(model),
        "--rows", str(chat), "--output", str(tmp_path / "out"), "--cpu", "--steps", "2", config=config,
    )  # fmt: skip
    assert status == 0, output[-4000:]
    assert "2 processes" in output
    assert f"done after 2 steps; wrote {result}" in output
    seen = lines_of(tmp_path / "out" / "watch.jsonl")
    assert [row["step"] for row in seen if "kl" in row] == [0, 1, 2]
    assert [row["step"] for row in seen if "eval_loss" in row] == [1, 2]
    assert seen[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert {row["step"] for row in lines_of(tmp_path / "out" / "samples.jsonl")} == {0, 1, 2}
    assert torch.isfinite(load_model(tmp_path / "out" / result)(input_ids=torch.tensor([[1, 5]])).logits).all()


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_every_argument_in_the_settings_is_one_of_the_installed_trl_and_peft(path):
    settings = json.loads(path.read_text(encoding="utf-8"))
    script().check_settings(settings)
    if settings["lora"]:
        known = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
        assert set(settings["lora"]) <= known
        LoraConfig(**settings["lora"])


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.stem)
def test_the_script_sets_what_guards_against_trls_pitfalls_whatever_the_settings(path, tmp_path):
    settings = json.loads(path.read_text(encoding="utf-8"))
    args = script().arguments_of(settings, [True, False, False], str(tmp_path), cpu=True)
    assert args.dataset_num_proc is None
    assert args.dataloader_drop_last
    assert args.per_device_eval_batch_size == args.per_device_train_batch_size > 1
    assert (args.desirable_weight, args.undesirable_weight) == (2.0, 1.0)


@pytest.mark.parametrize("path", sorted(SCALING.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_line_of_an_accelerate_file_is_known_to_the_installed_accelerate(path):
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(settings) <= {field.name for field in dataclasses.fields(ClusterConfig)}
    options = {action.dest for action in launch_command_parser()._actions}
    assert set(settings.get("fsdp_config", {})) <= options


# TRL's pitfalls


@pytest.fixture(scope="module")
def pitfalls():
    with quiet():
        return trl_pitfalls.pitfalls()


def test_trl_makes_batches_of_one_kind_of_thumb_from_pairs_unless_they_are_shuffled(pitfalls):
    assert pitfalls["pairs handed over as they are"]["mixed"] <= 1
    shuffled = pitfalls["pairs cut and shuffled first"]
    assert shuffled["mixed"] / shuffled["batches"] > 0.95


def test_trl_with_two_workers_gives_rows_their_own_completion(pitfalls):
    assert pitfalls["two workers prepare 18 rows"]["own"] == 2
    assert pitfalls["two workers prepare 18 rows"]["foreign"] == 3
    assert pitfalls["one worker prepares 18 rows"]["own"] == pitfalls["one worker prepares 18 rows"]["foreign"] == 0


def test_trl_matches_a_last_batch_of_one_with_itself_unless_it_is_dropped(pitfalls):
    assert pitfalls["9 rows, batches of 4"]["own"] == 1
    assert pitfalls["9 rows, batches of 4, last one dropped"] == {"batches": 2, "mixed": 2, "own": 0, "foreign": 0}


def test_the_results_that_the_lesson_shows_are_those_of_this_trl(pitfalls):
    assert scaling.load_results()["pitfalls"] == pitfalls


def test_pairs_that_the_script_loads_come_in_mixed_batches(paths):
    with quiet():
        rows = script().load_rows(str(paths["pairs"]), "train", 0)
    assert script().share_of_mixed_batches([row["label"] for row in rows], 8) > 0.9
    assert script().share_of_mixed_batches([True] * 16 + [False] * 16, 8) == 0.0


# Estimates


@pytest.mark.parametrize("name", scaling.SHAPES)
def test_parameters_are_counted_as_the_library_counts_them(name):
    shape = scaling.SHAPES[name]
    config_class, model_class = (Qwen2Config, Qwen2ForCausalLM) if shape.bias else (LlamaConfig, LlamaForCausalLM)
    config = config_class(
        vocab_size=shape.vocab, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        model = model_class(config)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_adapters_are_counted_as_peft_counts_them():
    from peft import get_peft_model

    shape = scaling.Shape(64, 96, 3, 4, 2, 50)
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2,
        ))  # fmt: skip
        adapted = get_peft_model(model, LoraConfig(r=5, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == shape.lora_parameters(5)


def test_memory_for_all_weights_is_twenty_bytes_a_parameter_and_falls_with_the_processes():
    shape = scaling.SHAPES["Llama-3.1-8B"]
    alone, eight = (scaling.memory(shape, 1, 16, processes=n) for n in (1, 8))
    standing = ("weights", "gradients", "optimizer", "reference")
    assert sum(alone[name] for name in standing) == 20 * shape.parameters
    assert sum(eight[name] for name in standing) == 20 * shape.parameters / 8
    assert eight["activations"] == alone["activations"]
    assert scaling.memory(shape, 1, 16, reference=False)["reference"] == 0


def test_operations_are_six_per_weight_and_token_for_a_step_without_its_three_extra_forward_passes():
    shape = scaling.Shape(64, 96, 3, 4, 2, 50)
    plain = scaling.step_flops(shape, 10, 10, checkpointing=False)
    assert plain == (6 + 3 * 2) * 10 * (shape.body + shape.head)
    beforehand = scaling.step_flops(shape, 10, 10, checkpointing=False, reference=False)
    assert beforehand == (6 + 2) * 10 * (shape.body + shape.head)


def test_the_memory_estimate_holds_at_the_measured_point_it_was_not_made_from():
    points = scaling.load_results()["points"]
    check = next(point for point in points[2:] if point["lora_rank"] is None)
    estimate = scaling.checked(check, scaling.head_copies_of(points))
    assert estimate["peak_bytes"] == pytest.approx(check["peak_bytes"], rel=0.2)
    assert check["seconds"] > 0.8 * estimate["floor_seconds"], "a step cannot be faster than its operations"
