"""Says of a device what a file says; run as ``python -m tests.worker.odd_check``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

said = Path(os.environ["ODD_CHECK"])
reason = said.read_text(encoding="utf-8").strip() if said.exists() else ""
if reason == "hangs":
    time.sleep(1000)
if reason == "crashes":
    os.abort()
sys.stdout.write(f"loading\n{reason or 'well'}\n")
sys.exit(bool(reason))
