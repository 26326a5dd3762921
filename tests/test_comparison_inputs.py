"""What a run of the comparison is given and how it is measured: thumbs, scores, reference points."""

import math
import random
import statistics

import pytest
import torch

from kto_lab.comparison import reference_points, scores, thumbs
from kto_lab.comparison.settings import Setting
from kto_lab.comparison.thumbs import feedback
from kto_utils.evaluate import exact_kl, rates, thumbs_up_rate
from kto_utils.model import load_reference_model, reference_of
from kto_utils.world import UNTOUCHED, judge, trained_questions


@pytest.fixture(scope="module")
def rows():
    return feedback(Setting(), seed=0)


def counts(rows):
    up = sum(row["label"] for row in rows)
    return up, len(rows) - up


def texts(rows):
    return [(row["prompt"], row["completion"]) for row in rows]


def kinds(rows):
    found = {}
    for row in rows:
        found.setdefault(row["prompt"], set()).add(row["label"])
    return found


# --- thumbs ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_feedback_and_another_seed_another(rows):
    assert feedback(Setting(), seed=0) == rows
    assert feedback(Setting(), seed=1) != rows


def test_giving_the_rows_away_leaves_the_stored_ones_alone(rows):
    feedback(Setting(), seed=0)[0]["label"] = "spoilt"
    assert feedback(Setting(), seed=0) == rows


def test_the_two_groups_of_questions_that_are_held_out_get_no_thumbs(rows):
    prompts = {row["prompt"] for row in rows}
    assert prompts == {question.prompt for question in trained_questions()}
    assert not any(thing in prompt for thing in UNTOUCHED for prompt in prompts)


@pytest.mark.parametrize(("share", "whole"), [(0.5, 12), (0.25, 6)])
def test_that_share_of_the_questions_keeps_both_kinds(share, whole):
    found = kinds(feedback(Setting(both_kinds=share), seed=3))
    assert len(found) == 24
    assert sum(len(kind) == 2 for kind in found.values()) == whole
    assert sum(kind == {True} for kind in found.values()) == (24 - whole) // 2
    assert sum(kind == {False} for kind in found.values()) == (24 - whole) // 2


def test_thinning_takes_one_kind_only(rows):
    up, down = counts(rows)
    assert counts(feedback(Setting(keep_up=0.1), seed=0)) == (round(up / 10), down)
    assert counts(feedback(Setting(keep_down=0.02), seed=0)) == (up, round(down / 50))
    assert set(texts(feedback(Setting(keep_up=0.1), seed=0))) <= set(texts(rows))


def test_at_least_one_thumb_of_a_kind_is_left():
    rows = [{"prompt": "", "completion": str(i), "label": i < 3} for i in range(9)]
    assert counts(thumbs._thinned(rows, True, 0.01, random.Random(0))) == (1, 6)


def test_flips_hit_about_their_share_and_change_no_reply(rows):
    flipped = feedback(Setting(flip=0.2), seed=0)
    assert texts(flipped) == texts(rows)
    changed = statistics.mean(a["label"] != b["label"] for a, b in zip(rows, flipped, strict=True))
    assert changed == pytest.approx(0.2, abs=0.05)  # four standard errors of 1,200 coins


def test_the_majority_s_taste_decides_its_share_of_the_thumbs(rows):
    by_prompt = {question.prompt: question for question in trained_questions()}
    mixed = feedback(Setting(majority=0.7), seed=0)
    assert texts(mixed) == texts(rows)
    likes = {"polite and right": [], "rude and right": []}
    for row in mixed:
        for taste, given in likes.items():
            if judge(by_prompt[row["prompt"]], row["completion"], taste=taste):
                given.append(row["label"])
    assert statistics.mean(likes["polite and right"]) == pytest.approx(0.7, abs=0.11)  # four standard errors
    assert statistics.mean(likes["rude and right"]) == pytest.approx(0.3, abs=0.11)


def test_only_one_kind_is_only_one_kind(rows):
    up, down = counts(rows)
    assert counts(feedback(Setting(only="up"), seed=0)) == (up, 0)
    assert counts(feedback(Setting(only="down"), seed=0)) == (0, down)


def test_short_and_long_ups_part_the_thumbs_up_at_the_median(rows):
    short, long = (feedback(Setting(liked_length=which), seed=0) for which in ("short", "long"))

    def lengths(given):
        return [len(row["completion"].strip()) for row in given if row["label"]]

    assert max(lengths(short)) < min(lengths(long))
    assert sorted(lengths(short) + lengths(long)) == sorted(lengths(rows))
    assert counts(short)[1] == counts(long)[1] == counts(rows)[1]


# --- scores ---------------------------------------------------------------------------------------------------------


def test_the_measures_of_the_reference_are_those_of_evaluate():
    reference = load_reference_model(small=True)
    found = scores.reference_scores()
    assert found["trained thumbs_up"] == pytest.approx(thumbs_up_rate(reference), abs=1e-12)
    assert found["trained kl"] == 0.0
    assert found["trained excess_kl"] == pytest.approx(0.0, abs=1e-9)
    assert found["trained unknown"] == pytest.approx(1.0 - rates(reference)["listed"], abs=1e-12)


def test_the_measures_of_a_policy_are_those_of_evaluate():
    reference, policy = load_reference_model(small=True), load_reference_model(small=True)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.02)
    logps = [scores.logps_on(model, "trained") for model in (policy, reference)]
    found = scores.measures(*logps, "trained")
    assert found["kl"] == pytest.approx(exact_kl(policy, reference), abs=1e-12)
    assert found["kl"] > found["excess_kl"] >= 0
    assert found["polite"] == pytest.approx(rates(policy)["polite"], abs=1e-12)


def test_an_exact_optimum_has_no_excess():
    logps = scores.reference_logps_on(True, None, "trained")
    up = torch.tensor([[reply.thumbs_up for reply in scores.replies(q)] for q in trained_questions()])
    p = (logps.exp() * up).sum(-1, keepdim=True)
    for tilt in (-1.5, 2.0):
        best = logps + tilt * up - torch.log(1 - p + p * math.exp(tilt))
        found = scores.measures(best, logps, "trained")
        assert found["kl"] > 0.01
        assert found["excess_kl"] == pytest.approx(0.0, abs=1e-9)


def test_the_mean_length_survives_a_model_that_left_the_list():
    logps = scores.reference_logps_on(True, None, "trained")
    found = scores.measures(logps - 2000.0, logps, "trained")  # e^-2000 is 0 in float64
    assert found["length"] == pytest.approx(scores.measures(logps, logps, "trained")["length"], abs=1e-9)


# --- reference points -----------------------------------------------------------------------------------------------

LOGPS = {
    "policy_logps": torch.tensor([-1.0, -2.0]), "reference_logps": torch.tensor([-3.0, -1.0]),
    "policy_kl_logps": torch.tensor([-4.0, -2.0]), "reference_kl_logps": torch.tensor([-1.0, -3.0]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mismatched", 0.0), ("matched", 0.5), ("unclamped", -1.0), ("zero", 0.0), ("exact", 1.25)],
)
def test_each_reference_point_is_what_its_name_says(name, expected):
    assert float(reference_points.ReferencePoint(name, lambda: 1.25)(LOGPS)) == expected


def test_the_moving_average_remembers_and_is_clamped_when_used():
    point = reference_points.ReferencePoint("moving average", lambda: 0.0)
    assert float(point(LOGPS)) == 0.0
    assert point.average == pytest.approx(-0.1)
    up = LOGPS | {"policy_kl_logps": torch.tensor([4.0, 4.0]), "reference_kl_logps": torch.zeros(2)}
    assert float(point(up)) == pytest.approx(0.9 * -0.1 + 0.1 * 4.0)


def test_a_watched_reference_point_uses_its_own_and_notes_all():
    point = reference_points.WatchedReferencePoint(
        "unclamped", lambda: 1.25, lambda: {"mismatched": [0.0, 1.0], "unclamped": [-2.0, 0.0]}
    )
    used = [float(point(LOGPS)) for _ in range(11)]
    assert used == [-1.0] * 11
    assert [note["step"] for note in point.notes] == [0, 10]
    assert point.notes[0]["exact"] == 1.25
    assert point.notes[0]["unclamped"] == [-1.0, pytest.approx(math.sqrt(2))]
    assert point.notes[1]["moving average"] == 0.0
    assert point.trailing.average == pytest.approx(-(1 - 0.9**11))


def test_the_probe_of_an_unmoved_policy_says_zero_and_of_a_moved_one_does_not(rows):
    policy = load_reference_model(small=True)
    probe = reference_points.probe(policy, reference_of(policy), rows[:64], 16, seed=0)
    assert all(values == [0.0] * reference_points.N_PROBES for values in probe().values())
    with torch.no_grad():
        policy.lm_head.weight.mul_(1.05)
    moved = probe()
    assert len(set(moved["unclamped"])) > 1
    assert moved["mismatched"] == [max(0.0, value) for value in moved["unclamped"]]
