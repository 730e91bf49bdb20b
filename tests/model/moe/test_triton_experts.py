"""The Triton kernels without a GPU: their cases in Triton's interpreter, and their compilation for Hopper.

The interpreter has to be chosen before Triton is first imported, hence a process of its own. It runs what the
compiler refuses, and knows no limits of registers and memory, hence the compilation: the compiler needs no GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed (it is there for Linux on x86-64 alone)")

version = tuple(int(part) for part in triton.__version__.split(".")[:2])
ROOT = Path(__file__).resolve().parents[3]
HOPPER_SHARED_MEMORY = 227 * 1024  # bytes that one program may have
TYPES = {  # of the kernels' arguments, where they are not constants; V stands for the type of the values
    "*i64": "block_P a_block_P b_block_P pair_P starts_R1",
    "*i32": "ends_E expert_M row_M",
    "*fp32": "weight_P bias_EO down_bias_ED grad_weight_SQ grad_EIO grad_bias_EO",
    "i32": "inner outer stride_be stride_bi stride_bo rows experts tiles width",
    "*V": "a_XI b_EIO before_QO out_QO grad_ND down_EFD h_QF active_QF grad_h_QF b_XO y_QD out_ND",
}
NO = dict.fromkeys  # these arguments are None
USES = {  # of each kernel, as it is launched
    ("product", "up"): {"GELU": True, "stride_bo": 1, **NO(["weight_P"])},
    ("product", "down"): {"GELU": False, "stride_bo": 1, **NO(["block_P", "before_QO"])},
    ("product", "back"): {"GELU": False, "stride_bi": 1, **NO(["block_P", "before_QO", "weight_P", "bias_EO"])},
    ("hidden gradient", "with bias"): {},
    ("hidden gradient", "without bias"): NO(["down_bias_ED"]),
    ("weight gradient", "down"): NO(["a_block_P"]),
    ("weight gradient", "up"): NO(["b_block_P", "weight_P"]),
    ("weight gradient", "without bias"): NO(["b_block_P", "weight_P", "grad_bias_EO"]),
}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(version < (3, 7), reason="the interpreter of Triton before 3.7 does not work with NumPy 2.4")
def test_the_cases_hold_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/model/moe/triton_cases.py"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]


def test_training_does_not_import_the_kernels_unasked():
    kernels = "moe_study.model.moe.triton_kernels"
    code = f"import sys, moe_study.training.run, moe_study.model.moe.layer; assert {kernels!r} not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.parametrize(("values", "precision"), [("bf16", "ieee"), ("fp32", "ieee"), ("fp32", "tf32")])
@pytest.mark.parametrize(("kernel", "use"), USES, ids=str)
def test_products_compile_for_hopper_within_its_shared_memory(kernel, use, values, precision, tmp_path, monkeypatch):
    from moe_study.model.moe import triton_kernels, triton_launch

    tiles = triton_launch.TILES[kernel, 2 if values == "bf16" else 4]
    constants = {**USES[kernel, use], **tiles, "PRECISION": precision, "BM": triton_launch.ROWS, "BLOCK": 1}
    function = getattr(triton_kernels, f"{kernel.replace(' ', '_')}_kernel")
    compiled = compile_for_hopper(function, values, constants, monkeypatch, tmp_path)
    assert compiled.metadata.shared <= HOPPER_SHARED_MEMORY
    if values == "bf16":
        assert "wgmma.mma_async" in compiled.asm["ptx"]  # Hopper's own tensor instructions
        assert "cp.async.c" in compiled.asm["ptx"]  # loads ahead of use, the gathered ones too


@pytest.mark.parametrize(
    ("kernel", "constants"),
    [
        ("sum_pairs_kernel", {"PAIRS": 8, "BD": 1024, "BLOCK": 1}),
        ("tile_map_kernel", {"ROWS": 128, "BE": 1024, "BM": 16}),
    ],
)
def test_the_other_kernels_compile_for_hopper(kernel, constants, tmp_path, monkeypatch):
    from moe_study.model.moe import triton_kernels

    compile_for_hopper(getattr(triton_kernels, kernel), "bf16", constants, monkeypatch, tmp_path)


def compile_for_hopper(kernel, values, constants, monkeypatch, cache):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    type_of = {name: kind.replace("V", values) for kind, names in TYPES.items() for name in names.split()}
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
    constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
    number = {name: i for i, name in enumerate(kernel.arg_names)}
    source = ASTSource(
        fn=kernel,
        signature={name: "constexpr" if name in constants else type_of[name] for name in kernel.arg_names},
        constexprs={(number[name],): value for name, value in constants.items()},
        # As at a launch with sizes and addresses that are multiples of 16.
        attrs={(i,): [["tt.divisibility", 16]] for name, i in number.items() if name not in constants},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
