"""Iterations per second by backend. Columns as in `plots.end_to_end`."""

from plots.lists import listing

TITLE = "Denoising iterations per second (it_per_s), by backend"
figure = listing(TITLE, "iterations per second [1/s], higher is better")
