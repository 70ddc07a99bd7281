"""The answer of `choose` as files: a page with all candidates, Markdown, CSV and JSON."""
