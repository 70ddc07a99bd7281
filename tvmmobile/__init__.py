"""tvmmobile: fast schedules for MobileNets on the ARM board that will run them."""

__version__ = "0.1.0"
