"""The checks of ``schedctl doctor``: pure functions from facts to findings, and the modules that gather the facts."""
