"""Devices and memory, as far as a machine without a GPU can tell."""

import pytest
import torch

from data_tools.errors import InputError
from svg import runtime


@pytest.mark.parametrize(
    ("name", "local", "chosen"),
    [("auto", None, "cuda:0"), ("cuda", "1", "cuda:1"), ("cuda:1", "0", "cuda:1")],
)
def test_each_process_takes_its_own_gpu(monkeypatch, name, local, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    assert runtime.choose_device(name) == torch.device(chosen)


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match=r"^device: cuda:1 is not there \(found 1 GPUs\)"):
        runtime.choose_device("auto")


def test_processes_share_the_memory_of_their_machine(monkeypatch):
    alone = runtime.free_memory(torch.device("cpu"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert runtime.free_memory(torch.device("cpu")) == pytest.approx(alone / 4, rel=0.1)


def test_values_are_fetched():
    assert runtime.fetch(torch.tensor([1.0, 2.5]))() == [1.0, 2.5]
