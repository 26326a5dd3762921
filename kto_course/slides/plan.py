"""The plan of the talk: which slide when, and what is said there. It stands in kto_course/run_sheets.yaml."""

from dataclasses import dataclass
from pathlib import Path

import yaml

PLAN = Path(__file__).parents[1] / "run_sheets.yaml"


@dataclass(frozen=True)
class Show:
    """A slide of the talk: `slide` is a lesson and how its section's title begins ("06 Row by row"); none: the title.

    `say` is what counts, `ask` a question to the class with the answer to `expect`, `type` what you type; a `spare`
    slide is left out first.
    """

    minutes: int
    slide: str = ""
    say: str = ""
    ask: str = ""
    expect: str = ""
    type: str = ""
    spare: bool = False

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


def stored_plan() -> dict:
    return yaml.safe_load(PLAN.read_text(encoding="utf-8"))


def exit_quiz_ids() -> list[str]:
    """The ten questions of the bank that end the talk."""
    return stored_plan()["exit_quiz"]


def lecture() -> Talk:
    stored = stored_plan()["lecture"]
    return Talk(stored["title"], stored["promise"], tuple(Show(**show) for show in stored["shows"]))
