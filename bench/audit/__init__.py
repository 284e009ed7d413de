"""``bench audit``: what cannot be true, or cannot be compared, in a table of results.

Readers turn a file into one neutral table; checks are pure functions from it to findings and notes;
rendering is a thing of its own. docs/audit.md tells users what each check does.
"""

from __future__ import annotations

from bench.audit.columns import user_map
from bench.audit.examine import Audited, as_json, audit, examine
from bench.audit.finding import Finding, Note
from bench.audit.table import AuditError, Table

__all__ = [
    "AuditError",
    "Audited",
    "Finding",
    "Note",
    "Table",
    "as_json",
    "audit",
    "examine",
    "user_map",
]
