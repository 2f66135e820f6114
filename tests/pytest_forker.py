"""Started by `pytest_runs.Forker`: imports pytest, and forks for each run. It imports nothing of ours.

A line of JSON on stdin is a run: its directory, the file for what it prints, its arguments, its environment. A line on
stdout is its exit code; negative, the signal that ended it.
"""

import contextlib
import json
import os
import sys

import pytest


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    with open(os.devnull, "w") as unread, contextlib.redirect_stdout(unread):
        pytest.main(["--markers", "--noconftest", "-c", os.devnull])  # imports the plugins that every run has
    for line in sys.stdin:
        cwd, said, argv, env = json.loads(line)
        child = os.fork()
        if not child:
            answers.close()
            with open(said, "wb") as output, open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), 0)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            sys.path[:1] = [cwd, *env["PYTHONPATH"].split(os.pathsep)]
            sys.argv = ["pytest", *argv]
            sys.exit(pytest.main(argv))
        answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")


if __name__ == "__main__":
    main()
