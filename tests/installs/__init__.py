"""Scripts of `make wheel-test` and `make lowest`: what is built is whole, and installs in an empty environment."""
