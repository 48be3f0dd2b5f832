"""Conditions on pairs, as `--where` gives them: expressions of SQL, which DuckDB parses and computes.

A condition looks at one pair at a time, so that its result depends on no other pair, nor on how pairs are spread over
workers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from models.errors import UserError

if TYPE_CHECKING:
    import duckdb

TABLE = "pairs"
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "enable_external_access": False,
    "lock_configuration": True,
}
_OF_ALL_PAIRS = {"SUBQUERY": "a subquery", "WINDOW": "a window function"}


class Condition(NamedTuple):
    """An expression that was checked against the columns that pairs have."""

    text: str
    columns: tuple[str, ...]  # those it names, in the order in which it does


def parse_condition(text: str, schema: pa.Schema) -> Condition:
    """Checks an expression. Raises UserError for one that DuckDB does not accept on these columns, and for one whose
    result may differ between runs or depends on other pairs."""
    if not text.strip():
        raise UserError("--where is empty; give a condition such as 'width > 256'")
    connection = _connect()
    expression = _syntax_tree(connection, text)
    nodes = list(_nodes(expression))
    for node in nodes:
        if kind := _OF_ALL_PAIRS.get(node["class"]):
            raise UserError(f"--where {text}: has {kind}; a condition sees one pair at a time, so write a number there")
        if node["class"] == "FUNCTION" and not _is_repeatable(connection, node["function_name"]):
            raise UserError(f"--where {text}: {node['function_name']} gives another result in each run; leave it out")
    names = [node["column_names"][-1] for node in nodes if node["class"] == "COLUMN_REF"]
    by_lower_case = {name.lower(): name for name in schema.names}
    if unknown := [name for name in names if name.lower() not in by_lower_case]:
        raise UserError(f"--where {text}: there is no column {unknown[0]}; there are {', '.join(schema.names)}")
    condition = Condition(text, tuple(dict.fromkeys(by_lower_case[name.lower()] for name in names)))
    _run(connection, schema.empty_table(), f"SELECT 1 FROM {TABLE} WHERE (\n{text}\n)", text)
    return condition


def holds(condition: Condition, table: pa.Table) -> list[bool | None]:
    """Whether the condition holds for each row, in order; None where that depends on a number that the row lacks.
    Raises UserError for a row whose values the expression can't convert."""
    query = f"SELECT CAST((\n{condition.text}\n) AS BOOLEAN) FROM {TABLE}"
    return [value for (value,) in _run(_connect(), table, query, condition.text)]


def _connect() -> duckdb.DuckDBPyConnection:
    """A database in memory that reads no file. Raises UserError if DuckDB is not installed."""
    try:
        import duckdb
    except ImportError as error:
        raise UserError(f"--where needs DuckDB ({error}): pip install '.[scores]'") from None
    return duckdb.connect(":memory:", config=_SETTINGS)


def _syntax_tree(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    query = f"SELECT 1 FROM {TABLE} WHERE (\n{text}\n)"
    [(answer,)] = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    tree = json.loads(answer)
    if tree["error"]:
        raise UserError(f"--where {text}: {_one_line(tree['error_message'])}; give a condition such as 'width > 256'")
    if len(tree["statements"]) != 1 or _has_clauses(tree["statements"][0]["node"]):
        raise UserError(f"--where {text}: is more than one condition; give one, such as 'width > 256'")
    return tree["statements"][0]["node"]["where_clause"]


def _has_clauses(statement: dict[str, Any]) -> bool:
    """Whether a statement has more than a condition: what stood after a closing parenthesis."""
    is_plain = statement["type"] == "SELECT_NODE"
    return not is_plain or any(statement[name] for name in ("modifiers", "group_expressions", "having", "qualify"))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """The expressions of a syntax tree, from left to right."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _is_repeatable(connection: duckdb.DuckDBPyConnection, function: str) -> bool:
    """Whether a function, in one of its forms, gives the same result in each run. One that DuckDB does not know is left
    to it: its message names similar ones."""
    query = "SELECT stability FROM duckdb_functions() WHERE function_name = ? AND stability IS NOT NULL"
    known = connection.execute(query, [function]).fetchall()
    return not known or ("CONSISTENT",) in known


def _run(connection: duckdb.DuckDBPyConnection, table: pa.Table, query: str, text: str) -> list[tuple]:
    import duckdb

    connection.register(TABLE, table)
    try:
        return connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise UserError(f"--where {text}: {_one_line(str(error).partition('LINE 1')[0])}") from None


def _one_line(message: str) -> str:
    return " ".join(message.split()).rstrip("!.")
