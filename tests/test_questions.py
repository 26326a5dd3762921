"""The question bank: its schema, its numbers, its code, its references to lessons, and the map of the 51 faults."""

import ast
import copy
import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from kto_course import checks
from kto_course.questions import QUESTIONS_FILE, QuestionError, checked, load_questions
from kto_lab import price, scaling
from kto_lab.mutants import MUTANTS
from kto_utils import collator, data, evaluate, logprobs, losses, model, prospect, world

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "notebooks" / "src"
FAULTS_FILE = ROOT / "tests" / "data" / "faults.yaml"
ENTRIES = yaml.safe_load(QUESTIONS_FILE.read_text(encoding="utf-8"))
QUESTIONS = {question.id: question for question in load_questions()}
FAULTS = yaml.safe_load(FAULTS_FILE.read_text(encoding="utf-8"))

# The questions of the first 42 whose usual published answer is wrong: it must stand among the red flags.
OFTEN_WRONG = (2, 3, 4, 5, 6, 7, 12, 18, 21, 23, 25, 27, 37)

each_question = pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS.keys())


# ---------------------------------------------------------------------------------------------------- the schema


def entry_of(kind):
    return copy.deepcopy(next(entry for entry in ENTRIES if entry["kind"] == kind))


def without(field):
    def change(entry):
        del entry[field]

    return change


def with_(**fields):
    return lambda entry: entry.update(fields)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("open", without("short"), "'short' is a required property"),
        ("open", with_(topic="weather"), "topic: 'weather' is not one of"),
        ("open", with_(lesson="6"), "lesson: '6' does not match"),
        ("open", with_(lesson=6), "lesson: 6 is not of type 'string'"),
        ("open", with_(difficulty=4), "difficulty: 4 is greater than the maximum of 3"),
        ("open", with_(kind="essay"), "kind: 'essay' is not one of"),
        ("open", with_(long="  "), "long: '  ' does not match"),
        ("open", with_(follow_ups=[{"question": "Why?", "answer": "So."}]), "follow_ups:"),
        ("open", with_(red_flags=[]), "red_flags:"),
        ("open", with_(red_flags=[{"said": "No."}]), "red_flags.0: 'why' is a required property"),
        ("open", with_(faults=[52]), "faults.0: 52 is greater than the maximum of 51"),
        ("open", with_(listed=43), "listed: 43 is greater than the maximum of 42"),
        ("open", with_(hint="think"), "'hint' was unexpected"),
        ("open", with_(choices=["a", "b", "c"]), "choices: a question of kind open has none"),
        ("open", with_(answer=1), "answer: a question of kind open has none"),
        ("open", with_(numbers=[{"shown": "0.5"}]), "numbers.0:"),
        ("open", with_(numbers=[{"shown": "0.5", "cite": ""}]), "numbers.0"),
        ("open", with_(numbers=[{"shown": "half", "expr": "1/2"}]), "numbers.0.shown: 'half' does not match"),
        ("open", with_(numbers=[{"shown": "0.5", "expr": "1/2", "cite": "v1"}]), "numbers.0"),
        ("choice", without("choices"), "'choices' is a required property"),
        ("choice", without("answer"), "'answer' is a required property"),
        ("choice", with_(answer=1.5), "answer: 1.5 is not of type 'integer'"),
        ("choice", with_(answer=-1), "answer: -1 is less than the minimum of 0"),
        ("choice", with_(answer=9), "answer is 9; choices are numbered 0 to"),
        ("number", without("answer"), "'answer' is a required property"),
        ("number", with_(answer=123.456), "answer is 123.456, but the first of numbers is"),
    ],
)
def test_a_broken_entry_is_refused_with_its_id_and_the_field(kind, change, message):
    entry = entry_of(kind)
    checked([entry])
    change(entry)
    with pytest.raises(QuestionError) as error:
        checked([entry])
    assert message in str(error.value)
    assert all(line.startswith(f"question '{entry['id']}': ") for line in str(error.value).splitlines())


def test_every_broken_entry_is_reported_not_only_the_first():
    first, second, nameless = entry_of("open"), entry_of("choice"), entry_of("number")
    del first["short"], second["long"], nameless["id"]
    with pytest.raises(QuestionError) as error:
        checked([first, second, nameless, "text"])
    message = str(error.value)
    assert f"question '{first['id']}'" in message
    assert f"question '{second['id']}'" in message
    assert "entry 3 (no id): entry: 'id' is a required property" in message
    assert "entry 4 (no id): entry: 'text' is not of type 'object'" in message


def test_an_id_and_a_listed_number_occur_once():
    entry = copy.deepcopy(next(entry for entry in ENTRIES if "listed" in entry))
    with pytest.raises(QuestionError, match=f"id '{entry['id']}' is taken by entry 1; it must be unique"):
        checked([entry, entry])
    other = {**entry, "id": "another"}
    with pytest.raises(QuestionError, match=f"question 'another': listed {entry['listed']} is taken by entry 1"):
        checked([entry, other])


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is no YAML"), ("id: one", "holds a dict; it must be a list"), ("", "NoneType")]
)
def test_a_file_that_is_no_list_is_refused(tmp_path, text, message):
    file = tmp_path / "questions.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(QuestionError, match=message):
        load_questions(file)


def test_the_loader_types_what_the_file_says():
    for entry, question in zip(ENTRIES, QUESTIONS.values(), strict=True):
        for field, given in entry.items():
            typed = getattr(question, field)
            if field in ("follow_ups", "red_flags", "numbers"):
                typed = [{key: text for key, text in vars(part).items() if text is not None} for part in typed]
            assert (list(typed) if isinstance(given, list) else typed) == given, (question.id, field)


# ------------------------------------------------------------------------------------------- counts and coverage


def test_there_are_enough_questions_of_each_kind_and_from_each_lesson():
    kinds = Counter(question.kind for question in QUESTIONS.values())
    lessons = Counter(question.lesson for question in QUESTIONS.values())
    new = sum(question.listed is None for question in QUESTIONS.values())
    assert len(QUESTIONS) >= 84
    assert new >= 42
    assert {"choice": 15, "number": 10, "code": 8, "spot": 10}.items() <= {
        (kind, min(n, {"choice": 15, "number": 10, "code": 8, "spot": 10}.get(kind, n))) for kind, n in kinds.items()
    }, kinds
    assert set(lessons) == {f"{number:02}" for number in range(13)}


def test_each_of_the_first_42_questions_is_there():
    assert sorted(q.listed for q in QUESTIONS.values() if q.listed is not None) == list(range(1, 43))


@pytest.mark.parametrize("number", OFTEN_WRONG)
def test_where_published_answers_are_wrong_the_wrong_one_is_a_red_flag(number):
    question = next(question for question in QUESTIONS.values() if question.listed == number)
    assert question.red_flags
    assert all(flag.said != flag.why for flag in question.red_flags)


# How the right choices begin, written down a second time: a list of choices is easily put into another order.
RIGHT_CHOICES = {
    "loss_aversion_default": "Wrong: the default is 1 and 1, and the recommend",
    "z0_unbiased": "$\\mathrm{KL}(q\\,\\|\\,\\pi_{\\text{ref}}) - \\mathrm{",
    "accumulation_z0": "4, the microbatch",
    "gradient_maximum": "$r = z_0$",
    "sigma_of_zero": "0.5",
    "dpo_value_shape": "$\\log\\sigma$, concave everywhere",
    "which_are_halos": "DPO, PPO-Clip, KTO",
    "length_normalised": "Sum over completion tokens, no normalisation",
    "same_objective": "It shares the implicit reward, but there is no t",
    "small_alpha": "Sensitive right next to the reference point, nea",
    "label_selects_branch": "The label of the row",
    "truncated_completion": "It contributes a constant $r = 0$ row: no gradie",
    "left_padding": "With padding on the right",
    "first_token_logits": "Those at position P - 1, the last prompt token",
    "constant_on_logits": "Nothing",
    "reward_of_five": "Their log-ratio is 50 nats.",
    "displacement": "The loss sees only the difference; probability m",
    "apo_zero": "KTO with $z_0$ set to 0",
    "stuck_at_half": "Policy and reference are one object, and the ref",
}


def test_the_answer_is_the_index_of_the_right_choice():
    choices = {q.id: " ".join(q.choices[q.answer].split()) for q in QUESTIONS.values() if q.kind == "choice"}
    assert {name: choice[: len(RIGHT_CHOICES[name])] for name, choice in choices.items()} == RIGHT_CHOICES


def test_the_right_choice_has_no_favourite_place():
    places = Counter(question.answer for question in QUESTIONS.values() if question.kind == "choice")
    assert max(places.values()) < 0.5 * sum(places.values()), places


@each_question
def test_answers_have_the_promised_length(question):
    assert 35 <= len(question.short.split()) <= 80
    assert 150 <= len(question.long.split()) <= 350


# ------------------------------------------------------------------------------------------------------- lessons


def without_number(heading):
    return re.sub(r"^\d+\. ", "", heading)


def headings_of(lesson):
    text = "\n".join(path.read_text(encoding="utf-8") for path in checks.sources(int(lesson)))
    return {without_number(heading) for heading in re.findall(r"(?m)^# ## (.+)$", text)}


@pytest.mark.parametrize("lesson", sorted({question.lesson for question in QUESTIONS.values()}))
def test_each_question_names_a_section_of_its_lesson(lesson):
    headings = headings_of(lesson)
    asked = {q.id: q.section for q in QUESTIONS.values() if q.lesson == lesson}
    wrong = {name: section for name, section in asked.items() if without_number(section) not in headings}
    assert not wrong, f"no such section in lesson {lesson}; it has {sorted(headings)}"


# ------------------------------------------------------------------------------------------------------- numbers

NUMBER = re.compile(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?![\dBK])")
BETA = losses.kto_loss.__defaults__[0]
ALLOWED = (  # references and names that hold digits, and the course's default beta
    r"arXiv \d{4}\.\d{5}",
    r"\d+\.\d+\.\d+",
    r"#\d+",
    r"(?:Eq\.|section|lessons?|Table|Theorem|Proposition|Definition) \d+(?:\.\d+)?(?: and \d+)?",
    r"(?:19|20)\d\d(?!\d|[.,]\d)",
    rf"(?:beta|\\beta)\$?(?:_\w+)?\s*(?:=|of|is|at)?\s*\$?{re.escape(str(BETA))}(?!\d)",
    r"(?<![\w.,])(?<!\de-)(?:10|\d)(?:\.0)?(?!\d|[.,]\d|e-?\d)",
)


def texts_of(question):
    """(where, text, question text whose numbers are given) of all that an answer says."""
    asked = " ".join([question.question, *question.choices])
    yield "short", question.short, asked
    yield "long", question.long, asked
    for number, follow_up in enumerate(question.follow_ups):
        yield f"follow-up {number}", follow_up.answer, f"{asked} {follow_up.question}"
    for number, flag in enumerate(question.red_flags):
        yield f"red flag {number}", f"{flag.said} {flag.why}", asked


def tokens(text):
    for pattern in ALLOWED:
        text = re.sub(pattern, " ", text)
    return NUMBER.findall(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a loss of 0.561875, not 0.5.", ["0.561875", "0.5"]),
        ("20,000 rows, 1e-70 and 6.0e-8.", ["20,000", "1e-70", "6.0e-8"]),
        ("at beta 0.1 and $\\beta = 0.1$, but 0.1 elsewhere and beta 0.15", ["0.1", "0.15"]),
        ("v1, Eq. 7, section 4.1, Table 3 of arXiv 2402.01306 and TRL 1.16.0 (#1911) in 1992.", []),
        ("Llama-13B, float32, GSM8K, 8B", []),
        ("10 rows, 3 up, 1.0, but 11, 10.5 and 3.25", ["11", "10.5", "3.25"]),
        ("$10^{21}$ or -17.07", ["21", "17.07"]),
    ],
)
def test_the_search_for_numbers_finds_what_needs_a_source(text, found):
    assert tokens(text) == found


@each_question
def test_every_number_in_an_answer_is_computed_or_cited(question):
    covered = {number.shown.lstrip("-") for number in question.numbers}
    for where, text, asked in texts_of(question):
        bare = {token for token in tokens(text) if token not in covered | set(NUMBER.findall(asked))}
        assert not bare, f"{question.id}, {where}: {sorted(bare)} stand in no `numbers`"


@each_question
def test_no_number_is_listed_that_no_answer_shows(question):
    said = " ".join(text for _, text, _ in texts_of(question))
    for number in question.numbers:
        pattern = rf"(?<![\w.]){re.escape(number.shown)}(?![\d]|[.,]\d)"
        if number.shown.startswith("-"):
            pattern = pattern[len(r"(?<![\w.])") :]
        assert re.search(pattern, said) or float(number.shown.replace(",", "")) == question.answer, number.shown


def sigma(u):
    return 1.0 / (1.0 + math.exp(-u))


def bisect(f, low, high):
    """Where f, positive at low and negative at high, crosses 0."""
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > 0 else (low, middle)
    return low


NAMES = {
    "math": math, "torch": torch, "np": np, "sigma": sigma, "bisect": bisect, "losses": losses, "prospect": prospect,
    "world": world, "evaluate": evaluate, "data": data, "collator": collator, "logprobs": logprobs, "model": model,
    "price": price, "scaling": scaling,
}  # fmt: skip


def rounds_to(computed, shown):
    """Whether a number, printed as precisely as `shown`, is `shown`."""
    mantissa, _, exponent = shown.replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2])
    half_a_digit = 0.5 * 10.0 ** (int(exponent or 0) - decimals)
    return abs(float(computed) - float(shown.replace(",", ""))) <= half_a_digit * (1 + 1e-6)


@pytest.mark.parametrize(
    ("computed", "shown", "agrees"),
    [
        (0.561875, "0.561875", True), (0.5618764, "0.561875", False), (4.14e-8, "4.1e-8", True),
        (4.2e-8, "4.1e-8", False), (20000.4, "20,000", True), (19998, "20,000", False), (-17.068, "-17.07", True),
        (17.068, "-17.07", False), (0.4999, "0.50", True), (0.494, "0.50", False),
    ],
)  # fmt: skip
def test_rounding_is_judged_at_the_printed_precision(computed, shown, agrees):
    assert rounds_to(computed, shown) == agrees


@each_question
def test_every_expression_gives_the_number_that_is_shown(question):
    for number in question.numbers:
        if number.expr is not None:
            computed = float(eval(number.expr, dict(NAMES)))
            assert rounds_to(computed, number.shown), f"{number.expr} is {computed}, shown is {number.shown}"


# ---------------------------------------------------------------------------------------------------------- code


def code_in(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@each_question
def test_code_is_python(question):
    for text in (question.question, question.long):
        assert text.count("```") == 2 * len(code_in(text))
        for code in code_in(text):
            ast.parse(code)
    assert bool(code_in(question.question)) == (question.kind == "spot")
    assert (len(code_in(question.long)) == 1) == (question.kind == "code")


GENERATOR = torch.Generator().manual_seed(0)
LABEL = torch.tensor([True, False, True, False, False])


def random(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def check_kto_loss(kto_loss):
    policy, reference = 10 * random(5), 10 * random(5)
    expected = losses.kto_loss(policy, reference, LABEL, 1.5, 0.2, 1.33, 0.7).mean()
    torch.testing.assert_close(kto_loss(policy, reference, LABEL, 1.5, 0.2, 1.33, 0.7), expected)


def check_kto_gradient(kto_gradient):
    logratio = (10 * random(5)).requires_grad_()
    losses.kto_loss(logratio, torch.zeros_like(logratio), LABEL, 1.5, 0.2, 1.33, 0.7).mean().backward()
    torch.testing.assert_close(kto_gradient(logratio.detach(), LABEL, 1.5, 0.2, 1.33, 0.7), logratio.grad)


def check_causal_attention(causal_attention):
    q, k, v = random(6, 4), random(6, 4), random(6, 4)
    torch.testing.assert_close(causal_attention(q, k, v), F.scaled_dot_product_attention(q, k, v, is_causal=True))


def check_rotate(rotate):
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x, config = random(6, 8), model.tiny_llama(16, hidden_size=8, num_heads=1).config
    cos, sin = model.Float64RotaryEmbedding(config)(x[None], torch.arange(6)[None])
    expected, _ = apply_rotary_pos_emb(x[None, None], x[None, None], cos, sin)
    torch.testing.assert_close(rotate(x), expected[0, 0])


def check_tokenize_row(tokenize_row):
    from kto_utils.tokenizer import load_tokenizer

    tokenizer = load_tokenizer()
    for row in data.load_eight_rows():
        encoded = data.tokenize_feedback(row, tokenizer)
        encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
        found = tokenize_row(row["prompt"], row["completion"], encode, tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert found == (encoded["input_ids"], encoded["label_mask"])


def check_mismatched(mismatched):
    for size in range(2, 10):
        rows = [{"prompt_ids": [i], "completion_ids": [-i]} for i in range(size)]
        paired = mismatched(rows)
        assert all(row["completion_ids"] != [-row["prompt_ids"][0]] for row in paired[1:])
        assert paired[0]["completion_ids"] == [1 - size]
        assert sorted(row["completion_ids"] for row in paired) == sorted(row["completion_ids"] for row in rows)
    with pytest.raises(ValueError, match="at least two rows"):
        mismatched([{"prompt_ids": [1], "completion_ids": [2]}])


def check_get_probs(get_probs):
    logits, ids = random(3, 7, 11).float(), torch.randint(11, (3, 7), generator=GENERATOR)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0]])
    torch.testing.assert_close(get_probs(logits, ids, mask), logprobs.get_probs(logits, ids, mask))


def check_logratio_and_reward(logratio_and_reward):
    policy, reference = random(3, 7).requires_grad_(), random(3, 7).requires_grad_()
    logratio, reward = logratio_and_reward(policy, reference, beta=0.2)
    torch.testing.assert_close(logratio, policy.sum(-1) - reference.sum(-1))
    torch.testing.assert_close(reward, 0.2 * logratio)
    reward.sum().backward()
    assert reference.grad is None


def check_reference_point(reference_point):
    for shift in (-1.0, 1.0):  # both signs among the rows, so that the order of mean and clamp matters
        policy, reference = (3 * random(9) + shift).requires_grad_(), random(9)
        assert {True, False} == set((policy > reference).tolist())
        found = reference_point(policy, reference)
        torch.testing.assert_close(found, losses.reference_point(policy, reference))
        assert not found.requires_grad


def check_dpo_loss(dpo_loss):
    four = [10 * random(5) for _ in range(4)]
    torch.testing.assert_close(dpo_loss(*four, beta=0.2), losses.dpo_loss(*four, beta=0.2).mean())


CODE_CHECKS = {
    "write_kto_loss": check_kto_loss,
    "kto_gradient": check_kto_gradient,
    "causal_attention": check_causal_attention,
    "rotary_positions": check_rotate,
    "tokenize_row": check_tokenize_row,
    "rotate_completions": check_mismatched,
    "write_get_probs": check_get_probs,
    "sequence_logratio": check_logratio_and_reward,
    "write_reference_point": check_reference_point,
    "write_dpo_loss": check_dpo_loss,
}


def test_every_answer_in_code_has_a_check():
    assert set(CODE_CHECKS) == {question.id for question in QUESTIONS.values() if question.kind == "code"}


@pytest.mark.parametrize("name", CODE_CHECKS)
def test_an_answer_in_code_does_what_the_package_does(name):
    (code,) = code_in(QUESTIONS[name].long)
    namespace = {"torch": torch, "math": math}
    exec(code, namespace)
    (function,) = [thing for key, thing in namespace.items() if key == CODE_CHECKS[name].__name__[len("check_") :]]
    CODE_CHECKS[name](function)


# ---------------------------------------------------------------------------------------------------- the faults


def exercise_ids():
    found = set()
    for source in SOURCES.glob("*.py"):
        found |= set(re.findall(r'(?m)^# %%.*\bexercise="(\w+)"', source.read_text(encoding="utf-8")))
    return found


def test_each_of_the_51_faults_is_described_and_dealt_with():
    assert [fault["fault"] for fault in FAULTS] == list(range(1, 52))
    for fault in FAULTS:
        assert set(fault) == {"fault", "what", "where"}
        assert fault["what"].strip()
        assert any("question" in place for place in fault["where"]), f"fault {fault['fault']} is in no question"


def test_every_place_of_a_fault_exists():
    known = {"question": set(QUESTIONS), "mutant": set(MUTANTS), "exercise": exercise_ids()}
    for fault in FAULTS:
        for place in fault["where"]:
            ((kind, name),) = place.items()
            assert name in known[kind], f"fault {fault['fault']}: no {kind} {name!r}"


def test_questions_and_the_map_of_faults_say_the_same():
    by_question = {(fault, question.id) for question in QUESTIONS.values() for fault in question.faults}
    by_map = {(f["fault"], place["question"]) for f in FAULTS for place in f["where"] if "question" in place}
    assert by_question == by_map
