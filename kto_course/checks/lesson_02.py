"""The exercises of lesson 02: a tiny Llama and its frozen twin."""

import math

import torch

from kto_course.checks.engine import Fault, call, compare, exercise, gradient, number
from kto_utils.model import tiny_llama

H, INNER, VOCAB, LAYERS = 128, 256, 512, 2  # the model of the lesson


@exercise(
    "one_layer",
    "One layer more",
    minutes=2,
    difficulty=1,
    kind="predict a number",
    points=1,
    hints={
        "norms_missing": (
            "Nearly. Something small is missing: a layer holds more than its matrices.",
            "Each of a layer's two norms has H weights: add 2 * 128.",
        ),
        "one_norm": (
            "Nearly: 128 are missing. How often does a layer norm its vectors?",
            "The drawing shows two RMSNorms in a layer. The last norm of the model belongs to no layer.",
        ),
        "three_norms": (
            "Nearly: 128 too many. Which norm stands once in the whole model?",
            "The norm behind the last layer is not repeated: 2 * 128 in each layer.",
        ),
        "three_matrices": (
            "Attention has more than queries, keys and values. What happens to the four heads' results?",
            "The output matrix mixes them: 4 * 128 * 128 in all.",
        ),
        "two_matrices": (
            "SwiGLU has a gate. How many matrices is that, with up and down?",
            "Three: gate, up and down, 3 * 128 * 256.",
        ),
        "square_inner": (
            "One of SwiGLU's matrices turns H numbers into I numbers. How large is it?",
            "128 * 256, not 128 * 128 and not 256 * 256.",
        ),
        "embedding_again": (
            "You count a table of the vocabulary again. Does a new layer need one?",
            "Embedding and output matrix stand once, at the ends. Take only what is multiplied by L.",
        ),
        "both_layers": (
            "That is two layers. How many are added?",
            "Half of it: what stands in the brackets behind L, once.",
        ),
        "whole_model": (
            "That is a whole model. Asked for is only what is added.",
            "Take the bracket behind L in the formula, once: 4H^2 + 3HI + 2H.",
        ),
    },
)
def one_layer(answer):
    attention, swiglu, norms = 4 * H * H, 3 * H * INNER, 2 * H
    right = attention + swiglu + norms
    ends = 2 * VOCAB * H + H
    number(
        answer,
        right,
        0.5,
        {
            "norms_missing": right - norms,
            "one_norm": right - H,
            "three_norms": right + H,
            "three_matrices": right - H * H,
            "two_matrices": right - H * INNER,
            "square_inner": attention + 3 * INNER * INNER + norms,
            "embedding_again": right + VOCAB * H,
            "both_layers": LAYERS * right,
            "whole_model": (LAYERS + 1) * right + ends,
        },
        tried="H = 128, I = 256: the parameters of one layer",
    )
    return "the bracket behind L in the formula of section 2, once"


def right_attention(q, k, v):
    scores = q @ k.T / math.sqrt(q.shape[-1])
    return _hidden(scores, 1).softmax(-1) @ v


def _hidden(scores, diagonal, value=-math.inf):
    return scores.masked_fill(torch.ones_like(scores).triu(diagonal).bool(), value)


def attention_faults(q, k, v):
    """What the known faults of `causal_attention` give on this input."""
    d = q.shape[-1]
    raw = q @ k.T
    scores = raw / math.sqrt(d)
    pattern = _hidden(scores, 1).softmax(-1)
    zeroed = _hidden(scores.softmax(-1), 1, 0.0)
    past_hidden = scores.masked_fill(torch.ones_like(scores).tril(-1).bool(), -math.inf)
    own_hidden = _hidden(scores, 0).softmax(-1)
    across = _hidden(scores, 1).softmax(0)
    raised = _hidden(scores, 1).exp()
    forms = [
        ("no_mask", scores.softmax(-1)),
        ("zero_after_softmax", zeroed),
        ("zero_before_softmax", _hidden(scores, 1, 0.0).softmax(-1)),
        ("past_hidden", past_hidden.softmax(-1)),
        ("past_hidden", scores.masked_fill(torch.ones_like(scores).tril(0).bool(), -math.inf).softmax(-1)),
        ("own_hidden", own_hidden),
        ("own_hidden", own_hidden.nan_to_num(0.0)),
        ("sees_next", _hidden(scores, 2).softmax(-1)),
        ("not_scaled", _hidden(raw, 1).softmax(-1)),
        ("scaled_by_d", _hidden(raw / d, 1).softmax(-1)),
        ("scaled_up", _hidden(raw * math.sqrt(d), 1).softmax(-1)),
        ("scaled_by_length", _hidden(raw / math.sqrt(len(q)), 1).softmax(-1)),
        ("scaled_after_softmax", _hidden(raw, 1).softmax(-1) / math.sqrt(d)),
        ("wrong_axis", across),
        ("wrong_axis", across.nan_to_num(0.0)),
        ("wrong_axis", _hidden(scores.softmax(0), 1, 0.0)),
        ("keys_ask", _hidden(scores.T, 1).softmax(-1)),
        ("no_softmax", _hidden(scores, 1, 0.0)),
        ("no_sum", raised),
        ("log_softmax", _hidden(scores, 1).log_softmax(-1)),
        ("uniform", _hidden(torch.zeros_like(scores), 1).softmax(-1)),
    ]
    return [
        *((fault, table @ v) for fault, table in forms),
        ("shares_returned", pattern),
        ("two_results", (pattern @ v, pattern)),
        ("two_results", (pattern, pattern @ v)),
    ]


# With one value for each token, and 1 only at its own place, the result shows the shares themselves.
QUERIES = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 0.0, 1.0, 0.0], [0.0, 2.0, 0.0, 0.0]], dtype=torch.float64)
KEYS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 1.0, 0.0], [1.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
SHARES = f"q {QUERIES.int().tolist()}, k {KEYS.int().tolist()}, v the identity, so the result is the table of shares"


@exercise(
    "causal_attention",
    "Attention without looking ahead",
    minutes=8,
    difficulty=2,
    kind="fill in a function",
    points=3,
    hints={
        "no_mask": (
            "Token 0 uses tokens that come after it. What may it see?",
            "Before the softmax, the scores of later tokens must become -inf.",
            "future = torch.ones(T, T, dtype=torch.bool).triu(diagonal=1); scores.masked_fill(future, -torch.inf)",
        ),
        "zero_after_softmax": (
            "The future has no share, but the rest of a row does not add up to 1 any more.",
            "Hide the future before the softmax, with -inf: then the softmax shares out among the past alone.",
        ),
        "zero_before_softmax": (
            "A score of 0 is not 'nothing'. What is e to the power of 0?",
            "The softmax gives a share to every score but -inf: fill with -torch.inf.",
        ),
        "past_hidden": (
            "The mask is on the wrong side: tokens see the future and not the past.",
            "scores[t, s] belongs to query t and key s. Hide s > t: triu(diagonal=1).",
        ),
        "own_hidden": (
            "A token may look at itself. And what is left for token 0 if it may not?",
            "Hide s > t, not s >= t: triu(diagonal=1).",
        ),
        "sees_next": (
            "One step too far: token t can see token t + 1.",
            "Hide s > t: triu(diagonal=1) begins one place to the right of the diagonal.",
        ),
        "not_scaled": (
            "The shares are too extreme. What are the scores divided by?",
            "Divide q @ k.T by math.sqrt(q.shape[-1]) before the softmax.",
        ),
        "scaled_by_d": (
            "The shares are too even: you divide by d.",
            "Divide by the square root of d.",
        ),
        "scaled_up": (
            "The shares are far too extreme. Do you divide by the root of d, or multiply?",
            "scores = q @ k.T / math.sqrt(d)",
        ),
        "scaled_by_length": (
            "You divide by the root of the number of tokens. Which length is d?",
            "d is the length of one query: q.shape[-1].",
        ),
        "scaled_after_softmax": (
            "The shares of a row do not add up to 1. What have you divided?",
            "The root of d divides the scores, before the softmax.",
        ),
        "wrong_axis": (
            "The columns add up to 1, not the rows. Who shares out attention: the query or the key?",
            "Each query shares out among the keys, the last axis: softmax(-1).",
        ),
        "keys_ask": (
            "The roles are turned round: here the keys ask and the queries answer.",
            "scores[t, s] = q[t] . k[s], that is q @ k.T.",
        ),
        "no_softmax": (
            "These are scores. A mixture needs shares, positive and adding up to 1.",
            "Take the softmax of each row before you multiply by v.",
        ),
        "no_sum": (
            "The exponentials are right, but a row must add up to 1.",
            "Divide each row by its sum, sum(-1, keepdim=True), or use softmax(-1).",
        ),
        "log_softmax": (
            "These are logarithms of shares. Which function gives the shares themselves?",
            "softmax(-1) in the place of log_softmax(-1).",
        ),
        "uniform": (
            "Every visible token gets the same share. Where do queries and keys come in?",
            "The scores are q @ k.T / math.sqrt(d).",
        ),
        "shares_returned": (
            "These are the shares. What is mixed with them?",
            "Multiply by the values: shares @ v.",
        ),
        "two_results": (
            "Two results have come back. One is asked for.",
            "Return the mixed values alone, shape (T, e).",
        ),
        "overflow": (
            "Scores of 1000 are too much for exp. Does a softmax change when all scores fall by the same amount?",
            "Subtract each row's largest score before exp, or use softmax(-1), which does.",
        ),
    },
)
def causal_attention(answer):
    small = (QUERIES, KEYS, torch.eye(3, dtype=torch.float64))
    compare(call(answer, *small, tried=SHARES), right_attention(*small), attention_faults(*small))
    for T, d, e, dtype in ((5, 4, 4, torch.float64), (6, 3, 2, torch.float64), (4, 8, 8, torch.float32)):
        generator = torch.Generator().manual_seed(T)
        case = [torch.randn(T, n, generator=generator, dtype=torch.float64).to(dtype) for n in (d, d, e)]
        tried = f"random q and k ({T}, {d}), v ({T}, {e})"
        compare(call(answer, *case, tried=tried), right_attention(*case), attention_faults(*case))
    for wrt, name in enumerate("qkv"):
        found = gradient(answer, *case, wrt=wrt, tried=f"the gradient in {name}")
        compare(found, gradient(right_attention, *case, wrt=wrt), default="gradient")
    large = (100 * QUERIES, 10 * KEYS, small[2])
    raised = _hidden(large[0] @ large[1].T / 2, 1).exp()
    found = call(answer, *large, tried=SHARES.replace("q [", "q 100 * [").replace("k [", "k 10 * ["))
    overflows = raised / raised.sum(-1, keepdim=True) @ large[2]
    compare(found, right_attention(*large), {"overflow": overflows})
    return "values on five inputs, the gradient in q, k and v, and scores of 1000"


def small_policy():
    """A Llama with few numbers, in training mode like every policy that is about to learn."""
    model = tiny_llama(vocab_size=12, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=2, seed=3)
    return model.train()


@exercise(
    "frozen_reference",
    "A copy that holds still",
    minutes=4,
    difficulty=2,
    kind="repair a function",
    points=2,
    ours="kto_utils.model.reference_of",
    hints={
        "reference_is_policy": (
            "It is the same object. What will the log-ratio be after a step of training?",
            "An assignment copies nothing, and .eval() returns the model itself: start with copy.deepcopy(policy).",
        ),
        "shared_memory": (
            "Two objects, but one memory: when the policy learns, the reference learns too.",
            "copy.copy copies the shell and keeps the tensors inside it. Which function goes all the way down?",
            "copy.deepcopy(policy)",
        ),
        "independent_reference": (
            "It has the policy's shape, but not its numbers. What would the log-ratio be before the first step?",
            "Copy the policy, or load its weights into the new model: load_state_dict(policy.state_dict()).",
        ),
        "reference_not_detached": (
            "The numbers are right. But the copy's parameters still ask for gradients.",
            "reference.requires_grad_(False) freezes all parameters of a model.",
        ),
        "not_eval": (
            "The copy is still in training mode, where dropout would make its scores random.",
            "reference.eval()",
        ),
        "policy_frozen": (
            "Now the policy cannot learn: its own parameters ask for no gradient any more.",
            "Make the copy first, then freeze the copy and nothing else.",
        ),
        "policy_in_eval": (
            "The policy has left training mode. Whose mode should change?",
            "Make the copy first, then call .eval() on the copy.",
        ),
        "policy_changed": (
            "The policy's own numbers have changed. It should stay as it was.",
            "Only the copy is made here; nothing is loaded into the policy or reset in it.",
        ),
        "weights_only": (
            "That is a table of numbers. Asked for is a model that can be run.",
            "Return a model, as copy.deepcopy(policy) makes it, not its state_dict().",
        ),
        "type": (
            "No model has come back.",
            "Return the copy: copy.deepcopy(policy), frozen, in eval mode.",
        ),
    },
)
def frozen_reference(answer):
    tried = "a small Llama in training mode"
    try:
        call(answer, small_policy(), tried=tried)
    except Fault as found:
        if found.fault != "changed_arguments":  # told more exactly below
            raise
    policy, twin = small_policy(), small_policy()  # `call` hands over a copy; here the policy itself is watched
    reference = answer(policy)
    if isinstance(reference, dict):
        raise Fault("weights_only", got="a state_dict", expected="a model")
    if not isinstance(reference, torch.nn.Module):
        raise Fault("type", got=f"a {type(reference).__name__}", expected="a model")
    if reference is policy:
        raise Fault("reference_is_policy", got="the policy itself", expected="another model")
    places = {p.data_ptr() for p in policy.parameters()}
    if any(p.data_ptr() in places for p in reference.parameters()):
        raise Fault("shared_memory", got="parameters in the policy's memory", expected="memory of its own")
    if not _equal(policy, twin):
        raise Fault("policy_changed", got="other numbers in the policy", expected="the policy as it was")
    if not _equal(reference, policy):
        raise Fault("independent_reference", got="other numbers than the policy's", expected="the same numbers")
    if not all(p.requires_grad for p in policy.parameters()):
        raise Fault("policy_frozen", got="a policy without gradients", expected="a policy that can learn")
    if any(p.requires_grad for p in reference.parameters()):
        raise Fault("reference_not_detached", got="parameters that require a gradient", expected="none")
    if not all(m.training for m in policy.modules()):
        raise Fault("policy_in_eval", got="a policy in eval mode", expected="a policy in training mode")
    if any(m.training for m in reference.modules()):
        raise Fault("not_eval", got="a reference in training mode", expected="eval mode")
    return "numbers, memory, gradients and mode of both models"


def _equal(one, other):
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def turned(x, angles):
    """Row t of x, pair i (entries i and i + d/2), turned by angles[t, i]."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), dim=-1)


def right_rotary(x):
    return turned(x, _angles(x))


def _angles(x, first=0, exponent=2.0):
    T, d = x.shape
    speeds = 10000.0 ** (-exponent * torch.arange(d // 2, dtype=x.dtype) / d)
    return (torch.arange(T, dtype=x.dtype) + first)[:, None] * speeds


def _interleaved(x):
    """The entries 0, 2, 4, ... and behind them 1, 3, 5, ..."""
    return torch.cat((x[:, ::2], x[:, 1::2]), dim=-1)


def rotary_faults(x):
    """What the known faults of `rotary` give on this input."""
    T, d = x.shape
    angles = _angles(x)
    cos, sin = angles.cos(), angles.sin()
    a, b = x.chunk(2, dim=-1)
    neighbours = turned(_interleaved(x), angles)
    woven = torch.stack(neighbours.chunk(2, dim=-1), dim=-1).reshape(T, d)
    new_a = a * cos - b * sin
    faults = [
        ("neighbours_paired", woven),
        ("neighbours_paired", neighbours),
        ("turned_backwards", turned(x, -angles)),
        ("counts_from_one", turned(x, _angles(x, first=1))),
        ("one_speed", turned(x, torch.arange(T, dtype=x.dtype)[:, None].expand(T, d // 2))),
        ("exponent", turned(x, _angles(x, exponent=1.0))),
        ("exponent", turned(x, _angles(x, exponent=4.0))),
        ("speeds_grow", turned(x, _angles(x, exponent=-2.0))),
        ("no_position", turned(x, angles[1:2])),
        ("overwritten", torch.cat((new_a, new_a * sin + b * cos), dim=-1)),
        ("minus_missing", torch.cat((a * cos + b * sin, a * sin + b * cos), dim=-1)),
        ("minus_missing", torch.cat((a * cos - b * sin, a * sin - b * cos), dim=-1)),
        ("halves_swapped", right_rotary(x).roll(d // 2, dims=-1)),
        ("half_turned", torch.cat((new_a, b), dim=-1)),
        ("half_turned", new_a),
        ("added", x + torch.cat((sin, cos), dim=-1)),
        ("added", x + torch.cat((cos, sin), dim=-1)),
        ("one_row", right_rotary(x)[-1]),
    ]
    if d // 2 == T:
        faults.append(("axes_swapped", turned(x, angles.T)))
    return faults


@exercise(
    "rotary",
    "Turn by position",
    minutes=10,
    difficulty=2,
    kind="fill in a function",
    points=3,
    ours="kto_course.checks.lesson_02.right_rotary",
    hints={
        "neighbours_paired": (
            "A good rotation, but of other pairs. Which entry is the partner of entry 0?",
            "Entry i goes with entry i + d/2, not with its neighbour.",
            "Cut x into two halves, a, b = x.chunk(2, dim=-1); pair i is (a[i], b[i]).",
        ),
        "turned_backwards": (
            "The angles are right, the direction is not. Where does the point (1, 0) go for a small angle?",
            "It goes to (cos, sin), so b grows. The minus stands in the first formula: a cos - b sin.",
        ),
        "counts_from_one": (
            "The first token has been turned. What is its position?",
            "Positions start at 0: torch.arange(T).",
        ),
        "one_speed": (
            "All pairs turn alike. Which of them should be slow?",
            "Pair i turns by t * 10000 ** (-2 * i / d), not by t.",
        ),
        "exponent": (
            "Pair 0 is right, the others turn too fast or too slowly. Look at the exponent again.",
            "The exponent of pair i is -2i/d: i counts the pairs 0, 1, ..., d/2 - 1, and d is the whole length.",
        ),
        "speeds_grow": (
            "Pair 0 is right, the others are far too fast. Should the last pairs not hardly move?",
            "The exponent is negative: 10000 ** (-2 * i / d).",
        ),
        "no_position": (
            "Every row is turned by the same angle. What should tell them apart?",
            "Multiply the speeds by the position: torch.arange(T)[:, None] * speeds.",
        ),
        "overwritten": (
            "The first half is right, the second is not. Which a goes into the second formula?",
            "You have replaced a before b was computed. Both formulas want the old a: use other names.",
        ),
        "minus_missing": (
            "A rotation keeps the length of (a, b). Does yours?",
            "The only minus is that of the first formula: a cos - b sin, a sin + b cos.",
        ),
        "halves_swapped": (
            "The numbers are right, but the halves have changed places.",
            "First all new a, then all new b: torch.cat((new_a, new_b), dim=-1).",
        ),
        "half_turned": (
            "Half of the numbers are turned. A point has two coordinates.",
            "Both a and b change: a cos - b sin and a sin + b cos, one behind the other.",
        ),
        "added": (
            "You add a position. Llama turns by it.",
            "Nothing is added to x: cosine and sine are multiplied with a and b.",
        ),
        "one_row": (
            "Only one token has come back. How many went in?",
            "Collect all T rows, with torch.stack, and return them behind the loop.",
        ),
        "axes_swapped": (
            "Positions and pairs have changed places. Which axis of the angles is the position?",
            "angles[t, i] = t * speed[i]: t[:, None] * speeds, shape (T, d/2).",
        ),
    },
)
def rotary(answer):
    x = torch.tensor([[1.0, 1.0, 0.0, 2.0], [1.0, 1.0, 0.0, 2.0]], dtype=torch.float64)
    near = 1e-6  # angles computed in float32 are good enough
    compare(call(answer, x), right_rotary(x), rotary_faults(x), tolerance=near)
    for T, d, dtype in ((5, 8, torch.float64), (7, 6, torch.float64), (3, 16, torch.float32), (1, 2, torch.float64)):
        x = torch.randn(T, d, generator=torch.Generator().manual_seed(T), dtype=torch.float64).to(dtype)
        found = call(answer, x, tried=f"random numbers ({T}, {d})")
        compare(found, right_rotary(x), rotary_faults(x), tolerance=near if dtype == torch.float64 else None)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = gradient(answer, x, tried="the gradient in x")
    compare(found, gradient(right_rotary, x), default="gradient", tolerance=near)
    return "values on five inputs, in two number types, and the gradient"
