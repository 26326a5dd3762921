"""Other reference points than KTO's own, and what each would say of the same policy. Lesson 09."""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from kto_utils.collator import KTOPaddingCollator
from kto_utils.data import tokenize_feedback
from kto_utils.logprobs import sequence_logps
from kto_utils.losses import reference_point
from kto_utils.tokenizer import load_tokenizer
from kto_utils.train import Batches

MOVING_AVERAGE = 0.9  # weight of the past


class ReferencePoint:
    """One way to choose z0, called by `train_kto` at each step (`Parts(estimate_z0=...)`).

    Args:
        name: a key of `REFERENCE_POINTS`.
        exact: gives the KL of the policy, as it is now, by enumeration; nats.
    """

    def __init__(self, name: str, exact: Callable[[], float]):
        self.name, self.exact, self.average = name, exact, 0.0

    def __call__(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        estimate = REFERENCE_POINTS[self.name](self, logps)
        return torch.as_tensor(estimate, dtype=torch.float64)

    def mismatched(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return reference_point(logps["policy_kl_logps"], logps["reference_kl_logps"])

    def matched(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return reference_point(logps["policy_logps"], logps["reference_logps"])

    def unclamped(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return (logps["policy_kl_logps"] - logps["reference_kl_logps"]).mean()

    def moving_average(self, logps: Mapping[str, torch.Tensor]) -> float:
        """Of the unclamped estimates; clamped when used."""
        self.average = MOVING_AVERAGE * self.average + (1.0 - MOVING_AVERAGE) * float(self.unclamped(logps))
        return max(0.0, self.average)


REFERENCE_POINTS: dict[str, Callable] = {
    "mismatched": ReferencePoint.mismatched,
    "matched": ReferencePoint.matched,
    "unclamped": ReferencePoint.unclamped,
    "zero": lambda self, logps: 0.0,
    "exact": lambda self, logps: self.exact(),
    "moving average": ReferencePoint.moving_average,
}


class WatchedReferencePoint(ReferencePoint):
    """Uses one reference point and notes, every tenth step, what the others say of the same policy.

    Args:
        name, exact: as in `ReferencePoint`.
        probe: gives the estimates of several fresh batches, name -> list in nats.
    """

    EVERY = 10

    def __init__(self, name: str, exact: Callable[[], float], probe: Callable[[], dict[str, list[float]]]):
        super().__init__(name, exact)
        self.probe, self.step, self.notes = probe, 0, []
        self.trailing = ReferencePoint("moving average", exact)

    def __call__(self, logps: Mapping[str, torch.Tensor]) -> torch.Tensor:
        average = float(self.trailing(logps))  # every step: it remembers
        if self.step % self.EVERY == 0:
            spread = {
                name: [statistics.mean(values), statistics.stdev(values)] for name, values in self.probe().items()
            }
            self.notes.append({"step": self.step, "exact": self.exact(), "moving average": average, **spread})
        self.step += 1
        return super().__call__(logps)


N_PROBES = 16


def probe(
    policy: torch.nn.Module, reference: torch.nn.Module, rows: Sequence[Mapping], batch_size: int, seed: int
) -> Callable[[], dict[str, list[float]]]:
    """Estimates of the reference point from 16 batches that the run itself does not see in this order."""
    tokenizer = load_tokenizer()
    examples = [tokenize_feedback(row, tokenizer) for row in rows]
    collate, plan = KTOPaddingCollator(tokenizer), Batches(len(rows), batch_size, 1000 + seed)
    batches = [collate([examples[i] for i in plan.draw()]) for _ in range(N_PROBES)]

    def both(model) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.no_grad():
            return [(sequence_logps(model, batch), sequence_logps(model, batch, "kl_")) for batch in batches]

    before = both(reference)

    def estimates() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"matched": [], "mismatched": [], "unclamped": []}
        for (own, other), (own_before, other_before) in zip(both(policy), before, strict=True):
            found["matched"].append(float(reference_point(own, own_before)))
            found["mismatched"].append(float(reference_point(other, other_before)))
            found["unclamped"].append(float((other - other_before).mean()))
        return found

    return estimates
