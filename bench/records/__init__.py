"""Records as frozen types, validated once when they are read; every reader starts here.

``types`` has the shapes and the figures of one record, ``read`` the store's edge, ``alike`` what
two records must share to be compared, ``arms`` the records of runs grouped for comparison.
"""

from bench.records.types import Cell, Image, Reading, Record, Workload

__all__ = ["Cell", "Image", "Reading", "Record", "Workload"]
