"""The README's findings, in plain words, from the results alone: the build writes them."""

from kto_lab.comparison.findings import best_methods, lost, mean_of
from kto_lab.comparison.protocol import BASE, CONDITIONS, EACH, MEASURE, ONCE, methods_of
from kto_lab.comparison.results import Results

IN_WORDS = {
    "sft": "plain SFT on the thumbs-up", "dpo": "DPO", "dpo + sft": "DPO with an SFT term", "cdpo": "cDPO",
    "kto": "KTO", "kto weights 1": "KTO with both weights 1", "kto + sft": "KTO with an SFT term",
}  # fmt: skip


def listed(names: list[str]) -> str:
    """"a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def ranking(results: Results, condition: str, way: str, small: bool = True) -> str:
    """Who ends highest, who is not shown to be below, and where the three plain methods stand."""
    best = best_methods(results, condition, way, small)

    def rate(method: str) -> str:
        return f"{mean_of(results, condition, method, MEASURE, way, small):.2f}"

    top = f"{IN_WORDS[best[0]]} ends highest ({rate(best[0])})"
    if beside := [f"{IN_WORDS[method]} ({rate(method)})" for method in best[1:]]:
        top += f", not shown to be better than {listed(beside)}"
    rest = [f"{IN_WORDS[method]} at {rate(method)}" for method in ("kto", "dpo", "sft") if method not in best]
    return top + (f"; {listed(rest)}" if rest else "")


def headlines(results: Results) -> list[str]:
    """Six findings, thumbs-up rates on new wordings; each says on which row of lesson 08's table it rests."""
    noisy, few = "30% flipped", "10% of the ups"
    shares = {method: sum(lost(results, condition, method)[0] for condition in CONDITIONS) for method in
              methods_of(BASE)}  # fmt: skip
    runs = sum(lost(results, condition, "kto")[1] for condition in CONDITIONS)
    worst = sorted(shares, key=lambda method: -shares[method])
    return [
        f"**Clean thumbs:** {ranking(results, BASE, ONCE)}.",
        f"**One thumb in ten is wrong:** {ranking(results, '10% flipped', ONCE)}.",
        f"**Three in ten are wrong:** tuned on clean thumbs, {ranking(results, noisy, ONCE)}; tuned for the noise, "
        f"{ranking(results, noisy, EACH)}.",
        f"**Few thumbs-up, tuned for them:** {ranking(results, few, EACH)}.",
        f"**One sweep is a gamble:** tuned once, on clean thumbs, of {runs} runs of each method over seven kinds of "
        f"thumbs {listed([f'{shares[method]} of {IN_WORDS[method]}' for method in worst])} ended below the model they "
        "started from.",
        f"**A larger model:** with clean thumbs, {ranking(results, BASE, ONCE, small=False)}; with one in ten wrong, "
        f"{ranking(results, '10% flipped', ONCE, small=False)}.",
    ]
