"""What attempts print: written by the node's supervisor, read and shipped by its agent, kept by servers."""

from towline.logs.masked import MaskedWriter
from towline.logs.reader import Chunk, dropped, markers, read, size, tail
from towline.logs.writer import Writer

__all__ = ["Chunk", "MaskedWriter", "Writer", "dropped", "markers", "read", "size", "tail"]
