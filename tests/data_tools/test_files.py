"""The file system: what is opened and walked, what is refused, and that nothing is written through links."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools import files
from data_tools.errors import InputError, clean


def test_a_pipe_a_device_and_a_folder_are_no_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            files.open_regular(path)
    with pytest.raises(FileNotFoundError):
        files.open_regular(tmp_path / "none")


def test_a_file_is_compared_with_its_bound_before_it_is_read(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert files.read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="5 bytes, expected at most 4"):
        files.read_bytes(path, 4)
    with open(path, "wb") as file:
        file.truncate(10**12)  # a file with a hole, which takes no room
    with pytest.raises(OSError, match="a sparse file: 1000000000000 bytes, of which 0 are stored"):
        files.read_bytes(path, 4)


def test_links_are_opened_within_the_root_alone(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_bytes(b"secret")
    (root / "own").write_bytes(b"own")
    (root / "in").symlink_to("own")
    (root / "out").symlink_to(outside)
    assert files.read_bytes(root / "in", 10, root) == b"own"
    with pytest.raises(OSError, match="a link out of"):
        files.read_bytes(root / "out", 10, root)
    assert files.read_bytes(root / "out", 10) == b"secret"
    (tmp_path / "alias").symlink_to(root)  # the root itself may be a link
    assert files.read_bytes(tmp_path / "alias" / "in", 10, tmp_path / "alias") == b"own"


def test_walk_is_in_natural_order_and_passes_over_what_is_hidden(tmp_path):
    for name in ("b10", "b9", ".hidden/x", "b9/deep"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("2.png", "b9/deep/1.png", ".hidden/x/1.png"):
        (tmp_path / name).touch()
    found = [(os.path.relpath(folder, tmp_path), names) for folder, names in files.walk(tmp_path)]
    assert found == [(".", ["2.png"]), ("b9", []), ("b9/deep", ["1.png"]), ("b10", [])]
    assert list(files.walk(tmp_path / "none")) == []
    assert list(files.walk(tmp_path / "2.png")) == []


def test_walk_follows_links_inside_but_neither_in_circles_nor_out_nor_twice(tmp_path):
    root = tmp_path / "root"
    (root / "pool" / "a").mkdir(parents=True)
    (root / "train").mkdir()
    (root / "train" / "link").symlink_to("../pool/a")
    (root / "pool" / "a" / "round").symlink_to("../..")
    assert [os.path.relpath(folder, root) for folder, _ in files.walk(root / "train", root)] == [
        "train",
        "train/link",
    ]
    with pytest.raises(InputError, match=r"train/link: is the same folder as .*pool/a"):
        list(files.walk(root))
    (root / "train" / "link").unlink()
    (root / "train" / "file").symlink_to("/etc/hostname")
    with pytest.raises(
        InputError, match=r"train/file: a link out of .*root, to /etc/hostname; copy what it points to"
    ):
        list(files.walk(root))


def test_a_tree_of_links_that_multiplies_ends_at_once(tmp_path):
    for level in range(40):
        (tmp_path / str(level)).mkdir()
        for name in "ab":
            (tmp_path / str(level) / name).symlink_to(tmp_path / str(level + 1))  # 2 ** 40 ways down
    with pytest.raises(InputError, match="is the same folder as"):
        list(files.walk(tmp_path))


@pytest.mark.skipif(
    os.geteuid() == 0 and not os.path.exists("/usr/bin/setpriv"), reason="needs a user without all rights"
)
def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    closed = tmp_path / "train" / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = f"from data_tools.files import walk\nlist(walk({str(tmp_path)!r}))"
    user = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
    root = Path(files.__file__).parent.parent
    done = subprocess.run([*user, sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    if "Permission denied" in done.stderr and "closed" not in done.stderr:
        pytest.skip("the other user cannot read the program itself")
    assert done.stderr.splitlines()[-1].endswith(
        f"{closed}: cannot be listed (Permission denied); get the rights to it or move it away"
    )


def test_nothing_is_written_through_links(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    monkeypatch.setattr(files.secrets, "token_hex", lambda count: "guessed")
    files.temporary_beside(run / "x.json").symlink_to(victim)
    with pytest.raises(OSError, match=r"File exists: .*run/x\.json"):
        files.write_text(run / "x.json", "theirs")
    assert victim.read_text() == "mine"
    monkeypatch.undo()
    (run / "x.json").symlink_to(victim)  # a final name that is a link is replaced itself
    files.write_text(run / "x.json", "theirs")
    assert victim.read_text() == "mine" and not (run / "x.json").is_symlink()


def test_names_of_temporary_files_cannot_be_guessed_and_are_short(tmp_path):
    path = tmp_path / ("n" * 250)
    assert len({files.temporary_beside(path) for _ in range(100)}) == 100
    files.write_text(path, "long names can be written, too")
    assert [found.name for found in tmp_path.iterdir()] == ["n" * 250]


def test_leftovers_that_are_links_are_removed_and_what_they_point_to_stays(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    run = tmp_path / "run"
    run.mkdir()
    (run / f".a.1{files.TEMPORARY}").symlink_to(kept)
    (run / f".b.2{files.TEMPORARY}").mkdir()
    (run / f".b.2{files.TEMPORARY}" / "part").touch()
    files.remove_leftovers(run)
    assert list(run.iterdir()) == [] and (kept / "file").exists()


def test_linked_folders_inside_runs_are_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="checkpoints: is a link, expected a folder of its own"):
        files.folder_in(tmp_path, "checkpoints")
    assert files.folder_in(tmp_path, "figures").is_dir()


def test_what_a_terminal_would_obey_is_written_out():
    assert (
        clean("tab\there \x1b[31mred\x1b[0m\nbell\a caf\udce9 é")
        == "tab\\there \\x1b[31mred\\x1b[0m\nbell\\x07 caf\\udce9 é"
    )
