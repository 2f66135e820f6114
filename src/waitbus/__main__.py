"""``waitbus`` and ``python -m waitbus``: the command line, and what is said when it cannot even be loaded."""

import sys


def main() -> int:
    """Run the command line; its exit code. 70 when the installation is broken, 130 after Ctrl-C while it is loaded."""
    try:
        from waitbus.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        _complain(f"waitbus cannot be loaded: {type(error).__name__}: {error}; install it again")
        return 70


def _complain(text: str) -> None:
    import os

    try:
        os.write(2, f"{ascii(text)[1:-1]}\n".encode())
    except OSError:  # nobody listens
        return


if __name__ == "__main__":
    sys.exit(main())
