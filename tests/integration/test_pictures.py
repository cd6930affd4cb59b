"""The pictures show what the commands do, and how the source is, now."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

import cpstage
from cpstage.local.sample import CONFIGURATION
from pictures import overview, player, recording, rooms, screen
from pictures.imports import below, imports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from cpstage.local import LocalAWS

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
SOURCE = Path(cpstage.__file__).parent
PICTURES = sorted(DOCS.glob("*.svg"))
_AGAIN = "run: python tools/pictures/recording.py"


@pytest.fixture(scope="module")
def session(aws: LocalAWS, tmp_path_factory: pytest.TempPathFactory) -> list[screen.Row]:
    return recording.rows(recording.record(aws, tmp_path_factory.mktemp("session")))


def _lines(rows: Iterable[str]) -> list[str]:
    """The lines that rows hold: one that is full goes on in the next."""
    return _lasting("".join(row if len(row) == screen.COLUMNS else f"{row}\n" for row in rows))


def _lasting(text: str) -> list[str]:
    """Lines without what is another one in each run: sizes and rates."""
    text = re.sub(r"^(\w+: \w+ing): .*$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"[\d,]+ bytes", "N bytes", text).splitlines()


def test_the_session_is_what_the_commands_show_now(session: list[screen.Row]) -> None:
    picture = recording.PICTURE.read_text(encoding="utf-8")

    shown = _lines(player.texts(picture))

    assert shown == _lines(player.texts(player.svg(session, height=20))), _AGAIN
    assert [line.removeprefix("$ ") for line in shown if line.startswith("$ ")] == [
        *recording.COMMANDS
    ]
    assert len(picture) < 60_000


def test_without_animation_the_session_shows_its_last_screen() -> None:
    """Attributes alone: a renderer that knows no CSS animation draws these rows."""
    root = ElementTree.parse(recording.PICTURE).getroot()
    [scrolled] = [one for one in root.iter() if one.get("transform")]
    [up] = re.findall(r"translate\(0 -(\d+)\)", scrolled.attrib["transform"])
    rows = [one for one in scrolled if one.tag.endswith("text") and not one.get("visibility")]
    shown = ["".join(one.itertext()) for one in rows if int(one.attrib["y"]) > int(up)]

    typed = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    assert typed == [*recording.COMMANDS[1:]]
    assert shown[-2].split() == ["reported", "success", recording.JOB_ID]
    assert shown[-1] == "$"


def test_the_session_as_text_is_part_of_it(session: list[screen.Row]) -> None:
    """With gaps where it is shortened, and other white space."""
    page = (DOCS / "get-started.md").read_text(encoding="utf-8")
    blocks = page.split("```console\n")[1:]
    [block] = [one.split("\n```", 1)[0] for one in blocks if "\nstaged " in one]
    shown = [" ".join(line.split()) for line in _lines(row.text for row in session)]

    missing = []
    for line in filter(None, _lasting(block)):
        pieces = " ".join(line.split()).split("…")
        if not any(re.fullmatch(".*".join(map(re.escape, pieces)), one) for one in shown):
            missing.append(line)
    assert missing == []


def test_a_session_shows_nothing_of_the_machine_and_no_secret(
    aws: LocalAWS, session: list[screen.Row]
) -> None:
    for picture in (recording.PICTURE.read_text(), player.svg(session, height=20)):
        paths = re.findall(r"(?<![\w/:.])/[a-z]\w*/\S+", " ".join(player.texts(picture)))
        assert {path for path in paths if not path.startswith("/srv/job/")} == set()
        for secret in (*CONFIGURATION.values(), *aws.environment.values()):
            assert len(secret) < 10 or secret not in picture  # shorter ones are words
        assert not re.search(r"A[KS]IA[A-Z0-9]{12}|127\.0\.0\.1", picture)


def test_bars_leave_no_scraps_of_others(session: list[screen.Row]) -> None:
    last = [row.text for row in session if row.until is None]
    bars = [text for text in last if re.match(r"\w+: \w+ing:", text)]

    assert len(bars) >= 6
    whole = r"[^|\[]+(\|█+\|[^|\[]+)?\[[^\]]+\]"
    assert [bar for bar in bars if not re.fullmatch(whole, bar)] == []


@pytest.mark.parametrize("drawn", [overview, rooms], ids=lambda drawn: str(drawn.PICTURE.name))
def test_a_drawing_is_what_its_script_makes(drawn: ModuleType) -> None:
    again = f"run: python tools/pictures/{Path(str(drawn.__file__)).name}"
    assert drawn.PICTURE.read_text(encoding="utf-8") == drawn.svg(), again


def test_imports_go_down_only() -> None:
    upwards = [
        f"{room} imports {other}"
        for room, others in imports().items()
        for other in others
        if rooms.height_of(other) >= rooms.height_of(room)
    ]

    assert upwards == []


def test_the_house_stays_small() -> None:
    entries = [one for one in SOURCE.iterdir() if one.is_file() or any(one.glob("*.py"))]
    assert len(entries) <= 20
    assert len(rooms.FLOORS) + len(rooms.GROUND) <= 10


def test_a_module_is_neither_a_scrap_nor_a_pile() -> None:
    """What a package hands on is no code."""
    lengths = {
        path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
        if not path.is_relative_to(SOURCE / "local/sample/AppSource")
    }
    may_be_short = {"__init__", "__main__", "_version"}

    assert {path: length for path, length in lengths.items() if length > 450} == {}
    assert {
        path: length
        for path, length in lengths.items()
        if length < 60 and path.stem not in may_be_short
    } == {}


def test_nothing_that_is_about_files_knows_of_aws() -> None:
    known = imports()
    on_the_ground = {room for names in rooms.GROUND for room in names}

    for room in {"archive", "workspace", "filesystem", *on_the_ground}:
        assert not below(room, known) & {"aws"}, room


def test_the_local_aws_stands_apart() -> None:
    known = imports()

    assert known["local"] == set()
    assert {room for room, others in known.items() if "local" in others} == {"cli"}


def test_the_page_of_the_rooms_has_them_all() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    entries = set(re.findall(r"`(\w+)`", page))

    assert imports().keys() - entries == set()


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: str(picture.name))
def test_a_picture_stands_alone_and_says_what_it_is(picture: Path) -> None:
    root = ElementTree.parse(picture).getroot()

    tags = [one.tag.rpartition("}")[2] for one in root.iter()]
    assert tags[:2] == ["svg", "title"]
    assert not {"script", "image", "foreignObject"}.intersection(tags)
    assert not re.search(r"url\((?!#)|@import|href=.(?!#)", picture.read_text())
