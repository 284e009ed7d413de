"""Stored records to ``REPORT.md``, ``report.html``, figures and exports. Measures nothing."""
