"""Imported by a template: as long as torch takes on a slow disk, and deaf meanwhile."""

import signal
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(120)
