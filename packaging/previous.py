"""The release before this one: a test makes its store with it, the benchmarks run it beside ours.

`make lock` locks it in previous.py.lock, `make test` installs it into .venvs/0.2.0; nothing runs this file.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["waitbus==0.2.0"]
#
# [tool.uv]
# exclude-newer = "7 days"
# ///
