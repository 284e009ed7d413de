"""Statistics over stored times: pure functions that read no file, clock or environment."""
