"""Field docstrings, which Python itself does not keep."""

import ast
import dataclasses
import inspect
import textwrap


def field_docs(group: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, in one line; empty where there is none."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(definition, ast.ClassDef)
    docs = {}
    for statement, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign):
            documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            docs[ast.unparse(statement.target)] = " ".join(str(following.value.value).split()) if documented else ""
    assert docs.keys() == {field.name for field in dataclasses.fields(group)} and docs
    return docs
