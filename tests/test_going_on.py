"""After an exercise: the lesson goes on with the learner's function if it passed; an older one is not judged."""

import nbformat
import pytest
from nbclient import NotebookClient

from kto_course import ROOT, check, checks, runner
from kto_course.checks import engine
from kto_utils import losses

ID = "reference_point"


def right(policy_kl_logps, reference_kl_logps):
    return (policy_kl_logps - reference_kl_logps).mean().clamp(min=0).detach()


def wrong(policy_kl_logps, reference_kl_logps):
    return (policy_kl_logps - reference_kl_logps).mean().detach()


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(engine, "_passed", {})


def test_without_a_pass_the_package_s_function_is_bound(capsys):
    assert check.yours_or_ours(ID) is losses.reference_point
    assert capsys.readouterr().out == "going on with ours: kto_utils.losses.reference_point\n"


def test_what_passed_is_bound_itself_until_something_else_fails(capsys):
    check.reference_point(right)
    capsys.readouterr()
    assert check.yours_or_ours(ID) is right
    assert capsys.readouterr().out == "going on with yours: right\n"
    check.reference_point(wrong)
    assert check.yours_or_ours(ID) is losses.reference_point


def test_an_exercise_without_a_function_in_the_package_says_so():
    with pytest.raises(ValueError, match="names no function of the package"):
        check.yours_or_ours(next(id for ids in checks.ids_by_lesson().values() for id in ids
                                 if checks.find(id).ours is None))  # fmt: skip


def test_every_named_function_exists():
    for ids in checks.ids_by_lesson().values():
        for id in ids:
            if checks.find(id).ours:
                assert callable(engine.yours_or_ours(checks.find(id)))


def test_the_package_s_own_function_is_no_answer(capsys, monkeypatch):
    check.reference_point(losses.reference_point)
    out = capsys.readouterr().out
    assert out.startswith("not right yet")
    assert "a function of your own" in out
    assert ID not in engine._passed
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(AssertionError, match="a function of your own"):
        check.reference_point(losses.reference_point)


def run_cells(*sources):
    """What each cell prints, run one after the other in one kernel, errors included."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=runner.CELL_TIMEOUT, kernel_name="python3", allow_errors=True,
                            resources={"metadata": {"path": str(ROOT)}})  # fmt: skip
    client.execute()
    return ["".join(output.get("text", output.get("ename", "")) for output in cell.outputs) for cell in notebook.cells]


def test_after_a_syntax_error_the_older_function_is_not_judged():
    good = "def my_z0(a, b):\n    return (a - b).mean().clamp(min=0).detach()"
    asked = "check.reference_point(my_z0)"
    first, passed, broken, refused, _, again = run_cells(
        "from kto_course import check\n" + good, asked, good + ")", asked, good, asked
    )
    assert first == ""
    assert passed.startswith("passed")
    assert broken == "SyntaxError"
    assert refused.startswith("not right yet")
    assert "SyntaxError" in refused
    assert again.startswith("passed")
