"""Result files, their schemas and reports."""
