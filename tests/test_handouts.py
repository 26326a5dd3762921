"""What is made from the question bank: in step with it, whole, and readable by the tools it is for."""

import ast
import dataclasses
import html
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
import torch
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from kto_course import build, checks
from kto_course.handouts import anki, card, core_sheet, exit_quiz, formula_card, products, quiz, wording
from kto_course.questions import load_questions
from kto_course.slides.plan import exit_quiz_ids
from kto_course.times import times_of
from kto_lab.price import least_kl
from kto_utils import prospect
from kto_utils.logprobs import get_probs
from kto_utils.losses import balanced_weights, dpo_loss, kto_loss, reference_point

ROOT = Path(__file__).resolve().parents[1]

BANK = load_questions()
BY_ID = {question.id: question for question in BANK}
FORMULAS = {line.name: line for group in formula_card.CARD.values() for line in group}
each_question = pytest.mark.parametrize("question", BANK, ids=lambda question: question.id)
each_formula = pytest.mark.parametrize("line", FORMULAS.values(), ids=FORMULAS.keys())


@pytest.fixture(scope="module")
def made():
    return products.products()


def words(text):
    """The words and numbers of a markdown text outside formulas and code fences' first lines, in order."""
    text = re.sub(r"^```\w*$", " ", text, flags=re.M)
    return re.findall(r"\w+", re.sub(r"\$\$.+?\$\$|\$[^$]+\$", " ", text, flags=re.S))


def words_of_html(page):
    """The same of an HTML text; its formulas stand in <math>, in brackets or between dollars."""
    page = re.sub(r"<math.*?</math>|\\\(.*?\\\)|\\\[.*?\\\]|\$\$.+?\$\$|\$[^$]+\$", " ", page, flags=re.S)
    return re.findall(r"\w+", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def contains(long, short):
    return any(long[i : i + len(short)] == short for i in range(len(long) - len(short) + 1))


def texts_of(question):
    yield from (question.question, *question.choices, question.short, question.long, question.source)
    for follow_up in question.follow_ups:
        yield from (follow_up.question, follow_up.answer)
    for flag in question.red_flags:
        yield from (flag.said, flag.why)


# ---------------------------------------------------------------------------------------------------- in step


def test_the_stored_products_are_those_of_the_bank(made, monkeypatch):
    monkeypatch.setattr(products, "products", lambda: made)
    assert products.out_of_date() == []


def test_a_changed_answer_makes_deck_sheet_and_quiz_stale(made, monkeypatch):
    changed = [dataclasses.replace(q, short="Another answer.") if q.id == "clamp_order" else q for q in BANK]
    monkeypatch.setattr(products, "bank", lambda: tuple(changed))
    monkeypatch.setattr(wording, "bank", lambda: tuple(changed))
    monkeypatch.setattr(products, "formula_card_files", dict)
    assert set(products.out_of_date()) == {
        "notebooks/handouts/quiz/06_kto_loss.json",
        "notebooks/handouts/kto_from_scratch.apkg",
        "notebooks/handouts/interview_sheet.html",
        "notebooks/handouts/exit_quiz_answers.pdf",
        "notebooks/handouts/exit_quiz.gift.txt",
    }  # fmt: skip


def test_a_changed_core_question_makes_the_core_sheet_stale_and_another_does_not(made):
    stored = made["notebooks/handouts/core_sheet.pdf"]

    def in_step(id, **changes):
        changed = [dataclasses.replace(q, **changes) if q.id == id else q for q in BANK]
        again = core_sheet.core_sheet([q for q in changed if q.core])
        return products.same("core_sheet.pdf", stored, again)

    assert in_step("clamp_order", short="Another answer.")
    assert not in_step("what_is_z0", short="Another answer.")
    assert not in_step("what_is_z0", core=False)


def test_a_changed_formula_makes_the_card_stale(made, monkeypatch):
    wrong = dataclasses.replace(FORMULAS["Loss at step 0"], tex=r"$L = \mathrm{mean}(w)$")
    changed = {
        group: [wrong if line.name == wrong.name else line for line in lines]
        for group, lines in formula_card.CARD.items()
    }  # fmt: skip
    monkeypatch.setattr(formula_card, "CARD", changed)
    drawn = card.formula_card_files()
    assert [path for path, data in drawn.items() if not products.same(path, made[path], data)] == [
        "figures/formula_card.svg", "figures/formula_card.pdf", "figures/formula_card.png",
    ]  # fmt: skip


def test_writing_mends_a_spoilt_product_and_removes_a_quiz_without_lesson(made, tmp_path, monkeypatch):
    monkeypatch.setattr(products, "products", lambda: made)
    monkeypatch.setattr(products, "print_pdf", lambda root: [])  # tests/test_slides.py looks at it
    monkeypatch.setattr(products, "stale_pdf", lambda root: [])
    assert set(products.write(tmp_path)) == set(made)
    assert products.write(tmp_path) == []
    sheet = tmp_path / "notebooks" / "handouts" / "interview_sheet.html"
    sheet.write_text("spoilt", encoding="utf-8")
    stray = tmp_path / "notebooks" / "handouts" / "quiz" / "99_gone.json"
    stray.write_text("[]", encoding="utf-8")
    assert products.out_of_date(tmp_path) == [
        "notebooks/handouts/interview_sheet.html", "notebooks/handouts/quiz/99_gone.json (has no questions)",
    ]  # fmt: skip
    assert products.write(tmp_path) == ["notebooks/handouts/interview_sheet.html"]
    assert not stray.exists()


def test_made_twice_they_have_the_same_bytes(made):
    again = card.formula_card_files() | {
        "notebooks/handouts/kto_from_scratch.apkg": anki.anki_deck(BANK),
        "notebooks/handouts/core_sheet.pdf": core_sheet.core_sheet(CORE),
    }
    assert {path: made[path] for path in again} == again


# -------------------------------------------------------------------------------------------- a lesson's quiz


class Folds(HTMLParser):
    """Checks that <details> and <summary> open and close in order, and counts them."""

    def __init__(self):
        super().__init__()
        self.open, self.count = [], {"details": 0, "summary": 0}

    def handle_starttag(self, tag, attributes):
        if tag in self.count:
            if tag == "summary":
                assert self.open[-1:] == ["details"], "a summary outside a fold"
            self.open.append(tag)
            self.count[tag] += 1

    def handle_endtag(self, tag):
        if tag in self.count:
            assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
            self.open.pop()


def folds(text):
    parser = Folds()
    parser.feed(MarkdownIt("commonmark").render(text))
    assert parser.open == []
    assert parser.count["details"] == parser.count["summary"]
    return parser.count["details"]


@each_question
def test_choices_and_code_stand_before_the_fold_and_the_answer_inside(question):
    cell = quiz._question(question)
    before = cell.split("<details>")[0]
    assert folds(cell) == 1
    if question.kind == "choice":
        assert before.count("\n- **") == len(question.choices)
        assert f"**{'ABCDE'[question.answer]}** is right" in cell.removeprefix(before)
        assert "** is right" not in before
    else:
        assert ("```" in before) == ("```" in question.question)
    summary = re.search(r"<summary>(.*?)</summary>", cell, flags=re.S).group(1)
    assert words_of_html(summary) == (["Answer"] if before else words(question.question))
    assert not re.search(r"\$[^$]*[<>][^$]*\$", summary), "a formula with a bare < or > inside HTML"


def lesson_with_questions(folder, named):
    source = (build.SOURCES / "04_collator.py").read_text(encoding="utf-8")
    head, tail = source.split("# ## Questions an interviewer asks")
    changed = folder / "04_collator.py"
    quiz = f"# ## Questions an interviewer asks\n#\n# {{{{questions {named}}}}}\n\n"
    changed.write_text(head + quiz + tail[tail.index("# %%") :], encoding="utf-8")
    return changed


def test_the_build_puts_the_named_questions_below_their_heading(tmp_path):
    named = "reversed_batch one_sided_share decoupled_samples"
    notebook = build.read_source(lesson_with_questions(tmp_path, named), 10)
    nbformat.validate(notebook)
    (cell,) = [cell for cell in notebook.cells if cell.source.startswith("## Questions an interviewer asks")]
    assert folds(cell.source) == 3
    asked = words(html.unescape(re.sub(r"</?(details|summary|code|em|strong)>", " ", cell.source)))
    for id in named.split():
        for text in (BY_ID[id].question, BY_ID[id].short):
            assert contains(asked, words(text)), (id, text)


def test_a_changed_question_puts_the_lesson_out_of_step(tmp_path, monkeypatch):
    source = lesson_with_questions(tmp_path, "reversed_batch")
    target = tmp_path / "04_collator.ipynb"
    nbformat.write(build.read_source(source, 10), target)
    monkeypatch.setattr(build, "notebook_path", lambda source: target)
    assert build.in_step(source, {source.stem: 10})
    changed = tuple(dataclasses.replace(q, short="Another answer.") if q.lesson == "04" else q for q in BANK)
    monkeypatch.setattr(quiz, "bank", lambda: changed)
    assert not build.in_step(source, {source.stem: 10})


def test_folded_answers_add_no_reading_minutes(tmp_path):
    one, three = (times_of(build.read_source(lesson_with_questions(tmp_path, named), 10).cells, 10)
                  for named in ("reversed_batch", "reversed_batch one_sided_share decoupled_samples"))  # fmt: skip
    assert three.folded_words > one.folded_words + 100
    assert three.read <= one.read + 1  # their short headings stay open


def test_a_question_that_the_bank_does_not_know_is_named():
    with pytest.raises(ValueError, match="the question bank has no who_is_he"):
        quiz.quiz_text(["kto_data", "who_is_he"])


# ------------------------------------------------------------------------------------------------- jupyterquiz


def quiz_files():
    return sorted((ROOT / "notebooks" / "handouts" / "quiz").glob("*.json"))


def test_the_quiz_files_hold_every_question_with_a_choice_or_a_number():
    lessons = {path.stem[:2] for path in build.source_paths()}
    wanted = [q for q in BANK if q.kind in ("choice", "number") and q.lesson in lessons]
    entries = [entry for path in quiz_files() for entry in json.loads(path.read_text(encoding="utf-8"))]
    asked = sorted(" ".join(words_of_html(entry["question"])) for entry in entries)
    assert asked == sorted(" ".join(words(q.question)) for q in wanted)


@pytest.mark.parametrize("question", [q for q in BANK if q.kind in ("choice", "number")], ids=lambda q: q.id)
def test_an_entry_of_the_quiz_knows_the_right_answer(question):
    (entry,) = json.loads(quiz.quiz_json([question]))
    right = [answer for answer in entry["answers"] if answer.get("correct")]
    assert len(right) == 1
    assert words_of_html(right[0]["feedback"]) == ["Right", *words(question.short)]
    if question.kind == "choice":
        assert words_of_html(right[0]["answer"]) == words(question.choices[question.answer])
        assert len(entry["answers"]) == len(question.choices)
    else:
        assert right[0]["value"] == question.answer
        # What a learner reads in the answer must be taken for right at this number of significant digits.
        digits = entry["precision"]
        assert f"{float(wording.shown_answer(question)):.{digits}g}" == f"{question.answer:.{digits}g}"
    # jupyterquiz makes links of [..](..) and tags of <http..>; a text of ours that looks so would be torn up.
    for text in [entry["question"], *(a.get("answer", "") + a.get("feedback", "") for a in entry["answers"])]:
        assert not re.search(r"\]\(|<http|\\\$", text)
        assert text.count("$") % 2 == 0


@pytest.mark.parametrize("path", quiz_files(), ids=lambda path: path.stem)
def test_jupyterquiz_reads_its_file(path, monkeypatch):
    quiz = pytest.importorskip("jupyterquiz")
    shown = []
    monkeypatch.setattr("jupyterquiz.dynamic.display.display", shown.append)
    quiz.display_quiz(str(path), shuffle_answers=False)
    page = "".join(str(part.data) for part in shown)
    start = re.search(r"var questions\w+\s*=\s*", page).end()
    questions, _ = json.JSONDecoder().raw_decode(page[start:])
    assert questions == json.loads(path.read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------------------------- exit quiz

TEN = [BY_ID[id] for id in exit_quiz_ids()]


def read_gift(text):
    """GIFT as Moodle reads it: (name, question, answer lines), with its escapes undone."""
    for name, asked, body in re.findall(r"^::(\w+)::\[html\](.*?) (?<!\\)\{\n(.*?)\n\}$", text, flags=re.M | re.S):
        yield name, *(re.sub(r"\\([~=#{}:\\])", r"\1", part) for part in (asked, body))


def test_the_exit_quiz_has_ten_questions_from_five_lessons_or_more():
    assert len(set(exit_quiz_ids())) == 10
    assert len({question.lesson for question in TEN}) >= 5
    assert {question.kind for question in TEN} == {"choice", "number"}


def test_gift_holds_the_ten_with_one_right_answer_each(made):
    text = made["notebooks/handouts/exit_quiz.gift.txt"].decode()
    entries = list(read_gift(text))
    assert [name for name, _, _ in entries] == exit_quiz_ids()
    for (_, asked, body), question in zip(entries, TEN, strict=True):
        assert words_of_html(asked) == words(question.question)
        lines = body.splitlines()
        if question.kind == "choice":
            assert [line[0] for line in lines] == ["=" if i == question.answer else "~" for i in range(len(lines))]
            for line, choice in zip(lines, question.choices, strict=True):
                assert words_of_html(line[1:].split(" #")[0]) == words(choice)
        else:
            value, tolerance = map(float, re.match(r"#=([\d.]+):([\d.]+) #", body).groups())
            assert value == question.answer
            assert 0 < tolerance <= 0.01 * value
            assert abs(float(f"{question.answer:.3g}") - value) <= tolerance  # three digits are enough


def test_gift_takes_its_own_signs_and_backslashes_as_text():
    odd = dataclasses.replace(TEN[0], question=r"Is {x} ~ 3 = #1: $\neq \{a\}$?", choices=["a: b", "c = d", "e", "f"])
    entry = exit_quiz.gift_entry(odd)
    ((_, asked, body),) = read_gift(entry)
    assert asked == r"Is {x} ~ 3 = #1: \(\neq \{a\}\)?"
    assert body.splitlines()[0].startswith("~a: b #")
    assert not re.search(r"(?<!\\)[~=#{}]", entry.split("[html]")[1].split(" {\n")[0])


def test_the_printed_page_asks_without_answers_and_the_other_answers():
    page = [line.text for line in exit_quiz.laid_out("t", "n", TEN, exit_quiz.asked)]
    answers = [line.text for line in exit_quiz.laid_out("t", "n", TEN, exit_quiz.answered)]
    for question in TEN:
        assert contains(words(" ".join(page)), words(re.sub(r"[`*]", "", question.question)))
        assert not contains(words(" ".join(page)), words(question.short))
        assert contains(words(" ".join(answers)), words(re.sub(r"[`*]", "", question.short)))
    with pytest.raises(ValueError, match="the exit quiz has one page"):
        exit_quiz.laid_out("t", "n", [*TEN, *TEN], exit_quiz.asked)
    with pytest.raises(ValueError, match="kto_in_a_minute is of kind open"):
        exit_quiz.gift_entry(BY_ID["kto_in_a_minute"])


# -------------------------------------------------------------------------------------------------------- Anki


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The stored deck, imported into an empty collection by Anki's own library."""
    anki = pytest.importorskip("anki.collection")
    folder = tmp_path_factory.mktemp("anki")
    collection = anki.Collection(str(folder / "collection.anki2"))
    deck = ROOT / "notebooks" / "handouts" / "kto_from_scratch.apkg"
    collection.import_anki_package(anki.ImportAnkiPackageRequest(package_path=str(deck)))
    yield collection
    collection.close()


def test_anki_finds_one_note_and_one_card_for_each_question(imported):
    assert len(imported.find_notes("")) == len(imported.find_cards("")) == len(BANK)
    notes = [imported.get_note(note) for note in imported.find_notes("")]
    assert sorted(note["Id"] for note in notes) == sorted(BY_ID)
    assert {deck.name for deck in imported.decks.all_names_and_ids()} >= {"KTO from Scratch"}


def test_the_fields_in_anki_are_those_of_the_bank(imported):
    for number in imported.find_notes(""):
        note = imported.get_note(number)
        question = BY_ID[note["Id"]]
        assert list(note.keys()) == list(anki.FIELDS)
        assert list(note.values()) == anki.note_fields(question)
        for field, text in (("Question", question.question), ("Long", question.long), ("Source", question.source)):
            assert words_of_html(note[field]) == words(text), (question.id, field)
        for text in texts_of(question):
            assert any(contains(words_of_html(value), words(text)) for value in note.values()), (question.id, text)
        formulas = re.findall(r"\\\((.*?)\\\)|\\\[(.*?)\\\]", html.unescape(" ".join(note.values())), flags=re.S)
        wanted = "\n".join([*texts_of(question), question.section])
        assert all("".join(pair).strip() in wanted for pair in formulas)
        assert "$" not in re.sub(r"<pre>.*?</pre>", "", " ".join(note.values()), flags=re.S)
        assert f"lesson_{question.lesson}" in note.tags
        assert ("core" in note.tags) == question.core


def test_a_card_shows_the_choices_in_front_and_the_answer_behind(imported):
    question = BY_ID["loss_aversion_default"]
    (card,) = imported.find_cards("Id:loss_aversion_default")
    card = imported.get_card(card)
    assert all(contains(words_of_html(card.question()), words(choice)) for choice in question.choices)
    assert not contains(words_of_html(card.question()), words(question.short))
    for text in texts_of(question):
        assert contains(words_of_html(card.answer()), words(text))


def test_ids_stay_when_other_questions_come_and_go():
    def guids(package):
        return {row[5].split("\x1f")[-1]: row[1:3] for row in anki.anki_content(package)[0]}

    few, all_of_them = guids(anki.anki_deck(BANK[5:9])), guids(anki.anki_deck(BANK))
    assert len({guid for guid, _ in all_of_them.values()}) == len(BANK)
    assert few.items() <= all_of_them.items()


# ---------------------------------------------------------------------------------------------- the sheet


@pytest.fixture(scope="module")
def sheet():
    return (ROOT / "notebooks" / "handouts" / "interview_sheet.html").read_text(encoding="utf-8")


def test_the_sheet_asks_everything_first_and_answers_in_the_same_order(sheet):
    questions, answers = sheet.split('<section id="answers">')
    asked = re.findall(r'<div class="asked" id="q(\d+)"><a href="#a\1">\1</a><div>(.*?)</div>', questions, flags=re.S)
    answered = re.findall(r'<article id="a(\d+)"><h4><a href="#q\1">\1</a>(.*?)</article>', answers, flags=re.S)
    assert [n for n, _ in asked] == [n for n, _ in answered] == [str(i + 1) for i in range(len(BANK))]
    by_text = {" ".join(words(q.question)): q for q in BANK}
    assert len(by_text) == len(BANK)
    for (_, text), (_, answer) in zip(asked, answered, strict=True):
        found = " ".join(words_of_html(text))
        question = next(q for start, q in by_text.items() if found == start or (q.choices and found.startswith(start)))
        for choice in question.choices:
            assert contains(words_of_html(text), words(choice))
        for part in (question.short, question.long, question.source, *(f.answer for f in question.follow_ups),
                     *(flag.why for flag in question.red_flags)):  # fmt: skip
            assert contains(words_of_html(answer), words(part)), (question.id, part)


def test_the_sheet_needs_no_script_and_nothing_from_elsewhere(sheet):
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\(|javascript:|\son\w+=", sheet)
    assert re.findall(r"https?://[^\"'\s<]+", re.sub(r' xmlns="[^"]+"', "", sheet)) == []
    assert "@page { size: A4" in sheet


def test_formulas_on_the_sheet_are_mathml_without_rests_of_latex(sheet):
    formulas = re.findall(r"<math.*?</math>", sheet, flags=re.S)
    assert len(formulas) > 300
    for formula in formulas:
        ET.fromstring(formula)  # raises where it is no XML
        assert "\\" not in formula, formula
    prose = re.sub(r"<math.*?</math>|<pre>.*?</pre>|<code>.*?</code>", "", sheet, flags=re.S)
    assert "$" not in prose
    assert "\\" not in prose


# ------------------------------------------------------------------------------------------- the core sheet

CORE = [question for question in BANK if question.core]


def plain(text):
    """The words outside formulas, without marks of code and stress."""
    return words(re.sub(r"[`*]", "", text))


def test_the_core_sheet_holds_the_25_questions_in_order_each_with_its_answer_and_a_wrong_one():
    lines = core_sheet.laid_out(CORE)
    assert len(CORE) == 25
    shown = plain(" ".join(line.text for line in lines))
    at = 0
    for number, question in enumerate(CORE, start=1):
        entry = [str(number), *plain(question.question), *plain(question.short), *plain(question.red_flags[0].said)]
        found = next(i for i in range(at, len(shown)) if shown[i : i + len(entry)] == entry)
        assert found == at or number == 1
        at = found + len(entry)
    assert at == len(shown)
    formulas = re.findall(r"\$[^$]+\$", " ".join(f"{q.question} {q.short} {q.red_flags[0].said}" for q in CORE))
    assert re.findall(r"\$[^$]+\$", " ".join(line.text for line in lines)) == formulas


def check_the_places(lines):
    """Nothing leaves its column or the page, and no line runs into the next; measured as it is drawn."""
    margin, column = core_sheet.MARGIN * 72, core_sheet.COLUMN
    for page in range(core_sheet.PAGES):
        on_page = [line for line in lines if line.page == page]
        fig = core_sheet._drawn(on_page)
        renderer = FigureCanvasAgg(fig).get_renderer()
        for line, text in zip(on_page, fig.texts, strict=True):
            box = text.get_window_extent(renderer).transformed(fig.dpi_scale_trans.inverted())
            room = column if line.style in ("question", "answer", "wrong") else 2 * column + core_sheet.GAP * 72
            assert 72 * box.x1 <= line.x + room + 3, line
            assert 72 * box.y0 >= margin - core_sheet.SIZE, line
            assert 72 * box.y1 <= core_sheet.A4[1] * 72 - margin + core_sheet.SIZE, line
        for x in {line.x for line in on_page}:
            heights = [line.y for line in on_page if line.x == x and line.style != "title"]
            assert all(b - a >= core_sheet.LEADING - 1e-6 for a, b in itertools.pairwise(heights))


def test_on_the_core_sheet_nothing_leaves_its_column_or_runs_into_its_neighbour(monkeypatch):
    check_the_places(core_sheet.laid_out(CORE))
    monkeypatch.setattr(core_sheet, "wrapped", lambda text, *_: [" ".join(text.split())])
    with pytest.raises(AssertionError):
        check_the_places(core_sheet.laid_out(CORE))


def test_the_core_sheet_is_two_a4_pages_and_never_more(made):
    pdf = made["notebooks/handouts/core_sheet.pdf"]
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 2
    (box,) = set(re.findall(rb"/MediaBox \[([^\]]+)\]", pdf))
    assert [float(side) for side in box.split()] == pytest.approx([0, 0, 595.3, 841.9], abs=0.5)
    assert not re.search(rb"CreationDate|ModDate", pdf)
    with pytest.raises(ValueError, match=r"the core sheet has two pages; question 2[0-9] of 30 no longer fits"):
        core_sheet.laid_out([*CORE, *CORE[:5]])


def test_a_formula_is_never_broken_across_lines():
    lines = core_sheet.wrapped("It is $a + b + c + d$ and `code` and *more* of it", "answer", room=60)
    assert " ".join(lines) == "It is $a + b + c + d$ and code and more of it"
    assert len(lines) > 3
    assert all(line.count("$") in (0, 2) for line in lines)


# ------------------------------------------------------------------------------------------ the formula card


def slope(f, at):
    point = at.clone().requires_grad_()
    f(point).backward()
    return point.grad


def kl(p, q):
    return torch.nn.functional.kl_div(q.log(), p, reduction="sum")  # the library's order: KL(second || first)


def drawn(seed):
    """Random values for every name on the card, and the functions that its lines may call."""
    g = torch.Generator().manual_seed(seed)

    def uniform(*shape, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(*shape, generator=g, dtype=torch.float64)

    def several(low, high):
        return float(uniform(1, low=low, high=high))

    B, T, V = 6, 7, 5
    ids = torch.randint(V, (T,), generator=g)
    label_mask = torch.tensor([0, 0, 0, 1, 1, 1, 0])
    label = torch.tensor([True, False, True, True, False, False])
    lambda_D, lambda_U, beta, ratio = (several(0.5, 2.0) for _ in range(4))
    n_D, n_U = (int(n) for n in torch.randint(1, 30, (2,), generator=g))
    p, q, ref = (torch.softmax(uniform(4, high=3.0), 0) for _ in range(3))
    gains = torch.sort(uniform(4, high=50.0), descending=True).values.tolist()
    p_good = several(0.1, 0.5)
    return {
        "z": uniform(8, low=-20.0, high=20.0), "alpha": several(0.3, 1.0), "loss_aversion": several(1.0, 3.0),
        "p": uniform(6), "gamma": several(0.4, 0.9), "gains": gains, "chances": p.tolist(),
        "v": prospect.value,
        "logits": uniform(T, V, low=-3.0, high=3.0), "ids": ids, "label_mask": label_mask, "completion": [3, 4, 5],
        "logp": uniform(B, low=-40.0, high=-5.0), "logp_ref": uniform(B, low=-40.0, high=-5.0),
        "kl_logp": uniform(B, low=-20.0, high=-5.0), "kl_logp_ref": uniform(B, low=-25.0, high=-10.0),
        "pi": p, "q": q, "ref": ref, "R": uniform(4, low=-2.0, high=2.0),
        "r": uniform(B, low=-4.0, high=4.0), "z0": several(0.2, 2.0), "beta": beta, "label": label, "B": B,
        "s": label.double() * 2 - 1, "w": label.double() * lambda_D + (~label).double() * lambda_U,
        "lambda_D": lambda_D, "lambda_U": lambda_U, "n_D": n_D, "n_U": n_U, "ratio": ratio,
        "balanced": balanced_weights(n_D, n_U, ratio),
        "r_chosen": uniform(B, low=-4.0, high=4.0), "r_rejected": uniform(B, low=-4.0, high=4.0),
        "p_good": p_good, "good": several(p_good + 0.1, 0.95),
        "where": torch.where, "abs": abs, "mean": torch.mean, "max": torch.maximum, "sigmoid": torch.sigmoid,
        "exp": torch.exp, "softmax": lambda x: torch.softmax(x, 0), "slope": slope, "kl": kl, "range": range,
        "len": len,
        "tensor": lambda x: torch.tensor(x, dtype=torch.float64),
        "log": lambda x: torch.log(x) if isinstance(x, torch.Tensor) else math.log(x),
        "sum": lambda x: x.sum() if isinstance(x, torch.Tensor) else sum(x),
        "prospect": prospect, "get_probs": get_probs, "reference_point": reference_point, "kto_loss": kto_loss,
        "dpo_loss": dpo_loss, "least_kl": least_kl,
    }  # fmt: skip


def value_of(expression, names):
    return torch.as_tensor(eval(expression, {"__builtins__": {}} | names), dtype=torch.float64)


def agree(line, expression):
    """Whether an expression gives the same numbers as the line's other way, on five random inputs."""
    for seed in range(5):
        names = drawn(seed)
        if line.name == "Value of a gamble":
            names["w"] = prospect.weight
        one, other = value_of(expression, names), value_of(line.against, names)
        if one.shape != other.shape or not torch.allclose(one, other, rtol=1e-9, atol=1e-12):
            return False
    return True


@each_formula
def test_a_formula_on_the_card_is_what_the_package_computes(line):
    if line.against is None:
        assert line.name == "Log-ratio, implicit reward"
        assert value_of(line.python, drawn(0)).shape == (6,)
    else:
        assert agree(line, line.python)


SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}


def with_one_operator_changed(expression):
    """The expression once for each of its binary operators, with that one swapped."""
    count = sum(type(node.op) in SWAPS for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.BinOp))
    for wanted in range(count):
        tree = ast.parse(expression, mode="eval")
        operations = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and type(n.op) in SWAPS]
        operations[wanted].op = SWAPS[type(operations[wanted].op)]()
        yield ast.unparse(tree)


# s is 1 or -1: dividing by it is the same as multiplying by it.
SAME = re.compile(r"/ s\b")


@each_formula
def test_a_formula_with_another_operator_is_noticed(line):
    if line.against is None:
        return
    for wrong in with_one_operator_changed(line.python):
        try:
            noticed = not agree(line, wrong)
        except (IndexError, TypeError, RuntimeError, ValueError):
            noticed = True  # an index out of range, say
        assert noticed or SAME.search(wrong), wrong


@each_formula
def test_the_card_names_a_section_that_exists(line):
    assert checks.home_of(int(line.lesson), line.section)[:2] == line.lesson
    with pytest.raises(LookupError, match="neither lesson"):
        checks.home_of(int(line.lesson), "99. Nowhere")


def test_a_share_on_the_card_is_computed():
    u = torch.tensor(5.0, dtype=torch.float64)
    assert f"{float(400 * torch.sigmoid(u) * torch.sigmoid(-u)):.1f}" == formula_card.PULL_AT_5


def test_nothing_on_the_card_leaves_the_page_or_runs_into_its_neighbour():
    fig = formula_card.draw()
    renderer = FigureCanvasAgg(fig).get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in fig.texts if text.get_text()]
    width, height = fig.bbox.width, fig.bbox.height
    for text, box in boxes:
        assert box.x0 >= 0.06 * width, text
        assert box.x1 <= 0.94 * width, text
        assert box.y0 >= 0.02 * height, text
        assert box.y1 <= 0.98 * height, text
    for number, (text, box) in enumerate(boxes):
        for other, second in boxes[number + 1 :]:
            across = min(box.x1, second.x1) - max(box.x0, second.x0)
            down = min(box.y1, second.y1) - max(box.y0, second.y0)
            assert across <= 0 or down <= 0.25 * min(box.height, second.height), (text, other)


def test_the_card_is_grey_only_and_one_a4_page(made):
    png = imread(io.BytesIO(made["figures/formula_card.png"]))
    assert abs(png[..., :3] - png[..., :1]).max() == 0.0
    assert png.shape[0] / png.shape[1] == pytest.approx(math.sqrt(2), abs=0.01)
    pdf = made["figures/formula_card.pdf"]
    assert len(re.findall(rb"/Type /Page\b", pdf)) == 1
    assert not re.search(rb"CreationDate|ModDate", pdf)
    assert b"<dc:date>" not in made["figures/formula_card.svg"]
