"""The authors' own numbers: KTO's z0, losses and gradients, computed by their code and stored in `results/`."""

import json
from dataclasses import dataclass

import torch

from kto_lab import RESULTS

FILE = RESULTS / "halos_kto_cases.json"


@dataclass(frozen=True)
class AuthorsCase:
    """One batch, and what the authors' code made of it; tensors are float64, in nats.

    Fields:
        policy_logps, reference_logps: (B,), of the rows' own replies.
        kl_policy_logps, kl_reference_logps: (B,), of the borrowed replies.
        label: (B,), bool, True = thumbs up.
        settings: (beta, desirable_weight, undesirable_weight).
        z0: scalar; it was a float32 number, so what depends on it agrees to 1e-6 relative.
        losses: (B,); loss: their mean, a scalar.
        gradient: (B,), of the mean loss with respect to policy_logps.
    """

    policy_logps: torch.Tensor
    reference_logps: torch.Tensor
    kl_policy_logps: torch.Tensor
    kl_reference_logps: torch.Tensor
    label: torch.Tensor
    settings: tuple[float, float, float]
    z0: torch.Tensor
    losses: torch.Tensor
    loss: torch.Tensor
    gradient: torch.Tensor


def about() -> str:
    """Which code computed the numbers, at which commit and with which settings."""
    return json.loads(FILE.read_text(encoding="utf-8"))["about"]


def load_cases() -> list[AuthorsCase]:
    """All stored batches."""

    def numbers(value) -> torch.Tensor:
        return torch.tensor(value, dtype=torch.float64)

    cases = []
    for stored in json.loads(FILE.read_text(encoding="utf-8"))["cases"]:
        expected = stored["expected"]
        cases.append(
            AuthorsCase(
                **{name: numbers(value) for name, value in stored.items() if name.endswith("logps")},
                label=torch.tensor(stored["label"]),
                settings=(stored["beta"], stored["desirable_weight"], stored["undesirable_weight"]),
                gradient=numbers(expected["grad_policy_logps"]),
                **{name: numbers(expected[name]) for name in ("z0", "losses", "loss")},
            )
        )
    return cases
