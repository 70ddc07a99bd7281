"""Boards, real and virtual: what they are (`protocol`), which there are (`registry`) and how to talk to them (`rpc`)."""
