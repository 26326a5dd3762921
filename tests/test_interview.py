"""The interview: what is drawn and when it comes again, the sitting in three faces, drills, mock interview, lesson."""

import ast
import builtins
import datetime
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from kto_course import build, checks, interview, learner
from kto_course.checks import engine
from kto_course.interview import alone, buttons, for_two, schedule, terminal
from kto_course.interview.cards import RUNGS
from kto_course.interview.session import Session
from kto_course.questions import load_questions
from kto_utils import losses

ROOT = Path(__file__).resolve().parents[1]
SOURCES = checks.sources(13)
NOON = datetime.datetime(2026, 3, 2, 12, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
BANK = load_questions()
EVERY_EXERCISE = {id for ids in checks.ids_by_lesson().values() for id in ids}
READY = [id for id in interview.DRILLS if id in EVERY_EXERCISE]


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self, now=NOON):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def own_file(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("KTO_PROGRESS", str(path))
    return path


def on_days(*pairs):
    """A history from (day, rating)."""
    return [(rating, NOON + day * DAY) for day, rating in pairs]


def days_until(history):
    return (interview.due(history) - history[-1][1].date()).days


# When a question comes again.


def check_the_rule(due):
    """What the module's docstring promises, for any function in the place of `due`."""

    def again(*pairs):
        return (due(on_days(*pairs)) - NOON.date()).days

    assert due([]) is None
    assert again((0, 2)) == 1
    assert again((0, 2), (1, 2)) == 1 + 3
    assert again((0, 2), (1, 2), (4, 2)) == 4 + 7
    assert again((0, 2), (1, 2), (4, 2), (11, 2)) == 11 + 16
    assert again((0, 2), (1, 2), (4, 2), (11, 2), (27, 3)) == 27 + 16  # no longer than the last
    assert again((0, 3)) == 3
    assert again((0, 3), (3, 3)) == 3 + 16
    for bad in (0, 1):
        assert again((0, bad)) == 0
        assert again((0, 3), (3, bad)) == 3
        assert again((0, 3), (3, bad), (3, 2)) == 3 + 1
    assert again((0, 2), (0, 2), (0, 3)) == 1  # before it is due, nothing is proved
    assert again((0, 2), (0, 2), (1, 2)) == 1 + 3
    late = [(2, NOON.replace(hour=23, minute=59)), (2, NOON.replace(hour=0, minute=1) + DAY)]
    assert (due(late) - NOON.date()).days == 1 + 3  # days by the calendar, not 24 hours


def test_a_question_comes_again_after_1_3_7_16_days_and_a_failure_starts_anew():
    check_the_rule(interview.due)
    assert schedule.INTERVALS == (1, 3, 7, 16)


def due_by_the_source(old, new):
    """schedule.due with one change in its source."""
    source = Path(schedule.__file__).read_text(encoding="utf-8")
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == "due")
    text = ast.get_source_segment(source, node)
    assert text.count(old) == 1, old
    names = dict(vars(schedule))
    exec(text.replace(old, new), names)
    return names["due"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("step = 0\n", "pass\n"),
        ("rating < 2", "rating < 1"),
        ("rating < 2", "rating < 3"),
        ("today >= again", "True"),
        ("today >= again", "today > again"),
        ("step + rating - 1", "step + 1"),
        ("INTERVALS[step - 1]", "step"),
        (" if step else 0", " if step else 1"),
        ("min(step + rating - 1, len(INTERVALS))", "min(step + rating - 1, 3)"),
    ],
)
def test_a_broken_rule_is_noticed(old, new):
    with pytest.raises((AssertionError, TypeError)):
        check_the_rule(due_by_the_source(old, new))


def test_a_day_begins_at_midnight_of_the_learner():
    evening = datetime.datetime(2026, 3, 2, 20, tzinfo=datetime.UTC)  # already the 3rd in Tokyo
    tokyo = datetime.timezone(datetime.timedelta(hours=9))
    assert interview.due([(2, evening)]).day == 3
    assert interview.due([(2, evening)], tokyo).day == 4


# What is drawn.

SIX = [
    replace(BANK[-1], id=id, lesson=lesson, core=id == "core")
    for id, lesson in (("new", "03"), ("early", "05"), ("due", "02"), ("failed", "05"), ("core", "04"), ("bad", "01"))
]
HISTORIES = {"bad": on_days((-9, 3), (0, 1)), "due": on_days((-9, 2)), "early": on_days((0, 3))}


def check_the_draw(draw):
    def ids(count=6, histories=HISTORIES, failed=("05",), questions=SIX):
        return [question.id for question in draw(questions, count, histories, set(failed), NOON)]

    assert ids() == ["bad", "core", "failed", "due", "new", "early"]
    assert ids(count=3) == ["bad", "core", "failed"]
    assert ids(failed=()) == ["bad", "core", "due", "new", "failed", "early"]  # new ones as the bank has them
    assert ids(failed=(), questions=SIX[::-1]) == ["bad", "core", "due", "failed", "new", "early"]
    two = HISTORIES | {"new": on_days((-20, 2))}
    assert ids(histories=two, failed=())[:4] == ["bad", "core", "new", "due"]  # the longest overdue first
    worse = HISTORIES | {"due": on_days((0, 0))}
    assert ids(histories=worse)[:3] == ["due", "bad", "core"]  # no idea before with gaps
    assert ids(histories=HISTORIES | {"core": on_days((0, 3))})[-2:] == ["early", "core"]  # asked: no longer in front


def check_that_repeating_leaves_room(draw):
    """While core questions are unasked, what went badly takes a third of a sitting; afterwards all that it needs."""
    again = [replace(BANK[-1], id=f"again_{i}") for i in range(9)]
    unasked = [replace(BANK[0], id=f"core_{i}", core=True) for i in range(5)]
    bad = {question.id: on_days((0, 0)) for question in again}

    def kinds(count, questions):
        return [question.id.split("_")[0] for question in draw(questions, count, bad, set(), NOON)]

    assert kinds(6, again + unasked) == ["again"] * 2 + ["core"] * 4
    assert kinds(9, again + unasked) == ["again"] * 4 + ["core"] * 5
    assert kinds(1, again + unasked) == ["core"]
    assert kinds(6, again) == ["again"] * 6


def test_what_went_badly_comes_first_then_core_then_failed_lessons_then_due_then_new_then_the_rest():
    check_the_draw(schedule.draw)
    check_that_repeating_leaves_room(schedule.draw)


def not_core(questions):
    return [replace(question, core=False) for question in questions]


@pytest.mark.parametrize(
    "broken",
    [
        lambda questions, count, *_: list(questions)[:count],
        lambda q, c, h, f, now: schedule.draw(q, c, {}, f, now),
        lambda q, c, h, f, now: schedule.draw(q, c, h, set(), now),
        lambda q, c, h, f, now: schedule.draw(q, c, h, f, now + 30 * DAY),
        lambda q, c, h, f, now: schedule.draw(sorted(q, key=lambda one: one.id), c, h, f, now),
        lambda q, c, h, f, now: schedule.draw(q, len(q), h, f, now),
        lambda q, c, h, f, now: schedule.draw(q, c, {k: v[:1] for k, v in h.items()}, f, now),
        lambda q, c, h, f, now: schedule.draw(not_core(q), c, h, f, now),
    ],
)
def test_a_broken_draw_is_noticed(broken):
    with pytest.raises(AssertionError):
        check_the_draw(broken)


def test_a_draw_that_only_repeats_is_noticed():
    def repeats(questions, count, histories, failed, now):
        return schedule.draw(not_core(questions), count, histories, failed, now)

    with pytest.raises(AssertionError):
        check_that_repeating_leaves_room(repeats)


def test_a_new_learner_hears_the_bank_in_its_order_and_the_core_first():
    drawn = schedule.draw(BANK, len(BANK), {}, set(), NOON)
    assert drawn == BANK
    assert all(question.core for question in drawn[:25])
    assert [q.id for q in interview.start(75, clock=Clock()).questions] == [q.id for q in BANK if q.core]
    learner.record_rating(BANK[20].id, 0, NOON)
    assert interview.start(30, clock=Clock()).questions[0] == BANK[20]


def first_week(generator, draw=schedule.draw):
    """The ids that a learner hears in seven days of six questions, who answers as the generator decides."""
    histories, asked = {}, set()
    luck, failed = generator.random(), {q.lesson for q in BANK if generator.random() < 0.02}
    for day in range(7):
        now = NOON + day * DAY
        for question in draw(BANK, 6, histories, failed, now):
            rating = generator.choice((2, 3) if generator.random() < luck else (0, 1))
            histories[question.id] = [*histories.get(question.id, ()), (rating, now)]
            asked.add(question.id)
    return asked


def unlucky_weeks(draw, number):
    """How many of these weeks leave a core question out."""
    core = {q.id for q in BANK if q.core}
    return sum(not core <= first_week(random.Random(seed), draw) for seed in range(number))


def test_in_a_thousand_first_weeks_every_core_question_is_asked():
    assert unlucky_weeks(schedule.draw, 1000) == 0


def test_a_draw_that_knows_no_core_leaves_some_out():
    def plain(questions, *rest):
        return schedule.draw(not_core(questions), *rest)

    assert unlucky_weeks(plain, 20) > 0


def test_a_failed_exercise_calls_for_its_lesson_until_it_passes():
    lessons = {q.lesson for q in BANK}
    lesson = sorted(lessons)[-1]
    learner.record_try("some_exercise", int(lesson), "wrong", "values")
    for question in BANK:
        if question.core:
            learner.record_rating(question.id, 3, NOON)
    assert interview.start(3, clock=Clock()).questions[0].lesson == lesson
    learner.record_try("some_exercise", int(lesson), "passed", None)
    assert interview.start(3, clock=Clock()).questions[0].lesson != lesson


def test_minutes_and_topics_limit_the_session():
    assert len(interview.start(20).questions) == 6
    assert len(interview.start(0.5).questions) == 1
    loss = interview.start(600, topics="loss").questions
    assert {q.id for q in loss} == {q.id for q in BANK if q.topic == "loss"}
    both = interview.start(600, topics=("loss", "data")).questions
    assert {q.topic for q in both} == {"loss", "data"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"topics": ("loss", "lose")}, "found 'lose'; there are .*loss, .*reference_point"),
        ({"topics": ()}, "found no topic at all"),
        ({"minutes": 0}, "must be positive"),
        ({"minutes": float("nan")}, "must be positive"),
    ],
)
def test_a_session_that_cannot_be_is_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        interview.start(**arguments)


# One sitting.


def test_a_session_step_by_step_and_what_is_noted():
    clock = Clock()
    session = interview.start(6, topics="loss", clock=clock)
    first, second = session.questions
    assert "Question 1 of 2" in session.question()
    assert first.question.strip() in session.question()
    with pytest.raises(ValueError, match="look at the answer"):
        session.rate(2)
    rungs = [session.answer() for _ in RUNGS]
    assert first.short.strip() in rungs[0]
    assert first.long.strip() in rungs[1]
    assert all(f.answer.strip() in rungs[2] for f in first.follow_ups)
    assert all(flag.why.strip() in rungs[3] for flag in first.red_flags)
    assert session.answer() == "\n\n".join(rungs)
    for wrong in (4, -1, 1.5, True, None, "2"):
        with pytest.raises(ValueError, match="could say it"):
            session.rate(wrong)
    clock.now += datetime.timedelta(minutes=2, seconds=5)
    assert session.time_used() == "2:05 of 6:00 used"
    assert "comes again in 3 days. 1 to go." in session.rate(3)
    assert "Question 2 of 2" in session.question()
    session.answer()
    assert "comes again today. That was the last one." in session.rate(1)
    assert session.current is None
    assert session.question() == session.answer() == session.summary()
    assert f"| {first.id.replace('_', ' ')} | 3, could teach it | in 3 days |" in session.summary()
    assert f"Read again: lesson {second.lesson}, *{second.section}*." in session.summary()
    with pytest.raises(ValueError, match="begin another one"):
        session.rate(2)
    assert learner.ratings() == {first.id: [(3, clock.now)], second.id: [(1, clock.now)]}


def test_the_right_choice_and_number_stand_in_the_first_rung():
    choice = next(q for q in BANK if q.kind == "choice")
    session = Session([choice], 3, {}, False, Clock())
    assert session.question().count("\n- ") == len(choice.choices)
    assert f"**{'abcdefgh'[choice.answer]}).**" in session.answer()
    for number in [q for q in BANK if q.kind == "number"][:1]:
        assert f"**{number.answer}.**" in Session([number], 3, {}, False, Clock()).answer()


def test_without_remembering_the_file_is_neither_read_nor_written(own_file):
    plain = [q.id for q in interview.start(20, remember=False, clock=Clock()).questions]
    learner.record_rating(next(q.id for q in BANK if q.id not in plain), 0, NOON)
    before = own_file.read_text(encoding="utf-8")
    session = interview.start(20, remember=False, clock=Clock())
    assert [q.id for q in session.questions] == plain
    session.answer()
    session.rate(0)
    assert own_file.read_text(encoding="utf-8") == before
    assert [q.id for q in interview.start(20, clock=Clock()).questions] != plain


RATING = {"rating": 0, "when": NOON.isoformat()}


@pytest.mark.parametrize(
    "record",
    [
        "{", "[1, 2]", "\x00", '{"version": 1}',
        {"ratings": []},
        {"ratings": {"same_objective": "bad"}},
        {"ratings": {"same_objective": [{"rating": 0, "when": "yesterday"}]}},
        {"ratings": {"same_objective": [{"rating": "0", "when": NOON.isoformat()}]}},
        {"ratings": {"same_objective": [{"rating": 99, "when": NOON.isoformat()}]}},
        {"ratings": {"same_objective": [RATING, {"rating": 2, "when": "2026-03-01T10:00:00"}]}},
        {"ratings": {"no_such_question": [RATING]}},
        {"ratings": {"same_objective": [RATING | {"when": "2099-01-01T00:00:00+00:00"}]}},
        {"exercises": {"get_probs": None}},
        {"exercises": {"get_probs": {"lesson": "five", "tries": 1, "passes": 0, "last_fault": "x"}}},
        {"exercises": {"other": {"lesson": 99, "tries": 1, "passes": 0, "last_fault": "x"}}},
        {"predictions": {"p": {"confidence": "very", "right": True}}},
        {"drills": {"kto_loss": [{"passed": True, "seconds": "10", "when": NOON.isoformat()}]}},
        {"drills": {"unknown": [{"passed": True, "seconds": 10.0, "when": NOON.isoformat()}]}},
    ],
)  # fmt: skip
def test_a_broken_or_foreign_file_never_stops_an_interview(own_file, record, capsys):
    if isinstance(record, dict):
        whole = {"version": 1, "exercises": {}, "predictions": {}, "ratings": {}, "drills": {}} | record
        record = json.dumps(whole)
    own_file.write_text(record, encoding="utf-8")
    session = interview.start(3, clock=Clock())
    session.answer()
    session.rate(2)
    interview.times()
    assert learner.ratings()[session.questions[0].id][-1] == (2, NOON)
    kept = [path.read_text(encoding="utf-8") for path in own_file.parent.glob("*.broken1.json")]
    if "could not be read" in capsys.readouterr().out:
        assert kept == [record]  # set aside, not lost
    else:
        assert not kept


def test_a_file_from_before_there_were_drills_is_kept(own_file):
    learner.record_rating("q", 2, NOON)
    record = json.loads(own_file.read_text(encoding="utf-8"))
    del record["drills"]
    own_file.write_text(json.dumps(record), encoding="utf-8")
    learner.record_drill("kto_loss", True, 61.0, NOON)
    assert learner.ratings()["q"] == [(2, NOON)]
    assert learner.drills() == {"kto_loss": [(True, 61.0, NOON)]}


# The faces: terminal and buttons.


def typed(monkeypatch, *lines):
    left = list(lines)

    def answer(prompt):
        if not left:
            raise EOFError
        return left.pop(0)

    monkeypatch.setattr(builtins, "input", answer)
    return left


def test_in_a_terminal_it_asks_and_notes(monkeypatch, capsys):
    left = typed(monkeypatch, "", "", "", "", "five", "2", "", "", "", "", "0")
    session = interview.start(6, topics="loss", widgets=False, clock=Clock())
    assert left == []
    assert list(session.ratings.values()) == [2, 0]
    out = capsys.readouterr().out
    assert "0: no idea, 1: with gaps" in out
    assert out.index(session.questions[0].question[:30]) < out.index(session.questions[0].short[:30])
    assert "Read again" in out


@pytest.mark.parametrize("lines", [("q",), ("", "q"), (), ("", "", "", "", "q")])
def test_a_terminal_session_ends_when_asked_and_when_input_ends(monkeypatch, capsys, lines):
    typed(monkeypatch, *lines)
    terminal.main(["--minutes", "3", "--topics", "loss"])
    assert "Ended." in capsys.readouterr().out
    assert learner.ratings() == {}


def test_the_command_line_names_the_topics(capsys):
    with pytest.raises(SystemExit):
        terminal.main(["--topics", "cooking"])
    assert "reference_point" in capsys.readouterr().err


def parts(box):
    time, text, onward, rates = box.children
    return time, text, onward, rates.children


def test_with_buttons_it_asks_and_notes():
    pytest.importorskip("ipywidgets")
    clock = Clock()
    session = interview.start(6, topics="loss", clock=clock)
    time, text, onward, rates = parts(buttons.panel(session))
    assert "Question 1 of 2" in text.value
    assert onward.description == "Show: 30 seconds"
    assert all(button.disabled for button in rates)
    clock.now += datetime.timedelta(seconds=61)
    onward.click()
    assert "<strong>30 seconds</strong>" in text.value
    assert "1:01 of 6:00 used" in time.value
    assert not any(button.disabled for button in rates)
    for _ in range(3):
        onward.click()
    assert onward.disabled
    assert "<strong>Red flags</strong>" in text.value
    rates[2].click()
    assert learner.ratings() == {session.questions[0].id: [(2, clock.now)]}
    assert "Question 2 of 2" in text.value
    assert "30 seconds" not in text.value
    assert not onward.disabled
    onward.click()
    rates[0].click()
    assert "Read again" in text.value
    assert onward.disabled
    assert all(button.disabled for button in rates)


def test_buttons_follow_when_the_session_went_on_without_them():
    pytest.importorskip("ipywidgets")
    session = interview.start(6, topics="loss", clock=Clock())
    _, text, onward, rates = parts(buttons.panel(session))
    onward.click()
    session.rate(3)
    rates[1].click()
    assert list(session.ratings.values()) == [3]
    assert "Question 2 of 2" in text.value
    assert "30 seconds" not in text.value


def test_shown_in_a_notebook_it_has_buttons_and_a_text_that_never_changes(monkeypatch):
    session = interview.start(20, clock=Clock())
    bundle = session._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == repr(session)
    assert repr(session).startswith("Interview: 6 questions in 20 minutes.")
    monkeypatch.setitem(__import__("sys").modules, "ipywidgets", None)
    assert session._repr_mimebundle_() == {"text/plain": repr(session)}


def test_no_output_widget_no_interact_no_thread():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(interview.__file__).parent.glob("*.py"))
    assert "ipywidgets.Button" in source
    assert not re.search(r"ipywidgets\.(Output|interact)|threading|sleep", source)


# Drills.


def test_every_drill_has_its_exercise():
    missing = sorted(set(interview.DRILLS) - EVERY_EXERCISE)
    assert missing == [], f"no lesson has these exercises yet: {missing}"


def test_the_ten_drills_have_their_points():
    assert list(interview.DRILLS) == [
        "tokenize_with_mask", "collate_kto", "get_probs", "sequence_logps", "reference_point", "kto_loss",
        "kto_gradient", "dpo_loss", "causal_attention", "rotary",
    ]  # fmt: skip
    for task in interview.DRILLS.values():
        assert 3 <= len(task.listens_for) <= 5
        assert len(set(task.listens_for)) == len(task.listens_for)
        assert task.minutes <= 14  # the mock interview's blank page


def function_of(id):
    """Our solution as a function, run with the imports of the notebook whose page it is, and nothing else."""
    source = checks.solved_cell(id)[0]
    names = {"__name__": "lesson_13"}
    (path,) = (path for path in SOURCES if re.search(rf'exercise="(?:drill_)?{id}"', path.read_text(encoding="utf-8")))
    imports = [n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.Import | ast.ImportFrom)]
    exec(compile(ast.Module(imports, []), "imports", "exec"), names)
    exec(source, names)
    return names[next(n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))]


@pytest.mark.parametrize("id", READY)
def test_a_drill_shows_a_hole_refuses_wrong_answers_and_passes_ours(id, capsys):
    clock = Clock()
    drill = interview.drill(id, clock=clock)
    task = capsys.readouterr().out
    assert "...  # your code here" in task
    solution = function_of(id)
    body = [line for line in checks.solved_cell(id)[0].splitlines() if "return" in line and "Returns" not in line]
    assert not any(line in task.splitlines() for line in body)
    assert "SOLUTION" not in task
    names = {}
    exec("from __future__ import annotations\n" + drill.stub, vars(__import__("torch")) | {}, names)
    clock.now += datetime.timedelta(seconds=30)
    drill.check(names[drill.name])
    assert "not done yet" in capsys.readouterr().out
    assert learner.drills() == {}
    for wrong in (lambda *a, **k: 0.123, lambda *a, **k: a[0], lambda *a, **k: 1 / 0):
        drill.check(wrong)
        assert "not right yet" in capsys.readouterr().out
    drill.solution()
    assert capsys.readouterr().out == "The clock still runs. solution(now=True) shows it all the same.\n"
    drill.check(solution)
    told = capsys.readouterr().out
    assert told.startswith("passed: ")
    drill.solution()
    shown = capsys.readouterr().out
    assert told.partition("An interviewer")[1:] == shown.partition("An interviewer")[1:]
    assert checks.solved_cell(id)[0].strip() in shown
    assert shown.count("\n- ") == len(interview.DRILLS[id].listens_for)
    assert [(passed, seconds) for passed, seconds, _ in learner.drills()[id]] == [(False, 30.0)] * 3 + [(True, 30.0)]
    assert learner.exercises()[id]["passes"] == 1


def test_after_the_time_it_says_so_and_still_checks(capsys):
    clock = Clock()
    drill = interview.drill(READY[0], minutes=2, clock=clock)
    solution = function_of(READY[0])
    clock.now += datetime.timedelta(seconds=120)
    drill.check(solution)
    assert "are over" not in capsys.readouterr().out
    clock.now += datetime.timedelta(seconds=1)
    assert drill.time_used() == "2:01 of 2:00 used"
    late = interview.drill(READY[0], minutes=2, clock=clock)
    clock.now += datetime.timedelta(minutes=3)
    capsys.readouterr()
    late.check(lambda *a: 1)
    out = capsys.readouterr().out
    assert "not right yet" in out
    assert out.endswith("The 2 minutes are over. Finish it all the same; the next time it goes faster.\n")
    late.solution()
    assert "listens for" in capsys.readouterr().out
    late.check(solution)
    assert capsys.readouterr().out.startswith("passed: ")
    interview.times()
    table = capsys.readouterr().out
    assert re.search(rf"{READY[0]} +3 +2 +2:00 +\d+:00", table)


def test_after_a_syntax_error_the_older_function_is_not_judged(capsys, monkeypatch):
    drill = interview.drill("reference_point", clock=Clock())
    older = function_of("reference_point")
    monkeypatch.setitem(checks.unread, "my_reference_point", "expected ':', line 1")
    capsys.readouterr()
    drill.check(older)
    out = capsys.readouterr().out
    assert "could not read the cell" in out
    assert "listens for" not in out
    assert not drill.passed
    assert learner.drills() == learner.exercises() == {}
    monkeypatch.delitem(checks.unread, "my_reference_point")
    drill.check(older)
    assert capsys.readouterr().out.startswith("passed: ")
    assert len(learner.drills()["reference_point"]) == 1


def test_the_packages_own_function_is_no_answer_to_a_drill(capsys):
    drill = interview.drill("reference_point", clock=Clock())
    drill.check(losses.reference_point)
    assert "the package's own function" in capsys.readouterr().out
    assert learner.drills() == learner.exercises() == {}
    assert engine.attempt(drill.exercise, losses.reference_point).state == "refused"


def test_a_page_says_what_it_is_without_an_address():
    assert repr(interview.drill("kto_loss")).startswith("Blank page kto_loss: .check(my_kto_loss) tries it")


def test_before_the_first_drill_the_table_is_empty(capsys):
    interview.times()
    assert capsys.readouterr().out == "No drill yet.\n"


@pytest.mark.parametrize(
    ("arguments", "words"), [(("kto",), "there are tokenize_with_mask"), (("get_probs", 0), "pos")]
)
def test_a_drill_that_cannot_be_is_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        interview.drill(*arguments)


# The mock interview.


def check_the_mocks(mocks):
    """Different topics, rising difficulty, all core but the hard one at the end, which is no detail."""
    for mock in mocks:
        assert len({q.topic for q in mock.questions}) == len(mock.questions) == 4
        assert [q.difficulty for q in mock.questions] == [1, 2, 2, 3]
        assert all(q.core for q in mock.questions[:3])
        assert not mock.questions[3].detail


def test_the_mock_interview_takes_45_minutes_and_asks_core_questions():
    assert sum(minutes for minutes, _, _ in for_two.SLOTS) == 45
    mocks = [interview.mock(seed) for seed in range(40)]
    check_the_mocks(mocks)
    assert mocks == [interview.mock(seed) for seed in range(40)]
    assert all(mock.drill in interview.DRILLS for mock in mocks)
    assert len({mock.questions[0].id for mock in mocks}) > 4
    assert len({mock.drill for mock in mocks}) > 5
    heard = {question.id for mock in mocks for question in mock.questions}
    assert len({q.id for q in BANK if q.core} & heard) > 18


def test_a_mock_that_leaves_the_core_out_is_noticed(monkeypatch):
    monkeypatch.setattr(for_two, "bank", lambda: tuple(not_core(BANK)))
    outside = for_two.questions_for([1, 2, 2, 3], 0)  # the bank knows no core: the rest is taken
    assert len(outside) == 4
    with pytest.raises(AssertionError):
        check_the_mocks([for_two.Mock(tuple(outside), "kto_loss")])


def test_a_new_question_does_not_reshuffle_the_drawn_ones(monkeypatch):
    before = for_two.lot(7, "kto_data")
    monkeypatch.setattr(for_two, "bank", lambda: (*BANK, replace(BANK[-1], id="one_more")))
    assert for_two.lot(7, "kto_data") == before
    assert len({for_two.lot(seed, "kto_data") for seed in range(9)}) == 9


def test_the_candidate_sees_no_question_and_the_interviewer_all():
    mock = interview.mock(3)
    assert mock.candidate().splitlines()[-1].startswith("| 42 | 45 |")
    for question in mock.questions:
        text = question.question.strip()
        assert text not in mock.candidate()
        for part in (text, question.short.strip(), question.long.strip(), question.red_flags[0].why.strip()):
            assert part in mock.interviewer()
    assert all(point in mock.interviewer() for point in interview.DRILLS[mock.drill].listens_for)
    assert mock.drill not in mock.candidate()


# The mock interview alone.


class Typing:
    """Types the lines it was given; every line takes some seconds on the clock."""

    def __init__(self, monkeypatch, clock, *lines, seconds=20):
        self.left, self.prompts = list(lines), []

        def answer(prompt):
            self.prompts.append(prompt)
            clock.now += datetime.timedelta(seconds=seconds)
            if not self.left:
                raise EOFError
            return self.left.pop(0)

        monkeypatch.setattr(builtins, "input", answer)


def test_alone_it_asks_without_answers_and_then_reviews_and_notes(monkeypatch, capsys):
    clock = Clock()
    typing = Typing(monkeypatch, clock, *[""] * 9, "2", "seven", "0", "3")
    session = alone.alone(15, seed=3, clock=clock)
    assert typing.left == []
    out = capsys.readouterr().out
    first, second, third = session.questions
    during, after = out.split("The interview is over: 3:00 of 15:00 used.")
    for question in session.questions:
        assert question.question.strip() in during
        assert question.short.strip() not in during
        assert question.short.strip() in after
        assert question.red_flags[0].why.strip() in after
    told = [" ".join(q.follow_ups[0].question.split()) for q in session.questions]
    assert [any(text in prompt for prompt in typing.prompts) for text in told] == [True] * 3
    assert during.count("0:20 of 0:30") == during.count("0:20 of 3:00") == 3
    assert "too long" not in during
    assert "| 0:20 | 0:20 | 0:20 |" in after
    rated = {id: [rating for rating, _ in history] for id, history in learner.ratings().items()}
    assert rated == {first.id: [2], second.id: [0], third.id: [3]}
    assert "Read again" in after


def test_alone_the_clock_ends_the_interview(monkeypatch, capsys):
    clock = Clock()
    Typing(monkeypatch, clock, *[""] * 5, "1", "1", seconds=61)
    session = alone.alone(5, seed=3, clock=clock)
    out = capsys.readouterr().out
    assert out.count("1:01 of 0:30, too long") == 1
    assert out.count("1:01 of 3:00\n") == 1
    assert len(session.questions) == 1
    clock = Clock()
    Typing(monkeypatch, clock, *[""] * 9, "1", "1", seconds=100)
    session = alone.alone(15, seed=3, clock=clock)  # nine stages of 100 seconds are just 15 minutes
    assert len(session.questions) == 3
    Typing(monkeypatch, clock, *[""] * 9, "1", "1", seconds=301)
    session = alone.alone(15, seed=3, clock=clock)
    out = capsys.readouterr().out
    assert len(session.questions) == 1
    assert "| 5:01 | 5:01 | 5:01 |" in out


def test_alone_it_ends_when_asked_and_shows_what_was_met(monkeypatch, capsys):
    clock = Clock()
    Typing(monkeypatch, clock, "", "q", "2")
    session = alone.alone(30, seed=1, remember=False, clock=clock)
    out = capsys.readouterr().out
    assert len(session.questions) == 1
    assert "| 0:20 | - | - |" in out
    assert list(session.ratings.values()) == [2]
    assert learner.ratings() == {}
    Typing(monkeypatch, clock, "q")
    assert alone.alone(30, seed=1, remember=False, clock=clock).ratings == {}


@pytest.mark.parametrize(("minutes", "wanted"), [(3, [1]), (10, [1, 3]), (15, [1, 2, 3]), (45, [1, *[2] * 7, 3])])
def test_alone_there_is_a_question_for_every_five_minutes(minutes, wanted):
    assert alone.difficulties(minutes) == wanted
    questions = for_two.questions_for(wanted, 5)
    assert len(set(questions)) == len(wanted)
    assert all(question.core for question in questions if question.difficulty < 3)


def test_alone_every_day_brings_another_interview_and_a_seed_the_same(monkeypatch):
    def asked(day=0, **seed):
        clock = Clock(NOON + day * DAY)
        Typing(monkeypatch, clock, *[""] * 9)
        return [q.id for q in alone.alone(15, remember=False, clock=clock, **seed).questions]

    assert asked(0) == asked(0)
    assert len({tuple(asked(day)) for day in range(5)}) > 3
    assert asked(0, seed=3) == asked(4, seed=3)


def test_on_the_command_line_a_mock_is_a_mock(monkeypatch, capsys):
    Typing(monkeypatch, Clock(), "", "", "", "2")
    terminal.main(["--mock", "5", "--seed", "3"])
    assert "Mock interview: 1 question in 5 minutes, seed 3." in capsys.readouterr().out
    for wrong, told in (
        (["--mock", "30", "--topics", "loss"], "leave --topics out"),
        (["--seed", "3"], "--seed draws a mock"),
        (["--mock", "0"], "must be positive"),
    ):
        with pytest.raises(SystemExit):
            terminal.main(wrong)
        assert told in capsys.readouterr().err


def test_the_scoring_sheet_has_anchors_for_1_3_and_5():
    sheet = (ROOT / "notebooks" / "handouts" / "scoring_sheet.md").read_text(encoding="utf-8")
    rows = [line.strip("| \n").split("|") for line in sheet.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]] == ["what", "1", "3", "5", "score"]
    assert len(rows[2:]) == 6
    assert all(cell.strip() for row in rows[2:] for cell in row[:4])
    assert "6 to 30" in sheet


# The lesson.


def lesson_cells():
    return [cell for path in SOURCES for cell in re.split(r"^# %%", path.read_text(encoding="utf-8"), flags=re.M)]


def test_each_drill_is_a_page_of_the_lesson_with_the_cell_of_its_own_lesson():
    """The build fills it in; its grade id is another, so nothing counts twice."""
    own = checks.ids_by_lesson()[13]
    names = {id if id in own else f"drill_{id}" for id in interview.DRILLS}
    found = [name for cell in lesson_cells() for name in re.findall(r'^ exercise="(\w+)"', cell)]
    assert len(found) == len(set(found))
    assert set(found) == names
    assert not {f"drill_{id}" for id in interview.DRILLS} & EVERY_EXERCISE
    cells = [cell for path in SOURCES for cell in build.read_source(path, 1).cells if "nbgrader" in cell.metadata]
    pages = {cell.metadata.nbgrader.grade_id: cell.source for cell in cells}
    for name in names:
        body = [line for line in pages[name].splitlines() if "### " not in line]
        assert "\n".join(body).strip() == checks.solved_cell(name.removeprefix("drill_"))[0].strip()
        assert pages[name].count("### BEGIN SOLUTION") == pages[name].count("### END SOLUTION") == 1


def test_each_page_has_a_variable_of_its_own_and_is_checked_with_its_own_function():
    """So a page whose clock was not started is a NameError, never a judgement on another page's task."""
    cells = lesson_cells()
    started = [
        (i, *re.search(r'^(\w+) = interview\.drill\("(\w+)"\)$', cell, flags=re.M).groups())
        for i, cell in enumerate(cells)
        if "= interview.drill(" in cell and "[markdown]" not in cell
    ]
    assert {id for _, _, id in started} == set(interview.DRILLS) - set(checks.ids_by_lesson()[13])
    for at, variable, id in started:
        assert variable == f"{id}_page"
        assert cells[at + 1].startswith(f' exercise="drill_{id}"')
        assert cells[at + 2].strip() == f"{variable}.check(my_{id})"
