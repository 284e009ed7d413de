"""One file per figure: a table in, a matplotlib figure out. Nothing here reads a file.

Each module has ``figure(table, ..., colours=None)``, which `plots.style.figure_of` makes of a
function that draws one panel. Tables have one row for each mark or line, and the columns that the
module's docstring names; a missing value is NaN or None. Panels are workloads.
"""
