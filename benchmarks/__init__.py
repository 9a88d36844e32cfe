"""Comparisons with peers. Each script prints a table of ratios and writes JSON; none is part of the tests."""
