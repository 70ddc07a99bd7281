"""`python -m tvmmobile`."""

from tvmmobile.cli import main

if __name__ == "__main__":
    main()
