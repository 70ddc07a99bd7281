"""The user's own networks: from the file that `--model` names to a Relax module and the reference for its library."""
