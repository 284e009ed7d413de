"""Every image of a folder through one model."""
