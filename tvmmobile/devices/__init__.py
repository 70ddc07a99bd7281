"""Boards, real and virtual: their description (`protocol`), their names (`registry`) and sessions with them (`rpc`)."""
