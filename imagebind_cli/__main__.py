"""`python -m imagebind_cli`, the same as `imagebind`."""

from imagebind_cli.cli import main

if __name__ == "__main__":
    main()
