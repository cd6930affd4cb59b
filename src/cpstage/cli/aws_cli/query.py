"""``--query``: a JMESPath expression, compiled before the call and applied to its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cpstage.errors import UsageError

Query = Callable[[Any], Any]


def compile_query(expression: str | None) -> Query:
    """Return what applies the expression to a document; without one, what returns the document.

    The messages of jmespath are several lines long, and those of a failed search hold the value
    it failed on: neither is handed on as it is.

    Raises:
        UsageError: It is no JMESPath expression. The query itself raises this for an expression
            that the document does not suit.
    """
    if expression is None:
        return lambda document: document

    from jmespath import compile as compile_expression

    try:
        compiled = compile_expression(expression)
    except (ValueError, RecursionError) as error:
        raise _bad_query(expression, error) from None

    def search(document: Any) -> Any:
        try:
            return compiled.search(document)
        except (ValueError, TypeError, RecursionError) as error:
            raise _bad_query(expression, error) from None

    return search


def _bad_query(expression: str, error: Exception) -> UsageError:
    return UsageError(f"Bad value for --query {expression}: {_reason(error)}")


def _reason(error: Exception) -> str:
    from jmespath.exceptions import JMESPathError, JMESPathTypeError

    if isinstance(error, JMESPathTypeError):
        expected = " or ".join(error.expected_types)
        return f"{error.function_name}() takes {expected}, got {error.actual_type}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if not isinstance(error, (JMESPathError, ValueError)):
        return "it does not suit the document"
    first_line = str(error).partition("\n")[0]
    return first_line.rstrip(":.").removesuffix(", for expression")
