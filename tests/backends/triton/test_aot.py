"""Ahead-of-time compilation for GPUs that are not here: what the compiled text has, and what is read back from it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from codesign.backends.triton import compiler
from codesign.backends.triton.aot import Compiled, cache_key, compile_all, compile_aot
from codesign.backends.triton.emit import emission
from codesign.backends.triton.interpret import KernelError, kernel_file
from codesign.backends.triton.targets import target, target_of
from codesign.costmodel.machine import load_machine, machine_names
from codesign.ir.dtypes import BF16, F16, F32
from codesign.ir.errors import UnsupportedError
from codesign.ir.scalar import apply
from codesign.ir.tile import Kernel
from tests.backends.triton.kernels import gemm, pointwise


def big(**options: int) -> Kernel:
    return gemm(4096, 4096, 1024, tile=(128, 128, 64), dtype=F16, **{"warps": 8, "group": 8, **options})


@pytest.fixture(scope="module")
def hopper() -> Compiled:
    return compile_aot(big(), "sm_90")


def test_hopper_gemm_uses_the_tensor_cores_and_pipelined_loads(hopper: Compiled) -> None:
    ptx = hopper.text("ptx")
    assert "wgmma.mma_async" in ptx
    assert "cp.async" in ptx
    assert "num_stages" in hopper.text("source")


def test_shared_memory_is_what_three_stages_of_both_tiles_take(hopper: Compiled) -> None:
    assert hopper.shared_bytes == 3 * (128 * 64 + 64 * 128) * 2


def test_registers_hold_at_least_the_accumulator(hopper: Compiled) -> None:
    accumulator = 128 * 128 / (8 * 32)
    assert accumulator < hopper.registers <= 255
    assert hopper.spills == 0
    assert hopper.to_json() == {
        "arch": "sm_90",
        "registers": hopper.registers,
        "shared_bytes": hopper.shared_bytes,
        "spills": 0,
    }


@pytest.mark.parametrize(
    ("name", "instruction"),
    [("sm_80", "mma.sync"), ("sm_100", "tcgen05.mma"), ("gfx942", "v_mfma"), ("gfx950", "v_mfma")],
)
def test_other_targets_use_their_matrix_units(name: str, instruction: str) -> None:
    compiled = compile_aot(big(), name)
    assert compiled.arch == name
    assert instruction in compiled.text("ptx" if name.startswith("sm") else "amdgcn")
    assert compiled.registers > 16
    assert compiled.shared_bytes > 0
    assert Path(compiled.files["cubin" if name.startswith("sm") else "hsaco"]).stat().st_size > 1000


def test_too_large_a_tile_spills() -> None:
    compiled = compile_aot(gemm(4096, 4096, 1024, tile=(128, 256, 64), warps=4, stages=2), "sm_80")
    assert compiled.spills > 0


def test_bfloat16_and_tf32_reach_wgmma() -> None:
    assert "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16" in compile_aot(
        gemm(4096, 4096, 1024, tile=(128, 128, 64), dtype=BF16, warps=8), "sm_90"
    ).text("ptx")
    exact = gemm(1024, 1024, 256, tile=(64, 64, 32), dtype=F32)
    assert "wgmma" not in compile_aot(exact, "sm_90").text("ptx"), "full float32 products are not rounded to tf32"


def test_never_compiled_twice(hopper: Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(request: object) -> dict[str, object]:
        raise AssertionError("compiled again")

    monkeypatch.setattr(compiler, "compile_one", fail)
    again = compile_aot(big(), "sm_90")
    assert again.cached
    assert again.registers == hopper.registers
    renamed = big()
    renamed.notes["another"] = "comment does not matter"
    assert compile_aot(renamed, "sm_90").cached


def test_damaged_files_of_the_cache_are_made_again() -> None:
    whole = compile_aot(big(), "sm_90")
    binary = Path(whole.files["cubin"]).read_bytes()
    for damage in (binary[: len(binary) // 2], binary[:-1] + bytes([binary[-1] ^ 1])):
        Path(whole.files["cubin"]).write_bytes(damage)
        again = compile_aot(big(), "sm_90")
        assert not again.cached
        assert Path(again.files["cubin"]).read_bytes() == binary
    record = Path(whole.files["cubin"]).parent / "compiled.json"
    for text in ("{", "[]", "{}", '{"files": 3}'):
        record.write_text(text)
        assert compile_aot(big(), "sm_90").registers == whole.registers
    source = kernel_file(emission(big()))
    text = source.read_text()
    source.write_text(text[: len(text) // 2])
    assert kernel_file(emission(big())).read_text() == text


def test_what_decides_the_code_is_in_the_key() -> None:
    goal = target("sm_90")
    keys = {
        cache_key(emission(kernel), goal)
        for kernel in (big(), big(warps=4), big(stages=2), gemm(4096, 4096, 1024, tile=(128, 64, 64)))
    }
    keys.add(cache_key(emission(big()), target("sm_80")))
    assert len(keys) == 5


def test_several_at_once_in_processes_of_their_own() -> None:
    kernels = [
        pointwise(f"scale_{n}", F16, lambda x, n=n: apply("mul", x, apply("exp", x)), size=n)
        for n in (32, 64, 128, 256)
    ]
    compiled = compile_all(kernels, "sm_90", jobs=2)
    assert [one.name for one in compiled] == [kernel.name for kernel in kernels]
    assert not any(one.cached for one in compiled)
    assert all(one.registers > 0 for one in compiled)


def test_threads_may_compile_the_same_kernel() -> None:
    kernel, results = pointwise("both", F32, lambda x: apply("sin", x)), []
    threads = [threading.Thread(target=lambda: results.append(compile_aot(kernel, "sm_90"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.registers for result in results}) == 1


def test_a_kernel_that_triton_rejects_is_a_clear_error() -> None:
    kernel = gemm(64, 64, 64, tile=(32, 32, 8))
    with pytest.raises(KernelError, match=r"Triton rejects kernel gemm_bias_relu for sm_90: .*\w"):
        compile_aot(kernel, "sm_90")


def test_unknown_targets_name_their_neighbours() -> None:
    with pytest.raises(UnsupportedError, match=r"unknown compilation target 'sm_91'; nearest: sm_90"):
        compile_aot(big(), "sm_91")


@pytest.mark.parametrize("name", machine_names())
def test_every_gpu_machine_file_has_a_target_or_none(name: str) -> None:
    machine = load_machine(name)
    found = target_of(machine)
    if machine.target is None:
        assert found is None
    else:
        assert found is not None
        assert found.warp == (64 if machine.vendor.lower() == "amd" else 32)


def test_without_triton_the_error_says_what_to_do() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from codesign.backends.triton.aot import compile_aot\n"
        "from tests.backends.triton.kernels import gemm\n"
        "from codesign.ir.errors import UnsupportedError\n"
        "try:\n    compile_aot(gemm(), 'sm_90')\n"
        "except UnsupportedError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install triton" in done.stdout


def test_descriptors_become_bulk_copies_on_hopper_and_pointers_before() -> None:
    kernel = big(tma=1)
    assert "cp.async.bulk.tensor" in compile_aot(kernel, "sm_90").text("ptx")
    assert "wgmma" in compile_aot(kernel, "sm_90").text("ptx")
    assert "cp.async.bulk.tensor" in compile_aot(kernel, "sm_100").text("ptx")
    assert "mma.sync" in compile_aot(kernel, "sm_80").text("ptx")
    assert "v_mfma" in compile_aot(kernel, "gfx942").text("amdgcn")


def test_warp_specialisation_with_descriptors() -> None:
    kernel = big(tma=1, warp_specialize=1, warps=4)
    assert "ttg.warp_specialize" in compile_aot(kernel, "sm_90").text("ttgir")
    assert "ttg.warp_specialize" not in compile_aot(big(warps=4), "sm_90").text("ttgir")
    assert compile_aot(kernel, "sm_90").warps == 12  # those that load included
    assert compile_aot(big(warps=4), "sm_90").warps == 4


def test_compiles_in_a_process_that_interprets() -> None:
    code = (
        "from codesign.backends.triton.aot import compile_aot\n"
        "from tests.backends.triton.kernels import gemm\n"
        "print(compile_aot(gemm(256, 128, 64, tile=(64, 32, 32)), 'sm_90').registers)\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) > 16


def test_a_stack_that_holds_an_array_is_no_spill() -> None:
    """Sines of large arguments keep digits of pi there; what is spilled is told by the assembler that Triton gives its code to."""
    made = compile_aot(pointwise("turned", F32, lambda x: apply("sin", x)), "sm_90")
    assert made.registers < 64
    assert made.spills == 0
