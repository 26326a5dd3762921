"""Right and wrong answers to the exercises of lesson 08. The form is told in tests/test_checks.py."""


def gaps(scaled="beta * torch.log(policy_probs / reference_probs)", result="x[:, None] - x[None, :]"):
    return f"""
def answer(policy_probs, reference_probs, beta):
    x = {scaled}
    return {result}
"""


def dpo(result="-F.logsigmoid(beta * (chosen - rejected))", before=""):
    return f"""
def answer(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    {before}
    return {result}
"""


def paired(body):
    """A function of rows that finds ups and downs of each prompt, then runs this body."""
    return f"""
def answer(rows):
    sides = {{}}
    for row in rows:
        sides.setdefault(row["prompt"], ([], []))[not row["label"]].append(row["completion"])
    pairs = []
    for prompt, (ups, downs) in sides.items():
{body}
    return pairs
"""


def appended(loop, chosen="up", rejected="down"):
    return paired(f"""
        for {loop}:
            pairs.append({{"prompt": prompt, "chosen": {chosen}, "rejected": {rejected}}})
""")


ANSWERS = {
    "reward_gaps": {
        "right": {
            "loop": """
def answer(policy_probs, reference_probs, beta):
    n = len(policy_probs)
    table = torch.zeros(n, n, dtype=policy_probs.dtype)
    for a in range(n):
        for b in range(n):
            r_a = math.log(policy_probs[a] / reference_probs[a])
            r_b = math.log(policy_probs[b] / reference_probs[b])
            table[a, b] = beta * (r_a - r_b)
    return table
""",
            "difference of logarithms": gaps("beta * (policy_probs.log() - reference_probs.log())"),
            "one logarithm of the double ratio": gaps(
                "policy_probs / reference_probs", "beta * torch.log(x[:, None] / x[None, :])"
            ),
            "float32": gaps("beta * torch.log(policy_probs.float() / reference_probs.float())"),
        },
        "wrong": {
            "b minus a": ("turned_round", gaps(result="x[None, :] - x[:, None]")),
            "reference over policy": ("turned_round", gaps("beta * torch.log(reference_probs / policy_probs)")),
            "without beta": ("beta_missing", gaps("torch.log(policy_probs / reference_probs)")),
            "beta twice": ("beta_twice", gaps("beta**2 * torch.log(policy_probs / reference_probs)")),
            "divided by beta": ("beta_divides", gaps("torch.log(policy_probs / reference_probs) / beta")),
            "without the reference": ("reference_ignored", gaps("beta * policy_probs.log()")),
            "ratio": ("no_log", gaps("beta * policy_probs / reference_probs")),
            "difference of probabilities": ("no_log", gaps("beta * (policy_probs - reference_probs)")),
            "one number a reply": ("not_compared", gaps(result="x")),
            "repeated in columns": ("not_compared", gaps(result="x[:, None].repeat(1, len(x))")),
            "repeated in rows": ("not_compared", gaps(result="x.repeat(len(x), 1)")),
            "sum": ("added", gaps(result="x[:, None] + x[None, :]")),
            "flattened": ("shape", gaps(result="(x[:, None] - x[None, :]).flatten()")),
            "lists": ("type", gaps(result="(x[:, None] - x[None, :]).tolist()")),
            "logarithm of a difference": ("nan", gaps("policy_probs", "beta * torch.log(x[:, None] - x[None, :])")),
            "only the upper half": ("values", gaps(result="(x[:, None] - x[None, :]).triu()")),
            "no such name": ("raised", gaps(result="reward[:, None] - reward")),
        },
    },
    "dpo_loss": {
        "right": {
            "logsigmoid": dpo(),
            "softplus, pairs of models first": dpo(
                "F.softplus(beta * (reference_margin - policy_margin))",
                "policy_margin, reference_margin = policy_chosen - policy_rejected, reference_chosen - reference_rejected",
            ),
            "loop": """
def answer(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    losses = []
    for a, b, c, d in zip(policy_chosen, policy_rejected, reference_chosen, reference_rejected, strict=True):
        reward_chosen, reward_rejected = beta * (a - c), beta * (b - d)
        losses.append(-F.logsigmoid(reward_chosen - reward_rejected))
    return torch.stack(losses)
""",
            "logaddexp": dpo("torch.logaddexp(torch.zeros_like(chosen), -beta * (chosen - rejected))"),
            "cross entropy of two rewards": """
def answer(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta=0.1):
    rewards = beta * torch.stack((policy_chosen - reference_chosen, policy_rejected - reference_rejected), dim=-1)
    return F.cross_entropy(rewards, torch.zeros(len(rewards), dtype=torch.long), reduction="none")
""",
            "float32": dpo("-F.logsigmoid((beta * (chosen - rejected)).float())"),
        },
        "wrong": {
            "rejected minus chosen": ("turned_round", dpo("-F.logsigmoid(beta * (rejected - chosen))")),
            "no reference": ("reference_ignored", dpo("-F.logsigmoid(beta * (policy_chosen - policy_rejected))")),
            "plus the reference": ("reference_added", dpo(
                before="chosen, rejected = policy_chosen + reference_chosen, policy_rejected + reference_rejected"
            )),
            "no policy": ("policy_ignored", dpo("-F.logsigmoid(beta * (reference_chosen - reference_rejected))")),
            "sum of the log-ratios": ("added", dpo("-F.logsigmoid(beta * (chosen + rejected))")),
            "chosen alone": ("chosen_only", dpo("-F.logsigmoid(beta * chosen)")),
            "rejected alone": ("rejected_only", dpo("-F.logsigmoid(-beta * rejected)")),
            "no beta": ("beta_missing", dpo("-F.logsigmoid(chosen - rejected)")),
            "beta twice": ("beta_twice", dpo("-F.logsigmoid(beta * (beta * chosen - beta * rejected))")),
            "divided by beta": ("beta_divides", dpo("-F.logsigmoid((chosen - rejected) / beta)")),
            "beta on chosen": ("beta_on_one_side", dpo("-F.logsigmoid(beta * chosen - rejected)")),
            "beta on rejected": ("beta_on_one_side", dpo("-F.logsigmoid(chosen - beta * rejected)")),
            "beta before the logarithm": ("beta_outside", dpo("-beta * F.logsigmoid(chosen - rejected)")),
            "beta before and inside": ("beta_outside", dpo("-beta * F.logsigmoid(beta * (chosen - rejected))")),
            "no minus": ("no_minus", dpo("F.logsigmoid(beta * (chosen - rejected))")),
            "one minus sigmoid": ("no_log", dpo("1 - torch.sigmoid(beta * (chosen - rejected))")),
            "sigmoid": ("no_log", dpo("torch.sigmoid(beta * (chosen - rejected))")),
            "minus sigmoid": ("no_log", dpo("-torch.sigmoid(beta * (chosen - rejected))")),
            "minus the reward margin": ("no_sigmoid", dpo("-beta * (chosen - rejected)")),
            "the margin": ("no_sigmoid", dpo("chosen - rejected")),
            "the reward margin": ("no_sigmoid", dpo("beta * (chosen - rejected)")),
            "hinge": ("hinge", dpo("F.relu(1 - beta * (chosen - rejected))")),
            "mean": ("averaged", dpo("-F.logsigmoid(beta * (chosen - rejected)).mean()")),
            "sum": ("averaged", dpo("-F.logsigmoid(beta * (chosen - rejected)).sum()")),
            "KTO's rows, mean": ("kto_rows", dpo("(torch.sigmoid(-beta * chosen) + torch.sigmoid(beta * rejected)) / 2")),
            "KTO's rows, sum": ("kto_rows", dpo("2 - torch.sigmoid(beta * chosen) - torch.sigmoid(-beta * rejected)")),
            "logarithm of the sigmoid": ("log_of_sigmoid", dpo("-torch.log(torch.sigmoid(beta * (chosen - rejected)))")),
            "logarithm of one plus exp": ("log_of_sigmoid", dpo("torch.log1p(torch.exp(-beta * (chosen - rejected)))")),
            "chosen detached": ("no_gradient", dpo(before="chosen, rejected = chosen.detach(), rejected.detach()")),
            "half the gradient": ("gradient", dpo(before="chosen = 0.5 * chosen + 0.5 * chosen.detach()")),
            "rejected held fixed": ("gradient", dpo(before="rejected = rejected.detach() + 0 * policy_rejected")),
            "beta written in": ("values", dpo("-F.logsigmoid(0.1 * (chosen - rejected))")),
            "floats": ("type", dpo("(-F.logsigmoid(beta * (chosen - rejected))).tolist()")),
            "a column": ("shape", dpo("-F.logsigmoid(beta * (chosen - rejected))[:, None]")),
            "in place": ("changed_arguments", dpo(before="policy_chosen -= reference_chosen")),
            "no return": ("open", dpo().replace("return", "loss =")),
            "a typing slip": ("raised", dpo("-F.logsigmoid(beta * (chosen - reject))")),
        },
    },
    "rejected_fell": {
        "right": {"worked out": "-9 - 1 / 0.5", "a number": "-11", "a tensor": "torch.tensor(-11.0)", "rounded": "-10.99"},
        "wrong": {
            "chosen minus": ("turned_round", "-7"),
            "no beta": ("beta_missing", "-10.0"),
            "times beta": ("beta_multiplied", "-9.5"),
            "beta twice": ("beta_twice", "-9 - 1 / 0.5**2"),
            "the margin": ("margin", "2"),
            "no sign": ("sign_lost", "11"),
            "the reward": ("reward", "-5.5"),
            "zero": ("values", "0.0"),
            "text": ("type", "'-11'"),
            "both": ("type", "(-9, -11)"),
            "not a number": ("nan", "math.nan"),
        },
    },
    "pairs_from_thumbs": {
        "right": {
            "zip of two lists": appended("up, down in zip(ups, downs, strict=False)"),
            "while both are left": paired("""
        while ups and downs:
            pairs.append({"prompt": prompt, "chosen": ups.pop(), "rejected": downs.pop()})
"""),
            "those who wait": """
def answer(rows):
    waiting, pairs = {}, []
    for row in rows:
        partners = waiting.get((row["prompt"], not row["label"]), [])
        if not partners:
            waiting.setdefault((row["prompt"], row["label"]), []).append(row)
            continue
        other = partners.pop(0)
        up, down = (row, other) if row["label"] else (other, row)
        pairs.append({"prompt": row["prompt"], "chosen": up["completion"], "rejected": down["completion"]})
    return pairs
""",
            "the package's": "lambda rows: pair_up(rows, seed=1)[0]",
        },
        "wrong": {
            "all ups with all downs": ("across_prompts", """
def answer(rows):
    ups = [row for row in rows if row["label"]]
    downs = [row for row in rows if not row["label"]]
    return [{"prompt": up["prompt"], "chosen": up["completion"], "rejected": down["completion"]}
            for up, down in zip(ups, downs, strict=False)]
"""),
            "exchanged": ("turned_round", appended("up, down in zip(ups, downs, strict=False)", "down", "up")),
            "neighbours, whatever their label": ("same_label", """
def answer(rows):
    texts, pairs = {}, []
    for row in rows:
        if row["label"]:
            texts.setdefault(row["prompt"], []).append(row["completion"])
    for prompt, several in texts.items():
        for one, other in zip(several[::2], several[1::2], strict=False):
            pairs.append({"prompt": prompt, "chosen": one, "rejected": other})
    return pairs
"""),
            "each with each": ("reused", appended("up, down in [(u, d) for u in ups for d in downs]")),
            "the first up with every down": ("reused", appended("up, down in [(ups[0], d) for d in downs if ups]")),
            "groupby without sorting": ("not_grouped", """
def answer(rows):
    import itertools
    pairs = []
    for prompt, run in itertools.groupby(rows, key=lambda row: row["prompt"]):
        run = list(run)
        ups = [row["completion"] for row in run if row["label"]]
        downs = [row["completion"] for row in run if not row["label"]]
        pairs += [{"prompt": prompt, "chosen": u, "rejected": d} for u, d in zip(ups, downs, strict=False)]
    return pairs
"""),
            "one pair a prompt": ("one_per_prompt", appended("up, down in list(zip(ups, downs, strict=False))[:1]")),
            "the last of each kind": ("one_per_prompt", """
def answer(rows):
    last = {(row["prompt"], row["label"]): row["completion"] for row in rows}
    return [{"prompt": prompt, "chosen": last[prompt, True], "rejected": last[prompt, False]}
            for prompt in {row["prompt"] for row in rows} if (prompt, True) in last and (prompt, False) in last]
"""),
            "sets of texts": ("votes_merged", appended("up, down in zip(sorted(set(ups)), sorted(set(downs)), strict=False)")),
            "nothing": ("too_few", appended("up, down in []")),
            "left over too": ("left_over_too", "lambda rows: pair_up(rows, seed=1)"),
            "tuples": ("fields", paired("        pairs += zip(ups, downs, strict=False)")),
            "whole rows inside": ("fields", appended("up, down in zip(ups, downs, strict=False)", "{'completion': up}", "down")),
            "other names": ("fields", paired("""
        for up, down in zip(ups, downs, strict=False):
            pairs.append({"prompt": prompt, "up": up, "down": down})
""")),
            "their number": ("type", "lambda rows: len(pair_up(rows, seed=1)[0])"),
            "prompts without a partner": ("raised", appended("up, down in zip(ups, downs, strict=True)")),
            "rows eaten up": ("changed_arguments", """
def answer(rows):
    pairs = pair_up(rows, seed=0)[0]
    rows.clear()
    return pairs
"""),
        },
    },
}  # fmt: skip

EQUIVALENT = {
    "pairs_from_thumbs": {
        "zip(ups[prompt], downs.get(prompt, []), strict=False) -> zip(ups[prompt], downs.get(prompt, []))": (
            "False is zip's default"
        ),
    },
}
