"""The famous faults: each is a small change of the code as it is, and each turns the tests it names red."""

import ast
import functools
import importlib
import inspect
import textwrap

import pytest
import torch

from kto_lab import mutants
from kto_lab.mutants import MUTANTS, Edit, Mutant, applied, diff, faulty_source
from kto_utils import collator, losses
from kto_utils.data import load_eight_rows, tokenize_feedback
from kto_utils.tokenizer import load_tokenizer

# Flips that are no famous faults, but that nobody must be able to make unnoticed either.
HAND_FLIPS = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "rotated_the_other_way",
            "Every prompt gets the completion of the row after it; TRL takes the row before.",
            (Edit("collator.mismatched", "examples[i - 1]", "examples[(i + 1) % len(examples)]"),),
            ("test_trl.test_trl_a_collated_batches_agree_field_by_field[plain]",),
        ),
        Mutant(
            "reference_point_not_detached",
            "Only the reference point's own detach is gone.",
            (Edit("losses.reference_point", ".clamp(min=0).detach()", ".clamp(min=0)"),),
            ("test_properties.test_p06_the_reference_point_has_no_graph",),
        ),
        Mutant(
            "loss_keeps_the_graph_of_z0",
            "Only the loss's detach of z0 is gone.",
            (Edit("losses.kto_loss", "device=policy_logps.device).detach()", "device=policy_logps.device)"),),
            ("test_properties.test_p06_kto_loss_treats_a_z0_with_a_graph_as_a_constant",),
        ),
        Mutant(
            "kl_forward_with_graph",
            "Only the no_grad around the KL forward is gone.",
            (Edit("train.train_kto", "with torch.no_grad():", "with torch.enable_grad():"),),
            ("test_properties.test_p06_the_kl_forward_of_train_kto_creates_no_graph",),
        ),
        Mutant(
            "desirable_weight_ignored",
            "Thumbs up always count 1.",
            (Edit("losses.kto_loss", "desirable_weight * up + ", "up + "),),
            ("test_properties.test_p09_the_loss_is_linear_in_the_two_weights",),
        ),
        Mutant(
            "undesirable_weight_ignored",
            "Thumbs down always count 1.",
            (Edit("losses.kto_loss", "undesirable_weight * (1.0 - up)", "(1.0 - up)"),),
            ("test_properties.test_p09_the_loss_is_linear_in_the_two_weights",),
        ),
        Mutant(
            "weights_swapped",
            "Each kind of thumb has the other kind's weight.",
            (
                Edit(
                    "losses.kto_loss",
                    "weight = desirable_weight * up + undesirable_weight * (1.0 - up)",
                    "weight = undesirable_weight * up + desirable_weight * (1.0 - up)",
                ),
            ),
            ("test_properties.test_p36_both_printed_forms_of_the_loss_agree",),
        ),
        Mutant(
            "beta_left_out",
            "Log-ratios go into the sigmoid in nats.",
            (Edit("losses.kto_loss", "-sign * beta * (", "-sign * ("),),
            ("test_properties.test_p08_z0_is_in_nats_and_beta_is_applied_once",),
        ),
    )
}
ALL = MUTANTS | HAND_FLIPS


def disagreement(error: BaseException) -> bool:
    """Whether a test failed by an assertion, and not because it could not even run."""
    if isinstance(error, BaseExceptionGroup):  # hypothesis found several failures
        return all(disagreement(inner) for inner in error.exceptions)
    return isinstance(error, AssertionError | pytest.fail.Exception)


def red(test: str) -> bool:
    """Whether a test, named as in `Mutant.caught_by`, fails right now; an error that is no assertion is raised."""
    path, _, argument = test.removesuffix("]").partition("[")
    module, name = path.split(".")
    function = getattr(importlib.import_module(module), name)
    try:
        function(argument) if argument else function()
    except (Exception, pytest.fail.Exception) as error:
        if not disagreement(error):
            raise
        return True
    return False


@functools.cache
def green_before(test: str) -> bool:
    """The same call without a fault; it also fills what a test keeps from one call to the next with right numbers."""
    return not red(test)


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # a fault lets a gradient into the log
@pytest.mark.parametrize("name", ALL)
def test_a_fault_turns_the_tests_it_names_red(name):
    mutant = ALL[name]
    assert mutant.caught_by, f"{name} is known to no test: a hole in the tests, close it"
    assert all(green_before(test) for test in mutant.caught_by), "a test fails without the fault"
    with applied(mutant):
        survived = [test for test in mutant.caught_by if not red(test)]
    assert not survived, f"{survived} pass although {mutant.fault}"


@pytest.mark.parametrize("name", ALL)
def test_a_fault_changes_what_the_code_does_and_leaves_no_trace(name):
    functions = {edit.function: mutants._function(edit.function) for edit in ALL[name].edits}
    before = {path: (f.__code__, f.__defaults__, f.__kwdefaults__) for path, f in functions.items()}
    for path, function in functions.items():
        as_it_is = ast.parse(textwrap.dedent(inspect.getsource(function)))
        faulty = ast.parse(faulty_source([edit for edit in ALL[name].edits if edit.function == path]))
        assert ast.dump(faulty) != ast.dump(as_it_is), f"{name} changes nothing in {path}"
    with applied(ALL[name]):
        assert before != {path: (f.__code__, f.__defaults__, f.__kwdefaults__) for path, f in functions.items()}
    assert before == {path: (f.__code__, f.__defaults__, f.__kwdefaults__) for path, f in functions.items()}


def test_a_fault_is_taken_back_after_an_error_too():
    code = losses.reference_point.__code__
    with pytest.raises(ValueError, match="one shape"), applied(MUTANTS["no_clamp"]):
        losses.reference_point(torch.zeros(2), torch.zeros(3))
    assert losses.reference_point.__code__ is code


def test_none_is_the_code_as_it_is():
    code = losses.reference_point.__code__
    with applied(None):
        assert losses.reference_point.__code__ is code


@pytest.mark.parametrize("text", ["no such words", "torch"])
def test_a_fault_that_no_longer_fits_the_code_is_refused(text):
    edit = Edit("losses.kto_loss", text, "")
    times = inspect.getsource(losses.kto_loss).count(text)
    assert times != 1
    with pytest.raises(ValueError, match=f"stands {times} times in losses.kto_loss"):
        faulty_source([edit])


def test_methods_can_be_changed_too():
    rows = [tokenize_feedback(row, load_tokenizer()) for row in load_eight_rows()]
    collate = collator.KTOPaddingCollator(load_tokenizer())
    with applied(MUTANTS["matched_z0"]):
        assert torch.equal(collate(rows)["kl_input_ids"], collate(rows)["input_ids"])
    assert not torch.equal(collate(rows)["kl_input_ids"], collate(rows)["input_ids"])


def test_the_diff_shows_every_changed_line_with_its_place():
    for mutant in MUTANTS.values():
        lines = diff(mutant).splitlines()
        for edit in mutant.edits:
            assert f"  {edit.function}" in lines
            assert {f"- {line}" for line in edit.correct.splitlines()} <= set(lines)
            assert {f"+ {line}" for line in edit.faulty.splitlines()} <= set(lines)
