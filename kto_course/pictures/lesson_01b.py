"""The pictures of lesson 01b, and its slider."""

import io
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np

from kto_course.pictures import publish
from kto_course.pictures.lesson_01 import alpha_panels
from kto_utils.plotting import ACCENT, DOWN, NEUTRAL, UP, label_line

AMOUNTS = np.linspace(-20, 20, 801)


def value_png(value: Callable, alpha: float) -> bytes:
    """One value function as a PNG: amounts from -20 to 20 dollars, on axes that do not move with alpha."""
    fig, ax = plt.subplots(figsize=(5, 3))
    felt = value(AMOUNTS, alpha)
    ax.plot(AMOUNTS[AMOUNTS >= 0], felt[AMOUNTS >= 0], color=UP, ls="-")
    ax.plot(AMOUNTS[AMOUNTS <= 0], felt[AMOUNTS <= 0], color=DOWN, ls="--")
    ax.set(xlim=(-20, 20), ylim=(-48, 24), title=f"alpha = {alpha:.2f}")
    ax.set(xlabel="distance from the reference point (dollars)", ylabel="felt value")
    png = io.BytesIO()
    fig.savefig(png, format="png", dpi=100)
    plt.close(fig)
    return png.getvalue()


def alpha_slider(value: Callable):
    """A slider for alpha over a value function that follows it; four still pictures where ipywidgets is missing.

    Args:
        value: function of (amounts (n,) in dollars, alpha) that gives felt values (n,).

    Returns:
        A widget to stand last in a cell, its children the slider and the picture; None for the still pictures.
    """
    try:
        import ipywidgets as widgets
    except ImportError:
        alpha_panels(AMOUNTS, {alpha: value(AMOUNTS, alpha) for alpha in (0.05, 0.5, 0.88, 1.0)})
        return None
    slider = widgets.FloatSlider(value=0.88, min=0.05, max=1.0, step=0.01, description="alpha")
    picture = widgets.Image(value=value_png(value, slider.value), format="png", width=500)  # its own size, so sharp

    def redraw(change):
        picture.value = value_png(value, change["new"])

    slider.observe(redraw, names="value")
    return widgets.VBox([slider, picture])


def stranger(amount, unknown, usual) -> None:
    """How many times as strong an equal loss is felt, for a stranger and for the person of 1992.

    Args:
        amount: (n,), dollars, rising.
        unknown, usual: loss over gain at these amounts (n,), of the stranger and of the person of 1992.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    ax.plot(amount, unknown, color=DOWN)
    ax.plot(amount, usual, color=NEUTRAL, ls="--", lw=1.2)
    label_line(ax, 12, 3.0, "a stranger", color=DOWN)
    label_line(ax, 100, 2.32, "the person of 1992", color=NEUTRAL)
    ax.set(xscale="log", xlabel="amount (dollars, log scale)", ylabel="loss / gain", ylim=(1.9, 3.9))
    ax.set_title("How many times as strong is an equal loss?")
    alt = """How many times as strong as a gain an equal loss is felt, against the amount from 1 to 1000 dollars,
        on a log scale. For the person of 1992 it is 2.25 at every amount. The stranger begins at the same 2.25 at
        1 dollar and rises steadily to about 3.65 at 1000 dollars."""
    publish(fig, "01b_stranger", alt)


def weighting(p, weights: dict, crossing: dict, falling) -> None:
    """Left, three weighting functions and where each crosses the diagonal; right, one that dips.

    Args:
        p: chances (n,) from 0 to 1, rising.
        weights: gamma -> decision weights (n,), for 0.5, 0.61 and 0.69.
        crossing: gamma -> the chance at which the curve crosses the diagonal.
        falling: decision weights (n,) for gamma 0.25.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.2), sharex=True, sharey=True)
    line = {"arrowprops": {"arrowstyle": "-", "color": NEUTRAL}}
    places = {0.5: (0.38, 0.03, UP, "-"), 0.61: (0.5, 0.18, DOWN, "--"), 0.69: (0.03, 0.6, ACCENT, "-.")}
    for gamma, (x, y, colour, style) in places.items():
        left.plot(p, weights[gamma], color=colour, ls=style)
        text, point = f"{gamma} crosses at {crossing[gamma]:.4f}", (crossing[gamma], crossing[gamma])
        left.annotate(text, point, xytext=(x, y), color=colour, **line)
    right.plot(p, falling, color=DOWN)
    inset = right.inset_axes([0.2, 0.5, 0.5, 0.36], xlim=(0, 0.4), ylim=(0.095, 0.11), yticks=[0.1, 0.11])
    inset.plot(p, falling, color=DOWN)
    inset.set_title("enlarged: it dips", fontsize=9, color=DOWN)
    inset.tick_params(labelsize=8)
    right.indicate_inset_zoom(inset, edgecolor=NEUTRAL)
    left.plot([0, 1], [0, 1], color=NEUTRAL, lw=0.8, ls="-")
    for ax, title in ((left, "Small chances weigh too much"), (right, "Gamma 0.25: no longer a weight")):
        ax.set(xlabel="chance p", title=title, aspect="equal")
    left.set_ylabel("decision weight w(p)")
    alt = """Decision weight against chance. Left, with the diagonal: for gamma 0.5, 0.61 and 0.69 the curve lies above
        it for small chances and crosses it at 0.2781, 0.3388 and 0.3776. Right: for gamma 0.25 it shoots up to about
        0.107, then, as an enlarged window shows, dips to about 0.098 before it rises again."""
    publish(fig, "01b_weighting", alt)


def rank_weights(prizes, ranked, separable: float) -> None:
    """Decision weights of equally likely prizes: large at both ends, small in the middle.

    Args:
        prizes: (n,), dollars, rising.
        ranked: decision weights (n,) in the cumulative form, of the same prizes.
        separable: the one weight that each of them gets in the separable form.
    """
    fig, ax = plt.subplots(figsize=(7.2, 3.6))
    ax.bar(prizes, ranked, color=UP, width=0.7)
    ax.axhline(1 / len(prizes), color=NEUTRAL, lw=1.2, ls="-")
    ax.axhline(separable, color=DOWN, lw=1.6, ls="--")
    total = len(prizes) * separable
    label_line(ax, 93.0, separable + 0.014, f"separable: all alike, total {total:.3f}", color=DOWN)
    label_line(ax, 93.0, 0.114, "the chance itself", color=NEUTRAL)
    label_line(ax, 93.0, 0.235, "bars, cumulative: total 1", color=UP)
    ax.set(xlabel="prize (dollars)", ylabel="decision weight", xticks=prizes)
    ax.set_title("The cumulative form overweights the ends")
    alt = """Decision weights of ten equally likely prizes from 91 to 100 dollars. In the cumulative form of 1992 the
        worst prize gets about 0.29 and the best about 0.19, the middle ones well below 0.1; in the separable form
        each gets 0.186."""
    publish(fig, "01b_rank_weights", alt)


def fourfold(p, gain, loss) -> None:
    """Four attitudes to risk: where a curve is above 0, the person likes the gamble better than its average.

    Args:
        p: chances (n,) of winning or losing 100 dollars.
        gain, loss: sure amounts (n,), dollars, that feel like the gamble; of a loss they are negative.
    """
    fig, ax = plt.subplots(figsize=(7.6, 4.2))
    ax.plot(p, gain - 100 * p, color=UP, ls="-")
    ax.plot(p, loss + 100 * p, color=DOWN, ls="--")
    ax.axhline(0, color=NEUTRAL, lw=0.8)
    label_line(ax, 0.06, 9, "lottery: rare gain, overpaid", color=UP)
    label_line(ax, 0.02, -8, "insurance: rare loss,\noverpaid to avoid", color=DOWN)
    label_line(ax, 0.54, 20, "gambles on to dodge a likely loss", color=DOWN)
    label_line(ax, 0.4, -20, "takes less for\na likely gain", color=UP)
    ax.set(xlabel="chance p of winning or losing 100 dollars", ylabel="sure amount minus average (dollars)")
    ax.set_ylim(-28, 28)
    ax.set_title("Four attitudes to risk from one set of parameters")
    alt = """Sure amount that feels like a gamble, minus the gamble's average, against the chance of winning or losing
        100 dollars. Gains: positive for rare wins, strongly negative for likely ones. Losses: the mirror pattern,
        negative for rare losses and positive for likely ones."""
    publish(fig, "01b_fourfold", alt)
