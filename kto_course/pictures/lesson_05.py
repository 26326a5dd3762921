"""The pictures of lesson 05."""

import matplotlib.pyplot as plt

from kto_course.pictures import publish


def shift(table, texts: list[str]) -> None:
    """Which place predicts which token: a bright diagonal.

    Args:
        table: (N, N), nats; line i holds the log-probabilities at the place whose token was just read, column j the
            token that is scored.
        texts: N + 1 tokens in a row; the first N are read, the last N are scored.

    One sees that only the next token is likely. One cell below each bright one stands the token just read.
    """
    read, scored = texts[:-1], texts[1:]
    fig, ax = plt.subplots(figsize=(7.2, 5.4))
    image = ax.imshow(table, vmin=-15, vmax=0)
    for i, line in enumerate(table.tolist()):
        for j, logp in enumerate(line):
            text = f"{logp:.0f}".replace("-0", "0")
            ax.text(j, i, text, ha="center", va="center", color="black" if logp > -7 else "white")
    ax.set_xticks(range(len(scored)), scored, rotation=40)
    ax.set_yticks(range(len(read)), read)
    ax.set(
        xlabel="token that is scored", ylabel="token just read",
        title="Only the next token is likely: the bright diagonal",
    )  # fmt: skip
    ax.grid(False)
    fig.colorbar(image, label="log-probability (nats)", extend="min")
    publish(
        fig, "05_shift",
        "Table of log-probabilities for the reply It is blue. Happy to help! Lines are the token just read, columns "
        "the token scored. Only the diagonal, where the column is the next token, is near 0 nats; everywhere else it "
        "is between -8 and -14.",
    )  # fmt: skip
