"""What checks a release before it is uploaded: the versions that the publishing action has in its image, no others.

From requirements/runtime.txt of pypa/gh-action-pypi-publish at dc37677b2e1c63e2034f94d8a5b11f265b73ba33; when the
action moves, this list moves with it, and `make lock` locks it in publisher.py.lock. `make audit` runs it over dist/.
"""

# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "certifi==2025.8.3",
#   "cffi==1.17.1",
#   "charset-normalizer==3.4.3",
#   "cryptography==45.0.7",
#   "docutils==0.22",
#   "id==1.5.0",
#   "idna==3.10",
#   "jaraco-classes==3.4.0",
#   "jaraco-context==6.0.1",
#   "jaraco-functools==4.3.0",
#   "jeepney==0.9.0",
#   "keyring==25.6.0",
#   "markdown-it-py==4.0.0",
#   "mdurl==0.1.2",
#   "more-itertools==10.8.0",
#   "nh3==0.3.0",
#   "packaging==26.2",
#   "pycparser==2.22",
#   "pygments==2.19.2",
#   "readme-renderer==44.0",
#   "requests==2.32.5",
#   "requests-toolbelt==1.0.0",
#   "rfc3986==2.0.0",
#   "rich==14.3.4",
#   "secretstorage==3.5.0",
#   "twine==7.0.0",
#   "urllib3==2.5.0",
# ]
#
# [tool.uv]
# exclude-newer = "7 days"
# ///
from twine.__main__ import main

raise SystemExit(main())
