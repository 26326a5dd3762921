"""What a lesson asks of a reader, counted from its text: every page that prints minutes takes them from here."""

import math
import re
from dataclasses import dataclass

WORDS_A_MINUTE, LINES_A_MINUTE = 200, 8  # a technical text and its code, read with attention
FOLDED = re.compile(r"<details.*?</details>", re.S)
MATHS = re.compile(r"\$\$.*?\$\$|\$[^$]*\$", re.S)


@dataclass(frozen=True)
class Times:
    """What a lesson asks of a reader: minutes to read, minutes for its exercises, seconds to run."""

    read: int
    exercises: int
    n_exercises: int
    folded_words: int
    run: int | None

    def line(self) -> str:
        """As the card prints it."""
        named = f"{self.n_exercises} exercise{'s' * (self.n_exercises > 1)}"
        tasks = f", {self.exercises} for {named}" * bool(self.exercises)
        folded = f" ({self.folded_words} more words are folded away)" * bool(self.folded_words)
        return f"about {self.read} minutes to read{tasks}, {'?' if self.run is None else self.run} s to run{folded}"


def times_of(cells, seconds: int | None) -> Times:
    """Counted from the text: open words and lines of code at a fixed pace, exercises as their headings state."""
    prose = MATHS.sub(" formula ", "\n".join(c.source for c in cells if c.cell_type == "markdown"))
    folded = sum(len(found.split()) for found in FOLDED.findall(prose))
    words = len(FOLDED.sub(" ", prose).split())
    lines = sum(sum(bool(line.strip()) for line in c.source.splitlines()) for c in cells if c.cell_type == "code")
    stated = [int(n) for n in re.findall(r"^[★☆]{3} · (\d+) minutes", prose, flags=re.M)]
    read = math.ceil(words / WORDS_A_MINUTE + lines / LINES_A_MINUTE)
    return Times(read, sum(stated), len(stated), folded, seconds)
