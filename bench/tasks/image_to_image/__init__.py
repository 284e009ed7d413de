"""Images from an image and a prompt."""
