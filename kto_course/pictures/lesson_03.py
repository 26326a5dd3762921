"""The picture of lesson 03."""

from collections.abc import Sequence

import matplotlib.pyplot as plt

from kto_course.pictures import publish
from kto_utils.plotting import DOWN, UP, use_course_style


def label_mask(masks: Sequence[Sequence[int]], labels: Sequence[bool]) -> None:
    """Which tokens of each row the loss reads: a bar a row, the prompt grey, the completion in its thumb's colour.

    Args:
        masks: for each row its label_mask, 0 and 1 per token, the last one <eos>.
        labels: for each row its thumb, True = up.
    """
    use_course_style()
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    ends = [len(mask) - 1 for mask in masks]
    for y, (mask, end, up) in enumerate(zip(masks, ends, labels, strict=True)):
        start = mask.index(1)
        colour, hatch, thumb = (UP, None, "thumbs up") if up else (DOWN, "///", "thumbs down")
        ax.barh(y, start, color="#DDDDDD", edgecolor="white")
        ax.barh(y, end - start, left=start, color=colour, hatch=hatch, edgecolor="white")
        ax.barh(y, 1, left=end, color="black")
        ax.text(end + 1.5, y, thumb, color=colour, va="center", fontsize=9)
    longest = ends.index(max(ends))
    ax.text(1, longest, "<bos> and prompt: not scored", va="center", fontsize=9)
    ax.annotate("<eos>, scored", (ends[longest] + 0.5, longest + 0.4), xytext=(ends[longest] - 9, longest + 2.3),
                arrowprops={"arrowstyle": "->"}, fontsize=9)  # fmt: skip
    ax.set(yticks=range(len(masks)), ylabel="row", xlabel="position (tokens)", xlim=(0, max(ends) + 10))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_title("The loss reads the coloured tokens and <eos>, nothing else")
    publish(
        fig,
        "03_label_mask",
        "Eight horizontal bars, one per feedback row, over token positions. Each bar starts with a grey part for the "
        "prompt, which is not scored, then a coloured part for the completion, then one black cell for the "
        f"end-of-sequence token. Row {longest} is by far the longest, with {max(ends) + 1} tokens.",
    )
