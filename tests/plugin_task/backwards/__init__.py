"""Text-to-image whose prompt is read backwards."""
