"""The formulas of the course on one page: the list, and how it is drawn. `handouts.py` publishes the card.

Each formula stands beside the same thing in Python, and, where there is one, beside a second way to get the number:
a function of `kto_utils`, the library, autograd. tests/test_handouts.py compares the two on random inputs.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import exp

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kto_course import checks
from kto_utils.losses import BAND_CURRENT, BAND_V1
from kto_utils.plotting import NEUTRAL, STYLE_FILE

A4 = (8.27, 11.69)  # inches
ALT = (
    "Formula card, one page: the formulas of the course in six groups (prospect theory, log-probabilities, the "
    "reference point, KTO, DPO, the optimum and its price), each with its name and the lesson and section that "
    "derives it, and below them what the symbols mean and their units."
)


@dataclass(frozen=True)
class Formula:
    """One line of the card.

    Fields:
        name, note: what it is called, and what else to know of it.
        tex: as matplotlib's mathtext reads it.
        lesson, section: where it is derived; two digits, and the text of a `## ` heading.
        python: the right-hand side, in the names of the card and PyTorch's functions.
        against: another way to the same number; None where the formula only names something.
    """

    name: str
    note: str
    tex: str
    lesson: str
    section: str
    python: str
    against: str | None = None


def _fraction(number: float) -> str:
    part = Fraction(number).limit_denominator(10)
    return rf"\dfrac{{{part.numerator}}}{{{part.denominator}}}"


def _share_of_largest_pull(u: float) -> float:
    return 4.0 * exp(-u) / (1.0 + exp(-u)) ** 2  # 4 sigma(u) sigma(-u)


REF = r"\pi_{\mathrm{ref}}"
PULL_AT_5 = f"{100 * _share_of_largest_pull(5.0):.1f}"
KTO = "kto_loss(r, 0 * r, label, z0, beta, lambda_D, lambda_U)"
CARD: dict[str, list[Formula]] = {
    "Prospect theory": [
        Formula(
            "Value of a gain, of a loss", "$z$: distance from the reference point",
            r"$v(z) = z^{\alpha}\ \ (z \geq 0),\quad v(z) = -\lambda\,(-z)^{\alpha}\ \ (z < 0)$",
            "01", "1. You feel the distance from a reference point",
            "where(z >= 0, abs(z) ** alpha, -loss_aversion * abs(z) ** alpha)",
            "prospect.value(z, alpha, loss_aversion)",
        ),
        Formula(
            "Weight of a chance", "small chances weigh too much",
            r"$w(p) = \dfrac{p^{\gamma}}{\left(p^{\gamma} + (1-p)^{\gamma}\right)^{1/\gamma}}$",
            "01", "3. Small chances feel larger than they are, and KTO drops this",
            "p ** gamma / (p ** gamma + (1 - p) ** gamma) ** (1 / gamma)",
            "prospect.weight(p, gamma)",
        ),
        Formula(
            "Value of a gamble", "gains, the largest first",
            r"$V = \sum_i\,\left[w(p_1 + \ldots + p_i) - w(p_1 + \ldots + p_{i-1})\right] v(z_i)$",
            "01", "5. Bend the chance of at least this much",
            "sum((w(sum(chances[:i + 1])) - w(sum(chances[:i]))) * v(gains[i]) for i in range(len(gains)))",
            "prospect.prospect_value(gains, chances)",
        ),
    ],
    "Log-probabilities": [
        Formula(
            "Of a completion", "summed, end token included",
            r"$\log\pi(y|x) = \sum_{t\,\in\,y}\left(\ell_{t-1}[y_t] - \log\sum_v\,e^{\ell_{t-1}[v]}\right)$",
            "05", "5. Sum, not mean: a reply is one event",
            "sum(logits[t - 1, ids[t]] - log(sum(exp(logits[t - 1]))) for t in completion)",
            "get_probs(logits[None], ids[None], label_mask[None]).sum()",
        ),
        Formula(
            "Log-ratio, implicit reward", "0 for every reply at step 0",
            rf"$r = \log\pi(y|x) - \log{REF}(y|x), \quad \mathrm{{reward}} = \beta\,r$",
            "05", "7. The log-ratio starts at exactly 0",
            "logp - logp_ref",
        ),
    ],
    "The reference point": [
        Formula(
            "Of a batch", "mismatched rows, no gradient",
            rf"$z_0 = \max\left(0,\ \dfrac{{1}}{{B}}\sum_{{i=1}}^{{B}}\,k_i\right), \quad "
            rf"k_i = \log\pi(y_j|x_i) - \log{REF}(y_j|x_i), \ \ j \neq i$",
            "06", "3. What a batch can know of it",
            "max(tensor(0.0), mean(kl_logp - kl_logp_ref))",
            "reference_point(kl_logp, kl_logp_ref)",
        ),
        Formula(
            "What the mean of $k$ tells", "replies $y_j$ drawn from $q$; the KL for $q = \\pi$",
            rf"$\mathrm{{E}}_{{y\sim q}}[\log\pi - \log{REF}] = "
            rf"\mathrm{{KL}}(q\,\Vert\,{REF}) - \mathrm{{KL}}(q\,\Vert\,\pi)$",
            "06", "4. Whose replies do you borrow?",
            "kl(q, ref) - kl(q, pi)",
            "sum(q * log(pi / ref))",
        ),
    ],
    "KTO": [
        Formula(
            "Value and loss of a row", "v1: $w(1-v)$; v4: $\\lambda_y - v$",
            r"$v = w\,\sigma(u), \quad \mathrm{loss} = w - v = w\,\sigma(-u), \quad u = s\,\beta\,(r - z_0)$",
            "06", "6. The label picks the branch",
            "w * sigmoid(-s * beta * (r - z0))",
            KTO,
        ),
        Formula(
            "Gradient", "$L$: mean over $B$ rows; largest at $r = z_0$",
            r"$\dfrac{\partial L}{\partial r_i} = -\dfrac{1}{B}\,s_i\,w_i\,\beta\,\sigma(u_i)\,\sigma(-u_i)$",
            "06", "10. How hard does a row pull?",
            "-1 / B * s * w * beta * sigmoid(s * beta * (r - z0)) * sigmoid(-s * beta * (r - z0))",
            f"slope(lambda r: {KTO}.mean(), r)",
        ),
        Formula(
            "Saturation, on both sides", "$|u| = 5$: 50 nats from $z_0$ at $\\beta = 0.1$",
            r"$\dfrac{\mathrm{pull}}{\mathrm{largest}} = 4\,\sigma(u)\,\sigma(-u) \approx 4\,e^{-|u|}; \quad "
            rf"|u| = 5\!:\ {PULL_AT_5}\,\%$",
            "06", "11. Hopeless rows get almost no push",
            "4 * sigmoid(beta * (r - z0)) * sigmoid(-beta * (r - z0))",
            "abs(slope(lambda r: " + KTO + ".sum(), r)) / (w * beta / 4)",
        ),
        Formula(
            "Weights: the recommended band", "default 1 and 1; $n$: how many rows",
            rf"$1 \leq \dfrac{{\lambda_D\,n_D}}{{\lambda_U\,n_U}} \leq {_fraction(BAND_V1[1])}\ \mathrm{{(v1)}},\quad "
            rf"\leq {_fraction(BAND_CURRENT[1])}\ \mathrm{{(v4)}}$",
            "06", "8. Two weights make up for the counts",
            "balanced[0] * n_D / (balanced[1] * n_U)",
            "ratio",
        ),
        Formula(
            "Loss at step 0", "every $r$ and $z_0$ are 0",
            r"$L = \dfrac{1}{2}\,\mathrm{mean}(w)$",
            "06", "7. Before the first step, the loss is half the mean weight",
            "mean(w) / 2",
            KTO.replace("(r,", "(0 * r,").replace("z0", "0.0") + ".mean()",
        ),
    ],
    "DPO": [
        Formula(
            "Loss of a pair", "at step 0: $\\ln 2$",
            r"$-\log\sigma(\beta\,m), \quad m = r_{\mathrm{chosen}} - r_{\mathrm{rejected}}$",
            "08", "3. DPO: minus the log-probability of the choices",
            "-log(sigmoid(beta * (r_chosen - r_rejected)))",
            "dpo_loss(r_chosen, r_rejected, 0 * r_chosen, 0 * r_rejected, beta)",
        ),
        Formula(
            "Slope", "fades on one side only",
            r"$\dfrac{\partial\,\mathrm{loss}}{\partial m} = -\beta\,\sigma(-\beta\,m)$",
            "09", "4. Who gets pushed?",
            "-beta * sigmoid(-beta * (r_chosen - r_rejected))",
            "slope(lambda r: dpo_loss(r, r_rejected, 0 * r, 0 * r, beta).sum(), r_chosen)",
        ),
    ],
    "The optimum and its price": [
        Formula(
            "Goal of RLHF", "KTO ends elsewhere: lesson 06b, 7",
            rf"$J(\pi) = \mathrm{{E}}_{{y\sim\pi}}[R] - \beta\,\mathrm{{KL}}(\pi\,\Vert\,{REF}) "
            r"= \beta\log Z - \beta\,\mathrm{KL}(\pi\,\Vert\,\pi^*)$",
            "06", "2. The top, in three steps",
            "beta * log(sum(ref * exp(R / beta))) - beta * kl(pi, softmax(log(ref) + R / beta))",
            "sum(pi * R) - beta * kl(pi, ref)",
        ),
        Formula(
            "Its one best policy", "$Z$: over every reply to $x$",
            rf"$\pi^* = {REF}\,e^{{R/\beta}}\,/\,Z, \quad Z = \sum_y\,{REF}\,e^{{R/\beta}}$",
            "06", "2. The top, in three steps",
            "ref * exp(R / beta) / sum(ref * exp(R / beta))",
            "softmax(log(ref) + R / beta)",
        ),
        Formula(
            "The reward inside a policy", "for one prompt, only differences count",
            rf"$R = \beta\,\log(\pi^* / {REF}) + \beta\,\log Z$",
            "06", "1. A policy carries a reward inside",
            "beta * log(softmax(log(ref) + R / beta) / ref) + beta * log(sum(ref * exp(R / beta)))",
            "R",
        ),
        Formula(
            "Least KL for a thumbs-up rate $q$", "$p$: the reference's rate; for $q = 1$: $-\\ln p$",
            r"$\mathrm{KL} = q\,\ln\dfrac{q}{p} + (1-q)\,\ln\dfrac{1-q}{1-p}$",
            "07", "1. Perfection has a price",
            "good * log(good / p_good) + (1 - good) * log((1 - good) / (1 - p_good))",
            "least_kl([p_good], good)",
        ),
    ],
}  # fmt: skip

SYMBOLS = (
    r"$r, k_i, z_0, m$: nats, summed over completion tokens.  $\beta$: turns nats into the argument of $\sigma$.  "
    r"$\sigma(u) = 1/(1 + e^{-u})$.",
    r"$s = +1$ and $w = \lambda_D$ for thumbs up (D, desirable);  $s = -1$ and $w = \lambda_U$ for thumbs down "
    r"(U, undesirable).",
    rf"$\pi$: policy.  ${REF}$: reference, its frozen starting point.  $x$: prompt.  $y$: completion.  "
    r"$y_j$: another row's.  $\ell$: logits.",
    r"$\alpha, \lambda, \gamma$: 0.88, 2.25, 0.61 in the medians of 1992 (0.69 for losses).  $\lambda$ is loss "
    r"aversion; $\lambda_D, \lambda_U$ weigh labels.",
)


def draw() -> Figure:
    """The card as a matplotlib figure, A4 upright, black and one grey."""
    with mpl.style.context(["default", STYLE_FILE]), mpl.rc_context({"figure.constrained_layout.use": False}):
        fig = Figure(figsize=A4)
        left, formula, right = 0.07, 0.35, 0.93

        def rule(y: float, width: float) -> None:
            fig.add_artist(Line2D([left, right], [y, y], color=NEUTRAL, linewidth=width))

        fig.text(left, 0.955, "KTO from Scratch: the formulas", fontsize=17, fontweight="bold", va="center")
        fig.text(right, 0.955, "lesson, section", fontsize=8.5, color=NEUTRAL, ha="right", va="center")
        lines = sum(map(len, CARD.values()))
        step = (0.925 - 0.125 - 0.034 * len(CARD)) / lines
        y = 0.925
        for group, formulas in CARD.items():
            rule(y, 1.2)
            fig.text(left, y - 0.014, group, fontsize=11, fontweight="bold", va="center")
            y -= 0.028
            for line in formulas:
                middle = y - step / 2
                fig.text(left, middle + 0.0065, line.name, fontsize=8.8, va="center")
                fig.text(left, middle - 0.0065, line.note, fontsize=7.2, color=NEUTRAL, va="center")
                fig.text(formula, middle, line.tex, fontsize=11, va="center", math_fontfamily="cm")
                place = f"{checks.home_of(int(line.lesson), line.section)}, {line.section.split('.')[0]}"
                fig.text(right, middle, place, fontsize=8.8, color=NEUTRAL, ha="right", va="center")
                y -= step
            y -= 0.006
        rule(0.122, 1.2)
        for number, text in enumerate(SYMBOLS):
            fig.text(left, 0.104 - 0.0205 * number, text, fontsize=8.6, va="center", math_fontfamily="cm")
        return fig
