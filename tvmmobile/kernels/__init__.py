"""From a task and a schedule to a kernel: TIR, code generation, reference values."""
