"""Unit tests of the greetings."""

# ruff: noqa: PT009 (unittest, because nothing but Python is needed to run it)

import unittest

from .greeting import GREETINGS, greet


class GreetingTest(unittest.TestCase):
    """What a person hears."""

    def test_greets_in_the_language_asked_for(self) -> None:
        """Each language has its own greeting."""
        for language, greeting in GREETINGS.items():
            self.assertEqual(greet("Ada", language), f"{greeting}, Ada!")

    def test_falls_back_to_english(self) -> None:
        """A language it does not know is answered in English."""
        self.assertEqual(greet("Ada", "tlh"), "Hello, Ada!")
