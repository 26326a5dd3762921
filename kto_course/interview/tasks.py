"""The blank pages: which exercises are drilled, the minutes for each, and what an interviewer listens for."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A drill: an exercise of another lesson, written from nothing.

    Fields:
        minutes: what a candidate gets.
        allowed: what may be used beside torch.
        listens_for: what the interviewer wants to see or hear.
    """

    minutes: int
    allowed: str
    listens_for: tuple[str, ...]


DRILLS = {
    "tokenize_with_mask": Task(
        8,
        "the tokenizer you are handed",
        (
            "`<eos>` is appended to the completion and scored: nothing else teaches the model to stop.",
            "The prompt's tokens get 0 in the mask, a start token with them: the model did not write them.",
            "You say where prompt and completion meet: tokenised apart, the tokens at the border may differ from those "
            "of the whole text. Decide for one of the two and keep to it.",
            "A completion that is empty, or cut away to nothing, is no row: its log-ratio would be 0 for ever and put "
            "the constant w/2 into the loss.",
            "A special name in the text stays text: a user who types `<eos>` must not end the reply.",
        ),
    ),
    "collate_kto": Task(
        12,
        "lists, and torch for the tensors",
        (
            "Padding goes to the right, with 0 in the attention mask and in the label mask. The masks decide, not the "
            "id, so a pad token equal to `<eos>` does no harm.",
            "Borrowed completions: rotate by one. That mismatches every row of any batch from two on; reversing leaves "
            "the middle row of an odd batch with its own completion.",
            "A batch of one has nobody to borrow from: raise an error. A matched pair gives a loss stuck at w/2.",
            "Neighbours with the same prompt are not mismatched by a rotation; say it, and shuffle before batching.",
            "Borrowed rows carry no thumb. Nobody judged them.",
        ),
    ),
    "get_probs": Task(
        8,
        "torch",
        (
            "The shift, before anything else: the logits at place t are about token t + 1.",
            "The mask is cut like the token ids, because it belongs to the token that is predicted.",
            "`log_softmax`, not the logarithm of a softmax: an unlikely token would round to log 0.",
            "Unscored places are assigned 0. Multiplying by the mask gives NaN where a forbidden word has -inf.",
            "You test it: logits that put everything on the *next* token must give about 0.",
        ),
    ),
    "sequence_logps": Task(
        6,
        "torch",
        (
            "A sum over the completion's tokens, in nats. Neither KTO nor DPO divides by the length.",
            "Why not the mean: the probability of a reply is a product, so its logarithm is a sum. Two halves of a "
            "reply then add up to the whole.",
            "`mask.sum()` over the batch would make a reply depend on its neighbours, and beta on the batch size.",
            "`<eos>` is one of the tokens.",
            "The price, said without being asked: long replies have larger log-ratios and saturate sooner.",
        ),
    ),
    "reference_point": Task(
        5,
        "torch",
        (
            "Mismatched completions. The batch's own rows were picked to be good or bad, so their log-ratios are no "
            "background level.",
            "Mean first, then the clamp: log-ratios -3 and 5 give 1, not 2.5.",
            "Detached: a constant, which only decides where the loss saturates.",
            "In nats; beta is not in it.",
            "It is no unbiased estimate of the KL: it is often 0 while the true KL is not.",
        ),
    ),
    "kto_loss": Task(
        10,
        "torch",
        (
            "The label picks the branch and the weight. The sign of r - z0 does not.",
            "`sigmoid(-u)`, not `1 - sigmoid(u)`: in float32 the latter is exactly 0 from u = 17 on, its gradient too.",
            "beta once, around the whole of r - z0; z0 is handed over in nats and gets no gradient.",
            "A value to check by: with policy equal to reference the batch loss is half the mean weight.",
            "No hinge, no logarithm; bounded by the weight, and flat on both sides.",
        ),
    ),
    "kto_gradient": Task(
        8,
        "torch, without autograd",
        (
            "-s * w * beta * sigmoid(u) * sigmoid(-u) for each row, with u = s * beta * (r - z0); divided by N for the "
            "mean of a batch.",
            "The sign: it lowers the loss to raise r of a thumb up and to lower r of a thumb down, always.",
            "Largest at r = z0, with w * beta / 4.",
            "It vanishes on both sides. KTO gives up on hopeless rows; DPO does not.",
            "z0 is a constant in this derivative. You compare with autograd, or with a difference quotient.",
        ),
    ),
    "dpo_loss": Task(
        6,
        "torch",
        (
            "Four log-probabilities, two log-ratios, one difference: chosen minus rejected, policy minus reference.",
            "`-logsigmoid(x)`, which stays finite; `-log(sigmoid(x))` does not.",
            "A value to check by: ln 2 while policy and reference agree.",
            "It sees only the difference: add the same number to both log-ratios and nothing changes. Both replies may "
            "become unlikely while the margin grows.",
            "Sums over tokens here too, and no gradient into the reference.",
        ),
    ),
    "causal_attention": Task(
        10,
        "torch, without its ready-made attention",
        (
            "Scores are divided by the square root of the head's size, before the softmax.",
            "The future gets -inf before the softmax, not 0 after it: the rest must still add up to 1.",
            "The diagonal stays: a token may look at itself. A row without any key would be NaN.",
            "The softmax runs over the keys, the last axis.",
            "You test it: change one token, and nothing before it may change.",
        ),
    ),
    "rotary": Task(
        12,
        "torch",
        (
            "Queries and keys are turned, values are not.",
            "The angle is the position times a frequency that falls geometrically from pair to pair.",
            "Which entries form a pair: in the library's Llama, entry i goes with entry i + d/2. Say which you use.",
            "Lengths stay, and position 0 is left alone.",
            "The point of it all: a score then depends on the distance of two positions only.",
        ),
    ),
}
