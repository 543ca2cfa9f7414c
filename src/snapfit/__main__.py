"""`python -m snapfit`: the command line."""

from snapfit.cli.app import main

if __name__ == "__main__":
    main()
