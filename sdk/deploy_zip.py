"""An OpenMMLab deploy zip: its one ONNX file and what lies beside it, read in place and in bounds; nothing is unpacked.

name, graph, beside = graph_in_zip(Path("rtmdet.zip"), beside=("pipeline.json",))
"""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdk.errors import GraphError

__all__ = ["LARGEST_BYTES", "LARGEST_NOTE_BYTES", "graph_in_zip"]

LARGEST_BYTES = 1 << 31  # protobuf's own limit; a pose network is a fiftieth of it
FREE_BYTES, PACKED = 64 << 20, 20  # weights pack to nine tenths; an entry may unpack to 64 MiB and 20 times its size
LARGEST_NOTE_BYTES = 1 << 20  # of a deploy file beside the graph; published ones have 3 KiB
# RuntimeError: encrypted
ZIP_DAMAGE = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def graph_in_zip(
    path: Path, beside: Sequence[str] = (), *, largest: int = LARGEST_BYTES
) -> tuple[str, bytes, dict[str, bytes]]:
    """(name, bytes, files beside it) of the one ONNX file in a zip. GraphError: there is not one, or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            graphs = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
            if len(graphs) != 1:
                found = _names(entry.filename for entry in graphs)
                raise GraphError(f"'{path}' must hold exactly one ONNX file (got {found}); unpack it and name the file")
            inner = Path(graphs[0].filename)
            wanted = {str(inner.with_name(name)): name for name in beside}
            notes = [entry for entry in archive.infolist() if entry.filename in wanted]
            for entry, most in ((graphs[0], largest), *((note, LARGEST_NOTE_BYTES) for note in notes)):
                if entry.file_size > min(most, FREE_BYTES + PACKED * entry.compress_size):
                    raise GraphError(
                        f"'{path}': '{entry.filename}' unpacks from {entry.compress_size} to {entry.file_size} bytes, "
                        "which no network does; fetch it again"
                    )
            return inner.name, archive.read(graphs[0]), {wanted[entry.filename]: archive.read(entry) for entry in notes}
    except ZIP_DAMAGE as error:
        raise GraphError(f"deploy zip '{path}' cannot be read ({error}); fetch it again") from error


def _names(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
