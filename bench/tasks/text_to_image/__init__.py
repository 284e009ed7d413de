"""Images from a prompt."""
