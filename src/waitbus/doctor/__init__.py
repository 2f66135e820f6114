"""What can be wrong on a machine, and the command that mends it."""
