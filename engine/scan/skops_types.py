"""Types inside a skops file that skops does not trust by itself."""

from __future__ import annotations

from pathlib import Path


def untrusted(path: Path) -> list[str]:
    """Dotted names, by reading the file's schema; nothing of the model is built."""
    import skops.io

    return [str(each) for each in skops.io.get_untrusted_types(file=path)]


def allowed(path: Path) -> list[str]:
    """Those of `untrusted` that our own list allows, to hand to `skops.io.load(trusted=)`."""
    from engine.scan.allowed import judge

    return [each for each in untrusted(path) if judge(*each.rpartition(".")[::2]) == "allowed"]
