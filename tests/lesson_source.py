"""Takes definitions out of a lesson's source, so that tests can hold them against the package's."""

import ast
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "notebooks" / "src"


def definitions(stem: str, *names: str) -> dict:
    """Runs a lesson's imports, constants' assignments that are named, and the named functions or classes.

    Args:
        stem: e.g. "05_get_probs".
        names: functions, classes or constants of that lesson; the last definition of each counts.

    Returns:
        The namespace; a test reads the definitions from it by name.

    Raises:
        LookupError: the lesson does not define a name (any more).
    """
    tree = ast.parse((SOURCES / f"{stem}.py").read_text(encoding="utf-8"))
    wanted, found = [], set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            wanted.append(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in names:
            wanted.append(node)
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            targets = {t.id for t in node.targets if isinstance(t, ast.Name)}
            if targets & set(names):
                wanted.append(node)
                found |= targets
    missing = set(names) - found
    if missing:
        raise LookupError(f"{stem}.py does not define {sorted(missing)}")
    namespace: dict = {"__name__": f"lesson_{stem}"}
    exec(compile(ast.Module(body=wanted, type_ignores=[]), f"{stem}.py", "exec"), namespace)
    return namespace
