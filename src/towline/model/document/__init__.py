"""Reading and writing job files (YAML, JSON, or trees from the API)."""

from towline.model.document.load import Document, LoadedFile, load_file, load_tree, parse_text
from towline.model.document.write import to_document

__all__ = ["Document", "LoadedFile", "load_file", "load_tree", "parse_text", "to_document"]
