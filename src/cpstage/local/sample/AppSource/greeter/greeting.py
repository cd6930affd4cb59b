"""Greetings by language."""

GREETINGS = {"de": "Grüß Gott", "en": "Hello", "fr": "Bonjour", "ja": "こんにちは"}


def greet(name: str, language: str) -> str:
    """Return a greeting for a person in a language, or in English."""
    return f"{GREETINGS.get(language, GREETINGS['en'])}, {name}!"
