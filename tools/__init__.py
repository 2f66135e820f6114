"""What the Makefile runs: standard library only."""
