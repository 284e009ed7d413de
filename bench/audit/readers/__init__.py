"""Files → neutral tables. What a file is, its content tells, not its name."""

from __future__ import annotations

from bench.audit.readers.detect import read

__all__ = ["read"]
