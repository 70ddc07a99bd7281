"""`tvmmobile doctor`: checks this machine."""

from __future__ import annotations

from tvmmobile.system.doctor import diagnose
from tvmmobile.system.errors import ExitCode


def doctor() -> ExitCode:
    """Check this machine; print the command that fixes it.

    Looks for everything that tvmmobile needs. Exit code 0: nothing is missing. 1: something is.
    """
    from tvmmobile.system.console import output, table_of

    diagnosis = diagnose()
    table = table_of(("needed", "ok", "found", "for"), ())
    for check in diagnosis.checks:
        table.add_row(check.name, "yes" if check.ok else "NO", check.found, check.purpose)
    console = output()
    console.print(table)
    if diagnosis.ok:
        console.print("Nothing is missing.")
        return ExitCode.DONE
    missing = sum(not check.ok for check in diagnosis.checks)
    if diagnosis.real_boards:
        console.print("Virtual boards alone need what is missing; compiling and real boards do not.")
    console.print(f"{missing} {'thing is' if missing == 1 else 'things are'} missing. To fix this, run:")
    # One line, whatever the terminal's width, because it will be copied.
    console.print(f"  {diagnosis.remedy}", soft_wrap=True)
    return ExitCode.USAGE
