"""The pages of the site, its settings and its figures."""
