"""The house: three packages with imports in one direction, small modules, lessons that run on no black box."""

import ast
import re

import pytest

from kto_course import NOTEBOOKS, ROOT, build

FLOORS = ("kto_utils", "kto_lab", "kto_course")  # each may import itself and what stands before it
# Where a module is derived. Lesson 00 is the demonstration and may use all of them.
TAUGHT_IN = {"prospect": 1, "model": 2, "tokenizer": 3, "data": 3, "collator": 4, "logprobs": 5, "losses": 6,
             "train": 7, "evaluate": 7}  # fmt: skip
MODULES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]
# Tables that read better in one piece: hints of the exercises, lesson by lesson.
TABLES = ("kto_course/checks/lesson_",)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imported(text):
    """Every module that a source imports, inside functions too, with the names taken from it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward(floor, text):
    """Imports of a floor that may not know of it."""
    above = FLOORS[FLOORS.index(floor) + 1 :]
    return [name for name in imported(text) if name.split(".")[0] in above]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path):
    assert upward(path.relative_to(ROOT).parts[0], path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("floor", "planted"),
    [("kto_utils", "import kto_lab.museum"), ("kto_utils", "def f():\n    from kto_course import check"),
     ("kto_lab", "from kto_course.pictures import publish")],
)  # fmt: skip
def test_a_planted_import_is_noticed(floor, planted):
    assert len(upward(floor, planted)) == 1
    assert upward("kto_course", planted) == []


def test_kto_utils_is_small():
    modules = sorted((ROOT / "kto_utils").rglob("*.py"))
    assert {path.stem for path in modules} == {*TAUGHT_IN, "world", "plotting", "__init__"}
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in modules) <= 2000


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_longer_than_400_lines_and_no_function_than_60(path):
    text = path.read_text(encoding="utf-8")
    if not name_of(path).startswith(TABLES):
        assert len(text.splitlines()) <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 60] == []


@pytest.mark.parametrize("source", build.source_paths(), ids=lambda path: path.stem)
def test_no_lesson_imports_what_a_later_one_derives(source):
    lesson = int(source.stem[:2])
    names = [name.split(".") for name in imported(source.read_text(encoding="utf-8"))]
    used = {part for name in names if name[0] == "kto_utils" for part in name[1:2]}
    early = {module for module in used if TAUGHT_IN.get(module, 0) > lesson}
    assert lesson == 0 or not early
    assert lesson >= 8 or lesson == 0 or not any(name[-1] in ("dpo_loss", "train_dpo") for name in names)


@pytest.mark.parametrize("source", build.source_paths(), ids=lambda path: path.stem)
def test_a_lesson_runs_from_any_folder(source):
    code = re.findall(r"^[^#\n].*$", source.read_text(encoding="utf-8"), flags=re.M)
    assert [line for line in code if re.search(r"""["']\.\./""", line)] == []


def test_there_is_nothing_else_at_the_top():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - {"work"} == {"figures", "kto_course", "kto_lab", "kto_utils", "notebooks", "tests"}
    assert {path.suffix for path in NOTEBOOKS.iterdir() if path.is_file()} <= {".ipynb", ".py", ".md", ".cfg"}
    assert [path.name for path in NOTEBOOKS.glob("*.py")] == ["conftest.py"]
