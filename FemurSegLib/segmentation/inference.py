def cpu_has_bfloat16() -> bool:
    from pathlib import Path

    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(f in flags.read_text() for f in ("avx512_bf16", "amx_bf16"))
