"""Tests an implementation of KTO against kto_v1.json: `python tests/conformance/run.py [module.py | dotted.name]`.

The module provides two functions, named after the two parts: `loss(**inputs)` returns a dictionary with z0, losses,
loss, grad_policy_logps; `logps(**inputs)` one with token_logps, logps. The inputs are a case's fields, by name, as
lists and floats; NumPy arrays and torch tensors may come back. Without a module the specification tests itself.
Exit status 1 on any failure. Standard library only.
"""

import argparse
import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILE = HERE / "kto_v1.json"
ABOUT_A_CASE = {"name", "part", "guards", "expected"}


def refuse(constant):
    raise ValueError(f"{constant} is no JSON number; kto_v1.json writes it as a string")


def read_cases(path=FILE):
    """The cases, every logit a float: "-inf" and "nan" stand as strings in the file."""
    cases = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)["cases"]
    for case in cases:
        if case["part"] == "logps":
            case["logits"] = [[[float(x) for x in place] for place in row] for row in case["logits"]]
    return cases


def load(name):
    """The module at a path ending in .py, or with a dotted name."""
    sys.path[:0] = [os.getcwd(), str(HERE)]
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        del sys.path[:2]


def inputs_of(case):
    return {field: value for field, value in case.items() if field not in ABOUT_A_CASE}


def difference(place, found, expected, rtol, atol):
    """The first difference in words, or None."""
    if hasattr(found, "tolist"):
        found = found.tolist()
    if isinstance(expected, list):
        if not isinstance(found, (list, tuple)) or len(found) != len(expected):
            return f"{place} is {found!r}, expected {len(expected)} entries"
        entries = (
            difference(f"{place}[{i}]", *pair, rtol, atol) for i, pair in enumerate(zip(found, expected, strict=True))
        )
        return next((entry for entry in entries if entry), None)
    if abs(found - expected) <= atol + rtol * abs(expected):  # False for NaN as well
        return None
    return f"{place} is {found!r}, expected {expected!r}"


def failure(module, case, rtol=1e-12, atol=1e-12):
    """What is wrong with the module's answer to one case, or None."""
    try:
        found = getattr(module, case["part"])(**inputs_of(case))
        for field, expected in case["expected"].items():
            wrong = difference(field, found[field], expected, rtol, atol)
            if wrong:
                return wrong
    except Exception as error:  # an implementation may fail in any way; the other cases still run
        return f"{type(error).__name__}: {error}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="?", default=str(HERE / "specification.py"))
    parser.add_argument("--rtol", type=float, default=1e-12, help="relative tolerance; float32 needs about 1e-5")
    parser.add_argument("--atol", type=float, default=1e-12, help="absolute tolerance; float32 needs about 1e-5")
    arguments = parser.parse_args()
    module, cases = load(arguments.module), read_cases()
    passed = {"loss": 0, "logps": 0}
    for case in cases:
        wrong = failure(module, case, arguments.rtol, arguments.atol)
        if wrong:
            print(f"FAILED {case['part']} | {case['name']} | guards {', '.join(case['guards'])} | {wrong}")
        else:
            passed[case["part"]] += 1
    counts = ", ".join(f"{part} {n} of {sum(c['part'] == part for c in cases)}" for part, n in passed.items())
    print(f"{sum(passed.values())} of {len(cases)} cases passed: {counts}")
    return 0 if sum(passed.values()) == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
