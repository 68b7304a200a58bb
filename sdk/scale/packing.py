"""What travels between the processes of a cluster, as Arrow tables of one row: a row is never split or merged, so that
a chunk arrives as it was made. Pixels are not copied on their way out.

    table = table_from_chunk(chunk, again=False);  chunk, again = chunk_from_table(table)
    table = table_from_piece(piece);               piece = piece_from_table(table)
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sdk.scale.job import Piece
from sdk.scale.pictures import Chunk
from sdk.scale.rows import arrow

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["chunk_from_table", "piece_from_table", "table_from_chunk", "table_from_piece"]


def table_from_chunk(chunk: Chunk, *, again: bool) -> pa.Table:
    """`again`: whoever read it before died over it."""
    pa = arrow()
    shapes = [None if picture.pixels is None else picture.pixels.shape for picture in chunk.pictures]
    bare = replace(chunk, pictures=[replace(picture, pixels=None) for picture in chunk.pictures])
    pixels = [np.ascontiguousarray(p.pixels).reshape(-1) for p in chunk.pictures if p.pixels is not None]
    flat = np.concatenate(pixels) if pixels else np.zeros(0, np.uint8)
    offsets = pa.array([0, flat.size], pa.int64())
    column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets.buffers()[1], pa.py_buffer(flat)])
    head = pickle.dumps((bare, shapes, again))
    return pa.table({"head": pa.array([head], pa.binary()), "pixels": column})


def chunk_from_table(table: pa.Table) -> tuple[Chunk, bool]:
    """The chunk, its pixels in the table's own memory, and whether it was read again."""
    bare, shapes, again = pickle.loads(table["head"][0].as_py())
    flat = np.frombuffer(table["pixels"].chunk(0)[0].as_buffer(), np.uint8)
    pictures, begin = [], 0
    for picture, shape in zip(bare.pictures, shapes, strict=True):
        size = 0 if shape is None else int(np.prod(shape))
        pixels = None if shape is None else flat[begin : begin + size].reshape(shape)
        pictures.append(replace(picture, pixels=pixels))
        begin += size
    return replace(bare, pictures=pictures), again


def table_from_piece(piece: Piece) -> pa.Table:
    pa = arrow()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, piece.rows.schema) as writer:
        writer.write_table(piece.rows)
    told = {"block": [piece.block], "number": [piece.number], "last": [piece.last], "again": [piece.again]}
    return pa.table({**told, "rows": pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})


def piece_from_table(table: pa.Table) -> Piece:
    pa, told = arrow(), {name: table[name][0].as_py() for name in ("block", "number", "last", "again")}
    rows = pa.ipc.open_stream(table["rows"].chunk(0)[0].as_buffer()).read_all()
    return Piece(**told, rows=rows)
