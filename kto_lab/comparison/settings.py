"""What a run may vary, and the name under which it is kept: its full setting and its seed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Setting:
    """The defaults are the base case: KTO, small model, all thumbs as collected, weights by the rule, 100 steps.

    Fields:
        trainer: "kto", "dpo" or "sft" (on the thumbs-up alone).
        learning_rate, beta: of the run; SFT has no beta.
        own_sft: weight of an SFT term on the batch's own thumbs-up (`extra_terms.OwnThumbsUp`), 0 for none.
        smoothing: chance that cDPO gives a pair to be the wrong way round, 0 for plain DPO.
        demonstrations: weight of an SFT term on other texts (`extra_terms.Demonstrations`), 0 for none.
        weight_ratio: lambda_D n_D / (lambda_U n_U); None leaves both weights at 1.
        z0: a key of `reference_points.REFERENCE_POINTS`.
        steps: of training, each of 16 completions with gradient.
        small: the model with hidden size 64, else the course's own with 128.
        sft_steps: SFT that the reference has seen; None is the shipped reference (400 steps). The thumbs always come
            from the shipped one.
        both_kinds: share of the questions that keep both kinds of thumb; of the others half keep ups, half downs.
        keep_up, keep_down: share of the thumbs-up and of the thumbs-down that is kept.
        flip: chance that a thumb is flipped.
        majority: share of raters who like polite and right replies; the others like rude and right ones.
        only: "up" or "down": the other kind is left out.
        liked_length: "short" or "long": thumbs-up on replies above or not above the median length, in characters, are
            left out.
        track: steps after which the policy is scored on the trained questions.
        watch_z0: note on the way what other reference points would say.
    """

    trainer: str = "kto"
    learning_rate: float = 1e-3
    beta: float | None = 2.0
    own_sft: float = 0.0
    smoothing: float = 0.0
    demonstrations: float = 0.0
    weight_ratio: float | None = 1.0
    z0: str = "mismatched"
    steps: int = 100
    small: bool = True
    sft_steps: int | None = None
    both_kinds: float = 1.0
    keep_up: float = 1.0
    keep_down: float = 1.0
    flip: float = 0.0
    majority: float = 1.0
    only: str | None = None
    liked_length: str | None = None
    track: tuple[int, ...] = ()
    watch_z0: bool = False

    def __post_init__(self):
        if self.trainer not in ("kto", "dpo", "sft"):
            raise ValueError(f"trainer is {self.trainer!r}; it must be 'kto', 'dpo' or 'sft'")
        if self.trainer == "sft" and self.beta is not None:
            raise ValueError(f"beta is {self.beta}; SFT has none: give None, so that equal runs have one name")


def changes(setting: Setting) -> dict:
    """What differs from the defaults, in the order of the fields: short enough to be read in a file."""
    found = {field.name: (getattr(setting, field.name), field.default) for field in fields(setting)}
    return {name: value for name, (value, default) in found.items() if value != default}


def setting_from(changed: Mapping) -> Setting:
    """Undoes `changes`.

    Raises:
        ValueError: a field that settings do not have, or a value that they refuse.
    """
    known = {field.name for field in fields(Setting)}
    if unknown := set(changed) - known:
        raise ValueError(f"settings have no {sorted(unknown)}; they have {sorted(known)}")
    return Setting(**{name: tuple(value) if isinstance(value, list) else value for name, value in changed.items()})


def key_of(setting: Setting, seed: int) -> str:
    """The name of a run. Two experiments that ask for the same run share it; it is computed and counted once."""
    return f"{json.dumps(changes(setting))} seed {seed}"
