"""One loss on three rungs (plain loops, NumPy, torch): equal to 1e-12, gradients and log-probabilities included."""

import decimal
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

CONFORMANCE = Path(__file__).parent / "conformance"
sys.path.append(str(CONFORMANCE))

import generate  # noqa: E402
import numpy_rung  # noqa: E402
import run  # noqa: E402
import specification  # noqa: E402
import torch_rung  # noqa: E402

CASES = {part: [case for case in run.read_cases() if case["part"] == part] for part in ("loss", "logps")}
PRECISE = generate.precise_specification()

nats = st.floats(-60.0, 60.0, allow_subnormal=False)
weights = st.floats(0.1, 20.0)


RUNGS = {"loops": specification, "NumPy": numpy_rung, "torch": torch_rung}


@st.composite
def loss_inputs(draw):
    """1 to 9 rows and 1 to 9 mismatched ones."""
    rows = draw(st.lists(st.tuples(nats, nats, st.booleans()), min_size=1, max_size=9))
    kl_rows = draw(st.lists(st.tuples(nats, nats), min_size=1, max_size=9))
    policy, reference, label = (list(column) for column in zip(*rows, strict=True))
    kl_policy, kl_reference = (list(column) for column in zip(*kl_rows, strict=True))
    return {
        "policy_logps": policy,
        "reference_logps": reference,
        "kl_policy_logps": kl_policy,
        "kl_reference_logps": kl_reference,
        "label": label,
        "beta": draw(st.floats(0.01, 1.0)),
        "desirable_weight": draw(weights),
        "undesirable_weight": draw(weights),
    }


@st.composite
def logps_inputs(draw):
    """1 to 3 rows of 2 to 6 tokens, any mask, a vocabulary of 2 to 5."""
    rows, length, vocabulary = draw(st.integers(1, 3)), draw(st.integers(2, 6)), draw(st.integers(2, 5))

    def table(entries, *shape):
        if not shape:
            return draw(entries)
        return [table(entries, *shape[1:]) for _ in range(shape[0])]

    return {
        "logits": table(st.floats(-30.0, 30.0), rows, length, vocabulary),
        "input_ids": table(st.integers(0, vocabulary - 1), rows, length),
        "attention_mask": table(st.just(1), rows, length),
        "label_mask": table(st.integers(0, 1), rows, length),
    }


def assert_close(found, expected, rung, tolerance=1e-12):
    for field, value in expected.items():
        wrong = run.difference(field, found[field], value, tolerance, tolerance)
        assert wrong is None, f"the {rung} rung differs from the plain loops: {wrong}"


def finite_differences(loss_of, policy_logps, step):
    """Central differences of a scalar function, one entry of policy_logps at a time."""
    slopes = []
    for i in range(len(policy_logps)):
        ahead, behind = list(policy_logps), list(policy_logps)
        ahead[i] += step
        behind[i] -= step
        slopes.append((loss_of(ahead) - loss_of(behind)) / (ahead[i] - behind[i]))
    return slopes


def precise_slopes(inputs):
    """The plain loops' finite differences on 50-digit decimals: step 1e-15, error about 1e-30."""
    exact = generate.mapped(lambda x: Decimal(x) if isinstance(x, float) else x, inputs)
    with decimal.localcontext(prec=50):
        slopes = finite_differences(
            lambda policy: PRECISE.loss(**exact | {"policy_logps": policy})["loss"],
            exact["policy_logps"],
            Decimal("1e-15"),
        )
        return [float(slope) for slope in slopes]


# ---------------------------------------------------------------- values


@pytest.mark.parametrize("rung", ["NumPy", "torch"])
@given(inputs=loss_inputs())
def test_every_rung_gives_the_plain_loops_loss_and_gradient(rung, inputs):
    assert_close(RUNGS[rung].loss(**inputs), specification.loss(**inputs), rung)


@pytest.mark.parametrize("rung", ["NumPy", "torch"])
@given(inputs=logps_inputs())
def test_every_rung_gives_the_plain_loops_log_probabilities(rung, inputs):
    assert_close(RUNGS[rung].logps(**inputs), specification.logps(**inputs), rung)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("part", CASES)
def test_every_rung_passes_every_conformance_case(rung, part):
    assert len(CASES[part]) >= 25
    for case in CASES[part]:
        wrong = run.failure(RUNGS[rung], case)
        assert wrong is None, f"{rung} on {case['name']!r}: {wrong}"


@given(inputs=loss_inputs())
def test_the_plain_loops_on_floats_are_the_plain_loops_on_50_digits(inputs):
    assert_close(specification.loss(**inputs), generate.expected("loss", inputs), "loops")


def test_no_rung_computes_in_less_than_float64():
    inputs = run.inputs_of(CASES["loss"][0])
    assert all(isinstance(loss, float) for loss in specification.loss(**inputs)["losses"])
    assert numpy_rung.loss(**inputs)["losses"].dtype == np.float64
    assert torch_rung.loss(**inputs)["losses"].dtype == torch.float64


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("rung", RUNGS)
@given(inputs=loss_inputs())
def test_the_gradient_is_the_finite_difference_to_1e_12(rung, inputs):
    found = RUNGS[rung].loss(**inputs)
    assert_close(found, {"grad_policy_logps": precise_slopes(inputs)}, f"{rung} (against finite differences)")


@pytest.mark.parametrize("rung", RUNGS)
def test_the_gradient_is_the_finite_difference_on_every_conformance_case(rung):
    for case in CASES["loss"]:
        inputs = run.inputs_of(case)
        found = RUNGS[rung].loss(**inputs)
        assert_close(found, {"grad_policy_logps": precise_slopes(inputs)}, f"{rung} on {case['name']!r}")


@pytest.mark.parametrize("rung", RUNGS)
@given(inputs=loss_inputs())
def test_each_rungs_own_finite_differences_agree_as_far_as_float64_goes(rung, inputs):
    # Of a step h = 1e-4: at most h^2 w beta^3 / 48 = 2e-10 w is truncation, some 1e-11 w is rounding.
    tolerance = 1e-9 * max(inputs["desirable_weight"], inputs["undesirable_weight"])
    loss = RUNGS[rung].loss
    slopes = finite_differences(
        lambda policy: float(loss(**inputs | {"policy_logps": policy})["loss"]), inputs["policy_logps"], 1e-4
    )
    gradient = [float(slope) for slope in loss(**inputs)["grad_policy_logps"]]
    assert slopes == pytest.approx(gradient, rel=0.0, abs=tolerance)
