"""The pictures of lesson 05b."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.colors import LinearSegmentedColormap

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, UP


def mystery(scores: Sequence[float]) -> None:
    """The score of one reply while others join its batch: a curve that should be flat.

    Args:
        scores: what a faulty function says about reply 0 in batches of 1, 2, 3, ... replies.
    """
    fig, ax = plt.subplots()
    ax.plot(range(1, len(scores) + 1), scores, "o-", color=UP)
    ax.set(xlabel="replies in the batch", ylabel="score of reply 0", title="One reply, more and more neighbours")
    publish(
        fig, "05b_mystery",
        "Score of one reply against the number of replies in its batch, from 1 to 8. Alone it is lowest; with every "
        "reply that joins it rises, in ever smaller steps, towards 0.",
    )  # fmt: skip


def tokens_moved(moved, tokens: Sequence[Sequence[str]], kinds: Sequence[str]) -> None:
    """The log-ratio of every token of some replies, a reply a line, a token a cell.

    Args:
        moved: (N, T), nats, policy minus reference.
        tokens: the tokens of each reply, at most T.
        kinds: what each reply is, e.g. "polite, right".

    Colours stop at 1 nat; the numbers do not. Cells that hold 0 at two digits stay white: most of them.
    """
    fig, ax = plt.subplots(figsize=(10.5, 4.6))
    diverging = LinearSegmentedColormap.from_list("moved", [DOWN, "white", UP])
    image = ax.imshow(moved, cmap=diverging, vmin=-1, vmax=1, aspect="auto")
    for i, line in enumerate(tokens):
        for j, token in enumerate(line):
            number = f"{moved[i, j]:+.2f}" if abs(moved[i, j]) >= 0.03 else "0"
            ax.text(j, i, f"{token.strip()}\n{number}", ha="center", va="center", fontsize=10)
    names = [f"{kind}\nr = {row.sum():+.2f}" for kind, row in zip(kinds, moved, strict=True)]
    ax.set_yticks(range(len(names)), names)
    ax.set_xticks(range(moved.shape[1]), range(1, moved.shape[1] + 1))
    ax.set(xlabel="token of the reply", title="Few tokens move: the opening, the answer, the ending")
    ax.hlines([i + 0.5 for i in range(len(names) - 1)], -0.5, moved.shape[1] - 0.5, color="white", linewidth=4)
    ax.grid(False)
    fig.colorbar(image, label="log-ratio of the token (nats)", extend="both")
    publish(
        fig, "05b_tokens_moved",
        "Heat map of six replies, one cell for each token, with the log-ratio after ten steps that raise the first "
        "reply. Its opening It, its answer blue and its ending Happy rise by 0.4 to 0.6 nats. Other openings and the "
        "ending Even fall by 0.6 to 0.8, the wrong answer green by 0.5, while blue rises wherever it stands. All "
        "other tokens stay at 0.",
    )  # fmt: skip
