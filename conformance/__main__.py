"""`python -m conformance http://HOST:PORT`: run the checks and print the matrix."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx

from conformance.core import all_checks, run_all
from conformance.report import as_json, as_markdown, as_text, required_failures
from conformance.target import Target


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance",
        description="Open Inference Protocol V2 conformance. Exit code 0 when no required check fails.",
    )
    parser.add_argument("url", help="base URL, e.g. http://127.0.0.1:8080")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="the server's gRPC address; without it no gRPC check runs")
    parser.add_argument(
        "--models", metavar="FIXTURE=NAME", nargs="*", default=[], help="names the server gave to fixtures"
    )
    parser.add_argument("--only", metavar="PREFIX", nargs="*", default=[], help="run checks with these prefixes only")
    parser.add_argument("--skip", metavar="PREFIX", nargs="*", default=[], help="leave out checks with these prefixes")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the matrix as JSON")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the matrix as Markdown")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Entry point: 0 when no required check fails, 1 when one does, 2 for wrong options or no server."""
    parser = _parser()
    options = parser.parse_args(arguments)
    pairs = [word.partition("=") for item in options.models for word in item.split(",") if word]
    if any(not separator or not name for _, separator, name in pairs):
        parser.error("--models takes FIXTURE=NAME")
    if not options.url.startswith(("http://", "https://")):
        parser.error("the base URL must start with http:// or https://")
    target = Target(options.url, options.grpc, {fixture: name for fixture, _, name in pairs})
    chosen = [c for c in all_checks() if not options.only or c.name.startswith(tuple(options.only))]
    chosen = [c for c in chosen if not c.name.startswith(tuple(options.skip))]
    try:
        target.get("/v2/health/live")
        outcomes = run_all(target, chosen)
    except httpx.TransportError as error:
        print(f"conformance: {options.url} does not answer: {error}", file=sys.stderr)
        return 2
    finally:
        target.close()
    print(as_text(outcomes))
    if options.json:
        options.json.write_text(as_json(options.url, outcomes), encoding="utf-8")
    if options.markdown:
        options.markdown.write_text(as_markdown(outcomes), encoding="utf-8")
    return 1 if required_failures(outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
