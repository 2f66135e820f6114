"""The entry point of ``waitbus`` and ``python -m waitbus``. It reports an error if the package cannot be loaded."""

import sys

# As `cli.exitcodes` has them, which may be among what cannot be loaded.
_SOFTWARE, _INTERRUPTED = 70, 130


def main() -> int:
    """Run the command line and return its exit code.

    70 if the package cannot be loaded, 130 after Ctrl-C while it is being loaded.
    """
    try:
        from waitbus.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:
        _complain(f"waitbus cannot be loaded: {type(error).__name__}: {error}; install it again")
        return _SOFTWARE


def _complain(text: str) -> None:
    import os

    try:
        os.write(2, f"{ascii(text)[1:-1]}\n".encode())
    except OSError:  # stderr is closed
        return


if __name__ == "__main__":
    sys.exit(main())
