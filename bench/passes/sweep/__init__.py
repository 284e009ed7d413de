"""Other step counts and sizes, in the same process."""
