"""Networks: built in, from files of the user's own, and their import into Relax."""
