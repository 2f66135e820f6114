"""What sees the outside world and tells the bus: one file or folder per source, none importing another."""
