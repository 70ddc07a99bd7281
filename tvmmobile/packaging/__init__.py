"""Compiled networks as packages of other ecosystems."""
