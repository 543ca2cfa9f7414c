"""What commands write to standard output for others to read: a line of JSON, or a table."""

import codecs
import io
import json
import re
import sys
from typing import IO, Any, cast

from snapfit.core.errors import CONTROL, visible


def write_json_line(value: Any) -> None:
    """One JSON object as the last line on standard output; what a terminal would act on is in JSON's escapes."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
    sys.stdout.flush()


def answers_stream() -> IO[bytes]:
    """Standard output for a table: as it is, but on a terminal with the control characters of its cells escaped."""
    stream: IO[bytes] = sys.stdout.buffer
    return cast(IO[bytes], _Escaping(stream)) if sys.stdout.isatty() else stream


class _Escaping(io.RawIOBase):
    """Passes UTF-8 on with control characters escaped, but for line feeds and tabs."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__()
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        parts = re.split("([\t\n])", self._decoder.decode(bytes(data)))
        self._stream.write("".join(one if one in ("\t", "\n") else visible(one) for one in parts).encode("utf-8"))
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
