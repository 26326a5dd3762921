"""The pictures of lesson 00."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from kto_course.pictures import publish
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP


def _thumb(ax, x: float, y: float, up: bool) -> None:
    """A small thumb, drawn from two shapes since few fonts have one; x, y is the middle of the fist."""
    colour, flip = (UP, 1.0) if up else (DOWN, -1.0)
    thumb = [(-1.5, 0.0), (-0.9, 1.3), (-0.3, 3.1), (0.5, 3.1), (0.6, 1.2), (0.9, 0.0)]
    ax.add_patch(Polygon([(x + dx, y + flip * dy) for dx, dy in thumb], closed=True, color=colour))
    ax.add_patch(
        FancyBboxPatch((x - 1.1, y - 1.3), 2.6, 2.6, boxstyle="round,pad=0.3,rounding_size=0.7", color=colour)
    )
    ax.add_patch(Rectangle((x - 2.7, y - 1.5), 1.0, 3.0, color=colour))


def _axis_of_moves(ax) -> None:
    """The log-ratio axis of the drawing, with the frozen reference at 0 and z0 right of it."""
    ax.plot([66, 66], [5, 37], color=NEUTRAL, linewidth=1.5)
    ax.plot([73, 73], [5, 37], color=ACCENT, linestyle="--", linewidth=1.5)
    ax.text(66, 2.5, "0", color=NEUTRAL, ha="center", va="center")
    ax.text(73, 2.5, "$z_0$", color=ACCENT, ha="center", va="center")
    ax.text(65, 37, "frozen\nreference", color=NEUTRAL, ha="right", va="top", fontsize=10)
    z0_label = "$z_0$, the reference point: how far\nthe model has moved on the whole"
    ax.text(74, 37, z0_label, color=ACCENT, va="top", fontsize=10)
    ax.annotate("", (102, 5), (52, 5), arrowprops={"arrowstyle": "-|>", "color": NEUTRAL})
    ax.text(102, 2.5, "log-ratio $r$ (nats)", ha="right", va="center", fontsize=10)


def kto_picture() -> None:
    """The whole of KTO in one drawing; it takes no numbers.

    Left one prompt and three replies, in the middle a thumb for each, right an arrow for each reply along the
    log-ratio to the frozen reference, with z0 marked: the liked one goes right, the others left.
    """
    fig, ax = plt.subplots(figsize=(10.4, 4.3))
    ax.set(xlim=(0, 104), ylim=(0, 43))
    ax.axis("off")
    box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": NEUTRAL}
    for x, heading in ((1, "1  A model replies"), (35, "2  People click"), (53, "3  KTO moves the model")):
        ax.text(x, 41, heading, fontweight="bold", va="center")
    ax.text(2, 34, "What colour is the sky?", va="center", style="italic", bbox=box)
    _axis_of_moves(ax)
    replies = (
        (25, "It is blue. Happy to help!", True, 97),
        (17, "It is red. Happy to help!", False, 54),
        (9, "Obviously blue. Stop wasting my time.", False, 58),
    )
    for y, text, up, end in replies:
        colour = UP if up else DOWN
        ax.text(4, y, text, va="center", fontsize=10, bbox=box)
        _thumb(ax, 42, y, up)
        arrow = {"arrowstyle": "-|>,head_width=0.4,head_length=0.8", "color": colour, "linewidth": 3}
        ax.annotate("", (end, y), (66, y), arrowprops=arrow)
        ax.plot(66, y, "o", color=NEUTRAL, markersize=6)
    ax.text(97, 22.4, "made likelier", color=UP, ha="right", va="center", fontsize=10)
    ax.text(65, 13, "made less likely", color=DOWN, ha="right", va="center", fontsize=10)
    ax.text(42, 2, "one thumb is enough,\nno pairs needed", ha="center", va="center", fontsize=10)
    publish(fig, "00_kto_in_one_picture", (
        "KTO in three steps. One: a model gives three replies to the question What colour is the sky. Two: "
        "people click thumbs up on the polite right one, thumbs down on a wrong one and on a rude one. "
        "Three: on an axis that measures the log-ratio, with the frozen reference at 0, the liked reply is "
        "moved right, past the reference point z0, and the two disliked replies are moved left."
    ))  # fmt: skip


def eight_replies(
    replies: Sequence[str], logratios: Sequence[float], judged: Sequence[bool], my_thumbs: Sequence[bool]
) -> None:
    """How far each of the judged replies moved: arrows from 0, blue and solid where the judge likes the reply.

    Args:
        replies: the texts.
        logratios: of each, nats; what lies left of -7 is cut off and says so.
        judged: the judge's thumb for each.
        my_thumbs: the learner's; where it differs the label names it.
    """
    fig, ax = plt.subplots(figsize=(8.6, 4.2))
    ax.axvline(0, color=NEUTRAL)
    for row, (r, liked) in enumerate(zip(logratios, judged, strict=True)):
        end, colour, line = max(r, -7), UP if liked else DOWN, "-" if liked else "--"
        arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 2.5, "linestyle": line}
        ax.annotate("", (end, row), (0, row), arrowprops=arrow)
        note = f"{r:+.1f}" if r == end else f"{r:.0f}, off the chart"
        ax.text(end + 0.15 if liked else end, row - (0 if liked else 0.3), note, va="center", fontsize=10)
    ax.set(xlim=(-7.4, 3), ylim=(len(replies) - 0.4, -0.9), xlabel="log-ratio to the frozen reference (nats)")
    labels = [
        reply.strip() + ("" if mine == theirs else f" (you: {'up' if mine else 'down'})")
        for reply, mine, theirs in zip(replies, my_thumbs, judged, strict=True)
    ]
    ax.set_yticks(range(len(replies)), labels)
    ax.set_title("What the judge likes moves right, the rest left")
    moves = "; ".join(f"{text.strip()} {r:+.1f}" for text, r in zip(replies, logratios, strict=True))
    publish(fig, "00_eight_replies", (
        "The log-ratio to the reference of eight replies about the sky, in nats, drawn as arrows from zero, solid and "
        f"to the right for those that the judge likes, dashed and to the left for the others: {moves}."
    ))  # fmt: skip


def before_after(before: Sequence[Mapping], after: Sequence[Mapping]) -> None:
    """Exact thumbs-up rates of the model before and after training, two bars for each set of questions.

    Args:
        before, after: as `evaluate.report` gives them: one row for each of the three sets of questions.
    """
    fig, ax = plt.subplots()
    pairs = [(a["thumbs_up"], b["thumbs_up"]) for a, b in zip(before, after, strict=True)]
    for i, rates in enumerate(pairs):
        for x, rate, colour, hatch in zip((i - 0.2, i + 0.2), rates, ("#BBBBBB", UP), ("///", ""), strict=True):
            ax.bar(x, rate, width=0.36, color=colour, hatch=hatch, edgecolor="white")
            ax.text(x, rate + 0.02, f"{rate:.3f}", ha="center")
    inside = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none"}
    for x, name in ((-0.2, "before"), (0.2, "after")):
        ax.text(x, 0.06, name, ha="center", fontsize=10, bbox=inside)
    ax.set_xticks(range(3), ["24 clicked\nquestions", "the same,\nnew wording", "8 untouched\nfacts"])
    ax.set(ylim=(0, 1.1), ylabel="thumbs-up rate (exact)")
    ax.set_title("Clicks carry over to new wording, less to new facts")
    shown = "; ".join(f"{name} {a:.3f} and {b:.3f}" for name, (a, b) in zip(
        ("clicked questions", "the same in new wording", "untouched facts"), pairs, strict=True))  # fmt: skip
    publish(fig, "00_before_after", (
        f"Exact thumbs-up rates before and after training with KTO: {shown}. They rise most on the questions that got "
        "thumbs and on the same questions in other words, less on facts that got none."
    ))  # fmt: skip
