"""Text-to-image, then rounds of image-to-image from its images."""
