"""Draw what cpstage does: ``python tools/pictures/overview.py`` writes docs/overview.svg."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

if __name__ == "__main__":
    sys.path.extend(str(Path(__file__).parents[2] / one) for one in ("tools", "tests/support"))

from pictures.drawing import Box, Point, arrow, card, text

PICTURE = Path(__file__).resolve().parents[2] / "docs/overview.svg"
_TITLE = (
    "CodePipeline gives a job id; cpstage fetch stages the inputs from S3 into in, your build "
    "writes into out, cpstage push uploads it, and cpstage report puts the result"
)


def svg() -> str:
    """Return the drawing."""
    pipeline = Box(20, 20, 760, 44, "CodePipeline", named="strong")
    bucket = Box(165, 136, 463, 46, "the pipeline's bucket (S3) and key (KMS)", named="strong")
    row = 240.0
    fetch = Box(20, row, 124, 62, "cpstage fetch", ("check, unpack",), "ours")
    inputs = Box(165, row, 94, 62, "in/", ("AppSource/", "AppConfig/"))
    build = Box(280, row, 94, 62, "your build", ("make, npm, …",), named="strong")
    outputs = Box(395, row, 94, 62, "out/", ("AppBuild/", "AppReport/"))
    push = Box(510, row, 118, 62, "cpstage push", ("pack, encrypt",), "ours")
    report = Box(649, row, 131, 62, "cpstage report", ("success, or failure",), "ours")
    boxes = [fetch, inputs, build, outputs, push, report]
    asked, read = Point(48, row), Point(118, row)
    parts = [part for box in [pipeline, bucket, *boxes] for part in box.draw()]
    parts += [
        arrow(Point(one.right, one.middle.y), Point(next_.left, next_.middle.y))
        for one, next_ in pairwise(boxes)
    ]
    parts += [
        arrow(Point(asked.x, pipeline.bottom), asked, both=True),
        text(Point(60, 90), "job id", "strong"),
        text(Point(60, 107), "GetJobDetails: session credentials, KMS key", "note"),
        arrow(Point(bucket.left, bucket.middle.y), Point(read.x, bucket.middle.y), read),
        text(Point(128, 216), "GetObject", "note"),
        arrow(Point(push.middle.x, row), Point(push.middle.x, bucket.bottom)),
        text(Point(push.middle.x - 10, 216), "PutObject", "note", "end"),
        arrow(Point(report.middle.x, row), Point(report.middle.x, pipeline.bottom)),
        text(Point(report.middle.x - 12, 90), "result", "strong", "end"),
        text(Point(report.middle.x - 12, 107), "PutJobSuccessResult", "note", "end"),
        f'<path class="line" d="M20,{row + 76:g} v8 H780 v-8"/>',
        text(Point(414, row + 104), "cpstage run --report", "name", "end"),
        text(Point(422, row + 104), "does all of it"),
    ]
    return card(800, row + 122, _TITLE, parts)


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
