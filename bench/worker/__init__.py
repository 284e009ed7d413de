"""One cell from start to end, inside the backend's own interpreter."""
