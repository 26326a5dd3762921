"""True to the literature: sentences of the bank that were wrong must not come back, numbers are those of the paper.

Each wrong sentence stands here as it once was printed, so that the pattern which forbids it is known to find it.
"""

import ast
import math
import re
from pathlib import Path

import pytest
import torch

from kto_course.handouts import formula_card
from kto_course.interview import DRILLS
from kto_course.questions import load_questions
from kto_utils.losses import dpo_loss, kto_loss, reference_point

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = {question.id: question for question in load_questions()}


def said(question):
    """All that an entry says, in one line."""
    parts = [question.question, *question.choices, question.short, question.long, question.source]
    parts += [text for f in question.follow_ups for text in (f.question, f.answer)]
    parts += [text for flag in question.red_flags for text in (flag.said, flag.why)]
    return " ".join(" ".join(parts).split())


BANK = {id: said(question) for id, question in QUESTIONS.items()}

# (entry or None for all, what must not be said, how it was printed)
WRONG = [
    ("pad_equals_eos", r"authors' code raises an error[;.]", "the authors' code raises an error; both are fine"),
    ("define_halo", r"definition wants to cover", "The definition wants to cover DPO"),
    ("define_halo", r"(?<!control token \(CSFT\))\bSFT has no reference point", "Plain SFT has no reference point"),
    ("which_are_halos", r"current (text|version)", "Which are HALOs by the current version of the paper"),
    ("silent_weights", r"from v1\.8\.0 on[^.]*weights", "from v1.8.0 on the class weights were ignored"),
    ("same_objective", r"KTO asks only which side", "KTO asks only which side has the majority"),
    ("one_minus_sigmoid", r"sigma\(17\)\S* lies within rounding", r"$\sigma(17)$ lies within rounding of 1"),
    ("one_minus_sigmoid", r"from u = 17 on, the sigmoid rounds", "from u = 17 on, the sigmoid rounds to exactly 1"),
    ("kto_better_than_dpo", r"GPT-4's of the same replies", "significant, GPT-4's of the same replies is not"),
    ("two_theories", r"None is defined", "None is defined; a label comes without chances."),
    ("skip_sft", r"two (sizes of Llama|Llama sizes)", "Shown for two sizes of Llama"),
    (None, r"(weights|lambdas) are no loss aversion", "The two label weights are no loss aversion"),
    ("partition_function", r"What would have to vanish", "What would have to vanish is the expectation of beta log Z."),
    ("what_beta_does", r"early and the policy stays closer", "satisfied early and the policy stays closer"),
    ("saturation_consequence", r"(?<!In theory it )\btolerates wrong labels", "It tolerates wrong labels, since"),
    ("several_votes", r"One row per reply: take the majority", "One row per reply: take the majority and drop"),
    ("ppo_grpo", r"KTO cannot discover", "The consequence: KTO cannot discover replies"),
    ("when_dpo", r"clean pairs stayed inconclusive", "in this course's small world clean pairs stayed inconclusive"),
    ("ninety_percent", r"(?<!90 % )interval of plus", "each with an interval of plus or minus 0.036"),
    ("dpo_length", r"bias towards longer answers", "a bias towards longer answers, and the KTO paper describes"),
    (None, r"reportedly|as reported|is reported", "The current paper reportedly recommends 5e-6"),
    (None, r"(?i)current (arXiv )?(paper|text|version)\b", "the current paper's theorem makes that comparison"),
    # second-hand: only what the fact sheet still lists as such
    (None, r"(?i)(?<!version 5 \()(?<!v5, )second-hand", "the numbers are second-hand"),
]


@pytest.mark.parametrize(("id", "pattern", "printed"), WRONG, ids=[f"{w[0] or 'all'}-{i}" for i, w in enumerate(WRONG)])
def test_what_was_wrong_is_not_said_again(id, pattern, printed):
    assert re.search(pattern, printed)
    for name in [id] if id else BANK:
        assert not re.search(pattern, BANK[name]), f"{name}: {re.search(pattern, BANK[name])[0]}"


# (entry, what belongs to a true answer)
SAID = [
    ("pad_equals_eos", "so does the authors' code"),
    ("define_halo", "risk-averse in both regimes"),
    ("define_halo", "by the theorem"), ("which_are_halos", "by the theorem"),
    ("define_halo", "KTO without $z_0$ is out"), ("which_are_halos", "KTO with $z_0 = 0$ (APO-zero) is none"),
    ("apo_zero", "no longer counts it as a HALO"),
    ("silent_weights", "from v0.17.0 on the fused Liger loss never got the class weights"),
    ("same_objective", "*lone* reply"), ("same_objective", "0.843, 0.157"),
    ("kto_better_than_dpo", "214 comparisons for each"), ("kto_better_than_dpo", "90 % intervals"),
    ("kto_better_than_dpo", "about 474 comparisons"),
    ("two_theories", "Humanline"),
    ("skip_sft", "Llama-3-8B"), ("skip_sft", "beta 0.50"), ("skip_sft", "from 13.01 to 16.63"),
    ("loss_aversion_default", "control loss aversion"), ("loss_aversion_default", "only at convergence"),
    ("origin_of_133", "7.2 points less inside the recommended range"),
    ("partition_function", "repairs the reference point only"),
    ("partition_function", "The first, the row's own, stays"),
    ("what_beta_does", "For equal steps"), ("what_beta_does", "smaller rate for a smaller beta"),
    ("learning_rate", "at least 4 rows per step"),
    ("several_votes", "A row per vote, each with the majority's thumb"),
    ("ppo_grpo", "from a fixed file"), ("offline_online", "true of a fixed file"),
    ("displacement", "likelihood displacement"),
    ("kl_zero_in_logs", "Fig. 4b"),
    ("star_ratings", "The course's own variant"),
]  # fmt: skip


@pytest.mark.parametrize(("id", "words"), SAID, ids=[f"{id}-{i}" for i, (id, _) in enumerate(SAID)])
def test_what_belongs_to_a_true_answer_is_said(id, words):
    assert words in BANK[id]


@pytest.mark.parametrize("id", QUESTIONS)
def test_a_short_answer_quotes_no_benchmark(id):
    benchmark = r"\b(BBH|GSM8K|MMLU|TydiQA|HumanEval|AlpacaEval)\b"
    assert re.search(benchmark, "loses 3.6 points on BBH")
    assert not re.search(benchmark, QUESTIONS[id].short)


# ------------------------------------------------------------------------------------------ one form of the loss

UNSAFE = re.compile(r"1 ?- ?(torch\.)?(\\?sigma|sigmoid)\b|1 minus sigmoid|one minus sigmoid")
ABOUT_IT = {"one_minus_sigmoid", "write_kto_loss", "bfloat16_spacing", "write_dpo_loss"}  # they warn of it


def test_the_loss_is_written_in_its_safe_form_in_every_short_answer_and_all_code():
    assert UNSAFE.search(r"For each row $w\,(1-\sigma(u))$")
    assert UNSAFE.search("loss = w * (1 - torch.sigmoid(u))")
    for id, question in QUESTIONS.items():
        code = re.findall(r"```python\n(.*?)```", question.long, flags=re.DOTALL)
        for text in (question.short, *code):
            assert not UNSAFE.search(text), id
    elsewhere = {id for id, text in BANK.items() if re.search(r"1 ?- ?(torch\.)?sigmoid", text)}
    assert elsewhere <= ABOUT_IT


def test_drills_and_hints_use_the_same_form():
    points = {id: " ".join(task.listens_for) for id, task in DRILLS.items()}
    assert [id for id, text in points.items() if UNSAFE.search(text)] == ["kto_loss"]  # which says: not that one
    assert "`sigmoid(-u)`, not `1 - sigmoid(u)`" in points["kto_loss"]
    for lesson in ("06", "10"):
        tree = ast.parse((ROOT / "kto_course" / "checks" / f"lesson_{lesson}.py").read_text(encoding="utf-8"))
        texts = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        unsafe = [text for text in texts if re.search(r"1 - sig(moid|ma)", text)]
        assert all(text.startswith("1 - sigmoid(50) rounds to 0. Write the same as sigmoid(-50)") for text in unsafe)


def test_the_formula_card_does_not_deny_what_the_paper_says_of_the_weights():
    text = " ".join(formula_card.SYMBOLS)
    assert "weigh labels" in text
    assert "are not" not in text


# ---------------------------------------------------------------------------------------------- computed here


def ends(reference, approvals, beta=0.8, steps=10_000):
    """The policy over the replies to one prompt, and its log-ratios, after descent on the expected KTO loss."""
    reference, approvals = (torch.tensor(numbers, dtype=torch.float64) for numbers in (reference, approvals))
    up = torch.ones(len(reference), dtype=torch.bool)
    theta = reference.log()
    for _ in range(steps):
        theta = theta.detach().requires_grad_()
        logps = theta.log_softmax(-1)
        exact_kl = (logps.exp() * (logps - reference.log())).sum().item()
        liked, disliked = (kto_loss(logps, reference.log(), label, exact_kl, beta) for label in (up, ~up))
        (approvals * liked + (1 - approvals) * disliked).mean().backward()
        theta = theta - 4 * theta.grad
    logps = theta.detach().log_softmax(-1)
    return logps.exp(), logps - reference.log()


@pytest.mark.parametrize(
    ("reference", "approvals", "policy"),
    [
        ((0.3, 0.3, 0.4), (0.9, 0.6, 0.1), (0.843, 0.157, 0.0)),
        ((0.3, 0.3, 0.4), (0.7, 0.6, 0.1), (0.673, 0.327, 0.0)),
        ((0.2, 0.5, 0.3), (1.0, 1.0, 0.0), (0.5, 0.5, 0.0)),
    ],
)
def test_among_several_replies_the_size_of_a_majority_matters(reference, approvals, policy):
    end, logratio = ends(reference, approvals)
    assert end.tolist() == pytest.approx(policy, abs=6e-4)
    if approvals[0] == 0.9:
        assert float(logratio[1]) == pytest.approx(-0.65, abs=5e-3)  # 60 % like it, and it sinks


def test_of_a_lone_reply_only_the_side_of_the_majority_matters():
    u = torch.linspace(-5, 5, 101, dtype=torch.float64)
    for liked, falls in ((0.51, True), (0.7, True), (0.99, True), (0.49, False)):
        loss = liked * torch.sigmoid(-u) + (1 - liked) * torch.sigmoid(u)
        assert bool((loss.diff() < 0).all()) == falls


def test_in_float32_the_sigmoid_becomes_1_because_the_sum_does():
    def single(u):
        return torch.tensor(u, dtype=torch.float32)

    border = -math.log(torch.finfo(torch.float32).eps / 2)
    assert border == pytest.approx(16.64, abs=5e-3)
    assert float(1 + torch.exp(-single(border + 0.01))) == 1 < float(1 + torch.exp(-single(border - 0.01)))
    assert float(1 - torch.sigmoid(single(17.0))) == 0
    nearest = float(torch.tensor(1 / (1 + math.exp(-17)), dtype=torch.float64).float())
    assert nearest == pytest.approx(0.99999994, abs=1e-9)
    assert nearest < 1
    assert float(torch.sigmoid(-single(17.0))) > 0
    assert float(1 - torch.sigmoid(torch.tensor(6.0, dtype=torch.bfloat16))) > 0
    assert float(1 - torch.sigmoid(torch.tensor(6.3, dtype=torch.bfloat16))) == 0


def test_the_clipped_objective_is_concave_in_the_ratio_and_not_in_its_logarithm():
    def objective(ratio, advantage):
        return torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)

    x = torch.linspace(0.0, 0.4, 401, dtype=torch.float64)  # gains, as log-ratios; the cut lies at ln 1.2 = 0.18
    in_log, in_ratio = objective(x.exp(), 1.0), objective(1 + x, 1.0)
    assert bool((in_ratio.diff().diff() <= 1e-12).all())
    assert bool((in_log[:180].diff().diff() > 0).all())  # bends upwards before the cut
    assert bool((objective(x.exp(), -1.0).diff() < 0).all())  # a negative advantage: it falls


def test_at_one_to_one_both_losses_leave_the_margin_alone():
    margin = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(1, dtype=torch.float64)
    (dpo_loss(margin, none, none, none, 0.1) + dpo_loss(none, margin, none, none, 0.1)).sum().backward()
    assert margin.grad.item() == 0
    r = torch.linspace(-50, 50, 11, dtype=torch.float64)
    up = torch.ones(11, dtype=torch.bool)
    both = kto_loss(r, 0 * r, up, 1.0) + kto_loss(r, 0 * r, ~up, 1.0)
    torch.testing.assert_close(both, torch.ones_like(both))


def test_a_zero_mean_of_log_z_mends_the_reference_point_alone():
    """Two prompts whose beta log Z are +0.5 and -0.5: the mean is 0, and each row's reward is still off by its own."""
    beta, reference = 0.5, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    shape = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    level = beta * (reference * (shape / beta).exp()).sum().log()
    rewards = [shape - level + shift for shift in (0.5, -0.5)]
    log_z = [beta * (reference * (reward / beta).exp()).sum().log() for reward in rewards]
    assert [float(value) for value in log_z] == pytest.approx([0.5, -0.5])
    best = [(reference.log() + reward / beta).softmax(-1) for reward in rewards]
    r = [beta * (policy / reference).log() for policy in best]
    expected = sum((policy * reward).sum() for policy, reward in zip(best, rewards, strict=True)) / 2
    kl = sum((policy * row).sum() for policy, row in zip(best, r, strict=True)) / 2
    torch.testing.assert_close(expected, kl)  # the reference point is the mean of the KLs
    for reward, row, own in zip(rewards, r, log_z, strict=True):
        torch.testing.assert_close((reward - expected) - (row - kl), torch.full((3,), float(own), dtype=torch.float64))


def test_a_reference_point_below_zero_is_zero():
    assert float(reference_point(torch.tensor([-3.0, 1.0]), torch.zeros(2))) == 0.0


# ------------------------------------------------------------------------------------- the paper's tables, v4

TABLE_1 = {  # beta, AlpacaEval-LC, BBH, GSM8K
    "Llama-3 8B, SFT and KTO": (0.05, 10.59, 65.15, 60.20), "Llama-3 8B, KTO": (0.10, 11.25, 65.26, 57.92),
    "Qwen2.5 3B Instruct, SFT and KTO": (0.10, 13.01, 32.39, 61.11),
    "Qwen2.5 3B Instruct, KTO": (0.50, 16.63, 20.41, 60.35),
}  # fmt: skip
TABLE_2 = {  # MMLU, GSM8K, HumanEval, BBH, TydiQA, AlpacaEval 2
    "SFT": (57.2, 39.0, 30.1, 46.3, 36.3, 6.4), "DPO": (58.2, 40.0, 30.1, 44.1, 36.5, 7.8),
    "KTO": (58.6, 53.5, 30.9, 52.6, 31.2, 12.5), "no z0": (58.5, 49.5, 30.7, 49.0, 29.0, 12.1),
    "log sigma": (58.3, 42.5, 30.6, 43.2, 36.6, 7.4), "no reference": (57.5, 47.5, 29.5, 51.6, 36.8, 9.7),
}  # fmt: skip


def cited(table):
    return [
        (id, float(number.shown)) for id, question in QUESTIONS.items() for number in question.numbers
        if number.cite and re.search(rf"v4, {table}\b(?! and)", number.cite)
    ]  # fmt: skip


def off_the_table(cites, table):
    """Cited numbers that are neither in the table nor what a row lacks to KTO's in some column."""
    flat = {number for row in table.values() for number in row}
    flat |= {round(best - other, 1) for row in table.values() for best, other in zip(table.get("KTO", ()), row)}  # noqa: B905
    return [cite for cite in cites if cite[1] not in flat]


def test_numbers_cited_from_tables_1_and_2_stand_there():
    for name, table in (("Table 1", TABLE_1), ("Table 2", TABLE_2)):
        cites = cited(name)
        assert len(cites) > 8
        assert off_the_table(cites, table) == []
        assert off_the_table([("planted", 52.7)], table) == [("planted", 52.7)]


def test_the_number_of_judged_replies_follows_from_the_printed_intervals():
    def comparisons(rate, half_width, z=1.645):
        return z**2 * rate * (1 - rate) / half_width**2

    assert comparisons(0.652, 0.036) == pytest.approx(474, abs=1)  # GPT-4 as the judge, 90 %
    assert comparisons(0.600, 0.037) == pytest.approx(474, abs=1)
    assert comparisons(0.652, 0.036, z=1.96) > 600  # as 95 % intervals they would fit no such number


# ------------------------------------------------------------------------------------------------- one route

PLACES = {"README": "README.md", "00": "notebooks/src/00_start_here.py", "13": "notebooks/src/13_interview.py",
          "teaching": "notebooks/teaching.md"}  # fmt: skip


def paragraph(page):
    """What a page tells somebody whose interview is near, with comment marks and line breaks taken out."""
    text = " ".join(re.sub(r"(?m)^# ?", "", (ROOT / PLACES[page]).read_text(encoding="utf-8")).split())
    start = {"README": "My interview is next week", "00": "Interview next week", "13": "1. Six hours",
             "teaching": "13 · The interview"}[page]  # fmt: skip
    return text[text.index(start) :][: 2600 if page in ("13", "teaching") else 620]


def test_one_route_of_six_hours_stands_in_the_same_order_everywhere():
    for page in ("README", "00", "13"):
        text = paragraph(page)
        assert re.search(r"[Ss]ix hours", text), page
        lessons = dict.fromkeys(re.findall(r"\b(00|here|05|06|08)\b", text))
        order = ["00" if name == "here" else name for name in lessons]
        assert order[:4] == ["00", "05", "06", "08"], (page, order)
    assert "section 1" in paragraph("teaching")
    assert "section 1" in paragraph("00")


def test_the_route_names_the_core_sheet_and_the_mock_interview():
    whole = (ROOT / PLACES["13"]).read_text(encoding="utf-8")
    for text in (paragraph("README"), whole, paragraph("teaching")):
        assert "core_sheet.pdf" in text
        assert "interview --mock" in text
    assert (ROOT / "notebooks" / "handouts" / "core_sheet.pdf").is_file()


def test_the_timetable_names_sections_that_exist_and_its_clock_runs_on():
    source = (ROOT / PLACES["13"]).read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^# \| (\d):(\d\d) \| (?:\[(\d\d)\]\([^)]*\)|[^|]*) \| (.*) \|$", source)
    minutes = [60 * int(hour) + int(minute) for hour, minute, _, _ in rows]
    assert len(rows) == 11
    assert minutes == sorted(set(minutes))
    assert minutes[-1] + 45 == 360  # the last thing is a mock interview of 45 minutes
    named = [(lesson, name) for _, _, lesson, what in rows if lesson for name in re.findall(r"\*([^*]+)\*", what)]
    assert len(named) == 3
    for lesson, name in named:
        (path,) = (ROOT / "notebooks" / "src").glob(f"{lesson}_*.py")
        assert re.search(rf"(?m)^# ## \d+\. {re.escape(name)}$", path.read_text(encoding="utf-8")), (lesson, name)
