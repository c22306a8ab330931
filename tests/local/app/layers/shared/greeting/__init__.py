"""A module that handlers find in a layer only."""


def say(word: str, name: str) -> str:
    return f"{word} {name}"
