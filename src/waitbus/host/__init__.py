"""What differs by operating system, one small file for each difference."""
