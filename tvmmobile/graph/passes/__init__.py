"""Graph passes, one a file; `pipeline.py` alone holds their order."""
