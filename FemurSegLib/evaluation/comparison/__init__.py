"""The comparisons of the papers: networks, and ways to run them, on the same phantoms with the same budget.

entrants.py says what is compared; run.py compares; table.py shows it beside the figures of ../papers.py.
"""
