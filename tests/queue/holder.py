"""A process that receives messages and then does nothing, until it is killed."""

from __future__ import annotations

import sys
import time

from .kit import collect
from .kit import make_transport
from .kit import QUEUE


def main() -> None:
    kind, url, namespace, visibility, count = sys.argv[1:]
    transport = make_transport(kind, url, namespace, float(visibility))
    held = collect(transport, int(count))
    print(len(held), QUEUE, flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
