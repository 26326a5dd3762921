"""Each check of the doctor sees its problem and names the remedy."""

import pytest

from kto_course import doctor


def test_this_machine_passes_every_check_but_maybe_memory():
    for name, check in doctor.CHECKS.items():
        good, text = check()
        assert good or name == "memory", text


def test_a_wrong_version_is_named_with_the_remedy(tmp_path):
    pins = tmp_path / "requirements.txt"
    pins.write_text("numpy==0.1\nno-such-package==1.0\n")
    good, text = doctor.check_packages(pins)
    assert not good
    assert "pinned is 0.1" in text
    assert "no-such-package is missing" in text
    assert "Delete the folder .venv" in text


def test_little_memory_is_a_problem():
    good, text = doctor.check_memory(available_mb=300.0)
    assert not good
    assert "close other programs" in text


def test_a_folder_that_cannot_be_written_is_a_problem(tmp_path):
    good, text = doctor.check_write_access(tmp_path / "missing")
    assert not good
    assert "folder of your own" in text


def test_a_damaged_model_is_a_problem(monkeypatch):
    def broken():
        raise ValueError("weights are broken")

    monkeypatch.setattr("kto_utils.model.load_reference_model", broken)
    good, text = doctor.check_training()
    assert not good
    assert "Fetch the course again" in text


@pytest.mark.parametrize("good", [True, False])
def test_exit_status_says_whether_all_is_well(monkeypatch, capsys, good):
    monkeypatch.setattr(doctor, "CHECKS", {"one": lambda: (good, "text")})
    assert doctor.main() == int(not good)
    assert ("ready" in capsys.readouterr().out) == good
