"""Names of library formats and references. This module imports nothing, because result files and reports use it too."""

#: `c`, the default: libraries with a C interface; `vm`: libraries for TVM's virtual machine.
C, VM = FORMS = ("c", "vm")
#: The program that computed the output that a library is compared with, unless a file names another.
REFERENCE = "PyTorch"
#: Formats as users name them.
WORDS = {C: "C library", VM: "VM library"}
