"""What fits: the search for it, and what its trials say of memory and time."""
