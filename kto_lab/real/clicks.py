"""Your own thumbs on replies of the chat model: buttons in a notebook, a file that keeps every click. Lesson 12c."""

import html
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kto_lab.real.questions import capitals
from kto_lab.real.sampling import Reply
from kto_lab.real.story import FIELDS, Judged, write_json

FIRST = 40  # clicks that are asked for; more tire


class Clicks:
    """Replies to be judged one after another; each click is written to the file at once, and read back at a new start.

    Args:
        file: where the clicks are kept, a JSON list; a file that is there is gone on with.
        replies: (number of the question, reply), as `story.draw_replies` gives them. Each question's first reply comes
            before any second one, and nobody is asked for more than `FIRST`.
    """

    def __init__(self, file: Path, replies: Sequence[tuple[int, Reply]]):
        self.file = Path(file)
        self.kept = read(self.file) if self.file.is_file() else []
        known = {(one.number, one.reply.text) for one in self.kept}
        turns = Counter()  # how many replies to this question came before
        ordered = [(turns.update([number]) or turns[number], place) for place, (number, _) in enumerate(replies)]
        fresh = [replies[place] for _, place in sorted(ordered)]
        fresh = [(number, reply) for number, reply in fresh if (number, reply.text) not in known]
        self.waiting = fresh[: max(0, FIRST - len(self.kept))]

    @property
    def current(self) -> tuple[int, Reply] | None:
        """The reply that waits for a thumb; None at the end."""
        return self.waiting[0] if self.waiting else None

    def click(self, label: bool) -> None:
        """A thumb for the current reply, kept before the next one is shown."""
        if self.current is not None:
            self.kept.append(Judged(*self.waiting[0], label))
            self._write()
            del self.waiting[0]

    def undo(self) -> None:
        """Takes the last click back and shows its reply again."""
        if self.kept:
            last = self.kept.pop()
            self._write()
            self.waiting.insert(0, (last.number, last.reply))

    def _write(self) -> None:
        write_json(self.file, [{"number": one.number, "label": one.label} | asdict(one.reply) for one in self.kept])

    def line(self) -> str:
        """How far it is, in words."""
        up = sum(one.label for one in self.kept)
        return f"{len(self.kept)} of {len(self.kept) + len(self.waiting)} judged, {up} up; kept in {self.file.name}"


def read(file: Path) -> list[Judged]:
    """The clicks of a file, as `story.trained_policy` takes thumbs.

    Raises:
        ValueError: no list of clicks, or a label that is not true or false.
    """
    try:
        stored = json.loads(Path(file).read_text(encoding="utf-8"))
        if not isinstance(stored, list):
            raise TypeError(f"a {type(stored).__name__} instead of a list")
        found = [Judged(one["number"], Reply(*(one[field] for field in FIELDS)), one["label"]) for one in stored]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} holds no clicks of lesson 12c ({type(error).__name__}: {error}); move it away, and "
                         "the buttons begin a new one") from None  # fmt: skip
    if wrong := [one.label for one in found if not isinstance(one.label, bool)]:
        raise ValueError(f"{file}: a label is {wrong[0]!r}; it must be true or false")
    return found


def panel(clicks: Clicks):
    """The buttons, as an ipywidgets box: the question, the reply as it came, thumb up, thumb down, one back."""
    import ipywidgets

    trained, _ = capitals()
    text, progress = ipywidgets.HTML(), ipywidgets.HTML()
    up, down, back = (ipywidgets.Button(description=name) for name in ("👍 up", "👎 down", "one back"))

    def redraw() -> None:
        over = clicks.current is None
        up.disabled = down.disabled = over
        back.disabled = not clicks.kept
        progress.value = f"<small>{html.escape(clicks.line())}</small>"
        if over:
            text.value = "<p>Done. Now train on them: <code>python course.py real --thumbs FILE</code></p>"
            return
        number, reply = clicks.current
        tail = "" if reply.ended else " <i>(cut here)</i>"
        text.value = f"<p><b>{html.escape(trained[number].question)}</b></p><p>{html.escape(reply.text)}{tail}</p>"

    def after(act) -> None:
        act()
        redraw()

    up.on_click(lambda _: after(lambda: clicks.click(True)))
    down.on_click(lambda _: after(lambda: clicks.click(False)))
    back.on_click(lambda _: after(clicks.undo))
    redraw()
    return ipywidgets.VBox([progress, text, ipywidgets.HBox([up, down, back])])
