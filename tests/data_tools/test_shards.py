"""Several runs that fill one data root together, and the last command that joins them."""

import subprocess
import sys

import pytest

from data_tools import __main__ as svg_data
from tests.support.places import ROOT
from tests.support.recordings import contents, write_pictures


def simulate(root, *flags: str) -> list[str]:
    words = [
        "simulate",
        str(root),
        "--sequences",
        "10",
        "--frames",
        "4",
        "--image_width",
        "16",
        "--workers",
        "1",
    ]
    return [*words, *flags]


@pytest.mark.slow
def test_shards_at_the_same_time_and_the_join_give_what_one_run_gives(tmp_path, capsys):
    pytest.importorskip("mujoco")
    assert svg_data.main(simulate(tmp_path / "one")) == 0
    command = [sys.executable, "-m", "data_tools"]
    root = tmp_path / "many"
    runs = [
        subprocess.Popen(
            [*command, *simulate(root, "--shard", f"{number}/3")], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        for number in (1, 2, 3)
    ]
    texts = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [text.split(": ")[1].split(" ")[0] for text in texts] == ["4", "3", "3"]
    assert "shard 2/3: when all are through, the same command without --shard writes the index" in texts[1]
    assert not (root / "index.csv").exists()
    capsys.readouterr()
    assert svg_data.main(simulate(root)) == 0
    assert "0 sequences simulated, 10 were there already" in capsys.readouterr().out
    one, many = contents(tmp_path / "one"), contents(root)
    for files in (one, many):
        files.pop("dataset.json")  # its name is that of the folder
    assert one == many


def test_a_shard_that_was_lost_is_done_by_the_join(tmp_path, capsys):
    pytest.importorskip("mujoco")
    assert svg_data.main(simulate(tmp_path, "--shard", "2/2")) == 0
    assert svg_data.main(simulate(tmp_path)) == 0
    assert "5 sequences simulated, 5 were there already" in capsys.readouterr().out


def test_shards_of_a_converter(tmp_path, capsys):
    for number in range(5):
        write_pictures(tmp_path / "in" / str(number), 3)
    words = ["frames", str(tmp_path / "in"), str(tmp_path / "out"), "--image_width", "64", "--workers", "1"]
    for shard in ("1/2", "2/2"):
        assert svg_data.main([*words, "--shard", shard]) == 0
    text = capsys.readouterr().out
    assert "3 sequences written, 0 were there already" in text
    assert "2 sequences written, 0 were there already" in text
    assert svg_data.main(words) == 0
    assert "0 sequences written, 5 were there already" in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/2"])
def test_impossible_shards(tmp_path, capsys, shard):
    with pytest.raises(SystemExit) as end:
        svg_data.main(simulate(tmp_path, f"--shard={shard}"))
    assert end.value.code == 2
    assert (
        f"argument --shard: found {shard}, expected I/N like 3/8, from 1/8 to 8/8" in capsys.readouterr().err
    )
