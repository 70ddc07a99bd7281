"""Forms of libraries. This module imports nothing, because result files and reports use it too."""

#: `c`, the default: programs in C and whatever calls C; `vm`: TVM's virtual machine.
C, VM = FORMS = ("c", "vm")
#: What users call them.
WORDS = {C: "C library", VM: "VM library"}
