"""What tasks wrote under TOW_OUT, listed and fetched."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.home import Home, Maker

WRITES = """
mkdir -p $TOW_OUT/d/empty; echo hello > $TOW_OUT/d/x; ln -s /etc/passwd $TOW_OUT/d/link
head -c 3000000 /dev/zero > $TOW_OUT/big; echo true > $TOW_OUT/run; chmod 755 $TOW_OUT/run
"""


def test_what_was_kept_is_listed_and_fetched(home: Home, script: Maker) -> None:
    work = "echo $TOW_INDEX > $TOW_OUT/r; test $TOW_INDEX != 2"
    job = home.run({"one": script(WRITES), "many": script(work, array=3)}, status=1)["id"]
    listed = home.json("artifacts", "ls", job)["artifacts"]
    assert [(row["task"], row["index"], row["path"], row["kind"]) for row in listed] == [
        ("one", 0, "big", "file"),
        ("one", 0, "d", "folder"),
        ("one", 0, "d/empty", "folder"),
        ("one", 0, "d/link", "other"),
        ("one", 0, "d/x", "file"),
        ("one", 0, "run", "file"),
        ("many", 0, "r", "file"),
        ("many", 1, "r", "file"),
    ]
    told = home.tow("artifacts", "get", job, "-o", "all").stderr
    assert "d/link is left out: it is a symbolic link" in told
    assert "Fetched 5 files" in told
    folder = home.work / "all"
    assert (folder / "one/big").read_bytes() == bytes(3_000_000)
    assert (folder / "one/d/empty").is_dir()
    assert (folder / "one/run").stat().st_mode & 0o777 == 0o755
    assert [(folder / f"many/{index}/r").read_text() for index in (0, 1)] == ["0\n", "1\n"]
    assert sorted(path.name for path in folder.rglob("*") if path.is_symlink()) == []


def test_single_files_and_what_cannot_be_had(home: Home, script: Maker) -> None:
    work = "echo $TOW_INDEX > $TOW_OUT/r; test $TOW_INDEX != 1"
    job = home.run({"one": script(WRITES), "many": script(work, array=2)}, status=1)["id"]
    assert home.tow("artifacts", "get", f"{job}/one", "d/x", "-o", "-").stdout == "hello\n"
    assert "Did you mean 'd/x'" in home.tow("artifacts", "get", f"{job}/one", "d/y", status=2).stderr
    (home.work / "d").mkdir()
    (home.work / "d" / "x").write_text("mine")
    refused = home.tow("artifacts", "get", f"{job}/one", "d", "run", status=2).stderr
    assert "d/x is there already" in refused
    assert not Path(home.work / "run").exists(), "nothing half done"
    home.tow("artifacts", "get", f"{job}/one", "d", "--force")
    assert (home.work / "d" / "x").read_text() == "hello\n"
    assert "--attempt 1" in home.tow("artifacts", "ls", f"{job}/many.1", status=2).stderr
    assert home.tow("artifacts", "get", f"{job}/many.1", "r", "--attempt", "1", "-o", "-").stdout == "1\n"


def test_what_has_not_ended_or_wrote_nothing_says_so(home: Home, script: Maker) -> None:
    job = home.submit({"slow": script("sleep 60"), "after": script("true", needs=["slow"])})
    quiet = home.run({"quiet": script("true")})["id"]
    assert "Nothing was written" in home.tow("artifacts", "get", f"{quiet}/quiet").stderr
    assert "has not ended yet (waiting)" in home.tow("artifacts", "ls", f"{job}/after", status=2).stderr
    home.tow("cancel", job, "--kill")
    home.tow("wait", job, status=1)
    assert "never ran" in home.tow("artifacts", "ls", f"{job}/after", status=2).stderr
