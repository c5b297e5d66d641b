"""In which precision a machine trains best."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from mnist_tfx.contract.cpus import cpu_field, cpu_flags

_CPU_INFO = Path("/proc/cpuinfo")
# Instructions that multiply bfloat16 faster than float32: AMX of x86-64, BF16 of Arm (names as Linux has them).
_CPU_FLAGS = {"amx_bf16", "bf16"}
# AVX512-BF16 does so on AMD's CPUs. Intel's multiply as many per cycle without it, and need no conversion then
# (`benchmarks/training.md`).
_AVX512, _AVX512_VENDOR = "avx512_bf16", "AuthenticAMD"
_GPU_CAPABILITY = (8, 0)  # NVIDIA's Ampere and later


def hardware_precision(wanted: str) -> str:
    """Keras' dtype policy for a recipe's `training.precision`: of `auto`, what the hardware computes fastest.

    Where bfloat16 is only emulated, it is slower than float32: 1.25 times on a CPU with AVX2 alone; 1.6 times on one of
    Intel's with AVX512-BF16 and without AMX. With AMX it takes 0.7 to 0.8 times as long as float32.
    """
    if wanted != "auto":
        return wanted
    return "mixed_bfloat16" if _gains_by_bfloat16() else "float32"


def _gains_by_bfloat16() -> bool:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
        return all(each.get("compute_capability", (0, 0)) >= _GPU_CAPABILITY for each in details)
    flags = cpu_flags(_CPU_INFO)
    return bool(_CPU_FLAGS & flags) or (_AVX512 in flags and cpu_field(_CPU_INFO, "vendor_id") == _AVX512_VENDOR)
