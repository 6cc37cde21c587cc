"""When the process came to regraft: read before PyTorch is imported, which takes seconds that a time limit counts."""

import time

STARTED = time.monotonic()
