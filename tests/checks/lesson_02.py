"""Right and wrong answers to the exercises of lesson 02. The form is told in tests/test_checks.py."""

SETUP = "from kto_course.checks.lesson_02 import tiny_llama as constructor"


def rotated(result="torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)", before="", positions="torch.arange(T)",
            speeds="10000.0 ** (-torch.arange(0, d, 2).double() / d)"):  # fmt: skip
    """A rotary function; its names are those of the model solution."""
    return f"""
def answer(x):
    T, d = x.shape
    angles = {positions}[:, None] * {speeds}
    a, b = x.chunk(2, dim=-1)
    {before}
    cos, sin = angles.cos(), angles.sin()
    return {result}
"""


def attention(result="scores.masked_fill(future, -torch.inf).softmax(-1) @ v", before="",
              scores="q @ k.T / math.sqrt(q.shape[-1])"):  # fmt: skip
    """A causal attention; its names are those of the model solution."""
    return f"""
def answer(q, k, v):
    scores = {scores}
    future = torch.ones_like(scores).triu(diagonal=1).bool()
    {before}
    return {result}
"""


def reference(body):
    return "def answer(policy):\n" + "".join(f"    {line}\n" for line in body.split("; "))


ANSWERS = {
    "one_layer": {
        "right": {
            "formula": "4 * 128**2 + 3 * 128 * 256 + 2 * 128",
            "from the drawing": "65_536 + 98_304 + 128 + 128",
            "a difference of two models": "sum(p.numel() for p in constructor(512, 128, 256, 3).parameters())"
            " - sum(p.numel() for p in constructor(512, 128, 256, 2).parameters())",
            "a tensor": "torch.tensor([164096])",
        },
        "wrong": {
            "no norms": ("norms_missing", "4 * 128**2 + 3 * 128 * 256"),
            "one norm": ("one_norm", "4 * 128**2 + 3 * 128 * 256 + 128"),
            "the last norm too": ("three_norms", "4 * 128**2 + 3 * 128 * 256 + 3 * 128"),
            "q, k and v": ("three_matrices", "3 * 128**2 + 3 * 128 * 256 + 2 * 128"),
            "up and down": ("two_matrices", "4 * 128**2 + 2 * 128 * 256 + 2 * 128"),
            "inner squared": ("square_inner", "4 * 128**2 + 3 * 256**2 + 2 * 128"),
            "an embedding in each layer": ("embedding_again", "512 * 128 + 4 * 128**2 + 3 * 128 * 256 + 2 * 128"),
            "both layers": ("both_layers", "2 * (4 * 128**2 + 3 * 128 * 256 + 2 * 128)"),
            "three layers and the ends": ("whole_model", "3 * 164_096 + 2 * 512 * 128 + 128"),
            "a guess": ("values", "150_000"),
            "text": ("type", "'164,096'"),
            "a list": ("type", "[65536, 98304, 256]"),
        },
    },
    "causal_attention": {
        "right": {
            "a loop": """
def answer(q, k, v):
    rows = []
    for t in range(len(q)):
        scores = torch.stack([q[t] @ k[s] for s in range(t + 1)]) / q.shape[1] ** 0.5
        shares = (scores - scores.max()).exp()
        rows.append(sum(share * v[s] for s, share in enumerate(shares / shares.sum())))
    return torch.stack(rows)
""",
            "torch's own": """
def answer(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
""",
            "queries scaled first": """
def answer(q, k, v):
    T, d = q.shape
    seen = torch.arange(T)[:, None] >= torch.arange(T)
    scores = torch.where(seen, (q / d**0.5) @ k.transpose(0, 1), float("-inf"))
    shares = (scores - scores.amax(-1, keepdim=True)).exp()
    return (shares @ v) / shares.sum(-1, keepdim=True)
""",
            "a large negative number added": """
def answer(q, k, v):
    scores = torch.einsum("td,sd->ts", q, k) / math.sqrt(q.shape[-1])
    return (scores + torch.full_like(scores, -1e9).triu(1)).softmax(dim=1) @ v
""",
            "softmax of the logarithm": attention("scores.masked_fill(future, -torch.inf).log_softmax(-1).exp() @ v"),
        },
        "wrong": {
            "no mask": ("no_mask", attention("scores.softmax(-1) @ v")),
            "zero after the softmax": ("zero_after_softmax", attention("scores.softmax(-1).tril() @ v")),
            "zero before the softmax": ("zero_before_softmax", attention("scores.tril().softmax(-1) @ v")),
            "past hidden": ("past_hidden", attention(before="future = future.T")),
            "past and own place hidden": ("past_hidden", attention("scores.masked_fill(~future, -torch.inf).softmax(-1) @ v")),
            "own place hidden": ("own_hidden", attention(before="future = torch.ones_like(scores).triu(0).bool()")),
            "own place hidden, NaN removed": ("own_hidden", attention(
                "scores.masked_fill(future, -torch.inf).softmax(-1).nan_to_num(0.0) @ v",
                "future = torch.ones_like(scores).triu(0).bool()")),
            "the next token seen": ("sees_next", attention(before="future = torch.ones_like(scores).triu(2).bool()")),
            "not scaled": ("not_scaled", attention(scores="q @ k.T")),
            "scaled by d": ("scaled_by_d", attention(scores="q @ k.T / q.shape[-1]")),
            "multiplied": ("scaled_up", attention(scores="q @ k.T * math.sqrt(q.shape[-1])")),
            "scaled by T": ("scaled_by_length", attention(scores="q @ k.T / math.sqrt(len(q))")),
            "scaled after the softmax": ("scaled_after_softmax", attention(
                "scores.masked_fill(future, -torch.inf).softmax(-1) / math.sqrt(q.shape[-1]) @ v", scores="q @ k.T")),
            "softmax over the queries": ("wrong_axis", attention("scores.masked_fill(future, -torch.inf).softmax(0) @ v")),
            "softmax over the queries, then masked": ("wrong_axis", attention("scores.softmax(0).tril() @ v")),
            "keys ask": ("keys_ask", attention(scores="k @ q.T / math.sqrt(q.shape[-1])")),
            "scores": ("no_softmax", attention("scores.tril() @ v")),
            "exponentials": ("no_sum", attention("scores.masked_fill(future, -torch.inf).exp() @ v")),
            "logarithms": ("log_softmax", attention("scores.masked_fill(future, -torch.inf).log_softmax(-1) @ v")),
            "plain average": ("uniform", attention(scores="torch.zeros(len(q), len(q), dtype=q.dtype)")),
            "shares": ("shares_returned", attention("scores.masked_fill(future, -torch.inf).softmax(-1)")),
            "as attend does": ("two_results", attention(
                "(shares @ v, shares)", "shares = scores.masked_fill(future, -torch.inf).softmax(-1)")),
            "shares first": ("two_results", attention(
                "(shares, shares @ v)", "shares = scores.masked_fill(future, -torch.inf).softmax(-1)")),
            "exp by hand": ("overflow", attention(
                "raised / raised.sum(-1, keepdim=True) @ v", "raised = scores.masked_fill(future, -torch.inf).exp()")),
            "gradient cut": ("no_gradient", attention(before="scores = scores.detach()")),
            "gradient halved": ("gradient", attention(before="scores = 0.5 * scores + 0.5 * scores.detach()")),
            "values cut": ("no_gradient", attention(before="v = v.detach()")),
            "into the argument": ("changed_arguments", attention(before="q /= 2")),
            "a list": ("type", attention("(scores.masked_fill(future, -torch.inf).softmax(-1) @ v).tolist()")),
            "one row": ("shape", attention("(scores.masked_fill(future, -torch.inf).softmax(-1) @ v)[-1]")),
            "mask added as it is": ("values", attention("(scores - 5 * future.to(q.dtype)).softmax(-1) @ v")),
            "an error": ("raised", attention(scores="q @ k / math.sqrt(q.shape[-1])")),
        },
    },
    "frozen_reference": {
        "right": {
            "one line": "lambda policy: copy.deepcopy(policy).requires_grad_(False).eval()",
            "the package's": "__import__('kto_utils.model', fromlist=['model']).reference_of",
            "weights loaded": """
def answer(policy):
    twin = type(policy)(policy.config)
    twin.load_state_dict(policy.state_dict())
    twin.eval()
    for p in twin.parameters():
        p.requires_grad_(False)
    return twin
""",
            "train(False), no gradients first": reference(
                "twin = copy.deepcopy(policy); twin.train(False); [p.requires_grad_(False) for p in twin.parameters()]; "
                "return twin"),
        },
        "wrong": {
            "as found": ("shared_memory", reference(
                "reference = copy.copy(policy); [p.requires_grad_(False) for p in reference.parameters()]; "
                "return reference.eval()")),
            "a new shell around the same tensors": ("shared_memory", reference(
                "twin = type(policy)(policy.config); twin.load_state_dict(policy.state_dict(), assign=True); "
                "return twin.requires_grad_(False).eval()")),
            "an assignment": ("reference_is_policy", reference("reference = policy; return reference")),
            "the policy frozen and returned": ("reference_is_policy", reference("return policy.requires_grad_(False).eval()")),
            "another seed": ("independent_reference", reference(
                "twin = constructor(12, 8, 8, 1, 2, seed=1); return twin.requires_grad_(False).eval()")),
            "a new model of the same shape": ("independent_reference", reference(
                "return type(policy)(policy.config).requires_grad_(False).eval()")),
            "not frozen": ("reference_not_detached", "lambda policy: copy.deepcopy(policy).eval()"),
            "wrapped in no_grad": ("reference_not_detached", reference(
                "with torch.no_grad(): twin = copy.deepcopy(policy).eval(); return twin")),
            "first parameter frozen": ("reference_not_detached", reference(
                "twin = copy.deepcopy(policy).eval(); next(twin.parameters()).requires_grad_(False); return twin")),
            "not in eval mode": ("not_eval", "lambda policy: copy.deepcopy(policy).requires_grad_(False)"),
            "policy frozen first": ("policy_frozen", "lambda policy: copy.deepcopy(policy.requires_grad_(False)).eval()"),
            "both frozen": ("policy_frozen", reference(
                "twin = copy.deepcopy(policy); policy.requires_grad_(False); return twin.requires_grad_(False).eval()")),
            "policy put into eval mode": ("policy_in_eval", "lambda policy: copy.deepcopy(policy.eval()).requires_grad_(False)"),
            "policy reset": ("policy_changed", reference(
                "twin = copy.deepcopy(policy).requires_grad_(False).eval(); policy.apply(policy._init_weights); "
                "[torch.nn.init.ones_(p) for p in policy.parameters()]; return twin")),
            "weights": ("weights_only", "lambda policy: copy.deepcopy(policy.state_dict())"),
            "parameters": ("type", "lambda policy: list(copy.deepcopy(policy).parameters())"),
            "nothing back": ("open", reference("reference = copy.deepcopy(policy); reference.requires_grad_(False).eval()")),
            "an error": ("raised", "lambda policy: copy.deepcopy(policy).freeze()"),
        },
    },
    "rotary": {
        "right": {
            "angles in float64": rotated(),
            "angles in float32": rotated(speeds="10000 ** (-2 * torch.arange(d // 2) / d)"),
            "a loop": """
def answer(x):
    T, d = x.shape
    rows = []
    for t in range(T):
        row = [None] * d
        for i in range(d // 2):
            angle = t / 10000 ** (2 * i / d)
            a, b = x[t, i], x[t, i + d // 2]
            row[i] = a * math.cos(angle) - b * math.sin(angle)
            row[i + d // 2] = b * math.cos(angle) + a * math.sin(angle)
        rows.append(torch.stack(row))
    return torch.stack(rows)
""",
            "complex numbers": """
def answer(x):
    T, d = x.shape
    angles = torch.outer(torch.arange(T, dtype=x.dtype), 10000.0 ** (-2 * torch.arange(d // 2, dtype=x.dtype) / d))
    z = torch.complex(x[:, : d // 2], x[:, d // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((z.real, z.imag), dim=-1)
""",
            "the library's way": """
def answer(x):
    T, d = x.shape
    speeds = torch.exp(torch.arange(0, d, 2).double() * (-math.log(10000) / d))
    angles = (torch.arange(T)[:, None] * speeds).repeat(1, 2)
    half = torch.cat((-x[:, d // 2 :], x[:, : d // 2]), dim=-1)
    return x * angles.cos() + half * angles.sin()
""",
        },
        "wrong": {
            "neighbours, woven again": ("neighbours_paired", rotated(
                "torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).reshape(T, d)",
                "a, b = x[:, ::2], x[:, 1::2]")),
            "neighbours, in halves": ("neighbours_paired", rotated(before="a, b = x[:, ::2], x[:, 1::2]")),
            "the other direction": ("turned_backwards", rotated("torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)")),
            "negative angles": ("turned_backwards", rotated(positions="-torch.arange(T)")),
            "first position 1": ("counts_from_one", rotated(positions="torch.arange(1, T + 1)")),
            "one speed": ("one_speed", rotated(speeds="torch.ones(d // 2).double()")),
            "exponent -i/d": ("exponent", rotated(speeds="10000.0 ** (-torch.arange(d // 2).double() / d)")),
            "exponent -2i/(d/2)": ("exponent", rotated(speeds="10000.0 ** (-torch.arange(0, d, 2).double() / (d // 2))")),
            "positive exponent": ("speeds_grow", rotated(speeds="10000.0 ** (torch.arange(0, d, 2).double() / d)")),
            "no position": ("no_position", rotated(positions="torch.ones(T)")),
            "a overwritten": ("overwritten", rotated("torch.cat((a, a * sin + b * cos), dim=-1)", (
                "cos, sin = angles.cos(), angles.sin(); a = a * cos - b * sin"))),
            "no minus": ("minus_missing", rotated("torch.cat((a * cos + b * sin, a * sin + b * cos), dim=-1)")),
            "two minuses": ("minus_missing", rotated("torch.cat((a * cos - b * sin, a * sin - b * cos), dim=-1)")),
            "halves swapped": ("halves_swapped", rotated("torch.cat((a * sin + b * cos, a * cos - b * sin), dim=-1)")),
            "b left alone": ("half_turned", rotated("torch.cat((a * cos - b * sin, b), dim=-1)")),
            "a alone": ("half_turned", rotated("a * cos - b * sin")),
            "sine and cosine added": ("added", rotated("x + torch.cat((sin, cos), dim=-1)")),
            "cosine and sine added": ("added", rotated("x + torch.cat((cos, sin), dim=-1)")),
            "return in the loop": ("one_row", rotated("torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)[-1]")),
            "axes of the angles": ("axes_swapped", rotated(before="angles = angles.T")),
            "into the argument": ("changed_arguments", rotated("x", (
                "x[:, : d // 2] = a * angles.cos() - b * angles.sin()"))),
            "gradient cut": ("no_gradient", rotated(before="a, b = a.detach(), b.detach()")),
            "gradient halved": ("gradient", rotated(before="a = 0.5 * a + 0.5 * a.detach()")),
            "a list": ("type", rotated("torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).tolist()")),
            "one axis more": ("shape", rotated("torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)")),
            "the base": ("values", rotated(speeds="1000.0 ** (-torch.arange(0, d, 2).double() / d)")),
            "an error": ("raised", rotated(before="angles = angles.reshape(d, d)")),
            "no return": ("open", "def answer(x):\n    a, b = x.chunk(2, dim=-1)"),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "rotary": {
        "-1 -> 1": "the last axis of a table with two axes is axis 1",
        "-1 -> 1 (2)": "the same",
        "torch.arange(0, d, 2, dtype=x.dtype) -> torch.arange(0, d, 2)": "speeds rounded to float32 are accepted",
        "torch.arange(T, dtype=x.dtype) -> torch.arange(T)": "whole numbers times floats are floats of the same type",
    },
    "causal_attention": {
        "-1 -> 1": "the last axis of a table with two axes is axis 1",
        "-1 -> 1 (2)": "the same",
    },
}
