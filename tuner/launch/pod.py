"""``python -m tuner.launch.pod WORKER-OPTIONS...``: a worker in a container of a Kubernetes Job.

A Job takes status 0 of any pod for "the work is done": it starts no pod after that. A worker that was evicted leaves with 0,
too, so here it leaves with 75, which the Job answers with another pod.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence

from tuner.errors import TemporaryError
from tuner.launch.child import Child, noted

_POLL_SECONDS = 0.1


def main(words: Sequence[str]) -> int:
    """Run ``tuner WORDS`` to its end.

    Args:
        words: ``worker start`` with its options.

    Returns:
        Its exit status, or 75 if it was asked to leave before it was done.
    """
    with noted(signal.SIGTERM, signal.SIGINT) as came:
        child = Child(words, environment={})
        while (status := child.poll()) is None:
            if came:
                child.drain()
            time.sleep(_POLL_SECONDS)
    if came:
        return TemporaryError.exit_code
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
