"""Networks of the user's own: from a file that `--model` names to a Relax module, and to what its library is compared with."""
