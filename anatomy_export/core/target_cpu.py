"""Which CPUs int8 weights are right on: those of 8 bits saturate on x86 without VNNI, those of 7 bits nowhere."""

from collections.abc import Collection

from anatomy_export.core.platform import cpu_flags, machine

PORTABLE, NATIVE = "portable", "native"
VNNI_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


def needs_reduced_range(flags: Collection[str], architecture: str) -> bool:
    """Do products of 8-bit activations and weights overflow their 16-bit sums here, so that weights get 7 bits?

    They do on x86 without VNNI (onnxruntime.ai, quantization: "reduce_range").
    """
    x86 = architecture.lower() in ("x86_64", "amd64", "i686", "i386")
    return x86 and not VNNI_FLAGS & set(flags)


def saturates(flags: Collection[str], architecture: str) -> bool | None:
    """Do sums with 8-bit weights saturate on this CPU? None where the system does not tell its flags."""
    wrong = needs_reduced_range(flags, architecture)
    return None if wrong and not flags else wrong


def int8_weights(target_cpu: str, flags: Collection[str] | None = None) -> dict:
    """How int8 weights are made for a CPU, as a conversion records it; of the flags those that decide.

    Args:
        target_cpu: "portable": any CPU; "native": those with the `flags`, None for this machine's.
    """
    if target_cpu == PORTABLE:
        return {"target_cpu": PORTABLE, "reduce_range": True}
    flags = cpu_flags() if flags is None else flags
    reduced = needs_reduced_range(flags, machine())
    deciding = " ".join(sorted(VNNI_FLAGS & set(flags)))
    return {"target_cpu": NATIVE, "reduce_range": reduced, "cpu_flags": deciding or "no VNNI"}


def described_weights(conversion: dict) -> str:
    """The value of the ONNX file's metadata: `portable, 7-bit weights`."""
    return f"{conversion['target_cpu']}, {7 if conversion['reduce_range'] else 8}-bit weights"


def target_cpu_note(conversion: dict) -> str:
    """What a person is told of the CPUs that a conversion's int8 weights are for; nothing of another precision."""
    if "target_cpu" not in conversion:
        return ""
    if conversion["target_cpu"] == PORTABLE:
        return (
            "note: int8 weights have 7 bits, which every CPU computes right (--target-cpu portable); "
            "--target-cpu native keeps 8 where this CPU has VNNI or is ARM, for targets like it"
        )
    if conversion["reduce_range"]:
        return "note: int8 weights have 7 bits, for this CPU is x86 without VNNI (--target-cpu native)"
    return (
        "note: int8 weights have 8 bits, as this CPU allows (--target-cpu native); on x86 without VNNI their sums "
        "saturate, and anatomy verify fails there"
    )
