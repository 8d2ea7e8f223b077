"""``python -m nenya`` is the ``nenya`` command."""

from nenya.cli import main

if __name__ == "__main__":
    main()
