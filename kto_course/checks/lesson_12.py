"""The exercises of lesson 12: scaling up."""

import torch

from kto_course.checks.engine import Fault, call, choice, compare, exercise, flows, number

PAIRS, ROWS = 1600, 16


def batches_of_blocks(pairs, block, size):
    """(batches with both thumbs, all batches) when pairs are cut in blocks, chosen first, and read in order."""
    labels = []
    for start in range(0, pairs, block):
        n = min(block, pairs - start)
        labels += [True] * n + [False] * n
    cut = [labels[i : i + size] for i in range(0, len(labels), size)]
    return sum(len(set(batch)) == 2 for batch in cut), len(cut)


@exercise(
    "mixed_batches",
    "Where two blocks meet",
    minutes=4,
    difficulty=2,
    kind="predict a number",
    points=1,
    hints={
        "every_border": (
            "You have counted every place where the thumb turns. Does each of them lie inside a batch?",
            "The thumb turns behind 1000, 2000 and 2600 rows. Which of these is a multiple of 16?",
            "2000 = 125 * 16: there one batch ends and the next begins. The other two lie inside a batch.",
        ),
        "one_block": (
            "With all chosen before all rejected the thumb turns once, between two batches. But how large is a block?",
            "A block has a thousand pairs, so the rows are 1000 up, 1000 down, 600 up, 600 down.",
        ),
        "first_block_only": (
            "You stopped at the first thousand pairs. What of the other 600?",
            "They make a block of their own: 600 up, 600 down, behind row 2000.",
        ),
        "one_sided_counted": (
            "Those are the batches with one kind of thumb. Asked for are the others.",
            "There are 3200 / 16 = 200 batches in all.",
        ),
        "as_if_shuffled": (
            "That is what a shuffle would give: all batches. But here nobody shuffles.",
            "The rows are 1000 up, 1000 down, 600 up, 600 down. Where does a batch of 16 hold both?",
        ),
    },
)
def mixed_batches(answer):
    right, batches = batches_of_blocks(PAIRS, 1000, ROWS)
    faults = {
        "every_border": 3,
        "one_block": batches_of_blocks(PAIRS, PAIRS, ROWS)[0],
        "first_block_only": batches_of_blocks(1000, 1000, ROWS)[0],
        "one_sided_counted": batches - right,
        "as_if_shuffled": batches,
    }
    number(answer, right, 0.1, faults, tried="1,600 pairs, blocks of 1,000, batches of 16")
    return "the batches that hold both kinds of thumb"


def unknown_spread(rows):
    """Standard deviation of the z0 that rows meet, for the second person of exercise 12.2."""
    k = 0.5 + 3 * torch.randn(2000, rows, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return float(k.reshape(2000, -1, 8).mean(-1).clamp(min=0).std())


@exercise(
    "accumulation",
    "More rows, no steadier",
    minutes=4,
    difficulty=2,
    kind="read a curve",
    points=1,
    hints={
        "larger_batch": (
            "That is what the first person did. What became of the spread there?",
            "A mean over more rows scatters less. In the flat curve the number of rows in one mean stays the same.",
        ),
        "more_processes": (
            "Averaged over all processes, z0 is a mean over more and more rows. Would it stay as unsteady?",
            "It would fall like the first curve. Which way of adding rows leaves each z0 with its eight?",
        ),
        "clamp_before_mean": (
            "A clamp before the mean makes z0 too large. But does a mean over more rows not scatter less?",
            "It would fall, too, only higher up. Which way of adding rows leaves each z0 with its eight?",
        ),
    },
)
def accumulation(answer):
    choice(answer, "b", {"a": "larger_batch", "c": "more_processes", "d": "clamp_before_mean"})
    return "your reading of the curve: each part of eight has its own z0, and gradients are added when it is gone"


def right_global_z0(parts):
    """z0 of the whole batch, in nats, without a gradient, from the mismatched log-ratios of each process."""
    return torch.cat(list(parts)).mean().clamp(min=0).detach()


def global_z0_faults(parts):
    """(right value, what the known faults of `global_z0` give) for a list of 1-D tensors."""
    k = torch.cat(parts)
    means = torch.stack([part.mean() for part in parts])
    zero = k.new_zeros(())
    return right_global_z0(parts), [
        ("clamp_before_mean", means.clamp(min=0).mean()),
        ("clamp_before_mean", k.clamp(min=0).mean()),
        ("clamp_before_mean", torch.stack([part.clamp(min=0).mean() for part in parts]).mean()),
        ("clamp_before_mean", sum((part.mean().clamp(min=0) * len(part) for part in parts), zero) / len(k)),
        ("no_clamp", k.mean()),
        ("mean_of_means", means.mean().clamp(min=0)),
        ("mean_of_means", means.mean()),
        ("clamped_above", k.mean().clamp(max=0)),
        ("summed", k.sum().clamp(min=0)),
        ("summed", k.sum()),
        ("divided_by_processes", (k.sum() / len(parts)).clamp(min=0)),
        ("divided_by_processes", k.sum() / len(parts)),
        ("own_part_only", parts[0].mean().clamp(min=0)),
        ("own_part_only", parts[0].mean()),
        ("one_for_each", means.clamp(min=0)),
        ("one_for_each", k.clamp(min=0)),
    ]


@exercise(
    "global_z0",
    "One z0 for all processes",
    minutes=5,
    difficulty=2,
    kind="fill in a function",
    points=2,
    ours="kto_course.checks.lesson_12.right_global_z0",
    hints={
        "clamp_before_mean": (
            "Negative numbers were cut off before they could balance the others. What comes first, mean or clamp?",
            "Average over all rows of all processes, then clamp once.",
        ),
        "no_clamp": (
            "Here the mean is negative. What does $z_0$ do below zero?",
            "z0 = max(0, mean): clamp(min=0) at the end.",
        ),
        "mean_of_means": (
            "The parts have different sizes, and each part counts the same in your mean. Should each row?",
            "Divide the sum over all rows by the number of all rows.",
        ),
        "clamped_above": (
            "You keep what is negative and cut what is positive.",
            "clamp(min=0) lifts negative values to 0.",
        ),
        "summed": (
            "That is a sum. Would it not grow with the number of rows?",
            "Divide by the number of rows of all processes together.",
        ),
        "divided_by_processes": (
            "You divide by the number of processes. Over what is the mean taken?",
            "Over rows: divide by sum(len(part) for part in parts).",
        ),
        "own_part_only": (
            "Only the first process counts.",
            "Use all entries of `parts`: torch.cat(parts) is the whole batch.",
        ),
        "one_for_each": (
            "Several numbers came back. How many reference points has one batch?",
            "One, the same for all processes.",
        ),
        "gradient_through_z0": (
            "The value is right, but a gradient flows through it. Is $z_0$ something to be trained?",
            "It is a constant of the step: put .detach() behind it.",
        ),
    },
)
def global_z0(answer):
    sizes = [3, 1, 4]
    random = 2 * torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cases = [
        [torch.tensor([2.0, 3.0, -1.0], dtype=torch.float64), torch.tensor([-3.0, 1.0], dtype=torch.float64)],
        [torch.tensor([2.0, -1.0, -4.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)],
        [part.float() for part in (random + 1).split(sizes)],
        list((random - 2).split(sizes)),
    ]
    for parts in cases:
        right, faults = global_z0_faults(parts)
        tried = f"parts {[[round(x, 2) for x in part.tolist()] for part in parts]}"
        compare(call(answer, parts, tried=tried), right, faults)
    tried = "the gradient in the mismatched log-ratios"
    if flows(lambda k: torch.as_tensor(answer(list(k.split([2, 3])))), torch.arange(5.0), wrt=0, tried=tried):
        raise Fault("gradient_through_z0", got="a gradient", expected="none")
    return "unequal parts, a negative mean, three processes, and that no gradient flows"
