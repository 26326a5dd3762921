"""The entry script: path logic for every system, stamps, remedies, and refusals."""

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("course", ROOT / "course.py")
course = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(course)


def test_interpreter_path_on_windows_and_elsewhere():
    folder = PureWindowsPath(r"C:\Users\Zoë B\Mes leçons\.venv")
    assert str(course.python_of(folder, windows=True)) == r"C:\Users\Zoë B\Mes leçons\.venv\Scripts\python.exe"
    assert str(course.python_of(PurePosixPath("/a b/é/.venv"), windows=False)) == "/a b/é/.venv/bin/python"


def test_imports_only_the_standard_library():
    tree = ast.parse((ROOT / "course.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_an_older_python_is_refused_by_name(tmp_path):
    # The same file under an interpreter that says it is 3.10.
    script = f"import sys; sys.version_info = (3, 10, 13, 'final', 0); exec(open({str(ROOT / 'course.py')!r}).read())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr
    assert "this is Python 3.10" in done.stderr


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the script's surroundings in a path with blanks and accents, with a fake installer."""
    root = tmp_path / "leçons de Zoë"
    (root / "tests").mkdir(parents=True)
    for name in (course.LEARNER, course.TESTER, course.TEACHER, course.LIGHT):
        shutil.copy(ROOT / name, root / name)
    calls = []

    def fake_attempt(arguments, show):
        calls.append(arguments)
        if "venv" in arguments:
            shutil.rmtree(root / ".venv", ignore_errors=True)
            python = Path(course.python_of(root / ".venv", windows=False))
            python.parent.mkdir(parents=True)
            python.touch()

    monkeypatch.setattr(course, "ROOT", root)
    monkeypatch.setattr(course, "_attempt", fake_attempt)
    monkeypatch.setattr(course, "works", lambda python: python.exists())
    monkeypatch.setattr(course.os, "name", "posix")
    return root, calls


def test_installs_once_and_again_only_when_requirements_change(copy):
    root, calls = copy
    course.ensure_installed("open")
    assert ["venv" in call for call in calls] == [True, False]
    course.ensure_installed("run")
    assert len(calls) == 2
    with open(root / course.LEARNER, "a", encoding="utf-8") as file:
        file.write("# changed\n")
    course.ensure_installed("run")
    assert len(calls) == 3
    assert "venv" not in calls[-1]


def test_line_endings_do_not_count_as_a_change(copy):
    root, calls = copy
    course.ensure_installed("open")
    text = (root / course.LEARNER).read_bytes()
    (root / course.LEARNER).write_bytes(text.replace(b"\n", b"\r\n"))
    course.ensure_installed("open")
    assert len(calls) == 2


def test_testing_adds_its_tools_later_without_moving_the_pins(copy):
    _, calls = copy
    course.ensure_installed("open")
    course.ensure_installed("test")
    assert calls[-1][-6:] == ["-r", course.TEACHER, "-r", course.TESTER, "-c", course.LEARNER]


def test_the_light_set_up_stays_light_until_more_is_needed(copy, capsys):
    root, calls = copy
    course.ensure_installed("open", "light")
    assert calls[-1][-2:] == ["-r", course.LIGHT]
    assert course.SIZES[course.LIGHT] in capsys.readouterr().out
    for command in course.LIGHT_COMMANDS:  # chosen once, not asked for each time
        course.ensure_installed(command)
    assert len(calls) == 2
    with open(root / course.LIGHT, "a", encoding="utf-8") as file:
        file.write("# changed\n")
    course.ensure_installed("open")
    assert calls[-1][-2:] == ["-r", course.LIGHT]
    course.ensure_installed("inspect")
    assert calls[-1][-2:] == ["-r", course.LEARNER]
    course.ensure_installed("open", "light")  # all is there
    assert len(calls) == 4


def test_full_after_light_brings_the_rest(copy):
    _, calls = copy
    course.ensure_installed("open", "light")
    course.ensure_installed("open", "full")
    assert calls[-1][-2:] == ["-r", course.LEARNER]


def pins(name):
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / name).read_text(encoding="utf-8"), flags=re.M))


def test_the_light_pins_are_the_full_ones():
    full, light = pins(course.LEARNER), pins(course.LIGHT)
    assert light.items() <= full.items()
    assert "datasets" not in light


def test_what_the_first_lessons_and_the_lab_import_is_in_the_light_set_up():
    """Run with every package that only the full set-up brings made impossible to import."""
    only_full = sorted({"datasets", "pyarrow", "pandas", "nbgrader", "trl", "peft", "accelerate"})
    block = f"import sys; sys.modules.update(dict.fromkeys({only_full!r}))\n"
    sources = [*sorted((ROOT / "notebooks" / "src").glob("0[0-8]_*.py")), ROOT / "notebooks" / "src" / "lab_90.py"]
    lines = [line for path in sources for line in path.read_text(encoding="utf-8").splitlines()
             if re.match(r"(from|import) \w", line) and not line.endswith("(")]  # fmt: skip
    code = block + "\n".join(dict.fromkeys(lines))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_an_interrupted_install_is_made_anew(copy, monkeypatch):
    root, calls = copy
    whole = course._attempt

    def interrupted(arguments, show):
        if "pip" in arguments:
            raise KeyboardInterrupt
        whole(arguments, show)

    monkeypatch.setattr(course, "_attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        course.ensure_installed("open")
    assert (root / ".venv" / "installing").exists()
    monkeypatch.setattr(course, "_attempt", whole)
    course.ensure_installed("open")
    assert ["venv" in call for call in calls] == [True, True, False]
    assert not (root / ".venv" / "installing").exists()


def test_an_environment_without_working_python_is_made_anew(copy, monkeypatch):
    _, calls = copy
    course.ensure_installed("open")
    monkeypatch.setattr(course, "works", lambda python: False)
    course.stamp_path(course.ROOT / ".venv", course.LEARNER).unlink()
    course.ensure_installed("open")
    assert ["venv" in call for call in calls] == [True, False, True, False]


@pytest.mark.parametrize("installed", [False, True])
def test_a_folder_that_cannot_be_written_is_said_before_anything_is_made(installed, copy, monkeypatch):
    _, calls = copy
    if installed:
        course.ensure_installed("open")
        calls.clear()

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(course.tempfile, "NamedTemporaryFile", refuse)
    with pytest.raises(SystemExit, match=r"cannot be written\. Copy the course into a folder of your own"):
        course.ensure_installed("open")
    assert not calls
    if installed:
        course.ensure_installed("inspect")


def test_too_little_disk_is_said_before_anything_is_made(copy, monkeypatch):
    _, calls = copy
    monkeypatch.setattr(course.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 2**29))
    with pytest.raises(SystemExit, match=r"0\.5 GB are free"):
        course.ensure_installed("open")
    assert not calls


@pytest.mark.parametrize(
    ("output", "remedy"),
    [
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("The virtual environment was not created because ensurepip is not available", "-venv"),
        ("No module named venv", "-venv"),
        ("NewConnectionError: Failed to establish a new connection", "network is down"),
        ("Temporary failure in name resolution\nERROR: No matching distribution found for torch", "network is down"),
        ("ERROR: No matching distribution found for torch==2.13.0", "no build for this machine"),
        ("ERROR: No matching distribution found for torch==2 (from versions: 1.9, 1.8)", "no build for this machine"),
        ("ERROR: Could not find a version that satisfies torch==2.13.0 (from versions: none)", "reached no index"),
        ("WARNING: Retrying ... [Errno -2] Name or service not known (from versions: none)", "network is down"),
        ("Connection refused", "network is down"),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate"),
        ("ERROR: HTTP error 403 while getting", "refused to answer"),
        ("ERROR: Could not install due to an OSError: [Errno 13] Permission denied: '/opt'", "folder of your own"),
        ("[Errno 30] Read-only file system: '/course/.venv'", "folder of your own"),
        ("OSError: [WinError 5] Access is denied", "folder of your own"),
        ("something else", "start again"),
    ],
)
def test_each_failure_of_the_set_up_has_its_remedy(output, remedy):
    assert remedy in course.explain_failure(output, free_gb=50.0)


def test_a_failing_step_prints_its_output_and_the_remedy(capsys):
    with pytest.raises(SystemExit, match="network is down"):
        course._attempt([sys.executable, "-c", "print('getaddrinfo failed'); raise SystemExit(3)"], show=False)
    assert "getaddrinfo failed" in capsys.readouterr().err


def test_a_missing_venv_module_is_recognised_from_the_real_message():
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['venv'] = None; import runpy; runpy.run_module('venv')"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "-venv" in course.explain_failure("No module named venv", free_gb=50.0)


def test_every_command_hands_over_to_something_that_exists():
    for command in set(course.COMMANDS) - {"slides"}:
        for step in course.steps_of(command, [], "python"):
            for part in step:
                if part.startswith("kto_"):
                    assert importlib.util.find_spec(part), part
                if part.endswith((".py", ".ipynb")) and not part.startswith("--"):
                    assert (ROOT / part).exists(), part


@pytest.mark.parametrize(
    ("words", "deck"),
    [([], "kto_in_90_minutes"), (["06"], "06_kto_loss"), (["06_kto_loss"], "06_kto_loss"), (["99"], None),
     (["0"], None)],
)  # fmt: skip
def test_slides_open_in_the_browser_and_need_no_set_up(words, deck, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr(course.webbrowser, "open", opened.append)
    monkeypatch.setattr(course, "ensure_installed", lambda command, size: pytest.fail("nothing needs to be installed"))
    assert course.main(["slides", *words]) == (0 if deck else 2)
    assert opened == ([(ROOT / "notebooks" / "slides" / f"{deck}.html").as_uri()] if deck else [])
    assert deck or f"no slides {words[0]!r}; there are 00_start_here, 01_" in capsys.readouterr().err


def test_a_file_to_inspect_is_named_from_where_the_learner_stands(monkeypatch):
    folders = []

    def fake_run(step, cwd, env):
        folders.append(cwd)
        return subprocess.CompletedProcess(step, 0)

    monkeypatch.setattr(course, "ensure_installed", lambda command, size: Path("python"))
    monkeypatch.setattr(course.subprocess, "run", fake_run)
    commands = [["inspect", "thumbs.csv"], ["run", "work/01.ipynb"], ["export", "runs"], ["doctor"], ["run"]]
    assert [course.main(command) for command in commands] == [0] * 5
    assert folders == [None, None, None, ROOT, None]
    assert all(Path(name).is_file() for name in course.steps_of("run", [], "python")[0][4:]), "from any folder"


def test_a_file_of_the_learner_hides_no_module_of_python(tmp_path):
    for name in ("csv", "json", "kto_lab"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the learner\'s own file was imported')")
    (tmp_path / "thumbs.csv").write_text("prompt,completion,label\na,b,true\n")
    (step,) = course.steps_of("inspect", ["thumbs.csv"], sys.executable)
    env = course.environment("inspect") | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(step, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.startswith("thumbs.csv: 1 rows, 0 rejected"), done.stderr


def test_the_hub_libraries_are_set_offline():
    env = course.environment("run")
    assert env["HF_HUB_OFFLINE"] == env["TRANSFORMERS_OFFLINE"] == env["HF_DATASETS_OFFLINE"] == "1"


@pytest.mark.parametrize("name", ["plain", "with a blank and an \u00e9"])
def test_the_environment_s_python_imports_the_packages_from_any_folder(name, tmp_path, monkeypatch):
    root, elsewhere = tmp_path / name, tmp_path / "elsewhere"
    elsewhere.mkdir()
    (root / "kto_nothing").mkdir(parents=True)
    (root / "kto_nothing" / "__init__.py").write_text("found = 1\n", encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / ".venv")], check=True)
    monkeypatch.setattr(course, "ROOT", root)
    course.make_importable(root / ".venv")
    (file,) = (root / ".venv").rglob("kto_from_scratch.pth")
    before = file.stat().st_mtime_ns
    course.make_importable(root / ".venv")
    assert file.stat().st_mtime_ns == before, "it is written only when it must change"
    python = course.python_of(root / ".venv", windows=course.os.name == "nt")
    own = {k: v for k, v in course.os.environ.items() if k != "PYTHONPATH"}
    code = "import kto_nothing; print(kto_nothing.found)"
    done = subprocess.run([python, "-c", code], cwd=elsewhere, env=own, capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


def test_an_unknown_command_gets_one_line():
    done = subprocess.run([sys.executable, ROOT / "course.py", "tset"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "There is no command 'tset'; python course.py help lists them.\n"
    assert done.stdout == ""


def test_help_lists_every_command_and_its_reader_may_leave_early():
    done = subprocess.run([sys.executable, ROOT / "course.py", "help"], capture_output=True, text=True)
    assert set(re.findall(r"python course\.py (\w[\w-]*)(?= )", done.stdout)) == {*course.COMMANDS, "help"} - {"open"}
    script = f"{sys.executable} {ROOT / 'course.py'} help | head -1" if course.os.name != "nt" else None
    if script:
        early = subprocess.run(script, shell=True, capture_output=True, text=True)
        assert (early.returncode, early.stderr) == (0, "")


def test_ci_runs_exactly_the_test_command():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert script.strip().splitlines()[-1] == "exec python3.11 course.py test"
