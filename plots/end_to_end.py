"""End-to-end time by backend.

Columns: workload, label, backend, value, low, high, calls, processes, points (one median for each
process), shown (the value as text), published (bool), why (why there is no value).
"""

from plots.lists import listing

TITLE = "End-to-end time of one call, by backend"
figure = listing(TITLE, "end-to-end time of one call [s], lower is better")
