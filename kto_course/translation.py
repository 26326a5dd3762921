"""A lesson in another language: the prose translated cell by cell, everything else taken from the English source.

`notebooks/src/zh/NN_topic.py` holds the text cells of a lesson in Chinese. Each carries the hash of the English cell
that it translates: `# %% [markdown] en="3f2a..."`. An English cell whose hash no translation carries is shown in
English under a banner, so an old sentence never stands beside new code.

    python -m kto_course.translation             the English cells that have no translation, lesson by lesson
    python -m kto_course.translation 06          writes what is missing into notebooks/src/zh/06_..., to be translated:
                                                 cells in the English order, those translated before kept, stale ones
                                                 put behind the cell that stands where theirs stood
"""

import argparse
import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jupytext
import nbformat

from kto_course import NOTEBOOKS

LANGUAGE = "zh"
FOLDER = NOTEBOOKS / "src" / LANGUAGE
BANNER = "> *本节译文还没有更新，以下是英文原文。*\n\n"
# Links between the two copies of a lesson, by language.
OPEN = {"en": "With open exercises", LANGUAGE: "练习版（答案留空）"}
SOLVED = {"en": "Solved, with all outputs", LANGUAGE: "完整版（含全部输出）"}
# What the build puts around the questions of the bank, which stay English: so they are asked.
WORDS = {
    "Say your answer aloud, then unfold ours. Lesson 13 asks the rest of the bank.":
        "先把答案说出来，再展开我们的答案。题目保留英文，与面试时一致；题库其余部分见第 13 课。",
    "<summary>Answer</summary>": "<summary>答案</summary>",
}  # fmt: skip
TODO = "(to be translated)"


def key_of(english: str) -> str:
    """The hash by which a translation names the English cell it belongs to: 12 hexadecimal digits."""
    return hashlib.sha256(english.encode("utf-8")).hexdigest()[:12]


def english_cells(source: Path) -> list[str]:
    """The text cells of a lesson's source, in order."""
    return [cell.source for cell in jupytext.read(source, fmt="py:percent").cells if cell.cell_type == "markdown"]


def translations(path: Path) -> dict[str, str]:
    """Hash of the English cell -> the translated one. A lesson nobody has translated gives an empty one.

    Raises:
        ValueError: a cell that names no English cell, is no text cell, or translates one that is translated already.
    """
    found: dict[str, str] = {}
    if not path.exists():
        return found
    for cell in jupytext.read(path, fmt="py:percent").cells:
        key = cell.metadata.get("en")
        if cell.cell_type != "markdown" or key is None or key in found:
            raise ValueError(f"{path.name}: the cell {cell.source[:40]!r} must be a text cell with the hash of one "
                             f"English cell of its own; its hash is {key!r}")  # fmt: skip
        if not cell.source.startswith(TODO):
            found[key] = cell.source
    return found


def translated(english: str, known: Mapping[str, str]) -> str:
    """A cell's translation; without one the English under the banner (a heading stays a heading above it)."""
    if (text := known.get(key_of(english))) is not None:
        return text
    heading, _, rest = english.partition("\n")
    return f"{heading}\n\n{BANNER}{rest.lstrip()}" if heading.startswith("#") else BANNER + english


def relocated(text: str, there: Sequence[str]) -> str:
    """A cell's links as they must be one folder lower, beside the translated lessons `there`."""

    def mended(found: re.Match) -> str:
        link = found[2]
        return found[0] if ":" in link or link in there or link.startswith("/") else f"{found[1]}../{link}"

    return re.sub(r"(\]\()([^)#\s]+)", mended, text)


@dataclass(frozen=True)
class Edition:
    """How a lesson is written in a language; this one leaves everything as it is."""

    language: str = "en"

    def cell(self, text: str) -> str:
        return text

    def place(self, path: Path) -> Path:
        """Where the lesson lies below notebooks/, given where the English one does."""
        return path if self.language == "en" else Path(self.language, path.name)

    def added(self, text: str) -> str:
        """What the build has put into a cell, in this language."""
        return text

    def times(self, times) -> str:
        return times.line()


@dataclass(frozen=True)
class Translation(Edition):
    """A lesson in the other language, to lie beside the lessons `there`."""

    known: Mapping[str, str] = field(default_factory=dict)
    there: Sequence[str] = ()

    def cell(self, text: str) -> str:
        return relocated(translated(text, self.known), self.there)

    def added(self, text: str) -> str:
        for english, words in WORDS.items():
            text = text.replace(english, words)
        return text

    def times(self, times) -> str:
        tasks = f"，{times.n_exercises} 道练习 {times.exercises} 分钟" * bool(times.exercises)
        return f"阅读约 {times.read} 分钟{tasks}，运行 {'?' if times.run is None else times.run} 秒"


def edition_of(source: Path) -> Translation:
    """The translation of a lesson.

    Raises:
        ValueError: see `translations`.
    """
    return Translation(LANGUAGE, translations(FOLDER / source.name), translated_lessons())


def translated_lessons() -> list[str]:
    """Names of the lessons that have a translation, e.g. `06_kto_loss.ipynb`."""
    return [path.with_suffix(".ipynb").name for path in sorted(FOLDER.glob("[0-9][0-9]*_*.py"))]


def missing(source: Path) -> list[str]:
    """The English cells of a lesson that have no translation: new ones and changed ones."""
    known = translations(FOLDER / source.name)
    return [cell for cell in english_cells(source) if key_of(cell) not in known]


def stale() -> list[str]:
    """A line for every cell of the translated lessons that is shown in English."""
    sources = [NOTEBOOKS / "src" / path.name for path in sorted(FOLDER.glob("[0-9][0-9]*_*.py"))]
    return [f"{LANGUAGE}/{source.stem}: {' '.join(cell.split())[:70]!r}" for source in sources
            for cell in missing(source)]  # fmt: skip


def skeleton(source: Path, path: Path) -> str:
    """The translation's file with every English cell of the lesson, in order, as far as it is translated.

    A cell without a translation holds the English text behind a mark. Where a translation of an older text stood at
    this place, it follows, so that only the change has to be translated.
    """
    old = jupytext.read(path, fmt="py:percent").cells if path.exists() else []
    known = {cell.metadata["en"]: cell.source for cell in old}
    cells, keys = english_cells(source), [key_of(cell) for cell in english_cells(source)]
    before = {}  # new key -> translation of what stood there
    for kind, a, b, c, d in difflib.SequenceMatcher(a=list(known), b=keys, autojunk=False).get_opcodes():
        if kind == "replace":
            before |= dict(zip(keys[c:d], list(known.values())[a:b], strict=False))
    notebook = nbformat.v4.new_notebook()
    for key, cell in zip(keys, cells, strict=True):
        if key in [done.metadata["en"] for done in notebook.cells]:
            continue  # the same words twice in a lesson are one translation
        text = known.get(key, f"{TODO}\n\n{cell}" + (f"\n\n{before[key]}" if key in before else ""))
        notebook.cells.append(nbformat.v4.new_markdown_cell(text, metadata={"en": key}))
    notebook.metadata["jupytext"] = {"notebook_metadata_filter": "-all"}
    return jupytext.writes(notebook, fmt="py:percent")


def main() -> None:
    parser = argparse.ArgumentParser(description="What is missing in the translation, or a file to fill in.")
    parser.add_argument("lessons", nargs="*", help="numbers or names, e.g. 06 08_kto_vs_dpo")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    for source in sorted((NOTEBOOKS / "src").glob("[0-9][0-9]*_*.py")):
        if {source.stem, source.stem.split("_")[0]} & set(options.lessons):
            target = FOLDER / source.name
            target.write_text(skeleton(source, target), encoding="utf-8")
            print(target)
    if not options.lessons:
        print("\n".join(stale()) or "every cell of the translated lessons is in step")


if __name__ == "__main__":
    main()
