"""Records are built by the names of their fields: swapped values of one type would be no error."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.support.paths import ROOT

PACKAGES = ("models", "pipeline", "beam_jobs")
MAX_POSITIONAL = 4
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def name_of(node: ast.expr) -> str:
    """The last name of `a.b.c`, or of what is called; "" for another expression."""
    return name_of(node.func) if isinstance(node, ast.Call) else getattr(node, "attr", getattr(node, "id", ""))


def is_record(node: ast.AST) -> bool:
    """Whether a class is a NamedTuple or a dataclass."""
    return isinstance(node, ast.ClassDef) and bool(
        {"NamedTuple", "dataclass"} & set(map(name_of, [*node.bases, *node.decorator_list]))
    )


def records_in(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and is_record(node)}


RECORDS = {module: records_in(tree) for module, tree in MODULES.items()}


def known_records(tree: ast.Module, records: dict[str, set[str]]) -> set[str]:
    """The names by which a module has records: its own, those it imports, and those of the modules it imports."""
    known = records_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in records.get(node.module or "", ()):
                    known.add(alias.asname or alias.name)
                known |= records.get(f"{node.module}.{alias.name}", set())
    return known


def calls_by_position(tree: ast.Module, records: dict[str, set[str]]) -> Iterator[str]:
    """The calls of records with more positional arguments than MAX_POSITIONAL, or with a star."""
    known = known_records(tree, records)
    inside = {id(node) for record in ast.walk(tree) if is_record(record) for node in ast.walk(record)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        builds = name_of(call) in known or (name_of(call) == "cls" and id(call) in inside)
        if builds and (len(call.args) > MAX_POSITIONAL or any(isinstance(value, ast.Starred) for value in call.args)):
            yield f"line {call.lineno}: {ast.unparse(call)}"


@pytest.mark.parametrize("module", MODULES)
def test_fields_of_records_are_named(module):
    found = list(calls_by_position(MODULES[module], RECORDS))
    assert not found, "name the fields; `_make` builds a NamedTuple from a row that was read"


HERE = "@dataclasses.dataclass(frozen=True)\nclass Row:\n    a: int\n\n"


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (HERE + "Row(1, 2, 3, 4, 5)", 1),
        (HERE + "Row(*row)", 1),
        (HERE + "Row(1, 2, 3, e=5, d=4)", 0),
        ("class Row(NamedTuple):\n    @classmethod\n    def of(cls, row):\n        return cls(*row)", 1),
        ("class Row:\n    pass\n\nRow(*row)", 0),
        ("from rows import Row as Line\n\nLine(*row)", 1),
        ("from others import Row\n\nRow(*row)", 0),
        ("from package import rows\n\nrows.Row(*row)", 1),
    ],
)
def test_such_a_call_is_found(code, calls):
    records = {"rows": {"Row"}, "package.rows": {"Row"}}
    assert len(list(calls_by_position(ast.parse(code), records))) == calls
