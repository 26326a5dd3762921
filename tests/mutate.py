"""Small mistakes made by machine: a mutant of a model solution differs from it in one operator, constant or line."""

import ast
import copy
from collections.abc import Iterator

OPERATORS = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Div,), ast.Div: (ast.Mult,), ast.FloorDiv: (ast.Div,),
    ast.Pow: (ast.Mult,), ast.Mod: (ast.Mult,), ast.BitAnd: (ast.BitOr,), ast.BitOr: (ast.BitAnd,),
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.And: (ast.Or,), ast.Or: (ast.And,),
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "sum": "mean", "mean": "sum", "log_softmax": "softmax", "softmax": "log_softmax",
    "log": "exp", "exp": "log", "sigmoid": "tanh", "logsigmoid": "sigmoid", "argmax": "argmin", "argmin": "argmax",
    "zeros": "ones", "ones": "zeros", "zeros_like": "ones_like", "ones_like": "zeros_like", "tril": "triu",
    "triu": "tril", "cos": "sin", "sin": "cos", "any": "all", "all": "any", "cumsum": "cumprod",
}  # fmt: skip
DROPPED = ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.If, ast.For, ast.Raise, ast.Assert


def _changed(node, **fields):
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _variants(node: ast.AST) -> Iterator[ast.AST | list]:
    """What may stand in the place of a node; a list of statements for a statement."""
    match node:
        case ast.BinOp() | ast.BoolOp() | ast.AugAssign():
            for other in OPERATORS.get(type(node.op), ()):
                yield _changed(node, op=other())
        case ast.Compare():
            for other in OPERATORS.get(type(node.ops[0]), ()):
                yield _changed(node, ops=[other(), *node.ops[1:]])
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert()):
            yield node.operand
        case ast.IfExp():
            yield _changed(node, body=node.orelse, orelse=node.body)
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int()):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
        case ast.Constant(value=float()):
            yield from (ast.Constant(node.value + 0.5), ast.Constant(node.value * 2 or 1.0))
        case ast.Slice():
            for bound in ("lower", "upper", "step"):
                if getattr(node, bound) is not None:
                    yield _changed(node, **{bound: None})
        case ast.Subscript(ctx=ast.Load()):
            yield node.value
        case ast.Call():
            if len(node.args) > 1:
                yield _changed(node, args=[node.args[1], node.args[0], *node.args[2:]])
            # x.clamp(0) -> x; but not torch.stack(rows) -> torch
            if isinstance(node.func, ast.Attribute) and not (isinstance(node.func.value, ast.Name) and node.args):
                yield node.func.value
            for i in range(len(node.keywords)):
                yield _changed(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
        case ast.Attribute(attr=name) if name in NAMES:
            yield _changed(node, attr=NAMES[name])
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield _changed(node, id=NAMES[name])
        case ast.With():
            yield node.body
        case ast.Return(value=ast.AST()):
            yield ast.Return(None)
    if isinstance(node, DROPPED) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        yield ast.Pass()


def _places(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, ast.AST):
                yield parent, field, None, value
            elif isinstance(value, list):
                yield from ((parent, field, i, item) for i, item in enumerate(value) if isinstance(item, ast.AST))


def _text(node) -> str:
    return "; ".join(" ".join(ast.unparse(n).split()) for n in (node if isinstance(node, list) else [node]))


def mutants(source: str, lines: range) -> dict[str, str]:
    """All mutants of a cell whose change lies in the given lines (from 1): description -> source.

    A description is "what stood there -> what stands there now"; a second one of the same text is numbered.
    """
    tree = ast.parse(source)
    plain, found, seen = ast.unparse(tree), {}, set()
    for parent, field, i, node in _places(tree):
        if getattr(node, "lineno", 0) not in lines:
            continue
        for new in _variants(node):
            if i is None:
                setattr(parent, field, new)
            else:
                getattr(parent, field)[i : i + 1] = new if isinstance(new, list) else [new]
            mutated = ast.unparse(ast.fix_missing_locations(tree))
            if i is None:
                setattr(parent, field, node)
            else:
                getattr(parent, field)[i : i + (len(new) if isinstance(new, list) else 1)] = [node]
            if mutated == plain or mutated in seen:
                continue
            seen.add(mutated)
            name = description = f"{_text(node)} -> {_text(new)}"
            n = 1
            while name in found:
                n += 1
                name = f"{description} ({n})"
            found[name] = mutated
    assert ast.unparse(tree) == plain
    return found
