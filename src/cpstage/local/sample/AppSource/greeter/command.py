"""The greeter's command line."""

import json
import pkgutil
import sys

from .greeting import greet


def main() -> None:
    """Greet whom the settings name, or who is given on the command line."""
    settings = json.loads(pkgutil.get_data("greeter", "settings.json") or b"{}")
    for name in sys.argv[1:] or settings["audience"]:
        sys.stdout.write(greet(name, settings["language"]) + "\n")
