"""Makes kernels from tasks and schedules: TIR, code generation, reference values."""
