"""botocore's JSON files, read once for all clients of a process: its models take 0.1 s to parse."""

from __future__ import annotations

from botocore.loaders import JSONFileLoader


def read_once() -> None:
    """Keep what botocore reads: each session has a loader, and reads the files again."""
    read = JSONFileLoader.load_file
    files: dict[str, object] = {}

    def load_file(loader: JSONFileLoader, path: str) -> object:
        if path not in files:
            files[path] = read(loader, path)
        return files[path]

    JSONFileLoader.load_file = load_file  # type: ignore[method-assign, assignment]
