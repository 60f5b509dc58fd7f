"""The checks of ``schedctl doctor``: pure functions from facts to findings, and modules that gather the facts."""
