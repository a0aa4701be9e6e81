"""`make lock`: resolve anew what pyproject.toml asks for, into files with hashes and no address."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from slipway import paths

LOCKS = {
    "uv.txt": ["locks/uv.in"],
    "base.txt": ["pyproject.toml"],
    "test.txt": ["pyproject.toml", "--extra", "test"],
    "pmml.txt": ["locks/pmml.in"],
    "boosting.txt": ["locks/boosting.in"],
    # The versions a worker has, so that what is written there is read by the same here. torch itself: locks/torch.pip.
    "torch.txt": ["locks/torch.in", "--constraint", "locks/base.txt"],
    "tensorflow.txt": ["locks/tensorflow.in"],
    "s3.txt": ["locks/s3.in", "--constraint", "locks/base.txt"],
}


def main(arguments: list[str]) -> int:
    """Resolve for every supported Python at once; `--upgrade` and the like go through to uv."""
    from slipway.launch.installer import Runner, package_environment

    run = Runner()
    # Without further indexes and folders: one that has only some of a release's files would leave out the hashes of
    # the others.
    partial = ("UV_INDEX", "UV_INDEX_STRATEGY", "UV_FIND_LINKS")
    settings = package_environment(Path(sys.executable))
    run.env |= {name: value for name, value in settings.items() if name not in partial}
    for name, sources in LOCKS.items():
        if not (paths.REPOSITORY / sources[0]).exists():
            continue
        print(f"locks/{name} …", flush=True)
        options = [
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
            "--no-annotate",
        ]
        silent = ["--no-emit-index-url", "--no-emit-find-links", "--quiet", "--output-file", f"locks/{name}"]
        command = [sys.executable, "-m", "uv", "pip", "compile", *sources, *options, *silent, *arguments]
        code = subprocess.run(command, cwd=paths.REPOSITORY, env=run.env, check=False).returncode
        if code != 0:
            print(f"slipway: locks/{name} could not be resolved; uv says why above.", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
