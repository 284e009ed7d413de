"""Stored records to pages: ``REPORT.md``, ``report.html``, figures and exports. Measures nothing."""
