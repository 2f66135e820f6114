"""May this tag be released? It names the version in the source and a dated entry of the changelog, and is signed.

The signature is git's own, by an SSH key of packaging/allowed_signers, and git itself checks it. With --signers the
list is another commit's, as main's is: a key that was taken off the list no longer signs, not even old commits.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SIGNERS = "packaging/allowed_signers"


def faults(tag: str, source: str, changelog: str) -> Iterator[str]:
    """Return the objections to the tag that follow from the package's __init__.py and the changelog."""
    version = "".join(re.findall(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)[:1])
    if tag != f"v{version}":
        yield f"the tag is {tag}, the source says {version or 'no version'}"
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE):
        yield f"CHANGELOG.md has no dated entry for {version}"


def signature_faults(tag: str, signers: str) -> Iterator[str]:
    """Return why the tag's signature does not count, by the list of signers in a commit."""
    keys = subprocess.run(["git", "show", f"{signers}:{SIGNERS}"], capture_output=True, check=False).stdout
    if not re.search(rb"^[^#\s]", keys, re.MULTILINE):
        yield f"{SIGNERS} of {signers} names no key: a maintainer's has to stand there before anything is released"
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(keys)
        file.flush()
        ssh = ["-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={file.name}"]
        done = subprocess.run(["git", *ssh, "verify-tag", "--", tag], capture_output=True, text=True, check=False)
    if done.returncode:
        yield f"git does not vouch for the signature of {tag}: {' '.join(done.stderr.split())}"


def main() -> int:
    """Check the tag named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tag")
    parser.add_argument("--signers", default="HEAD", help=f"the commit whose {SIGNERS} counts (default: %(default)s)")
    options = parser.parse_args()
    source, changelog = (Path(name).read_text("utf-8") for name in ("src/waitbus/__init__.py", "CHANGELOG.md"))
    found = [*faults(options.tag, source, changelog), *signature_faults(options.tag, options.signers)]
    print("\n".join(found) or f"{options.tag} names this version, and is signed", file=sys.stderr if found else None)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
