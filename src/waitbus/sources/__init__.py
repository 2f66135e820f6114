"""Sources: they observe something outside and emit events. None imports another."""
