"""`python -m peftmark` is `peftmark`."""

from peftmark.cli.parser import main

if __name__ == "__main__":
    main()
