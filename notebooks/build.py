"""Builds the lessons: notebooks/src/NN_topic.py (what you edit) -> notebooks/NN_topic.ipynb (executed), and from that
notebooks/student/NN_topic.ipynb (exercises open, nothing run).

    python notebooks/build.py             builds what is out of date
    python notebooks/build.py 03 05       builds these lessons, in date or not
    python notebooks/build.py --all       builds everything
    python notebooks/build.py --check     builds nothing, names what is out of date, exit status 1 if any

In a source, {{seconds}} stands for the lesson's measured running time, {{minutes}} for its reading time, and
{{questions}}, at the end of a markdown cell, for the lesson's questions from the bank.
Besides the notebooks the build writes notebooks/timings.json, the course map and the findings in README.md, the gallery
figures/README.md and everything that notebooks/handouts.py makes.
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

NOTEBOOKS = Path(__file__).resolve().parent
ROOT = NOTEBOOKS.parent
SOURCES = NOTEBOOKS / "src"
STUDENT = NOTEBOOKS / "student"
TIMINGS = NOTEBOOKS / "timings.json"
sys.path[:0] = [str(ROOT), str(NOTEBOOKS)]
import handouts  # noqa: E402

# Kernels find the package too, also when this script is called without course.py.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

WORDS_A_MINUTE = 130  # a technical text, read with attention
SECONDS_A_CODE_LINE = 5
MAP_START, MAP_END = "<!-- course map: written by notebooks/build.py -->", "<!-- end of course map -->"
FINDINGS_START, FINDINGS_END = "<!-- findings: written by notebooks/build.py -->", "<!-- end of findings -->"


def source_paths() -> list[Path]:
    return sorted(SOURCES.glob("[0-9][0-9]_*.py"))


def notebook_path(source: Path) -> Path:
    return NOTEBOOKS / f"{source.stem}.ipynb"


def load_timings() -> dict[str, int]:
    return json.loads(TIMINGS.read_text(encoding="utf-8")) if TIMINGS.exists() else {}


def reading_minutes(cells) -> int:
    """Minutes to read a lesson, from its length: words of prose plus time for each line of code.

    The quiz comes on top: most of its words are folded, and how many a reader unfolds is theirs to say.
    """
    prose = (c for c in cells if c.cell_type == "markdown" and "question" not in c.metadata.get("tags", []))
    words = sum(len(c.source.split()) for c in prose)
    lines = sum(sum(bool(line.strip()) for line in c.source.splitlines()) for c in cells if c.cell_type == "code")
    return max(5, round((words / WORDS_A_MINUTE + lines * SECONDS_A_CODE_LINE / 60) / 5) * 5)


def cell_metadata(marks: dict) -> dict:
    """A cell's metadata in the notebook, from the marks in the source: tags, and nbgrader's for exercises.

    `exercise="ID"` marks the cell with the solution, `check="ID" points=N` the one that gives the points.

    Raises:
        ValueError: a check without points, or points without a check.
    """
    metadata = {"tags": marks["tags"]} if "tags" in marks else {}
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


def with_quiz(cells, lesson: str) -> list:
    """The cells with {{questions}} replaced by the quiz of the lesson: new cells, tagged "question"."""
    expanded = []
    for cell in cells:
        asked = cell.cell_type == "markdown" and cell.source.endswith(handouts.PLACEHOLDER)
        if asked:
            cell.source = cell.source.removesuffix(handouts.PLACEHOLDER).rstrip()
        expanded.append(cell)
        for text in handouts.quiz_cells(lesson) if asked else ():
            expanded.append(nbformat.v4.new_markdown_cell(text, metadata={"tags": ["question"]}))
    return expanded


def read_source(source: Path, seconds: int | None):
    """The notebook that a source describes, without outputs. Cell ids depend on the text alone."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.cells = with_quiz(notebook.cells, source.stem[:2])
    minutes = reading_minutes(notebook.cells)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict(cell_metadata(cell.metadata))
        cell.source = cell.source.replace("{{seconds}}", "?" if seconds is None else str(seconds))
        cell.source = cell.source.replace("{{minutes}}", str(minutes))
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
    from kto_utils.plotting import figures_folder

    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        names = re.findall(r"save_figure\(\s*\w+,\s*\"(\w+)\"", cell.source)
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        for name, output in zip(names, images, strict=False):
            alt = (figures_folder() / f"{name}.txt").read_text(encoding="utf-8").strip()
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
    from kto_utils.runner import execute

    notebook = read_source(source, timings.get(source.stem))
    run = execute(notebook, NOTEBOOKS, source.stem)
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


def has_exercises(notebook) -> bool:
    return any(cell.metadata.get("nbgrader", {}).get("solution") for cell in notebook.cells)


def one_folder_deeper(cell, copied: set[str]) -> None:
    """Mends what a cell says about files: links in prose, paths that begin with ../ in code.

    A link to a lesson with a student copy stays and so leads to that copy; other paths to files get ../ in front.
    """

    def mended(found: re.Match) -> str:
        before, target = found.groups()
        keep = target in copied or not (NOTEBOOKS / target).exists()
        return found[0] if keep else f"{before}../{target}"

    pattern = r"(\]\()([^)#\s]+)" if cell.cell_type == "markdown" else r"(\")(\.\./[^\"\n]+)"
    cell.source = re.sub(pattern, mended, cell.source)


def student_copies() -> dict[Path, str]:
    """Path and text of every student notebook: the built lesson without solutions and outputs.

    nbgrader's preprocessors do the work. A hole in a function's body becomes the stub `...  # your code here`; one at
    the top level, where JupyterLab would show the dots as a result, becomes the comment alone.
    """
    from nbgrader.preprocessors import ClearOutput, ClearSolutions

    inside = ClearSolutions(code_stub={"python": "...  # your code here"})
    outside = ClearSolutions(code_stub={"python": "# your code here"})
    lessons = [notebook_path(source) for source in source_paths() if notebook_path(source).exists()]
    notebooks = {path.name: nbformat.read(path, as_version=4) for path in lessons}
    notebooks = {name: notebook for name, notebook in notebooks.items() if has_exercises(notebook)}
    for name, notebook in notebooks.items():
        for i, cell in enumerate(notebook.cells):
            clear = outside if re.search("^### BEGIN SOLUTION", cell.source, flags=re.M) else inside
            clear.preprocess_cell(cell, {"language": "python"}, i)
            one_folder_deeper(cell, set(notebooks))
        notebooks[name], _ = ClearOutput().preprocess(notebook, {})
        nbformat.validate(notebooks[name])
    return {STUDENT / name: nbformat.writes(notebook) + "\n" for name, notebook in notebooks.items()}


def stale_copies() -> list[str]:
    """Names of the student notebooks that are not what the built lessons give."""
    copies = student_copies()
    stale = [f"student/{p.name}" for p, text in copies.items() if not p.exists() or p.read_text("utf-8") != text]
    orphans = set(STUDENT.glob("*.ipynb")) - set(copies)
    return stale + sorted(f"student/{p.name} (has no lesson with exercises)" for p in orphans)


def write_student_copies() -> None:
    STUDENT.mkdir(exist_ok=True)
    for path, text in student_copies().items():
        path.write_text(text, encoding="utf-8")


def course_map(timings: dict[str, int]) -> str:
    """The table of lessons for the README: title, promise, minutes to read, seconds to run."""
    rows = ["| lesson | what you do there | minutes | seconds to run |", "|---|---|---|---|"]
    for source in source_paths():
        cells = read_source(source, timings.get(source.stem)).cells
        lines = [line.strip("# *") for line in cells[0].source.splitlines() if line.strip()]
        if len(lines) != 2:
            raise ValueError(f"{source.name}: the first cell has {len(lines)} lines; expected a title and one promise")
        title, promise = lines
        rows.append(
            f"| [{title}](notebooks/{source.stem}.ipynb) | {promise} | {reading_minutes(cells)} | "
            f"{timings.get(source.stem, '?')} |"
        )
    return "\n".join(rows)


def between(page: str, start: str, end: str, text: str) -> str:
    """The page with this text between two of its markers."""
    head, rest = page.split(start)
    return f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}"


def with_written_parts(readme: str, timings: dict[str, int]) -> str:
    """The README with its course map and its findings as sources and results have them now."""
    from kto_utils import findings, results

    readme = between(readme, MAP_START, MAP_END, course_map(timings))
    return between(readme, FINDINGS_START, FINDINGS_END, findings.page(results.load_results()))


def gallery() -> str:
    """figures/README.md: every published figure with its alt text."""
    parts = ["# Figures\n\nEvery figure the lessons publish, with its alt text. Written by `notebooks/build.py`.\n"]
    for text in sorted((ROOT / "figures").glob("*.txt")):
        alt = text.read_text(encoding="utf-8").strip()
        others = [text.with_suffix(f".{kind}").name for kind in ("pdf", "svg")]
        links = "".join(f"[{name}]({name})\n" for name in others if (text.parent / name).exists())
        parts.append(f"## {text.stem}\n\n![{alt}]({text.stem}.png)\n\n{alt}\n" + (links and f"\n{links}"))
    return "\n".join(parts)


def write_pages(timings: dict[str, int]) -> None:
    handouts.write()
    readme = ROOT / "README.md"
    readme.write_text(with_written_parts(readme.read_text(encoding="utf-8"), timings), encoding="utf-8")
    (ROOT / "figures" / "README.md").write_text(gallery(), encoding="utf-8")


def out_of_date(timings: dict[str, int]) -> list[str]:
    """Names of all built files that do not match what they are built from."""
    sources = source_paths()
    stale = [notebook_path(source).name for source in sources if not in_step(source, timings)]
    built = {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    stale += sorted(f"{name} (has no source)" for name in built - {notebook_path(source).name for source in sources})
    stale += stale_copies()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    if with_written_parts(readme, timings) != readme:
        stale.append("README.md (course map or findings)")
    page = ROOT / "figures" / "README.md"
    if not page.exists() or page.read_text(encoding="utf-8") != gallery():
        stale.append("figures/README.md")
    return stale + handouts.out_of_date()


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the lessons from notebooks/src.")
    parser.add_argument("lessons", nargs="*", help="numbers or names, e.g. 03 05_get_probs")
    parser.add_argument("--all", action="store_true", help="build every lesson")
    parser.add_argument("--check", action="store_true", help="name what is out of date, build nothing")
    options = parser.parse_args()
    timings = load_timings()
    if options.check:
        stale = out_of_date(timings)
        print("\n".join(f"out of date: {name}" for name in stale) or "everything is in step")
        return int(bool(stale))
    sources = source_paths()
    if options.lessons:
        chosen = [s for s in sources if any(s.stem.startswith(wanted) for wanted in options.lessons)]
        if not chosen:
            parser.error(f"no lesson matches {options.lessons}; there are {[s.stem for s in sources]}")
    else:
        chosen = [s for s in sources if options.all or not in_step(s, timings)]
    status = 0
    for source in chosen:
        failure = build(source, timings)
        print(f"{source.stem}: {failure or 'built'}", flush=True)
        status |= failure is not None
    write_student_copies()
    write_pages(load_timings())
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
