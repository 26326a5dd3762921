"""The course as a new user meets it, in a real browser: JupyterLab, a wrong answer and its hint, slider, quiz, drill.

Needs Chromium or Chrome. Pictures of what was seen are kept in the folder that the environment variable
KTO_SCREENSHOTS names, else in pytest's temporary folder, whose path is printed (`pytest -s` shows it).
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from kto_course import checks

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"no browser: none of {', '.join(NAMES)} is on the PATH. Debian: apt-get install chromium; "
    "elsewhere install Chromium or Google Chrome and put its folder on the PATH",
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
PATIENCE = 300  # seconds that a step may take at most; a busy machine is no fault

# The document is shown and its kernel answers. The indicator alone says "idle" before there is a kernel.
READY = """async () => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = app.shell.currentWidget;
    await panel.revealed;
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
}"""
OPENED = "path => window.jupyterapp?.shell.currentWidget?.context?.path === path"
IDLE = """() => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
RUN_ALL = "() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }"
ALL_RUN = """() => window.jupyterapp.shell.currentWidget.content.widgets
    .every(cell => cell.model.type !== 'code' || !cell.model.sharedModel.getSource().trim()
                   || cell.model.executionCount !== null)"""
SOURCES = "() => window.jupyterapp.shell.currentWidget.content.widgets.map(c => c.model.sharedModel.getSource())"
SOURCE = "i => window.jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.getSource()"
COUNT = "i => window.jupyterapp.shell.currentWidget.content.widgets[i].model.executionCount"
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(c => c.model.type === 'code')
    .flatMap(c => c.model.sharedModel.getOutputs()).filter(o => o.output_type === 'error').map(o => o.evalue)"""
SHOW = """async i => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.deselectAll();
    notebook.activeCellIndex = i;
    await notebook.scrollToItem(i, 'center');
}"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the course, started as `python course.py` does; its address and the copy's folder."""
    folder = tmp_path_factory.mktemp("browser")
    home, config = folder / "course", folder / "config"
    rubbish = (".git", ".venv", "work", ".*_cache", "__pycache__", ".ipynb_checkpoints", ".hypothesis", "runs")
    shutil.copytree(ROOT, home, ignore=shutil.ignore_patterns(*rubbish))
    spec = importlib.util.spec_from_file_location("course_copy", home / "course.py")
    course = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(course)
    # Extensions of test tools, which no learner has.
    extras = {"disabledExtensions": {"@jupyter/nbgrader": True, "jupyterlab-jupytext": True}}
    (config / "labconfig").mkdir(parents=True)
    (config / "labconfig" / "page_config.json").write_text(json.dumps(extras), encoding="utf-8")
    before = files_of(home)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    token, address = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    flags = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
             f"--IdentityProvider.token={token}",
             "--LabApp.expose_app_in_browser=True"]  # fmt: skip
    (command,) = course.steps_of("open", flags, sys.executable)
    own = {"JUPYTER_CONFIG_DIR": str(config), "JUPYTERLAB_SETTINGS_DIR": str(config / "settings"),
           "PYTHONPATH": str(home)}  # fmt: skip
    usual = course.environment("open")
    environment = {k: v for k, v in usual.items() if k not in ("KTO_PROGRESS", "KTO_FIGURES")} | own
    with open(folder / "server.log", "w+", encoding="utf-8") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for_server(server, f"{address}/api/status?token={token}", folder / "server.log")
            yield address, token, home
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
    assert files_of(home) == before, "learning has changed the course"


def files_of(home):
    """What git would look at: every file outside the learner's folder, by its content."""
    files = (path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): hash(path.read_bytes()) for path in files if (home / "work") not in path.parents}


def wait_for_server(server, address, log):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return urllib.request.urlopen(address, timeout=5).read()
        except OSError:
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}") from None
            time.sleep(0.2)


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def pictures(tmp_path):
    folder = Path(os.environ.get("KTO_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"screenshots: {folder}")
    return folder


class Notebook:
    """A notebook in a page of JupyterLab, and what a user does with it. Cells are numbered from 0."""

    def __init__(self, page, lab, path, pictures):
        self.page, self.pictures = page, pictures
        address, token, _ = lab
        page.goto(f"{address}/lab/workspaces/{Path(path).stem}/tree/{path}?token={token}")
        page.wait_for_function(OPENED, arg=path)
        page.evaluate(READY)
        page.wait_for_function(IDLE)

    def find(self, *words):
        """The first cell with all these words."""
        sources = self.page.evaluate(SOURCES)
        return next(i for i, source in enumerate(sources) if all(word in source for word in words))

    def cell(self, i):
        self.page.evaluate(SHOW, i)
        cell = self.page.locator(f'.jp-Cell[data-windowed-list-index="{i}"]')
        cell.scroll_into_view_if_needed()
        return cell

    def run_all(self):
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function(ALL_RUN)
        self.page.wait_for_function(IDLE)
        return self.page.evaluate(ERRORS)

    def write(self, i, source):
        """Replaces a cell's text by way of the editor, as by pasting."""
        self.cell(i).locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)
        assert self.page.evaluate(SOURCE, i) == source

    def run(self, i):
        """Runs one cell by Shift+Enter and returns it with its output."""
        before = self.page.evaluate(COUNT, i)
        self.cell(i).locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function(f"before => (({COUNT})({i}) ?? before) !== before", arg=before)
        self.page.wait_for_function(IDLE)
        return self.cell(i)

    def photograph(self, name):
        self.page.screenshot(path=self.pictures / f"{name}.png")


@pytest.fixture
def open_notebook(chromium, lab, pictures):
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE * 1000)
    expect.set_options(timeout=60_000)
    yield lambda path: Notebook(page, lab, path, pictures)
    page.close()


def test_a_newcomer_sees_the_outline_the_door_and_the_first_lesson_and_nothing_asks_the_network(
    chromium, lab, pictures
):
    address, token, _ = lab
    page = chromium.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(PATIENCE * 1000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/lab/workspaces/course?token={token}")
    page.wait_for_function(OPENED, arg="work/00_start_here.ipynb")
    page.evaluate(READY)
    expect(page.locator(".jp-RenderedMarkdown").get_by_text("I want to learn KTO.").first).to_be_visible()
    page.screenshot(path=pictures / "0_first_page.png")
    expect(page.locator("#table-of-contents").get_by_text("Recap")).to_be_visible()
    page.wait_for_timeout(3000)
    assert not [url for url in asked if "/lab/api/news" in url or "/lab/api/update" in url]
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    page.close()


def test_looking_at_a_lesson_changing_it_and_running_it_changes_no_file_of_the_course(open_notebook, lab):
    notebook = open_notebook("work/00_start_here.ipynb")
    assert notebook.run_all() == []
    notebook.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    assert list((lab[2] / "work" / "figures").glob("00_*.png"))  # that nothing else changed is checked at the end


def test_a_wrong_answer_gets_its_hint_and_the_right_one_passes(open_notebook, lab):
    notebook = open_notebook("work/05_get_probs.ipynb")
    assert notebook.run_all() == []
    exercise, check = notebook.find("def my_get_probs("), notebook.find("check.get_probs(")
    expect(notebook.cell(check)).to_contain_text("not done yet: ")
    notebook.photograph("1_open_exercise")

    stub = notebook.page.evaluate(SOURCE, exercise)
    unshifted = (
        "chosen = logits.log_softmax(-1).gather(-1, input_ids[..., None]).squeeze(-1)\n"
        "    return chosen[:, 1:].masked_fill(label_mask[:, 1:] == 0, 0.0)"
    )
    notebook.write(exercise, stub.replace("...  # your code here", unshifted))
    notebook.run(exercise)
    hint = checks.find("get_probs").hint("no_shift", 1)
    report = notebook.run(check)
    expect(report).to_contain_text("not right yet: ")
    expect(report).to_contain_text(hint)
    notebook.photograph("2_hint")

    notebook.write(exercise, checks.solved_cell("get_probs")[0].rstrip())
    notebook.run(exercise)
    expect(notebook.run(check)).to_contain_text("passed: ")
    notebook.photograph("3_passed")
    record = json.loads((lab[2] / "work" / "progress.json").read_text(encoding="utf-8"))
    assert record["exercises"]["get_probs"] | {"lesson": 5, "tries": 2, "passes": 1} == record["exercises"]["get_probs"]

    quiz = notebook.cell(notebook.find("<details>"))
    question = quiz.locator("details").first
    question.scroll_into_view_if_needed()
    asked = question.inner_text()  # only what is to be seen
    question.locator("summary").first.click()
    expect(question).to_have_attribute("open", "")
    assert len(question.inner_text()) > len(asked) + 40
    notebook.photograph("4_quiz")


def test_the_slider_of_lesson_01b_moves_the_figure(open_notebook):
    notebook = open_notebook("work/deeper/01b_ranks_and_lotteries.ipynb")
    assert notebook.run_all() == []
    cell = notebook.cell(notebook.find("pictures.alpha_slider("))
    picture, handle = cell.locator(".widget-image"), cell.locator(".noUi-handle")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    notebook.photograph("5_slider_before")
    value = float(cell.locator(".widget-readout").inner_text())
    for steps in range(1, 6):
        before = picture.get_attribute("src")
        handle.press("ArrowLeft")
        expect(cell.locator(".widget-readout")).to_have_text(f"{value - steps / 100:.2f}")
        expect(picture).not_to_have_attribute("src", before)
    notebook.photograph("6_slider_after")


def clock(cell):
    """Seconds used, as the drill tells them."""
    expect(cell).to_contain_text(re.compile(r"\d+:\d\d of \d+:\d\d used"))
    minutes, seconds = re.search(r"(\d+):(\d\d) of ", cell.inner_text()).groups()
    return 60 * int(minutes) + int(seconds)


def test_a_drill_runs_against_the_clock(open_notebook):
    notebook = open_notebook("work/13_interview.ipynb")
    start = notebook.find('interview.drill("get_probs"')
    notebook.run(notebook.find("from kto_course import"))
    page = notebook.run(start)
    expect(page).to_contain_text("The clock runs.")
    exercise, check = start + 1, notebook.find("get_probs_page.check(my_get_probs)")
    stub = notebook.page.evaluate(SOURCE, exercise)
    notebook.write(check, "get_probs_page.check(my_get_probs)\nprint(get_probs_page.time_used())")

    notebook.write(exercise, stub.replace("...  # your code here", "return logits"))
    notebook.run(exercise)
    report = notebook.run(check)
    expect(report).to_contain_text("not right yet: ")
    first = clock(report)
    notebook.photograph("7_drill")

    notebook.write(exercise, "def my_get_probs(logits, input_ids, label_mask)\n    return logits")
    notebook.run(exercise)
    expect(notebook.run(check)).to_contain_text("Python could not read the cell")

    notebook.write(exercise, checks.solved_cell("get_probs")[0].rstrip())
    notebook.run(exercise)
    report = notebook.run(check)
    expect(report).to_contain_text("passed: ")
    assert clock(report) > first
    expect(report).to_contain_text("An interviewer listens for")
    notebook.photograph("8_drill_passed")
