"""Writes kto_v1.json, byte for byte the same each time: `python tests/conformance/generate.py`.

`--check` writes nothing and exits with 1 if the file is not what would be written. Standard library only.
The expected numbers are the specification's own lines, run on 50-digit decimals and rounded once to float64:
so they do not depend on the exponential of the machine that ran this.
"""

import argparse
import decimal
import importlib.util
import json
import random
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
FILE = HERE / "kto_v1.json"
INF = float("inf")

ABOUT = (
    "KTO conformance cases, version 1, Apache-2.0. part 'loss': sequence log-probabilities (nats) -> z0, losses per "
    "row, their mean, d loss / d policy_logps. part 'logps': logits, ids, masks -> log-probability of each completion "
    "token and their sum per row. All numbers float64; '-inf' and 'nan' stand as strings and occur in logits only. "
    "Tolerance: |found - expected| <= 1e-12 + 1e-12 |expected|. README.md beside this file says the rest."
)


# ---------------------------------------------------------------- the specification with 50 digits


def precise_specification():
    """A second copy of specification.py whose exp and log are those of `decimal`."""
    spec = importlib.util.spec_from_file_location("precise_specification", HERE / "specification.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.math = SimpleNamespace(exp=decimal.Decimal.exp, log=decimal.Decimal.ln)
    return module


def mapped(change, nested):
    """change(leaf) for every leaf of nested lists and dictionaries."""
    if isinstance(nested, dict):
        return {key: mapped(change, value) for key, value in nested.items()}
    if isinstance(nested, list):
        return [mapped(change, value) for value in nested]
    return change(nested)


def expected(part, inputs):
    exact = mapped(lambda x: decimal.Decimal(x) if isinstance(x, float) else x, inputs)
    with decimal.localcontext(prec=50, Emin=-decimal.MAX_EMAX, Emax=decimal.MAX_EMAX):
        found = getattr(precise_specification(), part)(**exact)
        return mapped(lambda x: float(x) + 0.0, found)  # + 0.0 turns -0.0 into 0.0


# ---------------------------------------------------------------- part "loss"


def between(rng, low, high):
    """A number with 4 digits after the point; only rng.random() promises the same draws on every Python."""
    return round(low + (high - low) * rng.random(), 4)


def loss_inputs(r, label, k=(0.0,), beta=0.1, weights=(1.0, 1.0), base=-20.0):
    """Rows with log-ratios r and mismatched rows with log-ratios k, all on the same reference log-probability."""
    return {
        "policy_logps": [base + x for x in r],
        "reference_logps": [base] * len(r),
        "kl_policy_logps": [base + x for x in k],
        "kl_reference_logps": [base] * len(k),
        "label": [x == "+" for x in label],
        "beta": beta,
        "desirable_weight": weights[0],
        "undesirable_weight": weights[1],
    }


def drawn_loss_inputs(rng, label, size, spread=8.0, shift=1.0, beta=0.1, weights=(1.0, 1.0)):
    """Log-probabilities drawn at random; `shift` moves the mismatched log-ratios, `size` counts them."""

    def rows(n, low, high):
        reference = [between(rng, -60.0, -2.0) for _ in range(n)]
        return [round(x + between(rng, low, high), 4) for x in reference], reference

    policy, reference = rows(len(label), -spread, spread)
    kl_policy, kl_reference = rows(size, shift - spread / 2, shift + spread / 2)
    return {
        "policy_logps": policy,
        "reference_logps": reference,
        "kl_policy_logps": kl_policy,
        "kl_reference_logps": kl_reference,
        "label": [x == "+" for x in label],
        "beta": beta,
        "desirable_weight": weights[0],
        "undesirable_weight": weights[1],
    }


def loss_cases():
    """Yields (name, guards, inputs)."""
    given = loss_inputs

    yield "step 0: policy = reference, every loss is half its weight", ["sigmoid"], given([0.0] * 4, "+-+-", [0.0] * 4)
    yield (
        "step 0 with weights: 3 up at 1.33, 5 down at 1",
        ["weights", "mean", "gradient_mean"],
        given([0.0] * 8, "+--+-+--", [0.0] * 8, weights=(1.33, 1.0)),
    )
    yield "batch of 1, thumbs up, k given", ["z0", "sigmoid"], given([1.5], "+", [0.5])
    yield "batch of 1, thumbs down, k given", ["z0", "sign"], given([1.5], "-", [0.5])
    yield "batch of 2", ["sign", "mean", "z0"], given([2.0, -1.0], "+-", [1.0, 0.5])
    yield "odd batch of 3", ["sign", "mean", "z0"], given([2.0, -1.0, 0.25], "+-+", [1.0, 0.5, 0.25])
    yield (
        "odd batch of 5",
        ["sign", "mean", "z0"],
        given([3.0, 1.0, -4.0, 2.0, 0.5], "--+-+", [2.0, 1.0, 0.0, 4.0, 1.5]),
    )
    yield "one-sided batch: thumbs up only", ["z0", "mean"], given([-2.0, 0.0, 7.0], "+++", [1.0, 2.0, 0.5])
    yield "one-sided batch: thumbs down only", ["sign", "z0"], given([-2.0, 0.0, 7.0], "---", [1.0, 2.0, 0.5])
    yield (
        "one-sided batch: thumbs up only, both weights set",
        ["weights"],
        given([-2.0, 1.0], "++", [1.0, 2.0], weights=(1.5, 0.7)),
    )
    yield (
        "one-sided batch: thumbs down only, both weights set",
        ["weights", "sign"],
        given([-2.0, 1.0], "--", [1.0, 2.0], weights=(1.5, 0.7)),
    )

    yield "z0 positive: the mean of k", ["z0", "kl_rows"], given([2.0, -3.0], "+-", [4.0, 2.0])
    yield "z0 clamped: the mean of k is negative", ["no_clamp"], given([2.0, -3.0], "+-", [-4.0, -2.0])
    yield "z0 clamped: every k is -100", ["no_clamp"], given([2.0, -3.0], "+-", [-100.0, -100.0])
    yield "z0 exactly 0: k = (-2, +2)", ["clamp"], given([2.0, -3.0], "+-", [-2.0, 2.0])
    yield "k = (-3, +5): the clamp comes after the mean, z0 = 1", ["clamp"], given([2.0, -3.0], "+-", [-3.0, 5.0])
    yield (
        "k = (-5, +3): the clamp comes after the mean, z0 = 0",
        ["clamp", "no_clamp"],
        given([2.0, -3.0], "+-", [-5.0, 3.0]),
    )
    yield "k of both signs, odd batch", ["clamp"], given([2.0, -3.0, 1.0], "+--", [-3.0, 5.0, 4.0])
    yield "z0 is not beta * z0: k = 10, beta 0.1", ["beta"], given([12.0, 8.0], "+-", [10.0, 10.0])
    yield "z0 comes from the mismatched rows, not from the rows", ["kl_rows"], given([6.0, 8.0], "+-", [1.0, 0.5])
    yield "matched pairs as mismatched ones: z0 is the mean of r", ["z0", "beta"], given([6.0, 8.0], "+-", [6.0, 8.0])
    yield "more mismatched rows than rows", ["kl_rows", "mean"], given([1.0, -2.0], "+-", [3.0, 1.0, 2.0, 0.0, 6.0])
    yield "fewer mismatched rows than rows", ["kl_rows", "mean"], given([1.0, -2.0, 4.0, 0.0], "+-+-", [3.0])
    yield "tie: r = z0, every loss is half its weight", ["z0"], given([2.0, 2.0], "+-", [2.0, 2.0], weights=(3.0, 0.5))

    for nats in (50.0, 100.0, 1000.0):
        # u is 5, 10, 100 at z0 = 0
        guards = ["saturation", "sign"] if nats < 1000.0 else ["sign"]
        yield f"saturated: r - z0 = +{nats:g} nats", guards, given([nats, nats], "+-")
        yield f"saturated: r - z0 = -{nats:g} nats", guards, given([-nats, -nats], "+-")
    yield (
        "saturated around a positive z0: r - z0 = +-60 nats",
        ["saturation", "z0"],
        given([64.0, -56.0, 64.0, -56.0], "++--", [4.0] * 4),
    )
    yield "exponent 1000: no overflow, all four corners", ["sigmoid_overflow"], given([1e3, -1e3] * 2, "++--", beta=1.0)
    yield (
        "one saturated row among ordinary ones",
        ["mean", "saturation"],
        given([0.5, 70.0, -0.5, 1.0], "+--+", [0.5, 0.25, 1.0, 2.0]),
    )

    yield "desirable weight 1.33", ["weights"], given([1.0, -2.0, 0.5], "+-+", [0.5] * 3, weights=(1.33, 1.0))
    yield "undesirable weight 2.5", ["weights"], given([1.0, -2.0, 0.5], "+-+", [0.5] * 3, weights=(1.0, 2.5))
    yield "both weights away from 1", ["weights"], given([1.0, -2.0, 0.5], "+-+", [0.5] * 3, weights=(13.33, 0.7))
    yield "desirable weight 0", ["weights"], given([1.0, -2.0, 0.5], "+-+", [0.5] * 3, weights=(0.0, 1.0))
    yield "undesirable weight 0", ["weights"], given([1.0, -2.0, 0.5], "+-+", [0.5] * 3, weights=(1.0, 0.0))
    yield (
        "the mean divides by rows, not by the sum of the weights",
        ["mean", "gradient_mean"],
        given([1.0, -2.0, 0.5, 3.0], "+-+-", [0.5] * 4, weights=(4.0, 2.0)),
    )

    yield "beta 0.01", ["beta", "z0"], given([12.0, -7.0, 3.0], "+-+", [2.0, 3.0, 1.0], beta=0.01)
    yield "beta 0.5", ["beta", "z0"], given([2.0, -1.5, 3.0], "+-+", [2.0, 3.0, 1.0], beta=0.5)
    yield "beta 1", ["z0", "sign"], given([2.0, -1.5, 3.0], "+-+", [2.0, 3.0, 1.0], beta=1.0)
    yield "beta 5", ["beta", "z0"], given([2.0, 1.5, 2.25], "+-+", [2.0, 3.0, 1.0], beta=5.0)

    yield (
        "contradictory duplicates: one row with both labels costs the weight",
        ["sign", "z0"],
        given([3.0, 3.0, -1.0, -1.0], "+-+-", [1.0] * 4),
    )
    yield "the same row twice", ["mean", "gradient_mean"], given([3.0, 3.0], "++", [1.0, 1.0])
    yield (
        "large magnitudes: log-probabilities near -5000",
        ["reference", "z0"],
        given([4.0, -6.0], "+-", [3.0, 1.0], base=-5000.0),
    )
    yield "the reference counts: r is a difference", ["reference"], given([4.0, -6.0], "+-", [3.0, 1.0], base=-2.0)
    yield (
        "labels in blocks: rows keep their order",
        ["sign", "order"],
        given([1.0, 2.0, 3.0, 4.0], "--++", [0.5] * 4, weights=(1.33, 1.0)),
    )
    yield (
        "labels alternate: rows keep their order",
        ["sign", "order"],
        given([1.0, 2.0, 3.0, 4.0], "-+-+", [0.5] * 4, weights=(1.33, 1.0)),
    )

    everything = ["sign", "weights", "beta", "mean", "gradient_mean", "reference", "kl_rows", "z0", "order"]
    for number, (label, size, shift, beta, weights) in enumerate(
        [
            ("-+-+", 4, 2.0, 0.1, (1.33, 1.0)),
            ("--+-+-+", 7, 3.0, 0.3, (1.0, 4.0)),
            ("-+++-+---+-", 11, 4.0, 0.05, (2.0, 0.5)),
            ("-+" * 8, 16, 5.0, 0.2, (3.6, 1.0)),
        ],
        start=1,
    ):
        name = f"random {number}: {len(label)} rows, positive z0"
        yield name, everything, drawn_loss_inputs(random.Random(name), label, size, 8.0, shift, beta, weights)
    for number, label in enumerate(["-+--+", "-+-++-"], start=5):
        name = f"random {number}: {len(label)} rows, k of both signs, z0 clamped"
        inputs = drawn_loss_inputs(random.Random(name), label, len(label), 8.0, -2.0, 0.1, (1.33, 0.9))
        inputs["kl_policy_logps"][0] = inputs["kl_reference_logps"][0] + 0.5
        yield name, ["clamp", "no_clamp", "sign", "weights"], inputs


# ---------------------------------------------------------------- part "logps"

EOS, PAD = 1, 0


def logps_inputs(name, rows, vocabulary=6, pad=PAD, left=False, size=3.0):
    """rows: (prompt, completion) as token ids; logits drawn from the case's name; padded to the longest row."""
    rng = random.Random(name)
    length = max(len(prompt) + len(completion) for prompt, completion in rows)
    inputs = {"logits": [], "input_ids": [], "attention_mask": [], "label_mask": []}
    for prompt, completion in rows:
        padding = length - len(prompt) - len(completion)
        columns = {
            "input_ids": prompt + completion,
            "attention_mask": [1] * (len(prompt) + len(completion)),
            "label_mask": [0] * len(prompt) + [1] * len(completion),
        }
        for key, fill in (("input_ids", pad), ("attention_mask", 0), ("label_mask", 0)):
            inputs[key].append([fill] * padding + columns[key] if left else columns[key] + [fill] * padding)
        inputs["logits"].append([[between(rng, -size, size) for _ in range(vocabulary)] for _ in range(length)])
    return inputs


def predicts_completion(inputs, row, t):
    """Whether the logits at place t predict a completion token."""
    following = inputs["label_mask"][row][t + 1 :]
    return bool(following and following[0])


def outside(inputs, value):
    """Puts value into every logit that predicts no completion token."""
    for row, places in enumerate(inputs["logits"]):
        for t in range(len(places)):
            if not predicts_completion(inputs, row, t):
                places[t] = [value] * len(places[t])
    return inputs


def logps_cases():
    """Yields (name, guards, inputs)."""
    rows = [([2, 3], [4, 5, EOS]), ([3, 2], [5, 4, EOS])]
    ragged = [([2, 3], [4, EOS]), ([3], [5, 4, 2, EOS]), ([2, 3, 4], [5, 2, EOS])]

    def case(name, guards, rows, **settings):
        return name, guards, logps_inputs(name, rows, **settings)

    yield case("the plain case: two rows of one length", ["shift", "sum", "softmax", "rows"], rows)
    yield case("padding on the right is not scored", ["padding", "sum", "shift"], ragged)
    yield case("padding on the left is not scored", ["sum", "shift", "prompt"], ragged, left=True)
    yield case("pad = EOS on the right: only the first EOS is scored", ["pad_id", "padding"], ragged, pad=EOS)
    yield case("pad = EOS on the left: the last EOS is scored", ["pad_id", "eos"], ragged, pad=EOS, left=True)
    yield case("the pad id inside a completion is scored", ["pad_id"], [([2, 3], [PAD, 4, EOS]), ([2], [4, EOS])])
    yield case("padding id -100, outside the vocabulary", ["padding"], ragged, pad=-100)
    yield case("EOS is scored", ["eos"], [([2, 3], [4, EOS]), ([4, 3], [5, EOS])])
    yield case("cut off by length: the completion has no EOS, its last token is scored", ["eos"], [([2], [4, 5, 3])])
    yield case("the prompt is not scored", ["prompt"], [([2, 3, 4, 5, 2, 3], [4, EOS])])
    yield case("the last prompt place predicts the first completion token", ["first", "shift"], [([2, 3], [4, 5, EOS])])
    yield case("the prompt holds the same tokens as the completion", ["prompt"], [([4, 5, EOS], [4, 5, EOS])])
    yield case("a completion of a single token", ["eos", "first"], [([2, 3], [EOS]), ([3], [EOS])])
    yield case("one token each, of different prompts' lengths", ["first", "rows"], [([2], [4]), ([2, 3, 4], [5])])
    yield case("rows of very different length", ["sum", "padding"], [([2], [EOS]), ([3, 4], [5, 2, 3, 4, 5, 2, EOS])])
    yield case("T = 2, the shortest row there is", ["shift", "first"], [([2], [EOS])])
    yield case("a vocabulary of 2", ["softmax", "shift"], [([0], [0, 1]), ([1], [1, 1])], vocabulary=2)
    yield case("batch of 1", ["sum", "shift"], [([2, 3], [4, 5, EOS])])
    growing = [([2 + i % 3], [5 - i % 3] * (1 + i) + [EOS]) for i in range(5)]
    yield case("odd batch of 5 growing rows", ["rows", "sum"], growing)
    yield case("40 tokens", ["sum", "shift"], [([2], [2 + (7 * t) % 2 for t in range(38)] + [EOS])], vocabulary=4)

    yield case("token 0 has nothing before it: its mask counts for nothing", ["shift"], [([], [2, 3, EOS])])
    yield case("a row without completion tokens sums to exactly 0", ["prompt"], [([2, 3, 4], []), *rows])

    name = "a row does not depend on its neighbours, 1: the row beside one other"
    yield case(name, ["rows"], rows)
    first = logps_inputs(name, rows)
    name = "a row does not depend on its neighbours, 2: the same row, second of three"
    inputs = logps_inputs(name, [rows[1], rows[0], rows[1]])
    inputs["logits"][1] = first["logits"][0]
    yield name, ["rows"], inputs

    name, guards, inputs = case("logits + 100 at every place: nothing changes", ["softmax"], rows)
    inputs["logits"] = mapped(lambda x: round(x + 100.0, 4), inputs["logits"])
    yield name, guards, inputs
    name, guards, inputs = case("logits near 10000: no overflow", ["softmax_overflow"], [([2], [EOS])])
    inputs["logits"] = mapped(lambda x: round(x + 10000.0, 4), inputs["logits"])
    yield name, guards, inputs
    yield case("logits spread over +-10000", ["softmax_overflow"], rows, size=10000.0)
    name, guards, inputs = case("equal logits: every token costs ln V", ["softmax", "sum"], rows)
    inputs["logits"] = mapped(lambda _: 0.5, inputs["logits"])
    yield name, guards, inputs

    name, guards, inputs = case("certain of every token: log-probability 0", ["shift", "inf"], rows)
    outside(inputs, -INF)
    for row, ids in enumerate(inputs["input_ids"]):
        for t in range(len(ids) - 1):
            if predicts_completion(inputs, row, t):
                inputs["logits"][row][t] = [0.0 if v == ids[t + 1] else -INF for v in range(6)]
    yield name, guards, inputs
    name, guards, inputs = case("-inf at every logit outside the completion: 0, not NaN", ["inf", "prompt"], ragged)
    yield name, guards, outside(inputs, -INF)
    name, guards, inputs = case("NaN at every logit outside the completion: 0, not NaN", ["inf", "prompt"], ragged)
    yield name, guards, outside(inputs, float("nan"))
    name, guards, inputs = case("-inf at a prompt's token only", ["inf", "prompt"], [([2, 3, 4], [5, EOS])])
    inputs["logits"][0][0][3] = -INF
    yield name, guards, inputs
    name, guards, inputs = case("-inf at another entry of the vocabulary, inside the completion", ["softmax"], rows)
    for places in inputs["logits"]:
        for logits in places:
            logits[PAD] = -INF
    yield name, guards, inputs


# ---------------------------------------------------------------- the file


def strict(number):
    """JSON has no infinities and no NaN: they become the strings "-inf" and "nan"."""
    if isinstance(number, float) and not -INF < number < INF:
        return str(number)
    return number


def document():
    """The text of kto_v1.json: one case per line."""
    lines = []
    for part, cases in (("loss", loss_cases()), ("logps", logps_cases())):
        for name, guards, inputs in cases:
            case = {"name": name, "part": part, "guards": guards} | mapped(strict, inputs)
            case["expected"] = expected(part, inputs)
            lines.append("  " + json.dumps(case, allow_nan=False))
    return f'{{\n "about": {json.dumps(ABOUT)},\n "cases": [\n' + ",\n".join(lines) + "\n ]\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare instead of writing; 1 if they differ")
    arguments = parser.parse_args()
    text = document().encode("utf-8")
    parts = [case["part"] for case in json.loads(text)["cases"]]
    count = f"{len(parts)} cases ({parts.count('loss')} loss, {parts.count('logps')} logps)"
    if not arguments.check:
        FILE.write_bytes(text)
        print(f"wrote {count} to {FILE.name}")
    elif FILE.exists() and FILE.read_bytes() == text:
        print(f"{FILE.name} is in step with the generator: {count}")
    else:
        raise SystemExit(f"{FILE.name} is not what the generator writes ({count}): run generate.py, or undo the edit")


if __name__ == "__main__":
    main()
