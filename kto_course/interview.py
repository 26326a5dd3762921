"""Interview practice: questions drawn by what you got wrong, blank-page drills against the clock, a mock interview.

Lesson 13 uses it. The questions stand in `questions.yaml`, the drills are exercises of the other lessons, and what you
rated and how long you took goes into your progress file (`kto_course.learner`), on this machine only.

    python -m kto_course.interview --minutes 20 --topics loss reference_point      asks in the terminal

How questions are drawn. First those you rated 0 or 1 when last asked; then new or due ones from lessons with an
exercise that you failed at your last try; then the due ones, the longest overdue first; then new ones; last of all
those that are not due yet. Equals come in an order that depends on the seed and their names alone.

When a question is due. A rating of 2 moves it one step along INTERVALS, a 3 moves it two, a 0 or 1 back to the
start. A 2 or 3 for a question that was not due yet changes nothing: repeating it ten times in an evening is no proof
that you know it next week.
"""

import argparse
import ast
import contextlib
import datetime
import functools
import random
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from kto_course import NOTEBOOKS, checks, learner
from kto_course.checks import engine
from kto_course.questions import Question, load_questions

INTERVALS = (1, 3, 7, 16)  # days until a question comes again, after 1, 2, 3, 4 or more steps
MINUTES_A_QUESTION = 3  # to think, to say it aloud and to read the answer
RATINGS = ("no idea", "with gaps", "could say it", "could teach it")
RUNGS = ("30 seconds", "3 minutes", "What they ask next", "Red flags")
SCORING_SHEET = NOTEBOOKS / "handouts" / "scoring_sheet.md"

History = Sequence[tuple[int, datetime.datetime]]  # (rating, when) of one question


def _now() -> datetime.datetime:
    return datetime.datetime.now().astimezone()


class Card(str):
    """A text in markdown: JupyterLab renders it, `print` shows it as it is."""

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


# Which question comes when.


def due(history: History, timezone: datetime.tzinfo | None = None) -> datetime.date | None:
    """The day on which a question comes again.

    Args:
        history: its (rating, when), the oldest first; `when` with a time zone.
        timezone: in which a day begins at midnight; None is that of the entries.

    Returns:
        The date, that of the last rating itself if it went badly; None if the question was never asked.
    """
    step, again = 0, None
    for rating, when in history:
        today = (when.astimezone(timezone) if timezone else when).date()
        if rating < 2:
            step = 0
        elif step == 0 or today >= again:
            step = min(step + rating - 1, len(INTERVALS))
        else:
            continue
        again = today + datetime.timedelta(days=INTERVALS[step - 1] if step else 0)
    return again


def _lot(seed: int, id: str) -> float:
    """A number drawn for this name, the same whatever else is in the bank: new questions do not reshuffle old ones."""
    return random.Random(f"{seed} {id}").random()


def draw(
    questions: Sequence[Question],
    count: int,
    histories: Mapping[str, History],
    failed_lessons: Collection[str],
    now: datetime.datetime,
    seed: int,
) -> list[Question]:
    """The `count` questions that this learner needs most, by the rule at the top of the module.

    Args:
        histories: question id -> (rating, when), the oldest first.
        failed_lessons: two digits each; lessons with an exercise that was wrong at the last try.
        now: the present, with a time zone.
        seed: decides the order among equals.
    """
    today = now.date()

    def need(question: Question) -> tuple[int, int]:
        history = histories.get(question.id, ())
        if history and history[-1][0] < 2:
            return 0, history[-1][0]
        late = (today - due(history, now.tzinfo)).days if history else 0
        if late < 0:
            return 4, -late
        if question.lesson in failed_lessons:
            return 1, -late
        return (2, -late) if history else (3, 0)

    return sorted(questions, key=lambda question: (need(question), _lot(seed, question.id)))[:count]


def _histories() -> dict[str, History]:
    """Ratings from the progress file, in the order of time, without those that are none of ours."""
    found = {id: sorted(h, key=lambda entry: entry[1]) for id, h in learner.ratings().items()}
    return {id: [entry for entry in h if entry[0] in range(len(RATINGS))] for id, h in found.items()}


def _failed_lessons() -> set[str]:
    return {f"{entry['lesson']:02d}" for entry in learner.exercises().values() if entry["last_fault"]}


@functools.cache
def _bank() -> tuple[Question, ...]:
    return tuple(load_questions())


def topics() -> list[str]:
    """The topics of the question bank."""
    return sorted({question.topic for question in _bank()})


def _on(wanted: str | Sequence[str] | None) -> Sequence[Question]:
    questions = _bank()
    if wanted is None:
        return questions
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    known = {question.topic for question in questions}
    unknown = [topic for topic in wanted if topic not in known]
    if unknown or not wanted:
        found = ", ".join(map(repr, unknown)) or "no topic at all"
        raise ValueError(f"topics: found {found}; there are {', '.join(sorted(known))}. None takes all of them")
    return [question for question in questions if question.topic in wanted]


# How a question looks.


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def _asked(question: Question) -> str:
    choices = [f"- {_letter(i)}) {text}" for i, text in enumerate(question.choices)]
    return "\n".join([question.question.strip(), *(["", *choices] if choices else [])])


def _quoted(text: str) -> str:
    return textwrap.indent(text.strip(), "> ", lambda line: True)


def _rung(question: Question, rung: int) -> str:
    """One rung of the answer ladder, with its heading."""
    if rung == 0:
        text = question.short.strip()
        if question.kind == "choice":
            text = f"**{_letter(question.answer)}).** {text}"
        elif question.kind == "number":
            text = f"**{question.answer}.** {text}"
    elif rung == 1:
        text = question.long.strip()
    elif rung == 2:
        text = "\n\n".join(f"{_quoted(f.question)}\n\n{f.answer.strip()}" for f in question.follow_ups)
    else:
        text = "\n\n".join(f"{_quoted(flag.said)}\n\n{flag.why.strip()}" for flag in question.red_flags)
    return f"**{RUNGS[rung]}**\n\n{text}"


def _days(number: int) -> str:
    return "today" if number == 0 else "tomorrow" if number == 1 else f"in {number} days"


class Session:
    """One sitting: questions one after the other, each with its ladder of answers and your rating.

    `question()`, `answer()` once for each rung, `rate(0 to 3)`, then the next `question()`; `summary()` at any time.
    As the last line of a cell in JupyterLab a session shows itself with buttons.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        minutes: float,
        histories: Mapping[str, History],
        remember: bool,
        clock: Callable[[], datetime.datetime],
    ):
        self.questions, self.minutes = tuple(questions), minutes
        self.ratings: dict[str, int] = {}  # question id -> rating, of this sitting
        self._histories, self._remember, self._clock = dict(histories), remember, clock
        self.rungs = 0  # of the present question's ladder, shown so far
        self._began = clock()

    @property
    def current(self) -> Question | None:
        """The question that is being asked; None after the last one."""
        at = len(self.ratings)
        return self.questions[at] if at < len(self.questions) else None

    def question(self) -> Card:
        """The present question; after the last one, the summary."""
        question = self.current
        if question is None:
            return self.summary()
        stars = "★" * question.difficulty + "☆" * (3 - question.difficulty)
        place = f"Question {len(self.ratings) + 1} of {len(self.questions)}"
        return Card(f"**{place}** · {question.topic.replace('_', ' ')} · {stars}\n\n{_asked(question)}")

    def answer(self) -> Card:
        """The next rung of the answer ladder: 30 seconds, 3 minutes, what they ask next, red flags; then all again."""
        if self.current is None:
            return self.summary()
        if self.rungs == len(RUNGS):
            return Card("\n\n".join(_rung(self.current, rung) for rung in range(len(RUNGS))))
        self.rungs += 1
        return Card(_rung(self.current, self.rungs - 1))

    def rate(self, rating: int) -> Card:
        """Notes how your own answer was and goes on: 0 no idea, 1 with gaps, 2 could say it, 3 could teach it.

        Raises:
            ValueError: another rating, an answer that was not looked at yet, or no question left.
        """
        if isinstance(rating, bool) or rating not in range(len(RATINGS)):
            names = ", ".join(f"{i} ({name})" for i, name in enumerate(RATINGS))
            raise ValueError(f"rating is {rating!r}; it must be one of {names}")
        if self.current is None:
            raise ValueError("all questions of this session are rated; begin another one with interview.start()")
        if self.rungs == 0:
            raise ValueError("look at the answer before you rate your own: session.answer()")
        id, when = self.current.id, self._clock()
        self._histories[id] = [*self._histories.get(id, ()), (int(rating), when)]
        if self._remember:
            learner.record_rating(id, int(rating), when)
        self.ratings[id] = int(rating)
        self.rungs = 0
        left = len(self.questions) - len(self.ratings)
        follows = f"{left} to go." if left else "That was the last one."
        return Card(f"Noted: {rating}, {RATINGS[rating]}. It comes again {self._again(id)}. {follows}")

    def _again(self, id: str) -> str:
        now = self._clock()
        return _days(max(0, (due(self._histories[id], now.tzinfo) - now.date()).days))

    def summary(self) -> Card:
        """What was rated so far, when it comes again, and what to read before."""
        if not self.ratings:
            return Card("Nothing is rated yet: session.question(), session.answer(), session.rate(2).")
        asked = self.questions[: len(self.ratings)]
        lines = ["| question | your rating | comes again |", "|---|---|---|"]
        for question in asked:
            rating = self.ratings[question.id]
            name, again = question.id.replace("_", " "), self._again(question.id)
            lines.append(f"| {name} | {rating}, {RATINGS[rating]} | {again} |")
        reread = dict.fromkeys(f"lesson {q.lesson}, *{q.section}*" for q in asked if self.ratings[q.id] < 2)
        if reread:
            lines += ["", "Read again: " + "; ".join(reread) + "."]
        return Card("\n".join(lines))

    def time_used(self) -> str:
        """Minutes and seconds since the session began, and what was planned."""
        return _clock_face((self._clock() - self._began).total_seconds(), self.minutes)

    def __repr__(self) -> str:
        size = f"{len(self.questions)} questions in {self.minutes:g} minutes"
        return f"Interview: {size}. JupyterLab shows buttons here; .question(), .answer() and .rate(2) do the same."

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        with contextlib.suppress(ImportError):
            return dict(panel(self)._repr_mimebundle_()) | {"text/plain": repr(self)}
        return {"text/plain": repr(self)}


def start(
    minutes: float = 20,
    topics: str | Sequence[str] | None = None,
    seed: int = 0,
    *,
    widgets: bool = True,
    remember: bool = True,
    clock: Callable[[], datetime.datetime] = _now,
) -> Session:
    """A session with the questions that you need most; about MINUTES_A_QUESTION minutes for each.

    Args:
        minutes: how long you want to practise; at least one question is drawn.
        topics: a topic, several, or None for all; `interview.topics()` lists them.
        seed: another one draws in another order among questions that are equally urgent.
        widgets: True returns at once, and the session shows buttons in JupyterLab; False asks with `input` first,
            for a terminal.
        remember: False neither reads nor writes your progress file: as for a new learner.
        clock: gives the present with its time zone.

    Raises:
        ValueError: minutes that are not positive, a topic that the bank does not have.
    """
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes!r}; it must be positive")
    histories = _histories() if remember else {}
    failed = _failed_lessons() if remember else set()
    count = max(1, int(minutes // MINUTES_A_QUESTION))
    questions = draw(_on(topics), count, histories, failed, clock(), seed)
    session = Session(questions, minutes, histories, remember, clock)
    if not widgets:
        _ask_in_text(session)
    return session


def _ask_in_text(session: Session) -> None:
    """Asks with input and print. An empty line goes on, q ends."""

    def ask(prompt: str) -> str:
        text = input(f"{prompt} ").strip().lower()
        if text == "q":
            raise EOFError
        return text

    try:
        while session.current is not None:
            print(f"\n{session.question()}\n")
            for name in RUNGS:
                ask(f"[Enter: {name.lower()}, q: end]")
                print(f"\n{session.answer()}\n")
            while (text := ask("Your answer was [0 to 3, q: end]")) not in map(str, range(len(RATINGS))):
                print(", ".join(f"{i}: {name}" for i, name in enumerate(RATINGS)))
            print(session.rate(int(text)), f"{session.time_used()}.")
    except (EOFError, KeyboardInterrupt):
        print("\nEnded.")
    print(f"\n{session.summary()}")


def panel(session: Session):
    """The session as an ipywidgets box: text, one button for the next rung, four for the rating. No Output widget."""
    import ipywidgets
    from nbconvert.filters import markdown2html

    text = ipywidgets.HTMLMath()
    time = ipywidgets.HTML()
    onward = ipywidgets.Button(layout=ipywidgets.Layout(width="auto"), button_style="primary")
    rates = [ipywidgets.Button(description=f"{i}: {name}") for i, name in enumerate(RATINGS)]
    noted: list[str] = []

    def redraw():
        rungs = [_rung(session.current, rung) for rung in range(session.rungs)]
        text.value = "".join(markdown2html(part) for part in (*noted, session.question(), *rungs))
        time.value = f"<small>{session.time_used()}, {len(session.ratings)} of {len(session.questions)} rated</small>"
        over = session.current is None
        onward.disabled = over or session.rungs == len(RUNGS)
        following = RUNGS[min(session.rungs, len(RUNGS) - 1)]
        onward.description = "Done" if over else f"Show: {following[0].lower()}{following[1:]}"
        for button in rates:
            button.disabled = over or session.rungs == 0

    def next_rung(_):
        session.answer()
        redraw()

    def rated(rating):
        if session.rungs:  # else somebody called session.rate() meanwhile: show where it stands
            noted[:] = [session.rate(rating)]
        redraw()

    onward.on_click(next_rung)
    for i, button in enumerate(rates):
        button.on_click(lambda _, rating=i: rated(rating))
    redraw()
    return ipywidgets.VBox([time, text, onward, ipywidgets.HBox(rates)])


# Blank-page drills.


@dataclass(frozen=True)
class Task:
    """A drill: an exercise of another lesson, written from nothing.

    Fields:
        minutes: what a candidate gets.
        allowed: what may be used beside torch.
        listens_for: what the interviewer wants to see or hear.
    """

    minutes: int
    allowed: str
    listens_for: tuple[str, ...]


DRILLS = {
    "tokenize_with_mask": Task(
        8,
        "the tokenizer you are handed",
        (
            "`<eos>` is appended to the completion and scored: nothing else teaches the model to stop.",
            "The prompt's tokens get 0 in the mask, a start token with them: the model did not write them.",
            "You say where prompt and completion meet: tokenised apart, the tokens at the border may differ from those "
            "of the whole text. Decide for one of the two and keep to it.",
            "A completion that is empty, or cut away to nothing, is no row: its log-ratio would be 0 for ever and put "
            "the constant w/2 into the loss.",
            "A special name in the text stays text: a user who types `<eos>` must not end the reply.",
        ),
    ),
    "collate_kto": Task(
        12,
        "lists, and torch for the tensors",
        (
            "Padding goes to the right, with 0 in the attention mask and in the label mask. The masks decide, not the "
            "id, so a pad token equal to `<eos>` does no harm.",
            "Borrowed completions: rotate by one. That mismatches every row of any batch from two on; reversing leaves "
            "the middle row of an odd batch with its own completion.",
            "A batch of one has nobody to borrow from: raise an error. A matched pair gives a loss stuck at w/2.",
            "Neighbours with the same prompt are not mismatched by a rotation; say it, and shuffle before batching.",
            "Borrowed rows carry no thumb. Nobody judged them.",
        ),
    ),
    "get_probs": Task(
        8,
        "torch",
        (
            "The shift, before anything else: the logits at place t are about token t + 1.",
            "The mask is cut like the token ids, because it belongs to the token that is predicted.",
            "`log_softmax`, not the logarithm of a softmax: an unlikely token would round to log 0.",
            "Unscored places are assigned 0. Multiplying by the mask gives NaN where a forbidden word has -inf.",
            "You test it: logits that put everything on the *next* token must give about 0.",
        ),
    ),
    "sequence_logps": Task(
        6,
        "torch",
        (
            "A sum over the completion's tokens, in nats. Neither KTO nor DPO divides by the length.",
            "Why not the mean: the probability of a reply is a product, so its logarithm is a sum. Two halves of a "
            "reply then add up to the whole.",
            "`mask.sum()` over the batch would make a reply depend on its neighbours, and beta on the batch size.",
            "`<eos>` is one of the tokens.",
            "The price, said without being asked: long replies have larger log-ratios and saturate sooner.",
        ),
    ),
    "reference_point": Task(
        5,
        "torch",
        (
            "Mismatched completions. The batch's own rows were picked to be good or bad, so their log-ratios are no "
            "background level.",
            "Mean first, then the clamp: log-ratios -3 and 5 give 1, not 2.5.",
            "Detached: a constant, which only decides where the loss saturates.",
            "In nats; beta is not in it.",
            "It is no unbiased estimate of the KL: it is often 0 while the true KL is not.",
        ),
    ),
    "kto_loss": Task(
        10,
        "torch",
        (
            "The label picks the branch and the weight. The sign of r - z0 does not.",
            "`sigmoid(-u)`, not `1 - sigmoid(u)`: in float32 the latter is exactly 0 from u = 17 on, its gradient too.",
            "beta once, around the whole of r - z0; z0 is handed over in nats and gets no gradient.",
            "A value to check by: with policy equal to reference the batch loss is half the mean weight.",
            "No hinge, no logarithm; bounded by the weight, and flat on both sides.",
        ),
    ),
    "kto_gradient": Task(
        8,
        "torch, without autograd",
        (
            "-s * w * beta * sigmoid(u) * sigmoid(-u) for each row, with u = s * beta * (r - z0); divided by N for the "
            "mean of a batch.",
            "The sign: it lowers the loss to raise r of a thumb up and to lower r of a thumb down, always.",
            "Largest at r = z0, with w * beta / 4.",
            "It vanishes on both sides. KTO gives up on hopeless rows; DPO does not.",
            "z0 is a constant in this derivative. You compare with autograd, or with a difference quotient.",
        ),
    ),
    "dpo_loss": Task(
        6,
        "torch",
        (
            "Four log-probabilities, two log-ratios, one difference: chosen minus rejected, policy minus reference.",
            "`-logsigmoid(x)`, which stays finite; `-log(sigmoid(x))` does not.",
            "A value to check by: ln 2 while policy and reference agree.",
            "It sees only the difference: add the same number to both log-ratios and nothing changes. Both replies may "
            "become unlikely while the margin grows.",
            "Sums over tokens here too, and no gradient into the reference.",
        ),
    ),
    "causal_attention": Task(
        10,
        "torch, without its ready-made attention",
        (
            "Scores are divided by the square root of the head's size, before the softmax.",
            "The future gets -inf before the softmax, not 0 after it: the rest must still add up to 1.",
            "The diagonal stays: a token may look at itself. A row without any key would be NaN.",
            "The softmax runs over the keys, the last axis.",
            "You test it: change one token, and nothing before it may change.",
        ),
    ),
    "rotary": Task(
        12,
        "torch",
        (
            "Queries and keys are turned, values are not.",
            "The angle is the position times a frequency that falls geometrically from pair to pair.",
            "Which entries form a pair: in the library's Llama, entry i goes with entry i + d/2. Say which you use.",
            "Lengths stay, and position 0 is left alone.",
            "The point of it all: a score then depends on the distance of two positions only.",
        ),
    ),
}


def _clock_face(seconds: float, minutes: float) -> str:
    used, planned = max(0, int(seconds)), int(minutes * 60)
    return f"{used // 60}:{used % 60:02d} of {planned // 60}:{planned % 60:02d} used"


class Drill:
    """One blank page: the task is printed and the clock runs from the moment the drill is made."""

    def __init__(self, id: str, minutes: float, clock: Callable[[], datetime.datetime]):
        self.exercise, self.task, self.minutes = checks.find(id), DRILLS[id], minutes
        self.passed = False
        self._clock = clock
        source, solved = checks.solved_cell(id)
        lines = source.splitlines()
        hole = lines[solved[0] - 1]
        indent = hole[: len(hole) - len(hole.lstrip())]
        self.stub = "\n".join([*lines[: solved[0] - 1], f"{indent}...  # your code here", *lines[solved[-1] :]])
        self.name = next(node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
        print(f"Blank page: {self.exercise.title} (lesson {self.exercise.lesson:02d}), {minutes:g} minutes.")
        print(f"You may use {self.task.allowed}. No lesson, no search.\n\n{self.stub}\n")
        print(f"The clock runs. drill.check({self.name}) tries your function.")
        self._began = clock()

    def _seconds(self) -> float:
        return max(0.0, (self._clock() - self._began).total_seconds())

    def time_used(self) -> str:
        """Minutes and seconds since the task was shown, and how many there are."""
        return _clock_face(self._seconds(), self.minutes)

    def check(self, answer) -> None:
        """Tries an answer with the exercise's own check, notes outcome and time, and prints the report.

        A late answer is checked all the same. An open one ("not done yet") is not noted.
        """
        seconds = self._seconds()
        outcome = engine.judge(self.exercise, answer)
        self.passed = self.passed or outcome.state == "passed"
        learner.record_try(self.exercise.id, self.exercise.lesson, outcome.state, outcome.fault)
        if outcome.state != "open":
            learner.record_drill(self.exercise.id, outcome.state == "passed", seconds, self._clock())
        print(engine.report(self.exercise, outcome))
        if seconds > self.minutes * 60:
            print(f"The {self.minutes:g} minutes are over. Finish it all the same; the next time it goes faster.")

    def solution(self, now: bool = False) -> None:
        """Prints our solution and what an interviewer listens for.

        While the time runs and nothing has passed it waits, so that running all cells gives nothing away;
        `now=True` shows it at once.
        """
        if not (now or self.passed or self._seconds() > self.minutes * 60):
            print("The clock still runs. drill.solution(now=True) shows it all the same.")
            return
        checks.check.solution(self.exercise.id)
        print("\nAn interviewer listens for:")
        for point in self.task.listens_for:
            print(f"- {point}")


def drill(id: str, minutes: float | None = None, *, clock: Callable[[], datetime.datetime] = _now) -> Drill:
    """Prints a task and starts the clock.

    Args:
        id: a key of DRILLS.
        minutes: None takes the drill's own.

    Raises:
        ValueError: no such drill, minutes that are not positive.
    """
    if id not in DRILLS:
        raise ValueError(f"there is no drill {id!r}; there are {', '.join(DRILLS)}")
    minutes = DRILLS[id].minutes if minutes is None else minutes
    if not minutes > 0:
        raise ValueError(f"minutes is {minutes!r}; it must be positive")
    return Drill(id, minutes, clock)


def times() -> None:
    """Prints how often each drill was tried and passed, and the best time."""
    done = learner.drills()
    if not any(id in DRILLS for id in done):
        print("No drill yet.")
        return
    print(f"{'drill':<20} {'tries':>5} {'passed':>6} {'best':>7} {'given':>6}")
    for id, task in DRILLS.items():
        tries = done.get(id, [])
        best = min((seconds for passed, seconds, _ in tries if passed), default=None)
        shown = "-" if best is None else f"{int(best) // 60}:{int(best) % 60:02d}"
        print(f"{id:<20} {len(tries):>5} {sum(t[0] for t in tries):>6} {shown:>7} {f'{task.minutes}:00':>6}")


# The mock interview.

SLOTS = (  # minutes, what, the difficulty of its question (None: none)
    (3, "Settle in. The interviewer says the rules: think aloud; I do not know is an answer.", None),
    (5, "Question 1, warm-up: the 30-second answer, then one follow-up.", 1),
    (8, "Question 2: the ladder, 30 seconds, then 3 minutes, then both follow-ups.", 2),
    (14, "Blank page: one function, with the check at the end.", None),
    (7, "Question 3: the ladder again. The interviewer states one red flag and asks: is that right?", 2),
    (5, "Question 4, hard: how far the candidate gets matters, not the end.", 3),
    (3, "The candidate asks. Then both fill in the sheet, each alone, and compare.", None),
)


@dataclass(frozen=True)
class Mock:
    """A mock interview for two: `candidate()` is the page for both, `interviewer()` the one with the answers.

    Fields:
        questions: one for each slot that has one.
        drill: id of the blank page.
    """

    questions: tuple[Question, ...]
    drill: str

    def candidate(self) -> Card:
        """The timetable; no question in it."""
        lines, clock = ["| from | to | what |", "|---|---|---|"], 0
        for minutes, what, _ in SLOTS:
            lines.append(f"| {clock} | {clock + minutes} | {what} |")
            clock += minutes
        return Card("\n".join(lines))

    def interviewer(self) -> Card:
        """Timetable, questions with their ladders, the drill and what to listen for."""
        task = DRILLS[self.drill]
        parts = [self.candidate()]
        for number, question in enumerate(self.questions, start=1):
            parts.append(f"### Question {number}\n\n{_asked(question)}")
            parts += [_rung(question, rung) for rung in range(len(RUNGS))]
        points = "\n".join(f"- {point}" for point in task.listens_for)
        parts.append(f"### Blank page\n\n`interview.drill(\"{self.drill}\", minutes={task.minutes})`\n\n"
                     f"**Listen for**\n\n{points}")  # fmt: skip
        return Card("\n\n".join(parts))


def mock(seed: int = 0) -> Mock:
    """Draws a mock interview of 45 minutes: four questions of rising difficulty, on different topics, and a drill.

    The same seed draws the same for interviewer and candidate; the progress file plays no part.
    """
    questions, chosen = sorted(_bank(), key=lambda question: _lot(seed, question.id)), []
    for difficulty in (slot[2] for slot in SLOTS if slot[2] is not None):
        met = {question.topic for question in chosen}
        left = [question for question in questions if question not in chosen]
        if left:
            chosen.append(min(left, key=lambda q: (q.topic in met, abs(q.difficulty - difficulty))))
    return Mock(tuple(chosen), min(DRILLS, key=lambda id: _lot(seed, id)))


def scoring_sheet() -> Card:
    """The sheet that both fill in after a mock interview; also a file of its own, notebooks/handouts/scoring_sheet.md.

    Raises:
        FileNotFoundError: the notebooks are not beside the package.
    """
    return Card(SCORING_SHEET.read_text(encoding="utf-8"))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m kto_course.interview", description="Practise in the terminal.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--topics", nargs="+", help=f"some of {', '.join(topics())}")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        start(options.minutes, options.topics, options.seed, widgets=False)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
