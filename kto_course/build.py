"""Builds the lessons: notebooks/src/NN_topic.py (what you edit) -> notebooks/NN_topic.ipynb (executed), and from that
notebooks/student/NN_topic.ipynb (exercises open, nothing run). NNb_topic.py becomes notebooks/deeper/NNb_topic.ipynb.

    python course.py build              builds what is out of date
    python course.py build 03 05b       builds these lessons, in date or not
    python course.py build --all        builds everything
    python course.py build --check      builds nothing, names what is out of date, exit status 1 if any
    python course.py build lab          builds the lab
    python course.py build 03 --only    builds this lesson and its student copy, no page that others share

A lesson translated in notebooks/src/zh becomes notebooks/zh/NN_topic.ipynb: the same code and outputs, other prose
(kto_course/translation.py); --check names what is shown in English there, and that alone is no fault.

In a source, {{times}} stands for the lesson's three times (read, exercises, run), and {{questions ID ID ID}} for these
interview questions of the bank, each with its answer in a fold; a cell `# the cell of exercise ID` becomes that of the
lesson which has this exercise. The build adds two things to every lesson: a
link between the complete and the open copy, and a first code cell that says what to do under another Python.
Besides the notebooks it writes kto_course/timings.json, course map and findings in README.md, and everything in
kto_course/handouts.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat

from kto_course import FIGURES, NOTEBOOKS, ROOT, checks, translation
from kto_course.handouts import products, quiz
from kto_course.times import times_of
from kto_lab.comparison.headlines import headlines
from kto_lab.comparison.results import load_results

SOURCES = NOTEBOOKS / "src"
STUDENT = NOTEBOOKS / "student"
TIMINGS = Path(__file__).with_name("timings.json")

GUARD = '''\
try:
    import kto_course  # the course's own packages, found wherever this notebook lies
except ImportError:
    raise ImportError("Another Python runs this lesson. Start it with `python course.py`, or choose the Python in "
                      "the course's folder .venv as this notebook's kernel.") from None'''
MAP_START, MAP_END = "<!-- course map: written by kto_course/build.py -->", "<!-- end of course map -->"
FINDINGS_START, FINDINGS_END = "<!-- findings: written by kto_course/build.py -->", "<!-- end of findings -->"


def source_paths() -> list[Path]:
    return sorted(SOURCES.glob("[0-9][0-9]*_*.py"))


def every_source() -> list[Path]:
    """The lessons and the lab, which is built like a lesson and is none: no page of lessons names it."""
    return [*source_paths(), *sorted(SOURCES.glob("lab_*.py"))]


def is_deeper(source: Path) -> bool:
    return re.match(r"\d\d[b-z]_", source.stem) is not None


def relative_path(source: Path) -> Path:
    """Where the lesson lies, below notebooks/ as below notebooks/student/."""
    return Path("deeper" if is_deeper(source) else "") / f"{source.stem}.ipynb"


def notebook_path(source: Path) -> Path:
    return NOTEBOOKS / relative_path(source)


def load_timings() -> dict[str, int]:
    return json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.exists() else {}


def cell_metadata(marks: dict) -> dict:
    """A cell's metadata in the notebook, from the marks in the source: tags, and nbgrader's for exercises.

    `exercise="ID"` marks the cell with the solution, `check="ID" points=N` the one that gives the points.

    Raises:
        ValueError: a check without points, or points without a check.
    """
    metadata = {"tags": marks["tags"]} if "tags" in marks else {}
    if "guard" in marks.get("tags", ()):
        return metadata | {"jupyter": {"source_hidden": True}}
    exercise, check, points = (marks.get(name) for name in ("exercise", "check", "points"))
    if (check is None) != (points is None):
        raise ValueError(f"a check cell needs check and points, found check={check!r} points={points!r}")
    if exercise is not None:
        grading = {"grade": False, "grade_id": exercise, "locked": False, "solution": True}
    elif check is not None:
        grading = {"grade": True, "grade_id": f"check_{check}", "locked": True, "points": points, "solution": False}
    else:
        return metadata
    return metadata | {"nbgrader": grading | {"schema_version": 3, "task": False}}


PAGE = re.compile(r"^# the cell of exercise (\w+)$", flags=re.M)


def open_link(path: Path) -> str:
    """From a complete lesson to its open copy."""
    return f"{'../' * (len(path.parts) - 1)}student/{path.as_posix()}"


def solved_link(path: Path) -> str:
    """From an open copy to the complete lesson."""
    return f"{'../' * len(path.parts)}{path.as_posix()}"


def with_added_parts(cells, path: Path, edition: translation.Edition) -> list:
    """The cells with what the build adds: the guard, the link to the other copy, the lesson's questions."""
    first_code = next(i for i, cell in enumerate(cells) if cell.cell_type == "code")
    added = [*cells[:first_code], nbformat.v4.new_code_cell(GUARD, metadata={"tags": ["guard"]}), *cells[first_code:]]
    if any(cell.metadata.get("exercise") for cell in cells):
        added[1].source += f"\n\n[{translation.OPEN[edition.language]}]({open_link(path)})"
    for cell in added:
        if cell.cell_type == "markdown":
            cell.source = quiz.PLACEHOLDER.sub(lambda ids: edition.added(quiz.quiz_text(ids[1].split())), cell.source)
        else:
            cell.source = PAGE.sub(lambda named: checks.exercise_cell(named[1]), cell.source)
    return added


def percent_cells(source: Path) -> list:
    return jupytext.read(source, fmt="py:percent").cells


def read_source(source: Path, seconds: int | None, edition: translation.Edition | None = None):
    """The notebook that a source describes, without outputs. Cell ids depend on the text alone."""
    english, path, cells = translation.Edition(), relative_path(source), percent_cells(source)
    edition = edition or english
    times = edition.times(times_of(with_added_parts(percent_cells(source), path, english), seconds))
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = edition.cell(cell.source)
    notebook = nbformat.v4.new_notebook(cells=with_added_parts(cells, edition.place(path), edition))
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(cell_metadata(cell.metadata))
        cell.source = cell.source.replace("{{times}}", times)
        digest = hashlib.sha256(f"{cell.cell_type}{cell.source}".encode()).hexdigest()[:12]
        seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def in_step(source: Path, timings: dict[str, int]) -> bool:
    """Whether the committed notebook has the same cells (kind, text, tags, grading) as its source, all of them run."""
    target = notebook_path(source)
    if not target.exists():
        return False
    wanted = read_source(source, timings.get(source.stem))
    stored = nbformat.read(target, as_version=4)

    def essence(notebook):
        return [(c.cell_type, c.source, *map(c.metadata.get, ("tags", "nbgrader"))) for c in notebook.cells]

    return essence(wanted) == essence(stored)


def add_alt_texts(notebook) -> None:
    """Gives every published figure in the outputs its alt text, where JupyterLab and the HTML export read it."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        # What kto_course.pictures shows brings its own alt text; here are the figures that a cell draws itself.
        names = re.findall(r"save_figure\(\s*\w+,\s*\"(\w+)\"", cell.source)
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        for name, output in zip(names, images, strict=False):
            alt = (FIGURES / f"{name}.txt").read_text(encoding="utf-8").strip()
            output.setdefault("metadata", {})["image/png"] = {"alt": alt}


def clean(notebook) -> None:
    """Drops what changes from run to run and means nothing: widget models, interpreter version, addresses."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = nbformat.from_dict(
        {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


def build(source: Path, timings: dict[str, int]) -> str | None:
    """Executes one lesson and writes its notebook; returns a failure, or None."""
    from kto_course.runner import execute

    notebook = read_source(source, timings.get(source.stem))
    notebook_path(source).parent.mkdir(exist_ok=True)  # the kernel starts there
    os.environ["KTO_FIGURES"] = str(FIGURES)  # a learner's run never writes there, the build does
    run = execute(notebook, notebook_path(source).parent, source.stem)
    if run.failure:
        return run.failure
    seconds, known = max(1, round(run.seconds)), timings.get(source.stem)
    # Times are noisy: a known one stays unless the new one is clearly different.
    if known is None or abs(seconds - known) > max(3, 0.5 * known):
        timings[source.stem] = seconds
        for cell, fresh in zip(notebook.cells, read_source(source, seconds).cells, strict=True):
            cell.source, cell["id"] = fresh.source, fresh["id"]
    add_alt_texts(notebook)
    clean(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, notebook_path(source))
    everyone = load_timings() | {source.stem: timings[source.stem]}  # another build may have written meanwhile
    TIMINGS.write_text(json.dumps(dict(sorted(everyone.items())), indent=2) + "\n", encoding="utf-8")
    return None


def edition_text(source: Path, timings: dict[str, int], edition: translation.Edition) -> str:
    """A built lesson in another language: its code, outputs and metadata, the edition's prose."""
    notebook = read_source(source, timings.get(source.stem), edition)
    for cell, built in zip(notebook.cells, nbformat.read(notebook_path(source), as_version=4).cells, strict=True):
        if cell.cell_type == "code":
            cell.update(built)
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def editions(timings: dict[str, int]) -> dict[Path, str]:
    """Path and text of every translated lesson whose English notebook is there."""
    sources = [s for s in source_paths() if (translation.FOLDER / s.name).exists() and notebook_path(s).exists()]
    made = {source: translation.edition_of(source) for source in sources}
    return {NOTEBOOKS / edition.place(relative_path(source)): edition_text(source, timings, edition)
            for source, edition in made.items()}  # fmt: skip


def has_exercises(notebook) -> bool:
    return any(cell.metadata.get("nbgrader", {}).get("solution") for cell in notebook.cells)


def as_open_copy(cell, path: Path, copied: set[Path]) -> None:
    """Mends what a cell says of other files: a link to a lesson with an open copy stays and so leads to that copy.

    Other links get one more step up. The link between the two copies of this lesson is turned round.
    """

    def mended(found: re.Match) -> str:
        before, target = found.groups()
        there = (NOTEBOOKS / path.parent / target).resolve()
        if not there.is_file() or there.relative_to(ROOT) in copied or ":" in target:
            return found[0]
        return f"{before}../{target}"

    if cell.cell_type == "markdown":
        cell.source = re.sub(r"(\]\()([^)#\s]+)", mended, cell.source)
        for language, label in translation.OPEN.items():
            solved = f"[{translation.SOLVED[language]}]({solved_link(path)})"
            cell.source = re.sub(rf"\[{label}\]\([^)]+\)", lambda found, new=solved: new, cell.source)


def student_copies() -> dict[Path, str]:
    """Path and text of every student notebook: the built lesson without solutions and outputs.

    nbgrader's preprocessors do the work. A hole in a function's body becomes the stub `...  # your code here`; one at
    the top level, where JupyterLab would show the dots as a result, becomes the comment alone.
    """
    from nbgrader.preprocessors import ClearOutput, ClearSolutions

    inside = ClearSolutions(code_stub={"python": "...  # your code here"})
    outside = ClearSolutions(code_stub={"python": "# your code here"})
    paths = [relative_path(source) for source in every_source() if notebook_path(source).exists()]
    paths += [path.relative_to(NOTEBOOKS) for path in sorted(NOTEBOOKS.glob(f"{translation.LANGUAGE}/*.ipynb"))]
    notebooks = {path: nbformat.read(NOTEBOOKS / path, as_version=4) for path in paths}
    notebooks = {path: notebook for path, notebook in notebooks.items() if has_exercises(notebook)}
    copied = {(NOTEBOOKS / path).relative_to(ROOT) for path in notebooks}
    for path, notebook in notebooks.items():
        for i, cell in enumerate(notebook.cells):
            clear = outside if re.search("^### BEGIN SOLUTION", cell.source, flags=re.M) else inside
            clear.preprocess_cell(cell, {"language": "python"}, i)
            as_open_copy(cell, path, copied)
        notebooks[path], _ = ClearOutput().preprocess(notebook, {})
        nbformat.validate(notebooks[path])
    return {STUDENT / path: nbformat.writes(notebook) + "\n" for path, notebook in notebooks.items()}


def stale_editions(timings: dict[str, int]) -> list[str]:
    """Names of the translated notebooks that are not what English notebook and translation give."""
    made = editions(timings)
    stale = [p for p, text in made.items() if not p.exists() or p.read_text("utf-8") != text]
    stale += sorted(set(NOTEBOOKS.glob(f"{translation.LANGUAGE}/*.ipynb")) - set(made))
    return [f"{translation.LANGUAGE}/{path.name}" for path in stale]


def stale_copies() -> list[str]:
    """Names of the student notebooks that are not what the built lessons give."""
    copies = student_copies()
    stale = [p for p, text in copies.items() if not p.exists() or p.read_text("utf-8") != text]
    orphans = set(STUDENT.rglob("*.ipynb")) - set(copies)
    names = [f"student/{p.relative_to(STUDENT).as_posix()}" for p in (*stale, *sorted(orphans))]
    return [name + " (has no lesson with exercises)" * (i >= len(stale)) for i, name in enumerate(names)]


def write_copies(made: dict[Path, str]) -> None:
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def course_map(timings: dict[str, int]) -> str:
    """The table of lessons for the README: title, promise, the three times, and the way deeper."""
    rows = ["| lesson | what you do there | read | exercises | run | deeper |", "|---|---|---|---|---|---|"]
    deeper = [source for source in source_paths() if is_deeper(source)]
    for source in source_paths():
        if is_deeper(source):
            continue
        cells = read_source(source, timings.get(source.stem)).cells
        lines = [line.strip("# *") for line in cells[0].source.splitlines() if line.strip()]
        if len(lines) != 2:
            raise ValueError(f"{source.name}: the first cell has {len(lines)} lines; expected a title and one promise")
        title, promise = lines
        times, below = times_of(cells, timings.get(source.stem)), [s for s in deeper if s.stem[:2] == source.stem[:2]]
        more = ", ".join(f"[{s.stem[:3]}](notebooks/{relative_path(s).as_posix()})" for s in below)
        rows.append(
            f"| [{title}](notebooks/{relative_path(source).as_posix()}) | {promise} | {times.read} min | "
            f"{times.exercises or '-'} min | {'?' if times.run is None else times.run} s | {more} |"
        )
    return "\n".join(rows)


def between(page: str, start: str, end: str, text: str) -> str:
    """The page with this text between two of its markers."""
    head, rest = page.split(start)
    return f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}"


def with_built_parts(readme: str, timings: dict[str, int]) -> str:
    """The README with its course map as the sources have it now, and its findings as the results have them."""
    page = between(readme, MAP_START, MAP_END, course_map(timings))
    return between(page, FINDINGS_START, FINDINGS_END, "\n".join(f"- {line}" for line in headlines(load_results())))


def write_pages(timings: dict[str, int]) -> None:
    products.write()
    readme = ROOT / "README.md"
    readme.write_text(with_built_parts(readme.read_text(encoding="utf-8"), timings), encoding="utf-8")


def out_of_date(timings: dict[str, int]) -> list[str]:
    """Names of all built files that do not match what they are built from."""
    sources = every_source()
    stale = [notebook_path(source).name for source in sources if not in_step(source, timings)]
    built = {*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("deeper/*.ipynb")}
    stale += sorted(f"{path.name} (has no source)" for path in built - set(map(notebook_path, sources)))
    stale += stale_editions(timings) + stale_copies()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if with_built_parts(readme, timings) != readme:
        stale.append("README.md (course map or findings)")
    return stale + products.out_of_date()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the lessons from notebooks/src.")
    parser.add_argument("lessons", nargs="*", help="numbers or names, e.g. 03 05b 06_kto_loss")
    parser.add_argument("--all", action="store_true", help="build every lesson")
    parser.add_argument("--check", action="store_true", help="name what is out of date, build nothing")
    parser.add_argument("--only", action="store_true", help="leave out the pages that all lessons share")
    options = parser.parse_args()
    timings = load_timings()
    if options.check:
        stale = out_of_date(timings)
        print("\n".join(f"out of date: {name}" for name in stale) or "everything is in step")
        print(*(f"to translate: {cell}" for cell in translation.stale()), sep="\n", end="")
        return int(bool(stale))
    sources = every_source()
    if options.lessons:
        chosen = [s for s in sources if {s.stem, s.stem.split('_')[0]} & set(options.lessons)]
        if not chosen:
            parser.error(f"no lesson matches {options.lessons}; there are {[s.stem for s in sources]}")
    else:
        chosen = [s for s in sources if options.all or not in_step(s, timings)]
    status = 0
    for source in chosen:
        failure = build(source, timings)
        print(f"{source.stem}: {failure or 'built'}", flush=True)
        status |= failure is not None
    write_copies(editions(load_timings()))
    write_copies(student_copies())
    if not options.only:
        write_pages(load_timings())
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
