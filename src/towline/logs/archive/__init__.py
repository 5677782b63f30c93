"""Output of attempts as a server keeps it: segment files that are only ever appended to, and their index."""

from towline.logs.archive.admission import Admission
from towline.logs.archive.archive import Archive
from towline.logs.archive.frames import Frame
from towline.logs.archive.index import Extent

__all__ = ["Admission", "Archive", "Extent", "Frame"]
