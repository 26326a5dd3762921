"""Terms beside a method's loss: own thumbs-up, label smoothing, demonstrations (lessons 08 and 08b)."""

import math

import pytest
import torch
import torch.nn.functional as F

from kto_lab.extra_terms import Demonstrations, OwnThumbsUp, Smoothing, together
from kto_utils.losses import dpo_loss
from kto_utils.model import load_reference_model, reference_of
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Parts, train_dpo, train_kto
from kto_utils.world import sft_rows

TEXTS = sft_rows(1, seed=5)[:8]
ROWS = [row | {"label": number % 2 == 0} for number, row in enumerate(TEXTS)]
PAIRS = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": " No."} for row in TEXTS]


def first_step(train, rows, term, **options):
    """The loss of step 1, with and without the term."""
    losses = []
    for extra in (term, None):
        policy = load_reference_model(small=True)
        _, history = train(
            policy, reference_of(policy), rows, load_tokenizer(), steps=1, batch_size=8, parts=Parts(extra_loss=extra),
            **options,
        )  # fmt: skip
        losses.append(history[0]["loss"])
    return losses


class Known:
    """What a method hands to a term, made by hand."""

    def __init__(self, method, policy, reference, mask, label=None, beta=0.5):
        self.method, self.options = method, {"beta": beta}
        self.known = {"policy_logps": torch.tensor(policy), "reference_logps": torch.tensor(reference)}
        self.batch = {"label_mask": torch.tensor(mask)} | ({} if label is None else {"label": torch.tensor(label)})

    def of(self, term):
        return float(term(self, self.batch, self.known))


def test_own_thumbs_up_is_the_mean_loss_a_token_of_the_liked_rows_alone():
    kto = Known("KTO", [-4.0, -9.0, -6.0], [0.0] * 3, [[1, 1, 0], [1, 1, 1], [1, 1, 1]], [True, False, True])
    assert kto.of(OwnThumbsUp(2.0)) == pytest.approx(2.0 * (4.0 + 6.0) / 5)
    dpo = Known("DPO", [-4.0, -9.0], [0.0] * 2, [[1, 1], [1, 1]])  # the first half are the chosen replies
    assert dpo.of(OwnThumbsUp(1.0)) == pytest.approx(2.0)


def test_own_thumbs_up_adds_nothing_to_a_batch_without_any():
    assert Known("KTO", [-4.0], [0.0], [[1, 1]], [False]).of(OwnThumbsUp(1.0)) == 0.0


def test_smoothing_gives_the_smoothed_loss():
    policy, reference, beta, chance = [-4.0, -3.0, -6.0, -8.0], [-5.0, -5.0, -5.0, -5.0], 0.5, 0.2
    margin = torch.tensor([(-4 + 5) - (-6 + 5.0), (-3 + 5) - (-8 + 5.0)])
    wanted = -(1 - chance) * F.logsigmoid(beta * margin) - chance * F.logsigmoid(-beta * margin)
    plain = dpo_loss(*torch.tensor(policy).chunk(2), *torch.tensor(reference).chunk(2), beta)
    added = Known("DPO", policy, reference, [[1]] * 4, beta=beta).of(Smoothing(chance))
    assert float(plain.mean()) + added == pytest.approx(float(wanted.mean()))


@pytest.mark.parametrize("chance", [0.0, 0.5, -0.1, math.nan])
def test_smoothing_needs_less_than_half(chance):
    with pytest.raises(ValueError, match="between 0 and 1/2"):
        Smoothing(chance)


def test_smoothing_of_thumbs_is_refused():
    with pytest.raises(ValueError, match="the run is KTO"):
        first_step(train_kto, ROWS, Smoothing(0.1))


@pytest.mark.parametrize(("train", "rows"), [(train_kto, ROWS), (train_dpo, PAIRS)])
def test_the_loops_hand_over_what_the_terms_need(train, rows):
    with_term, plain = first_step(train, rows, OwnThumbsUp(0.5))
    assert with_term > plain + 0.1
    both, _ = first_step(train, rows, together(OwnThumbsUp(0.25), None, OwnThumbsUp(0.25)))
    assert both == pytest.approx(with_term, abs=1e-12)


def test_at_step_1_smoothing_changes_nothing_and_later_it_does():
    smoothed, plain = first_step(train_dpo, PAIRS, Smoothing(0.3))
    assert smoothed == pytest.approx(plain, abs=1e-12)  # every margin is 0
    last = []
    for extra in (Smoothing(0.3), None):
        policy = load_reference_model(small=True)
        _, history = train_dpo(policy, reference_of(policy), PAIRS, load_tokenizer(), steps=4, learning_rate=1e-3,
                               parts=Parts(extra_loss=extra))  # fmt: skip
        last.append(history[-1]["margin"])
    assert last[0] < last[1]  # believed less, pushed less


def test_no_terms_are_no_term():
    assert together(None, None) is None


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan])
def test_a_weight_must_be_positive(weight):
    for make in (OwnThumbsUp, lambda w: Demonstrations(ROWS, w)):
        with pytest.raises(ValueError, match="it must be positive"):
            make(weight)


def test_demonstrations_need_rows():
    with pytest.raises(ValueError, match="there are no rows"):
        Demonstrations([], 0.3)
