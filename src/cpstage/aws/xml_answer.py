"""Answers in XML, as S3 and the services of the AWS Query protocol give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cpstage.aws.message import Answer
from cpstage.aws.service import UnreadableAnswer

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def text_of(answer: Answer, member: str) -> str:
    """Return the text of a member, in whatever namespace.

    Args:
        answer: The answer.
        member: Its name; ``A/{*}B`` is one within another.

    Raises:
        UnreadableAnswer: There is none.
    """
    found = root_of(answer)
    text = found.findtext(f"{{*}}{member}") if found is not None else None
    if not text:
        raise UnreadableAnswer(answer, f"the answer has no {member.rpartition('}')[2]}")
    return text


def explain(answer: Answer) -> tuple[str, str]:
    """Return the code and the message of an error, which may be within another element."""
    found = root_of(answer)
    if found is None:
        return str(answer.status), ""
    error = found.find("{*}Error")
    members = found if error is None else error
    code = members.findtext("{*}Code") or str(answer.status)
    return code, members.findtext("{*}Message") or ""


def root_of(answer: Answer) -> Element | None:
    """Return the outermost element; None where the body is no XML."""
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(answer.body)  # noqa: S314 (its parser bounds entities)
    except (ElementTree.ParseError, LookupError, ValueError):  # the last two of an encoding
        return None
