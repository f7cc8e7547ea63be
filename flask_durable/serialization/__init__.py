"""Step results as JSON text that reads back as the same value.

A step's first result is what every replay returns. A function's return annotation says
how its result is stored; without one, only values that JSON gives back equal are taken.
No value is changed silently: one that would not come back the same is refused, with its
place in the result.
"""

from __future__ import annotations

from .codecs import check_arguments as check_arguments
from .codecs import Codec as Codec
from .codecs import codec_for as codec_for
from .codecs import item_codec_for as item_codec_for
from .codecs import PLAIN as PLAIN
from .refusal import UnreadableValue as UnreadableValue
from .refusal import UnserializableValue as UnserializableValue
