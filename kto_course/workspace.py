"""`python course.py`: lays out the learner's own folder work/ and opens JupyterLab on it.

work/ is ignored by git, so that learning never changes the course: it holds copies of the open lessons, of the solved
ones (work/solved), figures of the learner's runs and the learner's record. A copy that nobody has changed follows the
course when that is updated; one with work in it is kept, and the new version is laid beside it.
"""

import hashlib
import json
import os
import re
import sys
from pathlib import Path

import nbformat

from kto_course import NOTEBOOKS, ROOT, WORK

FIRST_LESSON = "00_start_here.ipynb"
DOOR = "START.md"
DOOR_START, DOOR_END = "<!-- door -->", "<!-- end of door -->"
MAP_START, MAP_END = "<!-- course map: written by kto_course/build.py -->", "<!-- end of course map -->"
LINK = re.compile(r"(\]\()([^)#\s]+)")
# What the file browser leaves out: the course itself, which is not for editing.
HIDDEN = ("__pycache__", "*.pyc", "figures", "kto_*", "notebooks", "tests", "*.toml", "*.py", "LICENSE*", "*.txt")


def sources() -> dict[Path, Path]:
    """Path below work/ -> the course's notebook: the open lessons, and the solved ones in solved/."""
    student = NOTEBOOKS / "student"
    found = {path.relative_to(student): path for path in sorted(student.rglob("*.ipynb"))}
    solved = [*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(NOTEBOOKS.glob("deeper/*.ipynb"))]
    return found | {"solved" / path.relative_to(NOTEBOOKS): path for path in solved}


def places() -> dict[Path, Path]:
    """The course's notebook -> where its copy lies. A lesson without exercises has only its solved copy."""
    return {source: WORK / target for target, source in sources().items()}


def linked_from(text: str, source: Path, target: Path) -> str:
    """A text with its links mended: those to notebooks lead to their copies, others to where the file really is."""
    copies = places()

    def mended(found: re.Match) -> str:
        before, link = found.groups()
        there = (source.parent / link).resolve()
        if ":" in link or not there.exists():
            return found[0]
        return before + Path(os.path.relpath(copies.get(there, there), target.parent)).as_posix()

    return LINK.sub(mended, text)


def copy_of(source: Path, target: Path) -> nbformat.NotebookNode:
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked_from(cell.source, source, target)
    return notebook


def digest(notebook: nbformat.NotebookNode) -> str:
    """Of what a person writes: the cells' texts. Outputs and metadata change when a notebook is only looked at."""
    text = json.dumps([[cell.cell_type, cell.source] for cell in notebook.cells])
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _is_changed(path: Path, given: str | None) -> bool:
    """Whether the learner has written into a copy; one that cannot be read counts as changed, so it is never lost."""
    try:
        return digest(nbformat.read(path, as_version=4)) != given
    except Exception:  # half-written or not a notebook: theirs, whatever it is
        return True


def lay_out() -> list[str]:
    """Copies what is missing or out of date into work/.

    Returns:
        A sentence for each lesson that the course has changed while the learner was working in it.
    """
    record = WORK / ".given.json"
    given = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    told = []
    for target, source in sources().items():
        path, name = WORK / target, target.as_posix()
        fresh = copy_of(source, path)
        if given.get(name) == digest(fresh) and path.exists():
            continue
        if path.exists() and _is_changed(path, given.get(name)):
            path = path.with_stem(path.stem + "_new")
            told.append(f"{name} has changed in the course. Yours is kept; the new one is {path.name}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(fresh, path)
        given[name] = digest(fresh)
    record.write_text(json.dumps(given, indent=1), encoding="utf-8")
    (WORK / DOOR).write_text(door(), encoding="utf-8")
    return told


def between(page: str, start: str, end: str) -> str:
    """The text between two markers of a page."""
    return page.split(start)[1].split(end)[0].strip()


def door() -> str:
    """The page beside the first lesson: the README's routes and its map of the course, with links to the copies."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    routes, course = (between(page, start, end) for start, end in ((DOOR_START, DOOR_END), (MAP_START, MAP_END)))
    own = "Your copies, figures and record lie in `work/`; `work/solved/` holds every lesson solved, with all outputs."
    text = f"# KTO from Scratch\n\n{routes}\n\n{own}\n\n## The course\n\n{course}\n"
    # The README leads a visitor to the solved lessons, this page to the open ones; without exercises there is none.
    for name in set(re.findall(r"\]\(notebooks/((?:deeper/)?\d[^)]*)\)", text)):
        if (NOTEBOOKS / "student" / name).exists():
            text = text.replace(f"](notebooks/{name})", f"](notebooks/student/{name})")
    return linked_from(text, ROOT / "README.md", WORK / DOOR)


def layout() -> dict:
    """JupyterLab's arrangement at the first start: the outline at the left, the door and the first lesson beside it."""
    lesson, start = f"work/{FIRST_LESSON}", f"work/{DOOR}"
    widgets = [f"markdownviewer-widget:{start}", f"notebook:{lesson}"]
    areas = [{"type": "tab-area", "currentIndex": 0, "widgets": [widget]} for widget in widgets]
    dock = {"type": "split-area", "orientation": "horizontal", "sizes": [0.36, 0.64], "children": areas}
    panels = ["@jupyterlab/toc:plugin", "filebrowser"]
    left = {"collapsed": False, "visible": True, "current": panels[0], "widgets": panels}
    data = {
        "layout-restorer:data": {
            "main": {"dock": dock, "current": widgets[1]}, "left": left, "relativeSizes": [0.2, 0.8, 0.0],
            "right": {"collapsed": True, "visible": True, "widgets": []}, "down": {"size": 0, "widgets": []},
        },
        widgets[0]: {"data": {"path": start, "factory": "Markdown Preview"}},
        widgets[1]: {"data": {"path": lesson, "factory": "Notebook"}},
        "file-browser-filebrowser:cwd": {"path": "work"},
    }  # fmt: skip
    return {"data": data, "metadata": {"id": "course"}}


def quiet_defaults() -> Path:
    """Writes defaults into the course's own environment: JupyterLab asks nothing about news and looks for no updates.

    Both ask the network. What the learner sets in JupyterLab's settings still wins.
    """
    path = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    path.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}), encoding="utf-8")
    return path


def lab_flags(arguments: list[str]) -> list[str]:
    """JupyterLab's flags: the course's folder as root, the named arrangement as first page."""
    return [f"--ServerApp.root_dir={ROOT}", "--LabApp.default_url=/lab/workspaces/course",
            f"--ContentsManager.hide_globs={list(HIDDEN)!r}", *arguments]  # fmt: skip


def main(arguments: list[str]) -> None:
    from jupyterlab_server.workspaces_handler import WorkspacesManager

    WORK.mkdir(exist_ok=True)
    for line in lay_out():
        print(line)
    quiet_defaults()
    arrangements = WORK / ".jupyter" / "workspaces"
    if not arrangements.exists():  # afterwards JupyterLab keeps the learner's own arrangement there
        arrangements.mkdir(parents=True)
        WorkspacesManager(str(arrangements)).save("course", json.dumps(layout()))
    os.environ["JUPYTERLAB_WORKSPACES_DIR"] = str(arrangements)
    from jupyterlab.labapp import LabApp  # in this process, so that whoever ends it ends the server

    LabApp.launch_instance(argv=lab_flags(arguments))


if __name__ == "__main__":
    main(sys.argv[1:])
