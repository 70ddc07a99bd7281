"""Graph passes; `pipeline.py` alone holds their order."""
