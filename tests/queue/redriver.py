"""A process that moves dead letters back, one by one, until it is killed."""

from __future__ import annotations

import sys

from .kit import make_transport
from .kit import QUEUE


def main() -> None:
    kind, url, namespace = sys.argv[1:]
    cursor = make_transport(kind, url, namespace, 30).dead_letters.open_cursor(
        QUEUE, hold=2
    )
    while letters := cursor.next(1):
        print(cursor.move_back(letters), flush=True)


if __name__ == "__main__":
    main()
