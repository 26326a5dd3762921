"""The small world: its facts, the 48 replies to a question, and the simulated human."""

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kto_utils import world

QUESTIONS = world.all_questions()


def test_there_are_24_trained_24_reworded_and_8_untouched_questions():
    assert len(world.trained_questions()) == len(world.reworded_questions()) == 24
    assert len(world.untouched_questions()) == 8
    assert len(QUESTIONS) == 64
    assert len({question.text for question in QUESTIONS}) == 64


def test_the_reworded_questions_ask_for_the_trained_facts_in_other_words():
    for first, second in zip(world.trained_questions(), world.reworded_questions(), strict=True):
        assert (first.thing, first.answer, first.kind) == (second.thing, second.answer, second.kind)
        assert first.text != second.text


def test_no_untouched_fact_is_among_the_trained_ones():
    touched = {question.thing for question in world.trained_questions() + world.reworded_questions()}
    untouched = {question.thing for question in world.untouched_questions()}
    assert untouched == world.UNTOUCHED
    assert not touched & untouched
    assert len(touched) + len(untouched) == 32


def test_a_question_knows_its_fact_and_its_prompt():
    sky = world.trained_questions()[0]
    assert (sky.text, sky.kind, sky.answer) == ("What colour is the sky?", "colour", "blue")
    assert sky.prompt == "USER: What colour is the sky? ASSISTANT:"


def test_every_question_has_48_different_replies_of_which_three_are_liked():
    for question in QUESTIONS:
        replies = world.replies(question)
        assert len({reply.text for reply in replies}) == 48
        assert sum(reply.thumbs_up for reply in replies) == 3
        assert sum(reply.polite for reply in replies) == 24
        assert sum(reply.right for reply in replies) == 6


def test_replies_start_with_a_blank_and_give_their_answer():
    for reply in world.replies(QUESTIONS[0]):
        assert reply.text.startswith(" ")
        assert not reply.text.startswith("  ")
        assert reply.answer in reply.text
        assert reply.right == (reply.answer == "blue")


@pytest.mark.parametrize("kind", ["colour", "capital", "sound"])
def test_a_kind_has_eight_answers_and_each_fact_answers_with_one_of_them(kind):
    assert len(set(world.answers(kind))) == 8
    assert {question.answer for question in QUESTIONS if question.kind == kind} == set(world.answers(kind))


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'smell'"):
        world.answers("smell")


def test_every_listed_reply_is_found_again_with_or_without_blanks_around_it():
    question = QUESTIONS[20]
    for reply in world.replies(question):
        for text in (reply.text, reply.text.strip(), f"{reply.text} \n"):
            assert world.find_reply(question, text) == reply


@pytest.mark.parametrize(
    "text", ["", "blue", " It is blue.", " It is purple. Happy to help!", " it is blue. happy to help!"]
)
def test_any_other_text_is_no_reply_and_is_not_liked(text):
    assert world.find_reply(QUESTIONS[0], text) is None
    assert not any(world.judge(QUESTIONS[0], text, taste=taste) for taste in world.TASTES)


def test_a_reply_to_a_question_of_another_kind_is_not_listed():
    colour, capital = QUESTIONS[0], next(question for question in QUESTIONS if question.kind == "capital")
    assert world.find_reply(capital, world.replies(colour)[0].text) is None


@pytest.mark.parametrize(
    ("taste", "liked"),
    [
        ("polite and right", {(True, True)}),
        ("polite", {(True, True), (True, False)}),
        ("right", {(True, True), (False, True)}),
        ("rude and right", {(False, True)}),
    ],
)
def test_each_taste_likes_exactly_what_its_name_says(taste, liked):
    for question in QUESTIONS[::9]:
        for reply in world.replies(question):
            assert world.judge(question, reply.text, taste=taste) == ((reply.polite, reply.right) in liked)


def test_the_default_human_agrees_with_thumbs_up():
    assert set(world.TASTES) == {"polite and right", "polite", "right", "rude and right"}
    for reply in world.replies(QUESTIONS[3]):
        assert world.judge(QUESTIONS[3], reply.text) == reply.thumbs_up


@given(st.integers(0, 2**32), st.sampled_from(range(48)))
def test_noise_1_flips_every_thumb_and_noise_0_none(seed, number):
    question = QUESTIONS[7]
    reply, rng = world.replies(question)[number], random.Random(seed)
    assert world.judge(question, reply.text, noise=1.0, rng=rng) == (not reply.thumbs_up)
    assert world.judge(question, reply.text, noise=0.0, rng=rng) == reply.thumbs_up


def test_noise_flips_the_share_it_promises_on_either_side():
    question, rng = QUESTIONS[0], random.Random(0)
    for reply in (world.replies(question)[0], world.replies(question)[-1]):
        flips = sum(world.judge(question, reply.text, noise=0.2, rng=rng) != reply.thumbs_up for _ in range(4000))
        assert abs(flips / 4000 - 0.2) < 4 * (0.2 * 0.8 / 4000) ** 0.5


def test_without_noise_no_random_number_is_drawn():
    rng = random.Random(1)
    state = rng.getstate()
    world.judge(QUESTIONS[0], " It is blue. Happy to help!", rng=rng)
    assert rng.getstate() == state


@pytest.mark.parametrize("noise", [-0.1, 1.1, float("nan")])
def test_noise_that_is_no_probability_is_refused(noise):
    with pytest.raises(ValueError, match="probability between 0 and 1"):
        world.judge(QUESTIONS[0], " It is blue.", noise=noise, rng=random.Random(0))


def test_noise_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="needs rng"):
        world.judge(QUESTIONS[0], " It is blue.", noise=0.1)


def test_an_unknown_taste_is_refused_and_the_known_ones_are_listed():
    with pytest.raises(ValueError, match=r"'sweet'.*'polite and right'"):
        world.judge(QUESTIONS[0], " It is blue.", taste="sweet")


@pytest.mark.parametrize("reply", [None, 3, [" It is blue."]])
def test_a_reply_that_is_no_text_is_refused(reply):
    with pytest.raises(TypeError, match="must be the text"):
        world.judge(QUESTIONS[0], reply)


def test_random_replies_are_polite_and_right_as_often_as_asked_and_independently():
    rng, question, n = random.Random(5), QUESTIONS[30], 4000
    drawn = [world.draw_reply(question, rng, polite=0.7, right=0.4) for _ in range(n)]
    expected = {(True, True): 0.28, (True, False): 0.42, (False, True): 0.12, (False, False): 0.18}
    counts = Counter((reply.polite, reply.right) for reply in drawn)
    for kind, share in expected.items():
        assert abs(counts[kind] / n - share) < 4 * (share * (1 - share) / n) ** 0.5


@pytest.mark.parametrize("polite", [0.0, 1.0])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_certain_draws_are_certain(polite, right):
    rng = random.Random(0)
    for question in QUESTIONS[::7]:
        reply = world.draw_reply(question, rng, polite=polite, right=right)
        assert (reply.polite, reply.right) == (bool(polite), bool(right))


def test_sft_rows_hold_every_question_equally_often_shuffled_and_without_thumbs():
    rows = world.sft_rows(3, seed=0)
    assert len(rows) == 192
    assert set(Counter(row["prompt"] for row in rows).values()) == {3}
    assert all(set(row) == {"prompt", "completion"} for row in rows)
    assert [row["prompt"] for row in rows] != sorted(row["prompt"] for row in rows)
    assert rows == world.sft_rows(3, seed=0)
    assert rows != world.sft_rows(3, seed=1)


def test_the_corpus_holds_every_prompt_and_every_reply():
    corpus = set(world.corpus())
    for question in QUESTIONS:
        assert question.prompt in corpus
        assert all(reply.text in corpus for reply in world.replies(question))


def test_importing_the_world_does_not_import_torch():
    code = "import sys, kto_utils.world; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
