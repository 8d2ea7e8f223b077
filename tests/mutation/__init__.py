"""Script of `make mutants`: whether the tests notice wrong code."""
