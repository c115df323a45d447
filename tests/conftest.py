"""What every test needs: the helpers can be imported, and PyTorch computes on one thread."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported: sums on one thread are the same every time
sys.path.insert(0, str(Path(__file__).parent / "helpers"))
