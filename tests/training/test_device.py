import dataclasses

import pytest
import torch

from moe_study.errors import ConfigError, StudyError
from moe_study.training import device
from tests.training.doubles import tiny_config


def test_a_gpu_that_is_not_there_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(StudyError, match=r"run\.device=cuda .* no CUDA GPU"):
        device.configure(tiny_config(tmp_path, device="cuda"))
    assert device.configure(tiny_config(tmp_path, device="auto")).type == "cpu"


@pytest.mark.parametrize("run", [{"device": "gpu"}, {"precision": "fp16"}])
def test_unknown_names_are_refused_with_the_known_ones(tmp_path, run):
    with pytest.raises(ConfigError, match="choose"):
        device.configure(tiny_config(tmp_path, **run))


def test_tf32_is_refused_on_a_cpu_in_one_sentence(tmp_path):
    for name in ("cpu", "auto"):
        with pytest.raises(ConfigError, match=r"^run\.precision=tf32 .* use run\.precision=fp32"):
            device.configure(tiny_config(tmp_path, precision="tf32", device=name))


def test_tf32_is_on_only_where_it_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on = {}
    try:
        for precision in device.PRECISIONS:
            device.configure(tiny_config(tmp_path, precision=precision, device="cuda"))
            on[precision] = torch.get_float32_matmul_precision()
    finally:
        device.configure(tiny_config(tmp_path))
    assert on == {"fp32": "highest", "tf32": "high", "bf16": "highest"}


def test_the_gpu_s_kernels_are_refused_on_a_cpu_in_one_sentence(tmp_path):
    for choice in ("fused", "triton"):
        sentence = rf"^run\.dispatch={choice} runs on NVIDIA GPUs.* use run\.dispatch=auto$"
        with pytest.raises(ConfigError, match=sentence):
            device.configure(tiny_config(tmp_path, dispatch=choice))


def test_denormals_are_flushed_and_threads_set(tmp_path):
    before = torch.get_num_threads()
    config = tiny_config(tmp_path)
    try:
        device.configure(dataclasses.replace(config, log=dataclasses.replace(config.log, threads=1)))
        assert torch.get_num_threads() == 1
        assert float(torch.tensor([1e-39]) * 0.5) == 0.0
    finally:
        torch.set_num_threads(before)


def test_products_are_bfloat16_under_bf16_and_float32_otherwise():
    cpu, x = torch.device("cpu"), torch.ones(2, 2)
    with device.autocast(cpu, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with device.autocast(cpu, "fp32"):
        assert (x @ x).dtype == torch.float32


def test_peak_memory_is_in_bytes():
    assert 50e6 < device.peak_memory_bytes(torch.device("cpu")) < 50e9  # torch alone takes more than 50 MB


def test_what_the_bits_depend_on_is_told_apart_in_one_sentence():
    cpu = device.arithmetic(torch.device("cpu"))
    assert cpu["threads"] == torch.get_num_threads() and cpu["torch"] == torch.__version__
    assert device.other_arithmetic(cpu, cpu) is None
    moved = device.other_arithmetic({**cpu, "threads": 1}, {**cpu, "threads": 4, "instructions": "SSE"})
    assert "threads (1 before, 4 now)" in moved and f"instructions ({cpu['instructions']} before, SSE now)" in moved
    assert "log.threads" not in moved  # alone it would not bring the bits back
    gpu = {"torch": cpu["torch"], "device": "a GPU"}
    assert "device (cpu before, a GPU now)" in device.other_arithmetic(cpu, gpu)
