"""``python -m cpstage``."""

from cpstage.cli import main

main()
