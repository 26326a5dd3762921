"""A look at the policy on the way. Lesson 07b and the experiments."""

from collections.abc import Callable

import torch

from kto_utils.train import Callback, Run


class EachStep(Callback):
    """For `Parts(callbacks=[EachStep(look)])`: calls look(number of steps done, model) after each step."""

    def __init__(self, look: Callable[[int, torch.nn.Module], None]):
        self.look = look

    def step(self, run: Run) -> None:
        self.look(len(run.history), run.model)
