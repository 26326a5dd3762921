"""The plan of the talk: which slide when, and what is said there. It stands in kto_course/run_sheets.yaml."""

from dataclasses import dataclass
from pathlib import Path

import yaml

PLAN = Path(__file__).parents[1] / "run_sheets.yaml"


@dataclass(frozen=True)
class Show:
    """A slide of the talk: `slide` is a lesson and how its section's title begins ("06 Row by row"); none: the title.

    `say` is what counts, `ask` a question to the class with the answer to `expect`, `type` what you type.
    """

    minutes: int
    slide: str = ""
    say: str = ""
    ask: str = ""
    expect: str = ""
    type: str = ""

    @property
    def lesson(self) -> str:
        return self.slide[:2]

    @property
    def section(self) -> str:
        return self.slide[3:]

    def words(self) -> str:
        named = {"Ask": self.ask, "Expect": self.expect, "Type": self.type}
        return " ".join([self.say, *(f"**{name}:** {text}" for name, text in named.items() if text)]).strip()


@dataclass(frozen=True)
class Talk:
    title: str
    promise: str
    shows: tuple[Show, ...]


def lecture() -> Talk:
    stored = yaml.safe_load(PLAN.read_text(encoding="utf-8"))["lecture"]
    return Talk(stored["title"], stored["promise"], tuple(Show(**show) for show in stored["shows"]))
