"""The `tvmmobile` command, and `python -m tvmmobile`."""

import os
import signal

#: `ExitCode.INTERRUPTED` and the command line's message, whose modules are not imported yet.
_CODE, _MESSAGE = 130, b"tvmmobile: interrupted\n"


def main() -> None:
    """Run the command line. While Python imports it, Ctrl-C ends the process: an exception would leave an import anywhere."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)
    from tvmmobile.cli import main as command_line

    command_line()


def _end(_number: int, _frame: object) -> None:
    try:
        os.write(2, _MESSAGE)
    finally:
        os._exit(_CODE)


if __name__ == "__main__":
    main()
