"""The conformance file: in step with its generator, right by four implementations, and able to fail."""

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from operator import itemgetter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

CONFORMANCE = Path(__file__).parent / "conformance"
sys.path.append(str(CONFORMANCE))

import generate  # noqa: E402
import run  # noqa: E402
import specification  # noqa: E402
import torch_rung  # noqa: E402

from kto_lab import RESULTS  # noqa: E402

CASES = run.read_cases()
LOSS, LOGPS = ([case for case in CASES if case["part"] == part] for part in ("loss", "logps"))
AUTHORS = json.loads((RESULTS / "halos_kto_cases.json").read_text(encoding="utf-8"))["cases"]
F64 = torch.float64


def t(numbers):
    return torch.tensor(numbers, dtype=F64)


def names(cases):
    return {case["name"] for case in cases}


def guarding(fault):
    found = names(case for case in CASES if fault in case["guards"])
    assert found, f"no case guards {fault!r}"
    return found


def failing(module, **tolerance):
    return names(case for case in CASES if run.failure(module, case, **tolerance))


def command(script, *arguments):
    return subprocess.run(
        [sys.executable, str(CONFORMANCE / script), *map(str, arguments)], capture_output=True, text=True, check=False
    )


# ---------------------------------------------------------------- the file


def test_the_file_is_what_the_generator_writes_byte_for_byte():
    committed = generate.FILE.read_bytes()
    assert committed == generate.document().encode("utf-8"), (
        "kto_v1.json is not what generate.py writes: it was edited by hand, or the specification or the generator "
        "changed. Version 1 is fixed; an addition belongs into a version 2"
    )


def test_check_sees_one_changed_digit(tmp_path, monkeypatch, capsys):
    changed = tmp_path / "kto_v1.json"
    changed.write_bytes(generate.FILE.read_bytes().replace(b"0.5", b"0.6", 1))
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    generate.main()
    assert f"in step with the generator: {len(CASES)} cases" in capsys.readouterr().out
    monkeypatch.setattr(generate, "FILE", changed)
    with pytest.raises(SystemExit, match=r"kto_v1.json is not what the generator writes"):
        generate.main()


def test_the_generator_writes_the_file_it_checks(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "FILE", tmp_path / "kto_v1.json")
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    generate.main()
    assert generate.FILE.read_bytes() == run.FILE.read_bytes()


def test_there_are_at_least_60_cases_with_unique_names():
    assert len(CASES) >= 60
    repeated = [name for name, times in Counter(case["name"] for case in CASES).items() if times > 1]
    assert not repeated, f"names given twice: {repeated}"
    assert len(LOSS) >= 45
    assert len(LOGPS) >= 25
    assert LOSS + LOGPS == CASES, "a case belongs to no part"


def test_the_file_is_strict_json_and_its_expected_numbers_are_finite():
    stored = json.loads(generate.FILE.read_text(encoding="utf-8"), parse_constant=run.refuse)
    assert set(stored) == {"about", "cases"}
    with pytest.raises(ValueError, match="-Infinity is no JSON number"):
        json.loads("[-Infinity]", parse_constant=run.refuse)
    strings = set()
    for case in stored["cases"]:
        generate.mapped(lambda x: strings.add(x) if isinstance(x, str) else None, case.get("logits", []))
        generate.mapped(lambda x, name=case["name"]: numbers_only(x, name), case["expected"])
    assert strings == {"-inf", "nan"}


def numbers_only(x, name):
    assert isinstance(x, float), f"{name}: {x!r} is expected, which is no number"
    assert abs(x) < float("inf"), f"{name}: {x!r} is expected, which is not finite"


def test_every_case_has_the_fields_of_its_part_and_fitting_shapes():
    of_loss = {"policy_logps", "reference_logps", "kl_policy_logps", "kl_reference_logps", "label"}
    of_loss |= {"beta", "desirable_weight", "undesirable_weight"}
    for case in LOSS:
        assert set(run.inputs_of(case)) == of_loss, case["name"]
        assert set(case["expected"]) == {"z0", "losses", "loss", "grad_policy_logps"}, case["name"]
    for case in LOGPS:
        assert set(run.inputs_of(case)) == {"logits", "input_ids", "attention_mask", "label_mask"}, case["name"]
        rows, length = len(case["input_ids"]), len(case["input_ids"][0])
        assert [len(row) for row in case["expected"]["token_logps"]] == [length - 1] * rows, case["name"]


def test_the_page_explains_every_guard_and_states_the_counts():
    page = (CONFORMANCE / "README.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", page, re.M))
    assert explained == {fault for case in CASES for fault in case["guards"]} == set(FAULTS) | set(WRONG)
    assert f"holds {len(CASES)} small cases" in page
    assert f"{len(LOSS)} from sequence log-probabilities" in page
    assert f"{len(LOGPS)} from logits" in page


# ---------------------------------------------------------------- right by four implementations


@pytest.mark.parametrize("case", CASES, ids=itemgetter("name"))
def test_the_specification_passes(case):
    assert run.failure(specification, case) is None


def test_the_specification_keeps_the_relative_precision_of_the_far_tail():
    tail = [case for case in LOSS if "saturated: " in case["name"]]
    assert min(min(case["expected"]["losses"]) for case in tail) < 1e-43
    for case in tail:
        assert run.failure(specification, case, atol=0.0) is None, case["name"]


@pytest.mark.parametrize("case", CASES, ids=itemgetter("name"))
def test_torch_passes(case):
    assert run.failure(torch_rung, case) is None, "look at kto_utils.losses or kto_utils.logprobs"


@pytest.mark.parametrize("case", LOGPS, ids=itemgetter("name"))
def test_torch_gives_exactly_0_outside_the_completion(case):
    by_token = torch_rung.logps(**run.inputs_of(case))["token_logps"]
    scored = torch.tensor(case["label_mask"])[:, 1:].bool()
    assert not by_token[~scored].any()


def test_torch_in_float32_passes_all_but_one_case_at_1e_5(monkeypatch):
    monkeypatch.setattr(torch_rung, "DTYPE", torch.float32)
    assert failing(torch_rung, rtol=1e-5, atol=1e-5) == {"logits near 10000: no overflow"}


def test_the_authors_24_cases_agree_with_the_specification():
    assert len(AUTHORS) == 24
    for number, case in enumerate(AUTHORS):
        found = specification.loss(**run.inputs_of(case))
        for field, expected in case["expected"].items():  # z0 is float32 there, hence the tolerance
            wrong = run.difference(field, found[field], expected, rtol=1e-6, atol=0.0)
            assert wrong is None, f"the authors' case {number}: {wrong}"


def test_a_row_has_the_same_log_probability_beside_other_neighbours():
    beside_one, among_three = (case for case in LOGPS if "does not depend on its neighbours" in case["name"])
    assert beside_one["expected"]["logps"][0] == among_three["expected"]["logps"][1]
    assert beside_one["expected"]["logps"][1] != among_three["expected"]["logps"][0]


# ---------------------------------------------------------------- TRL's own _compute_loss


class GivenLogps(torch.nn.Module):
    """Stands for a model with TRL's head: token 0 or 1 says own or mismatched, the next one is the row's number."""

    is_gradient_checkpointing = False

    def __init__(self, logps, kl_logps):
        super().__init__()
        self.logps = (logps, kl_logps)

    def forward(self, input_ids, **_):
        column = self.logps[int(input_ids[0, 0])][input_ids[:, 1]][:, None]
        return SimpleNamespace(log_probs=column, entropy=torch.zeros_like(column), mean_logits=torch.zeros_like(column))


class GivenLogits(torch.nn.Module):
    """A model whose hidden states are the given logits and whose output embedding is the identity."""

    is_gradient_checkpointing = False

    def __init__(self, logits):
        from transformers import LlamaConfig
        from trl.trainer.utils import add_fused_lm_head

        super().__init__()
        self.config = LlamaConfig()
        self.logits = logits
        self.head = torch.nn.Linear(logits.shape[-1], logits.shape[-1], bias=False, dtype=F64)
        torch.nn.init.eye_(self.head.weight)
        add_fused_lm_head(self, outputs=("log_probs", "entropy", "mean_logits"))

    def base_model(self, **_):
        return SimpleNamespace(last_hidden_state=self.logits)

    def get_output_embeddings(self):
        return self.head

    def forward(self):
        raise NotImplementedError("only the fused head is asked")


def trl_trainer(policy, reference, beta=0.1, desirable_weight=1.0, undesirable_weight=1.0):
    """A KTOTrainer with what `_compute_loss` reads, and nothing else."""
    from trl import KTOTrainer

    trainer = KTOTrainer.__new__(KTOTrainer)
    trainer.model, trainer.ref_model = policy, reference
    trainer.beta, trainer.loss_type = beta, "kto"
    trainer.desirable_weight, trainer.undesirable_weight = desirable_weight, undesirable_weight
    trainer.calculate_KL, trainer.precompute_ref_logps, trainer.aux_loss_enabled = True, False, False
    trainer.args = SimpleNamespace(gradient_checkpointing_kwargs=None)
    trainer.accelerator = SimpleNamespace(device=torch.device("cpu"), gather_for_metrics=lambda x: x)
    trainer._metrics, trainer._total_train_tokens, trainer._tp_size = {"train": defaultdict(list)}, 0, 1
    return trainer


def trl_loss(case, rows):
    """(loss, gradient of all policy_logps, z0) of the chosen rows beside all mismatched ones."""

    def tokens(kind, numbers):
        ids = torch.tensor([[kind, number] for number in numbers])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": torch.ones_like(ids)}

    policy_logps = t(case["policy_logps"]).requires_grad_()
    trainer = trl_trainer(
        GivenLogps(policy_logps, t(case["kl_policy_logps"])),
        GivenLogps(t(case["reference_logps"]), t(case["kl_reference_logps"])),
        **{name: case[name] for name in ("beta", "desirable_weight", "undesirable_weight")},
    )
    batch = tokens(0, rows) | {"label": torch.tensor([case["label"][row] for row in rows])}
    batch |= {f"KL_{name}": column for name, column in tokens(1, range(len(case["kl_policy_logps"]))).items()}
    loss = trainer._compute_loss(trainer.model, batch, return_outputs=False)
    loss.backward()
    return loss.detach(), policy_logps.grad, trainer._metrics["train"]["kl"][0]


def trl_loss_difference(case):
    """What TRL finds otherwise, or None; the losses of single rows come from batches of one."""
    everyone = range(len(case["label"]))
    loss, gradient, z0 = trl_loss(case, everyone)
    losses = [float(trl_loss(case, [row])[0]) for row in everyone]
    found = {"z0": z0, "losses": losses, "loss": loss, "grad_policy_logps": gradient}
    wrong = (run.difference(field, found[field], value, 1e-12, 1e-12) for field, value in case["expected"].items())
    return next((difference for difference in wrong if difference), None)


def trl_logps_difference(case):
    """The same for log-probabilities, in the float32 of TRL's head, relative to the largest logit."""
    logits, ids, mask = t(case["logits"]), torch.tensor(case["input_ids"]), torch.tensor(case["label_mask"])
    largest = float(logits.abs().max())
    sums = []
    for row in range(len(ids)):  # one row a batch, since the trainer reports only their sum
        model = GivenLogits(logits[row : row + 1])
        fields = {"input_ids": ids[[row]], "attention_mask": mask[[row]], "completion_mask": mask[[row]]}
        trainer = trl_trainer(model, model)
        trainer._compute_loss(
            model, fields | {f"KL_{k}": v for k, v in fields.items()} | {"label": torch.tensor([True])}, False
        )
        sums.append(trainer._metrics["train"]["logps/chosen"][0])
    labels = ids.masked_fill(mask == 0, -100)
    by_token = GivenLogits(logits)(labels=labels, fused_lm_head=True).log_probs
    for found, expected in ((by_token, case["expected"]["token_logps"]), (sums, case["expected"]["logps"])):
        wrong = run.difference("value", found, expected, rtol=1e-6, atol=1e-6 * max(1.0, largest))
        if wrong:
            return wrong
    return None


def trl_can_express(case):
    """A linear head makes NaN of a hidden state that is not finite (0 * inf), so no such logits can be given to it."""
    return case["part"] == "loss" or bool(torch.isfinite(t(case["logits"])).all())


NOT_FOR_TRL = {
    "certain of every token: log-probability 0",
    "-inf at every logit outside the completion: 0, not NaN",
    "NaN at every logit outside the completion: 0, not NaN",
    "-inf at a prompt's token only",
    "-inf at another entry of the vocabulary, inside the completion",
}


@pytest.mark.parametrize("case", [case for case in CASES if trl_can_express(case)], ids=itemgetter("name"))
def test_trl_compute_loss_passes(case):
    compare = trl_loss_difference if case["part"] == "loss" else trl_logps_difference
    assert compare(case) is None, "TRL's _compute_loss differs from the file"


def test_trl_can_express_all_cases_but_the_named_ones():
    without = names(case for case in CASES if not trl_can_express(case))
    print(f"TRL's _compute_loss: {len(CASES) - len(without)} of {len(CASES)} cases; not {sorted(without)}")
    assert without == NOT_FOR_TRL
    assert len(CASES) - len(without) == 83


def test_trl_fails_a_case_with_a_changed_expectation():
    for part, compare in ((LOSS, trl_loss_difference), (LOGPS, trl_logps_difference)):
        changed = json.loads(json.dumps(part[1]))
        field = "loss" if part is LOSS else "logps"
        changed["expected"][field] = generate.mapped(lambda x: x + 1e-4, changed["expected"][field])
        assert compare(part[1]) is None
        assert compare(changed) is not None


# ---------------------------------------------------------------- the runner


def test_the_runner_passes_the_specification_by_default_and_counts():
    result = command("run.py")
    assert result.returncode == 0
    by_part = f"loss {len(LOSS)} of {len(LOSS)}, logps {len(LOGPS)} of {len(LOGPS)}"
    assert result.stdout == f"{len(CASES)} of {len(CASES)} cases passed: {by_part}\n"


def test_the_runner_takes_numpy_arrays_and_dotted_names():
    for module in (CONFORMANCE / "numpy_rung.py", "numpy_rung"):
        assert command("run.py", module).returncode == 0


def test_the_runner_reports_name_guards_and_both_numbers():
    result = command("run.py", CONFORMANCE / "wrong" / "clamp_first.py")
    assert result.returncode == 1
    line = "FAILED loss | k = (-3, +5): the clamp comes after the mean, z0 = 1 | guards clamp | z0 is 2.5, expected 1.0"
    assert line in result.stdout.splitlines()


def test_the_runner_counts_an_error_a_missing_field_and_nan_as_failures():
    case = LOSS[0]
    for answer, message in (
        ({}, "KeyError"),
        (dict(case["expected"], z0=float("nan")), "z0 is nan, expected 0.0"),
        (dict(case["expected"], losses=[0.5]), r"losses is \[0.5\], expected 4 entries"),
        (dict(case["expected"], losses=0.5), "losses is 0.5, expected 4 entries"),
    ):
        module = SimpleNamespace(loss=lambda answer=answer, **_: answer)
        assert re.match(message, run.failure(module, case))
    assert "AttributeError" in run.failure(SimpleNamespace(), case)


@pytest.mark.parametrize(("change", "passes"), [(0.9e-12, True), (5e-12, False)])
def test_the_runners_tolerance_is_1e_12(change, passes):
    case = LOSS[0]
    answer = dict(case["expected"], loss=case["expected"]["loss"] + change)
    wrong = run.failure(SimpleNamespace(loss=lambda **_: answer), case)
    assert (wrong is None) == passes


# ---------------------------------------------------------------- faults

WRONG = {"shift": "unshifted", "sum": "averaged", "clamp": "clamp_first"}


def wrong_cases(fault):
    return failing(run.load(str(CONFORMANCE / "wrong" / f"{WRONG[fault]}.py")))


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_implementation_fails_every_case_named_for_its_fault(fault):
    assert guarding(fault) <= wrong_cases(fault)


def test_clamp_first_fails_exactly_where_k_has_both_signs():
    both = [
        case
        for case in LOSS
        if min(map(float.__sub__, case["kl_policy_logps"], case["kl_reference_logps"])) < 0
        and max(map(float.__sub__, case["kl_policy_logps"], case["kl_reference_logps"])) > 0
    ]
    assert wrong_cases("clamp") == names(both)


def test_averaged_fails_exactly_where_several_tokens_make_a_sum_that_is_not_0():
    several = [
        case
        for case in LOGPS
        if any(sum(x != 0.0 for x in row) > 1 for row in case["expected"]["token_logps"])
    ]
    assert wrong_cases("sum") == names(several)


def test_unshifted_passes_only_where_all_places_have_the_same_logits():
    same_everywhere = [case for case in LOGPS if all(place == row[0] for row in case["logits"] for place in row)]
    assert wrong_cases("shift") == names(LOGPS) - names(same_everywhere)
    assert len(same_everywhere) == 1


# Each fault as one change of the specification's text. Together with the three files, every key of `guards`.
NOT_A_PADDING_ID = (
    "[on * (i not in {j for r, a in zip(input_ids, attention_mask) for j, x in zip(r, a) if not x}) "
    "for on, i in zip(label_mask[row], input_ids[row])]"
)
FAULTS = {
    "sigmoid": ("w * sigmoid(-u)", "-w * math.log(sigmoid(u))"),
    "sign": ("s = 1 if up else -1", "s = 1"),
    "weights": ("desirable_weight if up else undesirable_weight", "undesirable_weight if up else desirable_weight"),
    "beta": ("s * beta * (r - z0)", "s * (beta * r - z0)"),
    "z0": ("s * beta * (r - z0)", "s * beta * r"),
    "kl_rows": ("z0 = reference_point(kl_policy_logps, kl_ref", "z0 = reference_point(policy_logps, ref"),
    "no_clamp": ("max(0, total / len(kl_policy_logps))", "total / len(kl_policy_logps)"),
    "reference": ("r = policy - reference", "r = policy"),
    "mean": ("return total / len(numbers)", "return total"),
    "gradient_mean": (" / len(label))", ")"),
    "order": (
        "zip(policy_logps, reference_logps, label, strict=True)",
        "sorted(zip(policy_logps, reference_logps, label, strict=True), key=lambda row: not row[2])",
    ),
    "saturation": ("r = policy - reference", "r = max(-20, min(20, policy - reference))"),
    "sigmoid_overflow": ("if x < 0:", "if False:"),
    "softmax": ("return (logits[token] - largest) - math.log(total)", "return logits[token]"),
    "softmax_overflow": ("largest = max(logits)", "largest = 0"),
    "prompt": ("input_ids[row], label_mask[row]", "input_ids[row], attention_mask[row]"),
    "first": ("if label_mask[t + 1]:", "if label_mask[t + 1] and label_mask[t]:"),
    "eos": ("if label_mask[t + 1]:", "if label_mask[t + 1] and any(label_mask[t + 2 :]):"),
    "padding": ("if label_mask[t + 1]:", "if any(label_mask[: t + 2]):"),
    "pad_id": ("input_ids[row], label_mask[row]", f"input_ids[row], {NOT_A_PADDING_ID}"),
    "inf": ("logps.append(0)", "logps.append(0 * log_probability(logits[t], input_ids[t + 1]))"),
    "rows": ("token_logps(logits[row]", "token_logps(logits[0]"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_specification_fails_every_case_that_guards_it(fault):
    right, wrong = FAULTS[fault]
    text = Path(specification.__file__).read_text(encoding="utf-8")
    assert text.count(right) == 1, f"the specification no longer holds {right!r} once; restate this fault"
    module = ModuleType(fault)
    exec(compile(text.replace(right, wrong), fault, "exec"), vars(module))
    missed = guarding(fault) - failing(module)
    assert not missed, f"these cases name {fault!r}, and pass with it"
