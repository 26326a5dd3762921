"""The benchmark: all contenders compute the same, and it counts and reports as it says. No timing is judged."""

import copy
import json
import math
import statistics
import sys
import time

import pytest
import torch
from test_course import course
from torch.utils.flop_counter import FlopCounterMode
from trl_setup import quiet

from kto_course import FIGURES
from kto_lab.bench import __main__ as command
from kto_lab.bench import contenders, figures, growth, measure, report, results, turns, workloads
from kto_lab.bench.workloads import CONTENDERS, Workload
from kto_utils import train
from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.model import tiny_llama

TINY = Workload("tiny", 4, (3, 9), (2, 6))


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    monkeypatch.setattr(workloads, "VOCABULARY", 200)
    monkeypatch.setattr(growth, "VOCABULARY", 200)


@pytest.fixture(scope="module")
def losses():
    steps = 5
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(workloads, "VOCABULARY", 200)
        rows = workloads.rows_of(TINY, steps * TINY.batch_size)
        return {name: run(TINY, rows, steps, "float32", "cpu") for name, run in contenders.RUNS.items()}


# --- the contenders ---


def test_all_contenders_compute_the_same_losses(losses, monkeypatch):
    assert list(losses) == list(CONTENDERS)
    plain = losses["plain"]
    assert len(set(plain)) == len(plain) == 5, "a loss that never moves would hide a difference"
    for name, mine in losses.items():
        assert mine == pytest.approx(plain, abs=1e-5), f"{name} trains on other rows, another order or other settings"


def test_the_loss_curves_would_show_another_order_of_rows(losses):
    rows = workloads.rows_of(TINY, 5 * TINY.batch_size)
    turned = contenders.run_plain(TINY, rows[::-1], 5, "float32", "cpu")
    assert max(abs(a - b) for a, b in zip(turned, losses["plain"], strict=True)) > 1e-5


def test_rows_have_the_lengths_of_their_workload_and_both_thumbs():
    for workload in (TINY, Workload("fixed", 4, (7, 7), (5, 5))):
        tokenizer = workloads.tokenizer_of(workload)
        examples = [tokenize_feedback(row, tokenizer) for row in workloads.rows_of(workload, 200)]
        completions = [sum(example["label_mask"]) for example in examples]
        prompts = [len(example["input_ids"]) - n for example, n in zip(examples, completions, strict=True)]
        assert (min(prompts), max(prompts)) == workload.prompt
        assert (min(completions), max(completions)) == workload.completion
        assert {example["label"] for example in examples} == {True, False}
        assert all(0 not in example["input_ids"] for example in examples), "an unknown word became padding"
    assert workloads.rows_of(TINY, 8) == workloads.rows_of(TINY, 8)


def test_the_small_world_is_trained_from_the_shipped_model():
    workload = workloads.WORKLOADS["small world"]
    model = workloads.model_of(workload, "float32", "cpu")
    rows = workloads.rows_of(workload, 64)
    assert {row["label"] for row in rows} == {True, False}
    batch = KTOPaddingCollator(workloads.tokenizer_of(workload))(
        [tokenize_feedback(row, workloads.tokenizer_of(workload)) for row in rows]
    )
    with torch.no_grad():
        assert sequence_logps(model, batch).mean() > -15, "an untrained model gives a reply about -100 nats"


def test_the_order_of_rows_is_that_of_train_kto(monkeypatch):
    expected = workloads.order_of(12, 4)
    seen = []
    draw = train.Batches.draw
    monkeypatch.setattr(train.Batches, "draw", lambda self: seen.append(draw(self)) or seen[-1])
    rows = workloads.rows_of(TINY, 12)
    contenders.run_ours(TINY, rows, 3, "float32", "cpu")
    dealt = [row for batch in seen[:1] + seen[-2:] for row in batch]  # the reference draws its plan in between
    assert dealt == expected
    assert sorted(expected) == list(range(12))


# --- turns ---


def _echo(connection, name, steps):
    connection.recv()
    for step in range(steps):
        connection.send(("step", (name, step, time.monotonic())))
        connection.recv()
    connection.send(("done", {"name": name}))


def _fails(connection):
    connection.recv()
    try:
        raise ArithmeticError("no such product")
    except ArithmeticError as error:
        connection.send(("failed", repr(error)))


def _dies(connection):
    connection.recv()
    sys.exit(3)


def test_processes_take_turns_and_each_round_starts_at_the_other_end():
    sent, reports = turns.take_turns({"a": (_echo, "a", 3), "b": (_echo, "b", 3)}, 3, 1)
    assert reports == {"a": {"name": "a"}, "b": {"name": "b"}}
    in_time = sorted(sent["a"] + sent["b"], key=lambda turn: turn[2])
    assert [(name, step) for name, step, _ in in_time] == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]


@pytest.mark.parametrize(("job", "cause"), [(_fails, "ill failed:\n.*no such product"), (_dies, "ill ended without")])
def test_a_process_that_fails_is_named_with_its_cause(job, cause):
    with pytest.raises(RuntimeError, match=cause):
        turns.take_turns({"well": (_echo, "a", 2), "ill": (job,)}, 2, 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_contender_that_takes_another_number_of_steps_is_refused(steps):
    with pytest.raises(RuntimeError, match=r"a took . steps instead of 2"):
        turns.take_turns({"a": (_echo, "a", steps)}, 2, 1)


def test_a_measurement_is_complete():
    small = workloads.WORKLOADS["small world"]
    run = measure.measure(small, "cpu", "float32", 1, timed=2, contenders=("plain", "ours"))
    check_run(run, 2)
    assert not measure.is_void(run, "ours")
    assert run["contenders"]["ours"]["seconds_beforehand"] > 0 == run["contenders"]["plain"]["seconds_beforehand"]


def check_run(run, timed):
    assert all(len(run[name]) == timed and min(run[name]) > 1e8 for name in ("product_rates", "copy_rates"))
    for row in run["contenders"].values():
        assert len(row["seconds"]) == timed
        assert min(row["seconds"]) > 0
        assert len(row["losses"]) == timed + workloads.WARM_UP
        assert row["peak_bytes"] >= row["import_bytes"] > 0
    assert {"products", "parameters", "completion_tokens"} <= run["facts"].keys()


# --- the floor ---


def test_the_floor_adds_products_and_the_optimisers_traffic():
    assert measure.floor_seconds(3e9, 1.5e9, 1_000_000, 14e6) == (2.0, 2.0)


def test_the_products_of_a_step_are_those_that_torch_counts():
    model = tiny_llama(200, hidden_size=32, intermediate_size=48, num_heads=2)
    model.set_attn_implementation("eager")  # whose products the counter sees
    tokenizer = workloads.word_tokenizer()
    rows = [tokenize_feedback(row, tokenizer) for row in workloads.rows_of(TINY, 12)]
    batches = [KTOPaddingCollator(tokenizer)(rows[i : i + 4]) for i in (0, 4, 8)]
    counted = 0
    for batch in batches:
        with FlopCounterMode(display=False) as counter:
            sequence_logps(model, batch).sum().backward()
            with torch.no_grad():
                sequence_logps(model, batch, "kl_")
        counted += counter.get_total_flops()
    rotary = counted / 3 / measure.step_products(model.config, batches)
    assert 1 <= rotary < 1.01, f"torch counts {rotary} times as many; only the small rotary table is left out"


# --- results, without measuring ---


def made_up():
    row = {"losses": [0.5, 0.4], "seconds_beforehand": 0.0, "import_bytes": 300e6}
    run = {
        "workload": {"name": "classic", "batch_size": 8}, "device": "cpu", "dtype": "float32",
        "facts": {"products": 1e9, "parameters": 10**6, "completion_tokens": 100.0},
        "product_rates": [1e11, 1e11, 1e11], "copy_rates": [1e10, 1e10, 1e10],
        "contenders": {
            "ours": row | {"seconds": [0.01, 0.016, 0.02], "peak_bytes": 500e6},
            "plain": row | {"seconds": [0.03, 0.048, 0.06], "peak_bytes": 700e6},
            "trl": row | {"seconds": [0.1, 0.16, 0.2], "peak_bytes": 1000e6},
            "trl_beforehand": row | {"seconds": [0.04, 0.064, 0.08], "peak_bytes": 900e6},
        },
    }  # fmt: skip
    growth = {
        "sizes": [4, 8, 16], "rows": [0.5, 0.9, 1.7], "completion": [1.0, 2.0, 4.0], "prompts": [16, 32, 64],
        "head": [1.0, 1.0, 1.0], "plain_head": [1.0, 2.0, 4.0],
    }  # fmt: skip
    machine = {"cores": 2, "processor": "a processor", "torch": "2", "trl": "1", "gpu": None}
    return copy.deepcopy({"machine": machine, "threads": 2, "runs": [run], "growth": growth})


def test_ratios_compare_each_turn_with_itself():
    run = made_up()["runs"][0]
    assert measure.ratio(run, "trl", "ours") == pytest.approx((10, 10, 10))
    run["contenders"]["trl"]["seconds"] = [0.1, 0.32, 0.2]  # a slow turn of one alone
    assert measure.ratio(run, "trl", "ours") == pytest.approx((10, 10, 20))


def test_the_distance_from_the_floor_uses_the_rates_of_each_turn():
    run = made_up()["runs"][0]
    assert measure.floor_of(run) == pytest.approx((0.01, 0.0028))
    assert measure.over_floor(run) == pytest.approx(0.016 / 0.0128)
    run["product_rates"], run["copy_rates"] = [1e11, 1e11 / 1.6, 5e10], [1e10, 1e10 / 1.6, 5e9]  # it slowed down
    assert measure.over_floor(run) == pytest.approx(0.01 / 0.0128)


def test_memory_is_compared_with_and_without_the_imports():
    run = made_up()["runs"][0]
    assert measure.memory_ratio(run, above_imports=False) == pytest.approx(0.5)
    assert measure.memory_ratio(run, above_imports=True) == pytest.approx(200 / 700)


def test_targets_say_what_is_met_and_what_is_missed():
    targets = {target.text: target for target in report.targets_of(made_up())}
    assert len(targets) == 5
    found = {text: (round(target.found, 6), target.met) for text, target in targets.items()}
    assert found == {
        "classic: TRL / train_kto, seconds": (10.0, True),
        "classic: TRL with reference beforehand / train_kto, seconds": (4.0, False),
        "classic: train_kto / floor, seconds": (1.25, True),
        "classic: train_kto / TRL, peak memory": (0.5, True),
        "classic: train_kto / TRL, peak memory above the imports": (round(200 / 700, 6), True),
    }


@pytest.mark.parametrize("wrong", [0.4 + 2e-5, math.nan])
@pytest.mark.parametrize("name", ["ours", "trl"])
def test_a_row_with_other_losses_is_void_and_keeps_no_promise(name, wrong):
    results = made_up()
    results["runs"][0]["contenders"][name]["losses"] = [0.5, wrong]
    assert measure.is_void(results["runs"][0], name)
    assert not measure.is_void(results["runs"][0], "trl_beforehand")
    broken = {target.text for target in report.targets_of(results) if not target.met}
    assert "classic: TRL / train_kto, seconds" in broken
    line = next(line for line in report.table(results).splitlines() if line.startswith(f"{CONTENDERS[name]:32s}"))
    assert "void: losses differ by" in line
    assert "tokens" not in line


def test_the_table_is_built_from_the_results():
    text = report.table(made_up())
    row = next(line for line in text.splitlines() if line.startswith("TRL 1.16  "))
    assert " ".join(row.split()) == "TRL 1.16 0.1600 (0.1000 to 0.2000) 10.00 625 1000 ( 700) 0.00 0e+00"
    for part in (
        "2 cores of a processor, 2 threads", "on cpu", "floor: 0.0128 s", "10.0 GB/s: 0.0028 s", "1.25 times as long",
        "MISSED classic: TRL with reference beforehand / train_kto, seconds: 4.00 (wanted: at least 5.0)",
        "met    classic: train_kto / floor, seconds: 1.25 (wanted: at most 1.5)", "over completion tokens: 1.00",
        "ours 1.00, plain 4.00 times",
    ):  # fmt: skip
        assert part in text, text
    assert "profile" not in text
    assert "  0.12500  AdamW" in report.table(made_up() | {"profiles": {"classic": {"AdamW": 0.125}}})


@pytest.mark.parametrize(("k", "constant"), [(1.0, 0.0), (1.0, 0.3), (2.0, 0.1), (0.5, 0.0)])
def test_the_exponent_of_a_power_law_is_found_with_and_without_a_constant(k, constant):
    sizes = [4, 8, 16, 32, 64]
    assert growth.exponent(sizes, [constant + 0.02 * size**k for size in sizes]) == pytest.approx(k, abs=0.011)


def test_growth_is_measured_for_each_size():
    found = growth.growth("cpu", repeats=1, largest=8)
    assert found["sizes"] == [4, 8]
    for name in ("rows", "completion", "prompts", "head", "plain_head"):
        assert len(found[name]) == 2
        assert min(found[name]) > 0


def test_the_profile_names_the_parts_of_a_step_and_two_alternatives():
    parts = growth.profile(TINY, "float32", "cpu", repeats=3)
    assert {"rows, forward", "rows, backward", "mismatched rows, forward", "clipping", "AdamW, fused"} <= parts.keys()
    assert sum("instead" in part for part in parts) == 2


def test_memory_peaks_stay_when_the_memory_is_given_back():
    before = turns.memory_bytes(peak=True)
    block = torch.ones(2**26)
    assert turns.memory_bytes(peak=False) > 2**28
    del block
    assert turns.memory_bytes(peak=True) >= max(before, turns.memory_bytes(peak=False))


def test_results_are_written_whole_and_read_again(tmp_path):
    results.write_results(made_up(), tmp_path / "results.json")
    assert results.load_results(tmp_path / "results.json") == json.loads(json.dumps(made_up()))
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    with pytest.raises(FileNotFoundError, match=r"`python course\.py bench`"):
        results.load_results(tmp_path / "nothing.json")


def test_figures_are_drawn_from_the_results_with_their_numbers_in_words(tmp_path, monkeypatch):
    monkeypatch.setenv("KTO_FIGURES", str(tmp_path))
    paths = figures.draw_figures(made_up())
    assert [path.stem for path in paths] == ["bench_step", "bench_memory", "bench_losses", "bench_growth"]
    texts = [path.with_suffix(".txt").read_text(encoding="utf-8") for path in paths]
    assert "TRL 1.16 0.160" in texts[0]
    assert "floor 0.013" in texts[0]
    assert "train_kto 500" in texts[1]
    assert "1.00 for completion tokens" in texts[3]


@pytest.mark.parametrize("arguments", [["no such workload"], ["--steps", "0"], ["--threads", "0"]])
def test_wrong_arguments_are_refused_before_anything_runs(arguments, monkeypatch, capsys):
    monkeypatch.setattr(command, "run_all", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert "error" in capsys.readouterr().err


def test_a_partial_run_prints_and_stores_nothing(monkeypatch, capsys):
    monkeypatch.setattr(command, "run_all", lambda *_: made_up())
    monkeypatch.setattr(command, "write_results", lambda *_: pytest.fail("stored"))
    command.main(["classic"])
    assert "not stored" in capsys.readouterr().out


def test_the_command_installs_what_the_tests_need():
    assert course.requirement_files("bench") == (course.LEARNER, course.TEACHER, course.TESTER)
    assert course.steps_of("bench", ["classic"], "python") == [["python", "-m", "kto_lab.bench", "classic"]]


# --- the committed results ---


def test_the_stored_results_are_complete_and_none_is_void():
    stored = results.load_results()
    assert {run["workload"]["name"] for run in stored["runs"]} == set(workloads.WORKLOADS)
    for run in stored["runs"]:
        assert set(run["contenders"]) == set(CONTENDERS)
        check_run(run, workloads.TIMED)
        assert not any(measure.is_void(run, name) for name in CONTENDERS)
        assert statistics.median(run["contenders"]["trl"]["seconds"]) > 0
    assert len(report.targets_of(stored)) == 7
    assert ("profiles" in stored) is not all(target.met for target in report.targets_of(stored))
    assert all(name in report.table(stored) for name in CONTENDERS.values())


@pytest.mark.parametrize("name", ["bench_step", "bench_memory", "bench_losses", "bench_growth"])
def test_the_figures_of_the_stored_results_exist(name):
    assert (FIGURES / f"{name}.png").is_file()
    assert (FIGURES / f"{name}.txt").is_file()
