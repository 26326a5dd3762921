"""The story of a real chat model: judge, rows, measures, stages that are kept, report. A tiny model stands in for it.

What needs SmolLM2 itself is skipped where it was not fetched (`python course.py real --fetch`).
"""

import json
import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kto_lab.real import __main__ as command
from kto_lab.real import chat_model, clicks, measure, protocol, questions, report, results, sampling, story
from kto_lab.real.sampling import Reply
from kto_utils.model import tiny_llama

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
RUNS = results.load()
needs_model = pytest.mark.skipif(not chat_model.is_here(), reason="SmolLM2 is not here: `course.py real --fetch`")


def byte_tokenizer():
    """One token a byte, and ChatML's two marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, "<|im_start|>", "<|im_end|>"])}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", bos_token="<|im_start|>")
    made.pad_token, made.chat_template = made.eos_token, TEMPLATE
    return made


@pytest.fixture(scope="module")
def chat_folder(tmp_path_factory):
    """A chat model of two layers that knows nothing."""
    folder = tmp_path_factory.mktemp("chat")
    tokenizer = byte_tokenizer()
    model = tiny_llama(len(tokenizer), hidden_size=32, intermediate_size=64, seed=1)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def small(monkeypatch, chat_folder):
    """The protocol on four countries, with a judge that a model which knows nothing can please."""
    asked = questions.capitals()
    monkeypatch.setattr(story, "capitals", lambda: (asked[0][:4], asked[1][:3]))
    monkeypatch.setattr(story, "facts", lambda: questions.facts()[:3])
    monkeypatch.setattr(story, "neutral_texts", lambda: questions.neutral_texts()[:2])
    for name, value in {"SAMPLES": 3, "CHECKED": 2, "KL_SAMPLES": 2, "MAX_NEW_TOKENS": 6, "STEPS": 2}.items():
        monkeypatch.setattr(protocol, name, value)
    monkeypatch.setattr(protocol, "FACT_TOKENS", 4)
    monkeypatch.setitem(questions.JUDGES, "right and brief", lambda asked, reply: sum(reply.ids) % 2 == 0)
    return str(chat_folder)


# The questions and the judge


def test_no_country_is_trained_and_held_out_and_counts_are_as_said():
    trained, held_out = questions.capitals()
    assert (len(trained), len(held_out), len(questions.facts())) == (32, 16, 100)
    asked = [one.question for one in trained + held_out + questions.facts()]
    assert len(set(asked)) == len(asked)


def test_no_fact_asks_for_a_capital():
    assert not [fact for fact in questions.facts() if "capital" in fact.question]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("It is Rome.", True),
        ("ROME!", True),
        ("The Roman empire", False),
        ("Prometheus", False),
        ("I think of Milan", False),
        ("", False),
    ],
)
def test_an_answer_counts_as_a_whole_word_in_any_case(text, right):
    assert questions.is_right(questions.Asked("?", ("Rome",)), text) is right


def test_an_accent_or_another_spelling_is_no_mistake():
    brazil = next(one for one in questions.capitals()[1] if "Brazil" in one.question)
    assert questions.is_right(brazil, "Brasília")
    assert questions.is_right(brazil, "It is Brasilia.")


@pytest.mark.parametrize(
    ("n_words", "ended", "brief"), [(30, True, True), (31, True, False), (3, False, False), (0, True, True)]
)
def test_brief_is_ended_within_thirty_words(n_words, ended, brief):
    assert questions.is_brief(Reply((1,), (2,), "word " * n_words, ended)) is brief


def test_the_two_judges_differ_on_a_brief_wrong_answer():
    asked, wrong = questions.Asked("?", ("Oslo",)), Reply((1,), (2,), "Bergen.", True)
    assert questions.likes_brief(asked, wrong)
    assert not questions.likes_right_and_brief(asked, wrong)


# Sampling and rows


def test_a_prompt_is_the_template_up_to_where_the_reply_begins():
    tokenizer = byte_tokenizer()
    ids = sampling.prompt_ids(tokenizer, "Hi")
    assert tokenizer.decode(ids) == "<|im_start|>user\nHi<|im_end|><|im_start|>assistant\n"
    assert ids.count(tokenizer.bos_token_id) == 2  # marks are single tokens, not spelled out


def test_replies_do_not_depend_on_padding_and_end_at_the_end_token(chat_folder):
    model, tokenizer = chat_model.load_chat_model(chat_folder)
    prompts = [sampling.prompt_ids(tokenizer, text) for text in ("Hi", "A much longer question?", "Hi")]
    together = sampling.sample(model, tokenizer, prompts, 0.0, 8, 0)
    alone = [sampling.sample(model, tokenizer, [prompt], 0.0, 8, 0)[0] for prompt in prompts]
    assert together == alone
    for reply in sampling.sample(model, tokenizer, prompts * 20, 1.0, 60, 0):
        assert tokenizer.eos_token_id not in reply.ids[:-1]
        assert reply.ended is (reply.ids[-1] == tokenizer.eos_token_id)
        assert reply.ended or len(reply.ids) == 60


def test_the_same_seed_draws_the_same_replies_and_leaves_torchs_own_generator_alone(chat_folder):
    model, tokenizer = chat_model.load_chat_model(chat_folder)
    prompts = [sampling.prompt_ids(tokenizer, "Hi")] * 4
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, again, other = (sampling.sample(model, tokenizer, prompts, 1.0, 8, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.rand(1), expected)


def test_a_cut_reply_gets_no_end_token_and_only_the_reply_is_scored():
    row = measure.row_of(Reply((5, 6, 7), (8, 9), "", False), True)
    assert row == {
        "input_ids": [5, 6, 7, 8, 9], "attention_mask": [1] * 5, "label_mask": [0, 0, 0, 1, 1], "label": True,
    }  # fmt: skip


def test_the_error_counts_questions_and_not_replies():
    same = measure.mean_and_error([1.0, 1.0, 0.0, 0.0], 2)
    assert same == pytest.approx((0.5, 0.5))  # two questions, sd 0.7071
    assert measure.mean_and_error([1.0, 0.0, 1.0, 0.0], 2) == pytest.approx((0.5, 0.0))


def test_the_distance_of_a_model_from_itself_is_0(small):
    model, tokenizer = chat_model.load_chat_model(small)
    found = measure.distance(model, model, tokenizer, questions.capitals()[1][:3], 0)
    assert found == {"k1": (0.0, 0.0), "k3": (0.0, 0.0)}


def test_neutral_text_costs_the_mean_cross_entropy_a_token(small):
    model, tokenizer = chat_model.load_chat_model(small)
    ids = torch.tensor([tokenizer.encode("It rains.", add_special_tokens=False)])
    expected = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:])
    found, _ = measure.nats_a_token(model, tokenizer, ["It rains.", "It rains."])
    assert found == pytest.approx(float(expected), rel=1e-5)


# The story


def test_pairs_join_replies_to_one_question_and_use_each_once():
    def thumb(number, ids, label):
        return story.Judged(number, Reply((number,), ids, "", True), label)

    thumbs = [thumb(0, (1,), True), thumb(0, (2,), False), thumb(0, (3,), False), thumb(1, (4,), True)]
    (pair,) = story.pairs_of(thumbs, 0)
    assert pair["chosen"]["input_ids"] == [0, 1]
    assert pair["rejected"]["input_ids"] in ([0, 2], [0, 3])


@pytest.mark.parametrize("name", list(protocol.METHODS))
def test_every_method_tells_its_story_and_leaves_the_reference_alone(name, small, tmp_path, monkeypatch):
    if name == "kto_brief":
        monkeypatch.setitem(questions.JUDGES, "brief", lambda asked, reply: len(set(reply.ids)) % 2 == 0)
    if name == "dpo":
        monkeypatch.setattr(protocol, "BATCH_SIZE", 2)
    told = story.Story(tmp_path, 3, small)
    reference, _ = told.reference()
    bits = [weight.clone() for weight in reference.parameters()]
    after = told.after(name)
    assert all(torch.equal(a, b) for a, b in zip(bits, reference.parameters(), strict=True))
    assert len(after["history"]) == protocol.STEPS
    assert after["n_up"] + after["n_down"] == 12
    assert after["kl"]["k1"][0] != 0.0
    assert {"thumbs_up", "right", "brief", "ended", "words"} == set(after["held_out"])
    assert json.loads((tmp_path / f"{name}.json").read_text())["history"] == after["history"]


def test_what_is_finished_is_not_made_again(small, tmp_path, monkeypatch):
    first = story.Story(tmp_path, 3, small)
    first.before(), first.replies()
    monkeypatch.setattr(story, "load_chat_model", lambda source: pytest.fail("loaded again"))
    again = story.Story(tmp_path, 3, small)
    assert again.replies() == first.replies()
    assert again.before()["held_out"] == json.loads(json.dumps(first.before()["held_out"]))


def test_a_folder_of_another_seed_or_model_is_refused(small, tmp_path):
    story.Story(tmp_path, 3, small).replies()
    with pytest.raises(ValueError, match="belongs to seed 3"):
        story.Story(tmp_path, 4, small).replies()


def test_thumbs_of_one_kind_are_refused_with_the_counts(small, tmp_path, monkeypatch):
    monkeypatch.setitem(questions.JUDGES, "right and brief", lambda asked, reply: False)
    with pytest.raises(ValueError, match="0 thumbs up and 12 down: the judge must see both"):
        story.Story(tmp_path, 3, small).after("kto")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    story.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        story.write_json(tmp_path / "a.json", {"a": math.nan})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}


def test_a_tokenizer_without_a_chat_template_is_refused(chat_folder, tmp_path):
    model, tokenizer = chat_model.load_chat_model(chat_folder)
    model.save_pretrained(tmp_path)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no chat template"):
        chat_model.load_chat_model(tmp_path)


def test_the_command_tells_all_reports_and_resumes(small, tmp_path, capsys):
    arguments = ["--model", small, "--folder", str(tmp_path)]
    assert command.main(arguments) == 0
    shown = capsys.readouterr()
    assert "KTO: training 2/2" in shown.err
    assert "thumbs-up on held-out questions" in shown.out
    assert "before:" in shown.out
    page = (tmp_path / "report_kto.html").read_text(encoding="utf-8")
    assert "<table>" in page
    assert "http" not in page
    assert command.main(arguments) == 0
    assert "training" not in capsys.readouterr().err


def click_all(file, replies, up):
    judged = clicks.Clicks(file, replies)
    while judged.current is not None:
        judged.click(up(judged.current[1]))
    return judged


def four_replies():
    texts = ("Yes.", "No.", "Why?", "Because.")
    return [(place // 2, Reply((1, 2), (5 + place, 2), text, ended=True)) for place, text in enumerate(texts)]


def test_each_click_is_kept_at_once_and_gone_on_with(tmp_path):
    file = tmp_path / "thumbs.json"
    first = clicks.Clicks(file, four_replies())
    assert first.current == four_replies()[0]
    first.click(True)
    assert first.current == four_replies()[2]  # another question before a second reply to this one
    assert [one.label for one in clicks.read(file)] == [True]
    again = clicks.Clicks(file, four_replies())
    assert again.current == four_replies()[2]
    again.click(False)
    again.undo()
    assert again.current == four_replies()[2]
    assert len(clicks.read(file)) == 1
    assert "1 of 4 judged, 1 up" in again.line()


def test_nobody_is_asked_for_more_than_forty(tmp_path):
    many = [(place, Reply((1,), (place, 2), str(place), ended=True)) for place in range(50)]
    assert len(click_all(tmp_path / "t.json", many, lambda reply: True).kept) == clicks.FIRST
    assert clicks.Clicks(tmp_path / "t.json", many).current is None


def test_the_buttons_click_and_show_what_somebody_wrote_as_text(tmp_path):
    nasty = [(0, Reply((1,), (3, 2), "<script>x</script>", ended=False)), (1, Reply((1,), (4, 2), "b", ended=True))]
    judged = clicks.Clicks(tmp_path / "thumbs.json", nasty)
    _, text, buttons = clicks.panel(judged).children
    up, down, back = buttons.children
    assert "<script>" not in text.value
    assert "(cut here)" in text.value
    up.click()
    down.click()
    assert [one.label for one in clicks.read(judged.file)] == [True, False]
    assert up.disabled
    assert "real --thumbs" in text.value
    back.click()
    assert not up.disabled


@pytest.mark.parametrize("content", ["{}", "nothing", '[{"number": 0}]'])
def test_a_file_that_holds_no_clicks_is_refused_and_left_alone(content, tmp_path):
    file = tmp_path / "thumbs.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="move it away"):
        clicks.Clicks(file, four_replies())
    assert file.read_text(encoding="utf-8") == content


def test_the_command_trains_on_own_thumbs_instead_of_the_judge_s(small, tmp_path, capsys):
    drawn = story.Story(tmp_path / "drawn", 3, small).replies()
    file = tmp_path / "thumbs.json"
    click_all(file, drawn, lambda reply: reply.ids[0] % 3 == 0)
    kept = [one.label for one in clicks.read(file)]
    arguments = ["--model", small, "--folder", str(tmp_path / "own"), "--thumbs", str(file)]
    assert command.main(arguments) == 0
    made = json.loads((tmp_path / "own" / "kto.json").read_text(encoding="utf-8"))
    assert (made["n_up"], made["n_down"]) == (sum(kept), len(kept) - sum(kept))
    assert not (tmp_path / "own" / "replies.json").exists()
    capsys.readouterr()
    clicks.Clicks(file, drawn).undo()  # other thumbs are another run: the old one is not taken for it
    assert command.main(arguments) == 2
    assert "a person's thumbs" in capsys.readouterr().err


def test_the_command_names_what_it_cannot_use(tmp_path, capsys):
    assert command.main(["--model", str(tmp_path), "--folder", str(tmp_path / "run")]) == 2
    assert str(tmp_path) in capsys.readouterr().err


# The report


def run_of(**values):
    shares = {"thumbs_up": 0.2, "right": 0.5, "brief": 0.5, "ended": 0.5, "words": 20.0} | values
    return {
        "held_out": {name: (value, 0.05) for name, value in shares.items() if name not in ("facts", "neutral")},
        "facts": (values.get("facts", 0.6), 0.05),
        "neutral": (values.get("neutral", 3.9), 0.05),
        "replies": [{"text": "<b>", "ended": False}] * 4,
    }


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"thumbs_up": 0.6}, "It helped: thumbs-up 0.20 before, 0.60 after. Nothing else"),
        ({"thumbs_up": 0.6, "right": 0.3}, "It helped.*Worse: right answers"),
        ({"thumbs_up": 0.6, "neutral": 4.2}, "It helped.*Worse: nats a token"),
        ({"thumbs_up": 0.25}, "No difference that these replies could show"),
        ({"thumbs_up": 0.0}, "It made things worse"),
    ],
)
def test_the_verdict_follows_two_standard_errors_and_names_the_cost(after, said):
    import re

    assert re.search(said, report.verdict(run_of(), run_of(**after)))


def test_a_reply_cannot_write_into_the_page():
    assert "<b>" not in report.page("t", ["q", "r"], run_of(), run_of())


# The committed results


def test_all_seeds_and_methods_are_there_and_none_is_lost():
    assert set(RUNS) == {(name, seed) for name in ("before", *protocol.METHODS) for seed in protocol.SEEDS}
    assert results.is_finite(RUNS)
    assert all(len(run["history"]) == protocol.STEPS for (name, _), run in RUNS.items() if name != "before")


def test_the_judge_saw_enough_of_the_behaviour_at_the_start():
    rates = [run["n_up"] / (run["n_up"] + run["n_down"]) for (name, _), run in RUNS.items() if name == "kto"]
    assert all(0.15 < rate < 0.5 for rate in rates)


def test_every_expectation_has_a_verdict():
    assert set(results.verdicts(RUNS)) == set(protocol.EXPECTED)


@needs_model
def test_smollm2_answers_and_its_first_loss_is_half_the_mean_weight():
    from kto_utils.losses import kto_loss

    model, tokenizer = chat_model.load_chat_model()
    (reply,) = sampling.sample(model, tokenizer, [sampling.prompt_ids(tokenizer, "What is the capital of France?")],
                               0.0, 16, 0)  # fmt: skip
    assert "Paris" in reply.text
    r = torch.zeros(2)
    assert float(kto_loss(r, r, torch.tensor([True, False]), torch.tensor(0.0)).mean()) == 0.5


def test_the_replies_that_the_readme_shows_are_in_the_results():
    page = " ".join((results.RESULTS_FILE.parents[2] / "README.md").read_text(encoding="utf-8").split())
    texts = [" ".join(RUNS[name, 4]["replies"][4][0].split()) for name in ("before", "kto")]
    before, after = page.split('Before: "')[1].split(' ..." After: "')[0], page.split('After: "')[1].split('"')[0]
    assert texts[0].replace('"', "'").startswith(before)
    assert texts[1] == after
