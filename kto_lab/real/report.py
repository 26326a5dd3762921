"""Did it help? One report for any run: rates, distance, cost, replies side by side. Lesson 12."""

import html
from collections.abc import Mapping, Sequence

WHAT = {
    "thumbs_up": "thumbs-up on held-out questions",
    "right": "right answers",
    "brief": "brief: ended within 30 words",
    "ended": "replies that end by themselves",
    "words": "words a reply",
    "facts": "100 other facts known",
    "neutral": "nats a token of neutral text",
}
LESS_IS_BETTER = ("words", "neutral")
NOTABLE = 2.0  # standard errors of the difference


def _readings(run: Mapping) -> dict[str, Sequence[float]]:
    found = run | run["held_out"]
    return {name: found[name] for name in WHAT if name in found}


def changes(before: Mapping, after: Mapping) -> list[dict]:
    """What is measured on both, with the difference and whether it exceeds two standard errors.

    The two errors are added as if independent. Same questions are asked twice, so this is on the careful side.
    """
    lines = []
    old_readings, new_readings = _readings(before), _readings(after)
    for name in [name for name in old_readings if name in new_readings]:
        (old, old_error), (new, new_error) = old_readings[name], new_readings[name]
        error = (old_error**2 + new_error**2) ** 0.5
        gain = (new - old) * (-1 if name in LESS_IS_BETTER else 1)
        ending = "about the same" if abs(gain) <= NOTABLE * error else ("better" if gain > 0 else "worse")
        if name == "words":  # shorter is what this judge wants, not what everybody wants
            ending = {"better": "shorter", "worse": "longer"}.get(ending, ending)
        lines.append({"name": name, "before": (old, old_error), "after": (new, new_error), "ending": ending})
    return lines


def _by_margin(after: Mapping) -> str:
    """What the thumbs kept apart say, as long as nobody has judged the model's own replies."""
    margin, error = after["reward_margin"], after["margin_error"]
    start = "No difference that these rows could show"
    if abs(margin) > NOTABLE * error:
        start = "It moved as the thumbs point" if margin > 0 else "It moved against the thumbs"
    order = f"{after['in_order']:.0%} of the up-down pairs in order (0 and 50% before)"
    return (
        f"{start}: on rows kept apart, reward margin {margin:.2f} +-{error:.2f}, {order}. Whether its own replies "
        "please, nobody has judged yet."
    )


def verdict(before: Mapping, after: Mapping) -> str:
    """One sentence: whether it helped by the judge (without one, by the thumbs kept apart), and what got worse."""
    lines = {line["name"]: line for line in changes(before, after)}
    worse = [WHAT[name] for name, line in lines.items() if line["ending"] == "worse" and name != "thumbs_up"]
    cost = f"Worse: {', '.join(worse)}." if worse else "Nothing else that was measured got worse."
    if "thumbs_up" not in lines:
        return f"{_by_margin(after)} {cost}"
    (old, _), (new, _) = lines["thumbs_up"]["before"], lines["thumbs_up"]["after"]
    start = {
        "better": "It helped",
        "worse": "It made things worse",
        "about the same": "No difference that these replies could show",
    }[lines["thumbs_up"]["ending"]]
    return f"{start}: thumbs-up {old:.2f} before, {new:.2f} after. {cost}"


def pairs_of_replies(questions: Sequence[str], before: Mapping, after: Mapping, n: int = 20) -> list[tuple]:
    """(question, reply before, reply after), n of them spread over all questions; a cut reply ends in three dots."""
    size = len(before["replies"]) // len(questions)
    kept = []
    for turn in range(size):
        for number, question in enumerate(questions):
            told = [run["replies"][number * size + turn] for run in (before, after)]
            kept.append((question, *(reply["text"] + ("" if reply["ended"] else " ...") for reply in told)))
    return kept[:n]


def text(title: str, questions: Sequence[str], before: Mapping, after: Mapping) -> str:
    """The report for a terminal, in plain ASCII but for the replies themselves."""
    lines = [title, verdict(before, after), "", f"{'':34}{'before':>15}{'after':>15}"]
    for line in changes(before, after):
        cells = "".join(f"{value:9.2f} +-{error:.2f}" for value, error in (line["before"], line["after"]))
        lines.append(f"{WHAT[line['name']]:34}{cells}   {line['ending']}")
    if "kl" in after:
        (k1, e1), (k3, e3) = after["kl"]["k1"], after["kl"]["k3"]
        lines.append(f"{'KL from the model before, nats':34}{'':14}{k1:10.2f} +-{e1:.2f}   (k3: {k3:.2f} +-{e3:.2f})")
    if after.get("reward_margin") is not None:
        lines.append(f"{'reward margin on held-out replies':34}{'':14}{after['reward_margin']:10.2f}")
    for question, old, new in pairs_of_replies(questions, before, after, 6):
        lines += ["", question, f"  before: {' '.join(old.split())}", f"  after:  {' '.join(new.split())}"]
    return "\n".join(lines)


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
color-scheme: light dark }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ border-bottom: 1px solid #8888; padding: .4em .6em;
text-align: left; vertical-align: top }} .worse {{ color: #c04000; font-weight: bold }}
</style></head><body><h1>{title}</h1><p><strong>{verdict}</strong></p>
<table><tr><th>measured</th><th>before</th><th>after</th><th></th></tr>{rows}</table>
<p>Each number with its standard error; differences under two of them count as "about the same".</p>
<h2>Before and after</h2><table><tr><th>question</th><th>before</th><th>after</th></tr>{replies}</table>
</body></html>
"""


def page(title: str, questions: Sequence[str], before: Mapping, after: Mapping) -> str:
    """The report as one HTML file that needs nothing else."""

    def row(cells: Sequence[str], kind: str = "") -> str:
        mark = f' class="{kind}"' if kind else ""
        return f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"

    rows = [
        row(
            [WHAT[line["name"]], *(f"{v:.2f} ± {e:.2f}" for v, e in (line["before"], line["after"])), line["ending"]],
            "worse" if line["ending"] == "worse" else "",
        )
        for line in changes(before, after)
    ]
    if "kl" in after:
        told = ", ".join(f"{name} {value:.2f} ± {error:.2f}" for name, (value, error) in after["kl"].items())
        rows.append(row(["KL from the model before, nats", "0", told, ""]))
    if after.get("reward_margin") is not None:
        rows.append(row(["reward margin on held-out replies", "0", f"{after['reward_margin']:.2f}", ""]))
    replies = [row(parts) for parts in pairs_of_replies(questions, before, after)]
    return PAGE.format(
        title=html.escape(title), verdict=html.escape(verdict(before, after)), rows="".join(rows),
        replies="".join(replies),
    )  # fmt: skip
