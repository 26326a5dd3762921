"""The checkers are tested: right answers pass, wrong ones get their own hint, machine-made mutants are refused.

For each lesson tests/checks/lesson_NN.py holds
    ANSWERS: exercise id -> {"right": {style: source}, "wrong": {what was done: (fault id, source)}};
        a source is an expression, or statements whose last one defines the answer; it may use what the lesson imports;
    EQUIVALENT: exercise id -> {mutant, as the failing test names it: why no input shows the difference};
    SETUP (if needed): a source that defines what the answers need beyond the lesson's imports.

    python -m pytest tests/test_checks.py -k lesson_05      one lesson
    python tests/test_checks.py --write                     writes the table into tests/README.md
"""

import ast
import contextlib
import functools
import importlib.util
import io
import os
import random
import re
import sys
import threading
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from mutate import mutants  # noqa: E402

import kto_course  # noqa: E402
from kto_course import checks, learner  # noqa: E402
from kto_course.checks import comparing, engine, exercises, faults, running  # noqa: E402

LEAST_RIGHT, LEAST_WRONG = 3, 8
README = HERE / "README.md"
START, END = "<!-- table of the checks: written by tests/test_checks.py --write -->", "<!-- end of table -->"
EXERCISES = [(lesson, id) for lesson, ids in checks.ids_by_lesson().items() for id in ids]
each_exercise = pytest.mark.parametrize(
    ("lesson", "id"), EXERCISES, ids=[f"lesson_{lesson:02d}-{id}" for lesson, id in EXERCISES]
)


def source_of(lesson):
    """The lesson and its deeper notebook, one after the other: exercises are numbered through both."""
    return "\n".join(path.read_text(encoding="utf-8") for path in checks.sources(lesson))


@functools.cache
def data(lesson):
    path = HERE / "checks" / f"lesson_{lesson:02d}.py"
    spec = importlib.util.spec_from_file_location(f"answers_{lesson:02d}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def imported(lesson):
    """What the lesson's imports and SETUP define."""
    names = {"__name__": f"lesson_{lesson:02d}"}
    statements = [n for n in ast.parse(source_of(lesson)).body if isinstance(n, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(statements, []), "imports", "exec"), names)
    exec(getattr(data(lesson), "SETUP", ""), names)
    return names


def value_of(lesson, source):
    """The answer a source describes: the value of its last expression, or what its last statement defines."""
    names = dict(imported(lesson))
    last = ast.parse(source.strip()).body[-1]
    if isinstance(last, ast.Expr):
        return eval(source.strip(), names)
    exec(source, names)
    return names[last.name if hasattr(last, "name") else last.targets[0].id]


def answer_name(lesson, id):
    """What the check cell hands over."""
    (expression,) = re.findall(rf"^check\.{id}\((.+)\)$", source_of(lesson), flags=re.M)
    return expression


def model_answer(lesson, id, source):
    names = dict(imported(lesson))
    exec(source, names)
    return eval(answer_name(lesson, id), names)


@functools.cache
def results(lesson, id):
    """(outcomes of the right answers, outcomes of the wrong ones), by name."""
    answers, found = data(lesson).ANSWERS[id], checks.find(id)
    right = {name: engine.judge(found, value_of(lesson, source)) for name, source in answers["right"].items()}
    return right, judged_wrong(lesson, id)


def judged_wrong(lesson, id):
    wrong, found = data(lesson).ANSWERS[id]["wrong"], checks.find(id)
    return {name: engine.judge(found, value_of(lesson, source), seconds=1.0) for name, (_, source) in wrong.items()}


@functools.cache
def all_mutants(lesson, id):
    source, lines = checks.solved_cell(id)
    return mutants(source, lines) if callable(model_answer(lesson, id, source)) else {}


def test_the_index_names_every_exercise():
    for lesson, ids in checks.ids_by_lesson().items():
        module = importlib.import_module(f"kto_course.checks.lesson_{lesson:02d}")
        made = [e.id for e in vars(module).values() if isinstance(e, exercises.Exercise)]
        assert made == ids
        assert list(data(lesson).ANSWERS) == ids
        assert set(data(lesson).EQUIVALENT) <= set(ids)
    every = [id for _, id in EXERCISES]
    assert len(set(every)) == len(every)


@each_exercise
def test_heading_and_cells_in_the_lesson_say_what_the_exercise_says(lesson, id):
    found, cells = checks.find(id), re.split(r"^# %%", source_of(lesson), flags=re.M)
    at = next(i for i, cell in enumerate(cells) if re.match(rf'.*\bcheck="{id}"', cell))
    before = [i for i in range(at) if re.search(r"^# ### Exercise ", cells[i], flags=re.M)]
    number = f"{lesson}.{checks.ids_by_lesson()[lesson].index(id) + 1}"
    stars = "★" * found.difficulty + "☆" * (3 - found.difficulty)
    lines = [line for line in cells[before[-1]].splitlines() if line.startswith("# ")]
    assert lines[0] == f"# ### Exercise {number} · {found.title}"
    assert lines[1] == f"# {stars} · {found.minutes} minutes · {found.kind}"
    assert cells[at - 1].splitlines()[0] == f' exercise="{id}"'
    assert cells[at].splitlines()[0] == f' check="{id}" points={found.points}'


@each_exercise
def test_there_are_enough_answers_and_each_hint_is_met(lesson, id):
    answers, found = data(lesson).ANSWERS[id], checks.find(id)
    sources = [*answers["right"].values(), *(source for _, source in answers["wrong"].values())]
    assert len(answers["right"]) >= LEAST_RIGHT
    assert len(answers["wrong"]) >= LEAST_WRONG
    assert len(set(sources)) == len(sources)
    meant = {fault for fault, _ in answers["wrong"].values()}
    assert meant <= {*found.hints, *faults.GENERIC_HINTS}
    assert set(found.hints) - meant == set(), "hints that no wrong answer reaches"
    assert meant - {"raised", "type", "timeout", "values"}, "no wrong answer has a fault of its own"


@each_exercise
def test_our_solution_passes_and_an_open_one_is_open(lesson, id):
    source, _ = checks.solved_cell(id)
    assert engine.judge(checks.find(id), model_answer(lesson, id, source)).state == "passed"
    for nothing in (None, ...):
        assert engine.judge(checks.find(id), nothing) == engine.Outcome("open")


@each_exercise
def test_right_answers_pass(lesson, id):
    for name, outcome in results(lesson, id)[0].items():
        assert outcome.state == "passed", f"{name}: {outcome}"


@each_exercise
def test_wrong_answers_get_the_hint_meant_for_them(lesson, id):
    for name, outcome in results(lesson, id)[1].items():
        meant = data(lesson).ANSWERS[id]["wrong"][name][0]
        assert (outcome.state != "passed", outcome.fault) == (True, meant), f"{name}: {outcome}"


@each_exercise
def test_reports_are_plain_and_the_same_each_time(lesson, id):
    again = judged_wrong(lesson, id)
    assert again == results(lesson, id)[1]
    for outcome in again.values():
        text = " ".join((outcome.tried, outcome.got, outcome.expected))
        assert not re.search(r"0x[0-9a-f]{6}|/\w+/\w+|site-packages", text)
        assert len(text) < 900


@each_exercise
def test_machine_made_mutants_are_refused(lesson, id):
    made, excused = all_mutants(lesson, id), data(lesson).EQUIVALENT.get(id, {})
    survivors = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nonsense such as 3 is not 4
        for name, source in made.items():
            if engine.judge(checks.find(id), model_answer(lesson, id, source), seconds=1.0).state == "passed":
                survivors.append(name)
    unexplained = [f"--- {name}\n{made[name]}" for name in survivors if name not in excused]
    assert not unexplained, "mutants that pass:\n" + "\n".join(unexplained)
    assert [name for name in excused if name not in survivors] == [], "excused, but refused or not made any more"


def table():
    columns = "right | refused | wrong | caught | intended hint | mutants | equivalent"
    rows = [f"| exercise | kind | {columns} |", "|---|---|" + "---:|" * 7]
    totals = [0] * 7
    for lesson, id in EXERCISES:
        right, wrong = results(lesson, id)
        meant = {name: fault for name, (fault, _) in data(lesson).ANSWERS[id]["wrong"].items()}
        numbers = [
            len(right), sum(o.state != "passed" for o in right.values()),
            len(wrong), sum(o.state != "passed" for o in wrong.values()),
            sum(o.fault == meant[name] for name, o in wrong.items()),
            len(all_mutants(lesson, id)), len(data(lesson).EQUIVALENT.get(id, {})),
        ]  # fmt: skip
        totals = [a + b for a, b in zip(totals, numbers, strict=True)]
        rows.append(f"| {lesson:02d} {id} | {checks.find(id).kind} | " + " | ".join(map(str, numbers)) + " |")
    rows.append(f"| **{len(EXERCISES)} exercises** | | " + " | ".join(map(str, totals)) + " |")
    return "\n".join(rows)


def with_table(text):
    head, rest = text.split(START)
    return f"{head}{START}\n{table()}\n{END}{rest.split(END)[1]}"


def test_the_table_in_the_readme_is_in_step():
    text = README.read_text(encoding="utf-8")
    print(table())
    assert with_table(text) == text, "run `python tests/test_checks.py --write`"


# The engine.


def make(checker, **hints):
    return exercises.Exercise("sample", "A sample", 1, 1, 1, "a test", 1, hints, checker)


def doubled(answer):
    comparing.compare(running.call(answer, [1, 2]), [2, 4], {"squared": [1, 4]})
    return "a list of two"


SAMPLE = make(doubled, squared=("first", "second", "third"))


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    monkeypatch.setenv("KTO_PROGRESS", str(tmp_path / "progress.json"))
    monkeypatch.delenv("NBGRADER_EXECUTION", raising=False)
    engine._seen.clear()
    learner._asked.clear()
    return tmp_path / "progress.json"


def told(answer, exercise=SAMPLE):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert engine.run(exercise, answer) is None
    return out.getvalue()


def endless(x):
    while True:
        with contextlib.suppress(Exception):
            x = x[:]


def stubborn(x):
    end = time.monotonic() + 4  # longer than the clock's limit and the tries to stop it, on a busy machine too
    while time.monotonic() < end:
        try:
            while time.monotonic() < end:
                pass
        except BaseException:
            continue


def noisy(x):
    print("noise")
    return [2 * v for v in x]


def in_place(x):
    x.append(0)
    return [2, 4]


def emptied(x):
    answer = [2 * v for v in x]
    x[0] = None
    return answer


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda x: 1 / 0, "raised"),
        (lambda: 1, "raised"),
        (lambda x: sys.exit(1), "raised"),
        (lambda x: f(x) if (f := lambda y: answerless) else 0, "raised"),  # noqa: F821
        (endless, "timeout"),
        (in_place, "changed_arguments"),
        (emptied, "changed_arguments"),
        (lambda x: "24", "type"),
        (lambda x: object(), "type"),
        (lambda x: torch.tensor([2, 4]), "type"),
        (lambda x: [v**2 for v in x], "squared"),
        (lambda x: [2, float("nan")], "nan"),
        (lambda x: [2, 4, 6], "values"),
        (lambda x: {"a": 2}, "type"),
        (42, "type"),
        ("x", "type"),
        (int, "raised"),
        (noisy, None),
        (lambda x: (2, 4.0), None),
    ],
)
def test_strange_answers_are_met_with_a_hint(answer, fault, own_file, capsys):
    outcome = engine.judge(SAMPLE, answer, seconds=0.3)
    assert outcome.fault == fault
    assert outcome.state == ("wrong" if fault else "passed")
    assert capsys.readouterr() == ("", "")
    assert engine.report(SAMPLE, outcome).count("hint:") == (fault is not None)
    assert engine.judge(SAMPLE, noisy).state == "passed"  # alive and well afterwards


def test_endless_loops_leave_no_thread_behind_even_when_they_swallow_the_stop():
    threads = threading.active_count()
    for _ in range(3):
        assert engine.judge(SAMPLE, endless, seconds=0.2).fault == "timeout"
    assert threading.active_count() == threads
    assert engine.judge(SAMPLE, stubborn, seconds=0.2).fault == "timeout"  # reported, although it runs on
    while threading.active_count() > threads:
        time.sleep(0.05)
    assert engine.judge(SAMPLE, noisy).state == "passed"


def test_an_error_names_the_learners_own_line():
    names = {"__name__": "__main__"}
    exec(compile("def inner(x):\n    return x[7]\n\ndef answer(x):\n    return inner(x)\n", "<cell>", "exec"), names)
    outcome = engine.judge(SAMPLE, names["answer"])
    assert outcome.got == "IndexError: list index out of range in your line 2"


def test_open_answers_are_open():
    def stub(x):
        """A docstring."""
        ...  # your code here

    def begun(x):
        y = ...
        return y + 1

    def told_so(x):
        raise NotImplementedError

    def forgot_return(x):
        y = [2 * v for v in x]  # noqa: F841

    for answer in (None, ..., stub, begun, told_so, lambda x: ...):
        assert engine.judge(SAMPLE, answer) == engine.Outcome("open")
    outcome = engine.judge(SAMPLE, forgot_return)
    assert (outcome.state, outcome.fault) == ("open", "open")
    assert engine.report(SAMPLE, outcome).startswith("not done yet: A sample\n")


def test_a_repeated_fault_gets_the_next_hint_and_then_our_solution_is_offered(own_file):
    square = lambda x: [v**2 for v in x]  # noqa: E731
    texts = [told(square) for _ in range(4)]
    assert [re.search("hint: +(.+)", text)[1] for text in texts] == ["first", "second", "third", "third"]
    assert ["check.solution" in text for text in texts] == [False, False, True, True]
    assert texts[0] == (
        "not right yet: A sample\ntried:    <lambda>([1, 2])\n".replace("<lambda>", "your function")
        + "got:      [1, 4]\nexpected: [2, 4]\nhint:     first\n"
    )
    assert told(noisy) == "passed: A sample\ntested: a list of two\n"
    assert "first" in told(square)
    assert told(...) == "not done yet: A sample\n"


def test_what_a_wrong_answer_prints_is_shown_in_part(own_file, capsys):
    def chatty(x):
        for i in range(10_000):
            print("row", i, object)
        return x

    text = told(chatty)
    assert "printed:  row 0 <class 'object'>\n          row 1" in text
    assert text.count("row") == 5
    assert "printed" not in told(noisy)
    assert capsys.readouterr() == ("", "")


def test_a_kernel_survives_endless_loops_errors_and_exits():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    cells = [
        "from kto_course import check\nmine = [1]",
        "def loop(logits, input_ids, label_mask):\n    while True:\n        pass\ncheck.get_probs(loop)",
        "def error(logits, input_ids, label_mask):\n    return logits[99]\ncheck.get_probs(error)",
        "import sys\ncheck.get_probs(lambda *a: sys.exit())",
        "check.reply_logp(-2.3026)\nprint(mine)",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    texts = ["".join(o.text for o in cell.outputs) for cell in notebook.cells]
    assert "no result after 2 seconds" in texts[1]
    assert "IndexError: index 99 is out of bounds" in texts[2]
    assert "in your line 2: return logits[99]" in texts[2]
    assert "not right yet" in texts[3]
    assert texts[4].endswith("in nats\n[1]\n")


def test_under_nbgrader_points_are_lost(own_file, monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    for answer in (..., lambda x: x):
        with pytest.raises(AssertionError, match="A sample"):
            engine.run(SAMPLE, answer)
    assert told(noisy).startswith("passed")


def test_a_check_leaves_the_learners_world_untouched(own_file):
    import matplotlib.pyplot as plt

    def careless(x):
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)
        torch.set_default_dtype(torch.float64)
        plt.figure()
        return [2 * v for v in x]

    def handed(answer):
        answer["rows"][0].zero_()
        answer["rows"].append(1)

    mine = {"rows": [torch.ones(2)]}
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), plt.get_fignums()
    told(careless)
    told(mine, make(handed))
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert plt.get_fignums() == before[3]
    assert torch.get_default_dtype() == torch.float32
    assert mine["rows"][0].tolist() == [1, 1]
    assert len(mine["rows"]) == 1


def test_a_mistake_of_ours_is_owned_up_to():
    outcome = engine.judge(make(lambda answer: 1 / 0), 3)
    assert (outcome.state, outcome.fault) == ("wrong", "checker")


def test_gradients_are_compared_and_cut_ones_named():
    def check(answer):
        x = torch.tensor([1.0, 2.0], dtype=torch.float64)
        comparing.compare(running.gradient(answer, x), running.gradient(lambda v: v**2, x), default="gradient")

    sample = make(check)
    assert engine.judge(sample, lambda x: x * x).state == "passed"
    assert engine.judge(sample, lambda x: x * x.detach()).fault == "gradient"
    assert engine.judge(sample, lambda x: (x * x).detach()).fault == "no_gradient"
    assert engine.judge(sample, lambda x: 3.0).fault == "type"


@pytest.mark.parametrize(
    ("got", "expected", "fault"),
    [
        (torch.ones(2), torch.ones(3), "shape"),
        (torch.ones(2, dtype=torch.float32) / 3, torch.ones(2, dtype=torch.float64) / 3, None),
        (torch.tensor([1.0, 1.001]), torch.ones(2), "values"),
        (1.0, torch.tensor(1.0), None),
        ([1.0, 1.0], torch.ones(2), "type"),
        (np.ones(2), np.ones(2), None),
        (True, True, None),
        ("a", "b", "values"),
        (torch.ones(20), torch.zeros(20), "values"),
    ],
)
def test_compare(got, expected, fault):
    try:
        comparing.compare(got, expected)
        found = None
    except faults.Fault as error:
        found = error.fault
    assert found == fault


def test_the_engine_offers_what_a_checker_needs_and_no_checker_looks_elsewhere():
    for path in sorted(Path(engine.__file__).parent.glob("lesson_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = getattr(node, "module", None) or ""
            if not module.startswith("kto_course.checks") or module.startswith("kto_course.checks.lesson_"):
                continue  # one lesson may build on another's
            assert module == "kto_course.checks.engine", path.name
            assert {name.name for name in node.names} <= set(engine.__all__), path.name


# `check`, and the learner's file.


def test_check_lists_its_exercises_and_offers_close_names():
    assert {"solution", "get_probs"} <= set(dir(kto_course.check))
    with pytest.raises(AttributeError, match="did you mean get_probs"):
        kto_course.check.get_prob  # noqa: B018
    with pytest.raises(AttributeError, match=r"dir\(check\)"):
        kto_course.check.zzz  # noqa: B018


def test_solutions_are_shown_without_markers(capsys):
    kto_course.check.solution("get_probs")
    text = capsys.readouterr().out
    assert text.startswith("def my_get_probs")
    assert "###" not in text
    assert "masked_fill" in text


def test_tries_ratings_and_predictions_are_kept_and_cleared(own_file, capsys):
    for answer in (lambda x: [v**2 for v in x], noisy, ...):
        told(answer)
    entry = learner.exercises()["sample"]
    assert (entry["tries"], entry["passes"], entry["last_fault"], entry["faults"]) == (2, 1, None, {"squared": 1})
    learner.record_rating("q1", 2)
    assert learner.ratings()["q1"][0][0] == 2
    capsys.readouterr()
    kto_course.predict("p", "Up or down?", ["up", "down"], guess="b", confidence=0.8)
    kto_course.reveal("p", "a")
    kto_course.predict("p", "Up or down?", ["up", "down"], guess="a", confidence=0.8)
    kto_course.reveal("p", "a")
    assert learner.predictions() == {"p": {"guess": "b", "confidence": 0.8, "right": False}}
    assert "You said b: not this time." in capsys.readouterr().out
    kto_course.calibration()
    assert "Brier score 0.6400" in capsys.readouterr().out
    kto_course.progress()
    assert "predictions: 0 of 1 right" in capsys.readouterr().out
    kto_course.reset()
    assert not own_file.exists()


def test_a_skipped_prediction_prints_the_same_whatever_the_file_holds(own_file, capsys):
    def skipped():
        kto_course.predict("p", "Up or down?", ["up", "down"])
        kto_course.reveal("p", "a")
        return capsys.readouterr().out

    first = skipped()
    kto_course.predict("p", "Up or down?", ["up", "down"], guess="b", confidence=1)
    kto_course.reveal("p", "a")
    capsys.readouterr()
    assert skipped() == first
    with pytest.raises(ValueError, match="not among a, b"):
        kto_course.reveal("p", "c")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 99}', "\x00"])
def test_a_broken_file_is_set_aside_not_lost(own_file, capsys, text):
    own_file.write_text(text, encoding="utf-8")
    told(noisy)
    assert own_file.with_name("progress.broken1.json").read_text(encoding="utf-8") == text
    assert learner.exercises()["sample"]["passes"] == 1
    own_file.write_text("{", encoding="utf-8")
    assert learner.exercises() == {}
    assert own_file.with_name("progress.broken2.json").exists()
    assert "kept as progress.broken2.json" in capsys.readouterr().out


def test_an_answer_that_is_not_judged_is_no_try(own_file, monkeypatch):
    monkeypatch.setitem(kto_course.checks.unread, "noisy", "invalid syntax, line 2")
    assert "could not read the cell" in told(noisy)
    assert learner.exercises() == {}
    monkeypatch.delitem(kto_course.checks.unread, "noisy")
    assert told(noisy).startswith("passed")
    assert learner.exercises()["sample"]["tries"] == 1


@pytest.mark.parametrize(
    ("folder", "counts"),
    [("notebooks", False), ("work/solved/deeper", False), ("work", True), ("notebooks/student", True), (".", True)],
)
def test_what_our_solved_copies_do_is_not_the_learners(folder, counts, tmp_path, monkeypatch, capsys):
    for place in ("notebooks/student", "work/solved/deeper"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.delenv("KTO_PROGRESS")
    monkeypatch.setattr(learner, "DEFAULT_FILE", tmp_path / "work" / "progress.json")
    monkeypatch.setattr(learner, "SOLVED", (tmp_path / "notebooks", tmp_path / "work" / "solved" / "deeper"))
    monkeypatch.chdir(tmp_path / folder)

    def work():
        assert told(noisy).startswith("passed")
        learner.record_drill("kto_loss", True, 60.0)
        kto_course.predict("p", "Up or down?", ["up", "down"], guess="b", confidence=0.8)
        kto_course.reveal("p", "a")
        return [len(part) for part in (learner.exercises(), learner.drills(), learner.predictions())]

    assert work() == ([1, 1, 1] if counts else [0, 0, 0])
    kto_course.progress()
    assert ("where nothing counts" in capsys.readouterr().out) == (not counts)
    learner.record_rating("q1", 2)  # what you say of yourself is yours, wherever you say it
    assert learner.ratings()["q1"]
    monkeypatch.setenv("KTO_PROGRESS", str(tmp_path / "named.json"))
    assert work() == [1, 1, 1]


def test_the_solved_copies_are_those_of_this_checkout():
    root = Path(kto_course.__file__).resolve().parents[1]
    assert {path.relative_to(root).as_posix() for path in learner.SOLVED} == {
        "notebooks", "notebooks/deeper", "work/solved", "work/solved/deeper",
    }  # fmt: skip


def test_several_writers_lose_nothing(own_file):
    threads = [threading.Thread(target=learner.record_try, args=("x", 1, "wrong", "f")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert learner.exercises()["x"]["tries"] == 20
    assert [p.name for p in own_file.parent.iterdir()] == ["progress.json"]


def test_a_disk_that_cannot_be_written_costs_only_the_record(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KTO_PROGRESS", str(tmp_path / "file" / "progress.json"))
    assert told(noisy).startswith("passed")


def test_mutants_are_made_of_every_kind():
    source = "def f(a, b):\n    c = a[1:]\n    with b:\n        c += 1\n    return max(a, b) if c < 2 else -c.sum()\n"
    names = " | ".join(mutants(source, range(2, 6)))
    for part in ("a[1:] -> a", "c += 1 -> c -= 1", "-> pass", "max -> min", "max(a, b) -> max(b, a)",
                 "c < 2 -> c <= 2", "2 -> 3", "-c.sum() -> c.sum()", "c.sum -> c.mean", "with b: c += 1 -> c += 1",
                 "1: -> :"):  # fmt: skip
        assert part in names, (part, names)
    assert mutants(source, range(9, 10)) == {}


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_checks.py --write")
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
