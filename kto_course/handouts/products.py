"""All that is made from the question bank and the figures, and the slides, and whether it is in step."""

import json
import re
from pathlib import Path

from kto_course import FIGURES, NOTEBOOKS, ROOT
from kto_course.handouts.anki import anki_content, anki_deck
from kto_course.handouts.card import formula_card_files, rounded
from kto_course.handouts.core_sheet import core_sheet
from kto_course.handouts.exit_quiz import exit_quiz_files
from kto_course.handouts.quiz import quiz_json
from kto_course.handouts.sheet import interview_sheet
from kto_course.handouts.wording import bank, of_lesson
from kto_course.run_sheets import run_sheets
from kto_course.slides.deck import deck_files, print_pdf, stale_pdf
from kto_course.slides.plan import exit_quiz_ids


def gallery() -> str:
    """figures/README.md: every published figure with its alt text."""
    parts = ["# Figures\n\nEvery figure the lessons publish, with its alt text. Written by `course.py build`.\n"]
    for text in sorted(FIGURES.glob("*.txt")):
        alt = text.read_text(encoding="utf-8").strip()
        others = [text.with_suffix(f".{kind}").name for kind in ("pdf", "svg")]
        links = "".join(f"[{name}]({name})\n" for name in others if (text.parent / name).exists())
        parts.append(f"## {text.stem}\n\n![{alt}]({text.stem}.png)\n\n{alt}\n" + (links and f"\n{links}"))
    return "\n".join(parts)


def products() -> dict[str, bytes]:
    """Every product: path below the course's folder -> content."""
    sources = sorted((NOTEBOOKS / "src").glob("[0-9][0-9]_*.py"))
    quizzes = {source.stem: quiz_json(of_lesson(source.stem[:2])) for source in sources}
    folder = "notebooks/handouts"
    made = {f"{folder}/quiz/{stem}.json": text.encode() for stem, text in quizzes.items() if json.loads(text)}
    made[f"{folder}/kto_from_scratch.apkg"] = anki_deck(bank())
    made[f"{folder}/interview_sheet.html"] = interview_sheet(bank()).encode()
    made[f"{folder}/core_sheet.pdf"] = core_sheet([question for question in bank() if question.core])
    known = {question.id: question for question in bank()}
    ten = exit_quiz_files([known[id] for id in exit_quiz_ids()])
    made |= {f"{folder}/{name}": data for name, data in ten.items()}
    made["figures/README.md"] = gallery().encode()
    made["notebooks/run_sheets.md"] = run_sheets().encode()
    return made | formula_card_files() | deck_files()


def same(name: str, stored: bytes, made: bytes) -> bool:
    """Whether a stored product says what the freshly made one says."""
    kind = Path(name).suffix
    if kind == ".apkg":
        return anki_content(stored) == anki_content(made)
    if kind == ".svg":
        return rounded(stored) == rounded(made)
    if kind in (".pdf", ".png"):
        return re.findall(rb"[0-9a-f]{64}", stored) == re.findall(rb"[0-9a-f]{64}", made)
    return stored == made


def out_of_date(root: Path = ROOT) -> list[str]:
    """Paths of the products below `root` that do not match the bank, and of quizzes that belong to no lesson."""
    made = products()
    stale = [name for name, data in made.items()
             if not (root / name).exists() or not same(name, (root / name).read_bytes(), data)]  # fmt: skip
    built = (path.relative_to(root).as_posix() for path in root.glob("notebooks/handouts/quiz/*.json"))
    stale += [f"{name} (has no questions)" for name in sorted(built) if name not in made]
    return stale + stale_pdf(root)


def write(root: Path = ROOT) -> list[str]:
    """Writes the products that are out of date below `root`, and returns their paths."""
    made, written = products(), []
    for path in root.glob("notebooks/handouts/quiz/*.json"):
        if path.relative_to(root).as_posix() not in made:
            path.unlink()
    for name, data in made.items():
        path = root / name
        if not path.exists() or not same(name, path.read_bytes(), data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written.append(name)
    return written + print_pdf(root)
