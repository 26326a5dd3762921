#!/usr/bin/env python3
"""The one entry to the course. Standard library only: it runs before anything is installed.

    python course.py              set up once, then open JupyterLab on the first lesson (in your own folder, work/)
    python course.py --light      the same with 1.6 GB instead of 1.9: enough for the lab and lessons 00 to 08; the
                                  rest comes with --full, or with the first command that needs it
    python course.py help         this list
    python course.py doctor       check this machine, with a remedy for each problem
    python course.py inspect FILE what is in a file of thumbs, and the two weights
    python course.py split FILE   thumbs for training and for evaluation, which share no question or no user
    python course.py real         a real chat model: thumbs, KTO, report (fetches 100 MB once; half an hour)
    python course.py interview    questions in the terminal, those you need most first; with --mock 30 a mock
                                  interview of 30 minutes, alone, against the clock
    python course.py slides [NN]  open the slides of a lesson, or "KTO in 90 minutes", in the browser; needs no set-up
    python course.py hand-out lab_90       a folder for students in which no answer stands
    python course.py grade lab_90 FOLDER   points, feedback and remarks for what came back
    python course.py run [FILE]   run all lessons, or these notebooks, from fresh kernels and print a table
    python course.py test         ruff, the unit tests, and every stored output of every lesson

  to work on the course itself (each lists its own options with --help):
    python course.py build        build the lessons from notebooks/src
    python course.py experiments  make the runs behind lessons 07b to 09b that are missing (or of those named)
    python course.py online       compute the results of online KTO again (lesson 09b)
    python course.py museum       compute the results of lesson 10 again
    python course.py bench        measure a KTO step here, ours against the plain one and TRL's
    python course.py scaling      compute the results of lesson 12 again
    python course.py export       write the small world as a model folder and rows, for other engines
    python course.py assets       make the tokenizer and the reference models again
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  (this very check is why the line may look outdated)
    sys.exit(
        f"The course needs Python 3.11 or newer; this is Python {sys.version_info[0]}.{sys.version_info[1]}. Install a "
        "newer one from python.org or with your system's package manager, then run it by name: python3.11 course.py"
    )

import hashlib
import os
import shutil
import subprocess
import tempfile
import webbrowser
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parent
LEARNER, TESTER, TEACHER = "requirements.txt", "tests/requirements.txt", "requirements-teaching.txt"
LIGHT = "requirements-light.txt"  # for the lab and lessons 00 to 08
NEEDED_GB = 3.0
# On disk, measured on Linux with torch's CPU build.
SIZES = {LEARNER: "about 1.9 GB", LIGHT: "about 1.6 GB", TESTER: "about 260 MB", TEACHER: "about 65 MB"}
READ_ONLY = (
    f"The folder {ROOT} cannot be written. Copy the course into a folder of your own, e.g. in your home or documents "
    "folder, and start it there."
)
NAMES_FILES = ("inspect", "split", "real", "run", "export", "hand-out", "grade")  # relative to where one stands
WRITES_NOTHING_HERE = ("doctor", "inspect", "split")  # these may be used in an installed course that is read-only
TESTING = ("test", "build", "bench", "scaling")
TEACHING = ("hand-out", "grade")
LIGHT_COMMANDS = ("open", "doctor")  # these do with the light set-up where that was chosen
MODULES = {  # command -> what runs it
    "open": "kto_course.workspace", "doctor": "kto_course.doctor", "inspect": "kto_lab.inspect",
    "split": "kto_lab.split", "real": "kto_lab.real", "interview": "kto_course.interview",
    "hand-out": "kto_course.hand_out", "grade": "kto_course.grade", "run": "kto_course.runner",
    "build": "kto_course.build", "experiments": "kto_lab.comparison",
    "online": "kto_lab.online_results", "museum": "kto_lab.museum", "bench": "kto_lab.bench",
    "scaling": "kto_lab.scaling", "export": "kto_lab.export",
    "assets": "kto_lab.recipes",
}  # fmt: skip
COMMANDS = ("test", "slides", *MODULES)


def python_of(venv: PurePath, windows: bool) -> PurePath:
    """The interpreter inside a virtual environment."""
    return venv / "Scripts" / "python.exe" if windows else venv / "bin" / "python"


def requirement_files(command: str, size: str | None = None) -> tuple[str, ...]:
    """The files whose packages a command needs; size is "light", "full", or None for what was chosen before."""
    if command in TESTING:
        return (LEARNER, TEACHER, TESTER)
    if command in TEACHING:
        return (LEARNER, TEACHER)
    venv = ROOT / ".venv"
    chosen = size == "light" or (size is None and stamp_path(venv, LIGHT).is_file())
    return (LIGHT,) if command in LIGHT_COMMANDS and chosen and not is_installed(ROOT, venv, LEARNER) else (LEARNER,)


def stamp_text(root: Path, name: str) -> str:
    """What the stamp holds when these requirements are installed for this interpreter."""
    content = (root / name).read_bytes().replace(b"\r\n", b"\n")
    return f"{hashlib.sha256(content).hexdigest()} {sys.version_info[0]}.{sys.version_info[1]}\n"


def stamp_path(venv: Path, name: str) -> Path:
    return venv / f"installed-{name.replace('/', '-')}"


def is_installed(root: Path, venv: Path, name: str) -> bool:
    stamp = stamp_path(venv, name)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == stamp_text(root, name)


def explain_failure(output: str, free_gb: float) -> str:
    """The remedy for a failed set-up, read from what the tools said."""
    text = output.lower()
    if "no space left" in text or "errno 28" in text or "not enough space" in text or free_gb < 0.2:
        return f"The disk is full ({free_gb:.1f} GB free, {NEEDED_GB:.0f} GB needed). Free some space and start again."
    denied = ("permission denied", "errno 13", "read-only file system", "errno 30", "access is denied", "winerror 5]")
    if any(sign in text for sign in denied):
        return READ_ONLY
    if "ensurepip" in text or "no module named venv" in text or "python3-venv" in text:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            f"Python's venv module is missing. On Debian or Ubuntu: sudo apt install python{version}-venv; elsewhere "
            "install Python from python.org. Then start again."
        )
    network = ("newconnectionerror", "temporary failure in name resolution", "getaddrinfo", "connection broken",
               "connecttimeout", "max retries exceeded", "proxyerror", "network is unreachable",
               "connection reset", "read timed out", "failed to establish", "name or service not known",
               "nodename nor servname", "connection refused", "no route to host", "timed out")  # fmt: skip
    if any(sign in text for sign in network):
        return (
            "The packages could not be fetched: the network is down, or a proxy blocks it (then set HTTPS_PROXY). The "
            "network is needed for this step only. Start again when it is back; what was fetched is kept."
        )
    refused = ("certificate_verify_failed", "sslerror", "error 401", "error 403", "error 407", "401 client error",
               "403 client error", "407 proxy", "unauthorized", "forbidden")  # fmt: skip
    if any(sign in text for sign in refused):
        return (
            "The place that serves the packages was found but refused to answer: a certificate or a password is "
            "missing (see PIP_INDEX_URL, HTTPS_PROXY, PIP_CERT and `pip config list`). Set it and start again."
        )
    if "(from versions: none)" in text:
        return (
            "pip saw no version of this package at all: it reached no index of packages, or there is no build for this "
            "machine. Look at PIP_INDEX_URL, PIP_NO_INDEX and `pip config list` first; the README lists the systems "
            "that are known to work."
        )
    if "no matching distribution" in text:
        return (
            "A pinned package has no build for this machine. The README lists the systems that are known to work; "
            "python.org's 64-bit Python 3.11 to 3.13 is the safest choice."
        )
    return "The lines above say what went wrong. Mend it and start again; a half-finished set-up is repaired then."


def _fail(output: str) -> None:
    print(output[-3000:], file=sys.stderr)
    free = shutil.disk_usage(ROOT).free / 2**30
    sys.exit(f"\nSet-up did not finish. {explain_failure(output, free)}")


def _attempt(arguments: list[str], show: bool) -> None:
    """Runs a step of the set-up; a failure is explained."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if show and line.startswith(("Collecting", "Downloading", "Installing", "ERROR", "WARNING: Retry")):
            print("  " + line.split(" (from ")[0].rstrip()[:110], flush=True)
    if process.wait() != 0:
        _fail("".join(lines))


def ensure_installed(command: str, size: str | None = None) -> Path:
    """Makes .venv and installs what the command needs, unless that was done; returns its interpreter.

    `size` is as in `requirement_files`.

    While packages are being installed a marker lies in .venv. A start that finds it knows that the last install
    was interrupted, perhaps in the middle of a package, and makes the environment anew.
    """
    venv = ROOT / ".venv"
    python = Path(python_of(venv, windows=os.name == "nt"))
    missing = [name for name in requirement_files(command, size) if not is_installed(ROOT, venv, name)]
    ready = python.exists() and not missing and not (venv / "installing").exists()
    if not (ready and command in WRITES_NOTHING_HERE) and not can_be_written(ROOT):
        sys.exit(READ_ONLY)
    if ready:
        make_importable(venv)
        return python
    free = shutil.disk_usage(ROOT).free / 2**30
    if not python.exists() and free < NEEDED_GB:
        sys.exit(f"Set-up needs {NEEDED_GB:.0f} GB on this disk; {free:.1f} GB are free. Make room and start again.")
    marker = venv / "installing"
    if marker.exists() or not works(python):
        print("Setting up .venv ...", flush=True)
        _attempt([sys.executable, "-m", "venv", "--clear", str(venv)], show=False)
        missing = list(requirement_files(command, size))
    told = ", ".join(f"{name} ({SIZES[name]} of disk)" for name in missing)
    print(f"Installing {told}, once; a few minutes ...", flush=True)
    names = [part for name in missing for part in ("-r", name)]
    if LEARNER not in missing and LIGHT not in missing:
        names += ["-c", LEARNER]  # other tools must not move what the learner has
    marker.touch()
    _attempt([str(python), "-m", "pip", "install", "--disable-pip-version-check", *names], show=True)
    for name in missing:
        stamp_path(venv, name).write_text(stamp_text(ROOT, name), encoding="utf-8")
    make_importable(venv)
    marker.unlink()
    return python


def make_importable(venv: Path) -> None:
    """Lets the environment's Python import the course's packages from any folder: an editor's, nbgrader's, a copy's.

    The line is run at every start of that Python, in ASCII so that an accent in the path survives every locale.
    """
    line = f"import sys; sys.path.append({str(ROOT)!a})\n"
    for folder in [*venv.glob("lib/python*/site-packages"), *venv.glob("Lib/site-packages")]:
        file = folder / "kto_from_scratch.pth"
        if not file.is_file() or file.read_text(encoding="ascii", errors="replace") != line:
            file.write_text(line, encoding="ascii")


def can_be_written(folder: Path) -> bool:
    """Whether a file can be made there; asking the permissions alone is wrong on Windows and on shared disks."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def works(python: Path) -> bool:
    """Whether the environment's interpreter starts and has pip: an interrupted set-up leaves one that does not."""
    if not python.exists():
        return False
    probe = subprocess.run([str(python), "-c", "import pip, sys; sys.exit(sys.prefix == sys.base_prefix)"],
                           capture_output=True)  # fmt: skip
    return probe.returncode == 0


def environment(command: str) -> dict[str, str]:
    """What every command runs with: one thread, UTF-8, the hub libraries offline (but for a model named to `real`)."""
    env = dict(os.environ)
    env.setdefault("OMP_NUM_THREADS", "1")
    env.setdefault("PYTHONUTF8", "1")
    env.pop("MPLBACKEND", None)  # a setting for scripts; in a lesson it would hide the figures
    if command != "real":
        env["HF_HUB_OFFLINE"] = env["TRANSFORMERS_OFFLINE"] = env["HF_DATASETS_OFFLINE"] = "1"
    return env


def steps_of(command: str, arguments: list[str], python: str) -> list[list[str]]:
    """The processes behind a command, one after the other."""
    # -P: a learner's own csv.py beside the thumbs must not be taken for Python's.
    module = [python, "-P", "-m"] if command in NAMES_FILES else [python, "-m"]
    found = [path for folder in ("", "deeper") for path in sorted((ROOT / "notebooks" / folder).glob("*.ipynb"))]
    lessons = [str(path if command in NAMES_FILES else path.relative_to(ROOT)) for path in found]
    if command == "test":
        workers = ["-n", "2", "--dist=loadfile"]
        return [
            [*module, "ruff", "check", "."],
            [*module, "pytest", *workers, "--nbval", "tests", *lessons, *arguments],
        ]
    return [[*module, MODULES[command], *(arguments or (lessons if command == "run" else []))]]


def open_slides(names: list[str]) -> int:
    """Shows a deck: a lesson's by its number or name, without one the talk of 90 minutes."""
    decks = sorted((ROOT / "notebooks" / "slides").glob("*.html"))
    wanted = names[0] if names else "kto_in_90_minutes"
    found = [deck for deck in decks if wanted in (deck.stem, deck.stem[:2])]
    if len(names) > 1 or not found:
        print(f"There are no slides {' '.join(names)!r}; there are {', '.join(deck.stem for deck in decks)}.",
              file=sys.stderr)  # fmt: skip
        return 2
    print(f"{found[0]}\nKeys: arrows; S speaker's notes, O overview, B black, F full screen.")
    webbrowser.open(found[0].as_uri())
    return 0


def main(arguments: list[str]) -> int:
    size = arguments.pop(0)[2:] if arguments[:1] in (["--light"], ["--full"]) else None
    command = arguments[0] if arguments else "open"
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in COMMANDS:
        print(f"There is no command {command!r}; python course.py help lists them.", file=sys.stderr)
        return 2
    if command == "slides":
        return open_slides(arguments[1:])
    python = ensure_installed(command, size)
    for step in steps_of(command, arguments[1:], str(python)):
        try:
            here = None if command in NAMES_FILES else ROOT
            status = subprocess.run(step, cwd=here, env=environment(command)).returncode
        except KeyboardInterrupt:
            return 130
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal cannot show is written as an escape
    try:
        status = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # `python course.py help | head -1`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
