"""Right and wrong answers to the exercises of lesson 12. The form is told in tests/test_checks.py."""


def z0(expression, before=""):
    return f"""
def answer(parts):
    k = torch.cat(parts)
    {before}
    return {expression}
"""


ANSWERS = {
    "mixed_batches": {
        "right": {"whole number": "2", "a float": "2.0", "counted": "sum(border % 16 != 0 for border in (1000, 2000, 2600))"},
        "wrong": {
            "every border": ("every_border", "3"),
            "one block": ("one_block", "0"),
            "first block": ("first_block_only", "1"),
            "the others": ("one_sided_counted", "198"),
            "all": ("as_if_shuffled", "200"),
            "a guess": ("values", "100"),
            "text": ("type", "'2'"),
            "two numbers": ("type", "[1000, 2600]"),
            "not a number": ("nan", "float('nan')"),
        },
    },
    "accumulation": {
        "right": {"letter": "'b'", "capital": "'B'", "with bracket": "' b)'"},
        "wrong": {
            "larger batch": ("larger_batch", "'a'"),
            "more processes": ("more_processes", "'c'"),
            "clamp first": ("clamp_before_mean", "'d'"),
            "another letter": ("choice", "'e'"),
            "two letters": ("choice", "'a or b'"),
            "words": ("choice", "'gradient accumulation'"),
            "nothing in quotes": ("choice", "''"),
            "a number": ("type", "2"),
            "a list": ("type", "['b']"),
        },
    },
    "global_z0": {
        "right": {
            "all in one": z0("k.mean().clamp(min=0).detach()"),
            "weighted means": z0("torch.relu(sum(p.mean() * len(p) / len(k) for p in parts)).detach()"),
            "a loop over numbers": """
def answer(parts):
    total, count = 0.0, 0
    for part in parts:
        for x in part.tolist():
            total, count = total + x, count + 1
    return torch.tensor(max(0.0, total / count), dtype=torch.float64)
""",
            "no_grad, float32, one axis kept out": """
@torch.no_grad()
def answer(parts):
    mean = torch.cat(parts).float().mean()
    return torch.where(mean > 0, mean, torch.zeros_like(mean))
""",
        },
        "wrong": {
            "mean of the clamps": ("clamp_before_mean", z0("sum(p.mean().clamp(min=0) for p in parts).detach() / len(parts)")),
            "rows clamped, as in the museum": ("clamp_before_mean", z0("k.clamp(min=0).mean().detach()")),
            "rows clamped, mean of means": ("clamp_before_mean", z0("torch.stack([p.clamp(min=0).mean() for p in parts]).mean().detach()")),
            "clamps weighted by rows": ("clamp_before_mean", z0("sum(p.mean().clamp(min=0) * len(p) for p in parts).detach() / len(k)")),
            "no clamp": ("no_clamp", z0("k.mean().detach()")),
            "mean of means": ("mean_of_means", z0("torch.stack([p.mean() for p in parts]).mean().clamp(min=0).detach()")),
            "mean of means, no clamp": ("mean_of_means", z0("torch.stack([p.mean() for p in parts]).mean().detach()")),
            "clamped from above": ("clamped_above", z0("k.mean().clamp(max=0).detach()")),
            "sum": ("summed", z0("k.sum().clamp(min=0).detach()")),
            "sum, no clamp": ("summed", z0("k.sum().detach()")),
            "divided by processes": ("divided_by_processes", z0("(k.sum() / len(parts)).clamp(min=0).detach()")),
            "divided by processes, no clamp": ("divided_by_processes", z0("k.sum().detach() / len(parts)")),
            "first process": ("own_part_only", z0("parts[0].mean().clamp(min=0).detach()")),
            "first process, no clamp": ("own_part_only", z0("parts[0].mean().detach()")),
            "one for each process": ("one_for_each", z0("torch.stack([p.mean() for p in parts]).clamp(min=0).detach()")),
            "one for each row": ("one_for_each", z0("k.clamp(min=0).detach()")),
            "gradient flows": ("gradient_through_z0", z0("k.mean().clamp(min=0)")),
            "parts stacked": ("raised", z0("torch.stack(parts).mean().clamp(min=0).detach()")),
            "an axis kept": ("shape", z0("k.mean(0, keepdim=True).clamp(min=0).detach()")),
            "text": ("type", z0("str(k.mean().clamp(min=0).item())")),
            "largest": ("values", z0("k.max().clamp(min=0).detach()")),
            "not a number": ("nan", z0("k.mean().clamp(min=0).detach() * float('nan')")),
            "parts emptied": ("changed_arguments", z0("k.mean().clamp(min=0).detach()", "parts.clear()")),
            "an endless loop": ("timeout", z0("k.mean()", "while len(k): pass")),
            "no return": ("open", "def answer(parts):\n    k = torch.cat(parts)"),
        },
    },
}  # fmt: skip

EQUIVALENT = {}
